"""When to stop asking a service that fails, and when to try it again. Pure; the clock is injected.

Invariants:
* Only failures in a row open it: one success in between, and the count starts anew.
* While it is not closed, exactly one trial question at a time is let through, by `try_again`.
* An outcome counts only in the state in which its question was asked: what was asked before the
  breaker opened can neither close it nor keep it open longer.

           failures in a row
    CLOSED ──────────────────► OPEN ◄──────────┐ the trial failed:
      ▲                         │ time is over │ open for longer
      │ the trial succeeded     ▼              │
      └───────────────────── HALF_OPEN ────────┘
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

MAX_DOUBLINGS = 2
"""It stays open for at most four times its first length: a trial costs no more than a question."""


class BreakerState(IntEnum):
    """The values are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Bounds of a `Breaker`.

    Attributes:
        failures: How many in a row open it.
        open_seconds: How long it stays open at first; twice as long each time that it opens anew.
    """

    failures: int
    open_seconds: float

    @property
    def max_open_seconds(self) -> float:
        """The longest time between two trials."""
        return self.open_seconds * (1 << MAX_DOUBLINGS)


class Breaker:
    """Counts the outcomes of questions to one service."""

    def __init__(self, policy: BreakerPolicy, clock: Callable[[], float]) -> None:
        """A closed breaker; `clock` gives monotonic seconds."""
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._openings = 0
        self._changed_at = clock()
        self.state = BreakerState.CLOSED
        self.generation = 0
        """Grows with every change of state; questions remember it for their outcome."""

    @property
    def trial_in_seconds(self) -> float:
        """How long the present pause still lasts; 0 when a trial is due."""
        over = self._changed_at + self._open_seconds() - self._clock()
        return max(0.0, over)

    def succeeded(self, generation: int) -> bool:
        """A question of this generation was answered; True if that closed the breaker."""
        if not self._counts(generation):
            return False
        self._failures = 0
        if self.state is BreakerState.CLOSED:
            return False
        self._change(BreakerState.CLOSED)
        return True

    def failed(self, generation: int) -> bool:
        """A question of this generation failed; True if that opened the breaker."""
        if not self._counts(generation):
            return False
        self._failures += 1
        if self.state is BreakerState.CLOSED and self._failures < self._policy.failures:
            return False
        self._open()
        return True

    def try_again(self) -> bool:
        """Whether a trial is due; if so the caller has to ask it, in the new generation."""
        if self.state is not BreakerState.OPEN or self.trial_in_seconds > 0:
            return False
        self._change(BreakerState.HALF_OPEN)
        return True

    def _counts(self, generation: int) -> bool:
        return generation == self.generation and self.state is not BreakerState.OPEN

    def _open(self) -> None:
        # A service that answers trials but fails under load must not be back at the shortest
        # pause each time; one that has been well for a while starts anew.
        calm = self._clock() - self._changed_at >= self._policy.max_open_seconds
        if self.state is BreakerState.CLOSED and calm:
            self._openings = 0
        self._openings += 1
        self._failures = 0
        self._change(BreakerState.OPEN)

    def _open_seconds(self) -> float:
        doublings = min(max(self._openings - 1, 0), MAX_DOUBLINGS)
        return self._policy.open_seconds * (1 << doublings)

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self.generation += 1
        self._changed_at = self._clock()
