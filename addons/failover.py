"""How many requests may be tried again: a budget, so that retries never multiply an outage."""

from collections.abc import Callable
from math import floor

RATIO = 0.2
FLOOR_PER_SECOND = 3
WINDOW_SECONDS = 10


class RetryBudget:
    """Of the requests of the last seconds, a share may be tried again; a few always may.

    Counts lie in a ring with a place for each second, which costs a request one increment.
    """

    def __init__(
        self,
        ratio: float = RATIO,
        floor_per_second: int = FLOOR_PER_SECOND,
        window_seconds: int = WINDOW_SECONDS,
        *,
        clock: Callable[[], float],
    ) -> None:
        """A budget that nothing has been spent of.

        Args:
            ratio: Retries per request.
            floor_per_second: Retries that are allowed however few requests there are.
            window_seconds: Length of the time that is looked at.
            clock: Monotonic seconds.
        """
        self._ratio = ratio
        self._floor = floor_per_second * window_seconds
        self._clock = clock
        self._requests = [0] * window_seconds
        self._retries = [0] * window_seconds
        self._second = floor(clock())
        self._place = 0

    def on_request(self) -> None:
        """A request is about to be tried for the first time."""
        if self._clock() - self._second >= 1:
            self._advance()
        self._requests[self._place] += 1

    def try_spend(self) -> bool:
        """Whether one more retry is in the budget; if so, it is spent."""
        if self._clock() - self._second >= 1:
            self._advance()
        if sum(self._retries) + 1 > max(self._floor, self._ratio * sum(self._requests)):
            return False
        self._retries[self._place] += 1
        return True

    def _advance(self) -> None:
        """Go on to the present second, and forget those that are out of the window."""
        second, places = floor(self._clock()), len(self._requests)
        for _ in range(min(second - self._second, places)):
            self._place = (self._place + 1) % places
            self._requests[self._place] = self._retries[self._place] = 0
        self._second = second
