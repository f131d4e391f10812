"""Overload: which requests are turned away when the event loop has more to do than it can. Pure.

Two ideas of queues in networks, put to the one queue that a proxy cannot see, its event loop:

* CoDel (RFC 8289): what harms is a queue that stands, not a burst. Only a lag that has not once
  been below the limit for `INTERVAL_SECONDS` is overload; a single long turn never is.
* AIMD: the share of requests that is admitted shrinks by a factor while the lag stands, and grows
  in small steps when it does not, so that it swings around what the loop can do.
"""

from addons.routing import Rejection

INTERVAL_SECONDS = 1.0
SHRINK_PER_SECOND = 0.5
GROW_PER_SECOND = 0.1
LEAST_SHARE = 0.05
"""Some are always admitted: the lag may be of another's making."""

OVERLOADED = Rejection(
    503, "overloaded", "The proxy has more to do than it can. Try again.", retry_after_seconds=1
)


class Overload:
    """Decides for each request whether it may enter.

    Attributes:
        limit_seconds: The lag above which requests are turned away if it stands; 0: never.
        share: Of the requests, how many are admitted now, from `LEAST_SHARE` to 1.
    """

    def __init__(self, limit_seconds: float = 0.0) -> None:
        """Everybody is admitted."""
        self.limit_seconds = limit_seconds
        self.share = 1.0
        self._above_since: float | None = None
        self._sampled_at: float | None = None
        self._credit = 0.0

    def lagged(self, lag: float, now: float) -> None:
        """Learn that the loop is late by `lag`.

        Args:
            lag: Seconds.
            now: Seconds of a clock that never goes back.
        """
        before, self._sampled_at = self._sampled_at, now
        # One long turn is one sample, however long it was.
        passed = 0.0 if before is None else min(now - before, INTERVAL_SECONDS)
        if not self.limit_seconds or lag <= self.limit_seconds:
            self._above_since = None
            self.share = min(1.0, self.share + GROW_PER_SECOND * passed)
        elif self._above_since is None:
            self._above_since = now
        elif now - self._above_since >= INTERVAL_SECONDS:
            self.share = max(LEAST_SHARE, self.share * SHRINK_PER_SECOND**passed)

    def admit(self) -> Rejection | None:
        """Whether the next request may enter: None, or what it is answered.

        Those that may are spread evenly, without chance.
        """
        if self.share >= 1.0:
            return None
        self._credit += self.share
        if self._credit < 1.0:
            return OVERLOADED
        self._credit -= 1.0
        return None
