"""Health of one worker: what its checks and its answers say about it. Pure; time is passed in.

Invariants:
* Every transition stands in `TRANSITIONS` and happens in `Health`; nothing else sets a state.
* A failed request alone takes no worker out: a check verifies it first (see `addons/probes.py`).
* Whether there is room for an ejection only the pool can say; it asks `is_outlier`, then ejects.
* Who keeps failing requests and keeps passing the checks that verify them is ejected as well.

                  FELL
        UP ─────────────────► DOWN
      ▲  │ ▲ ▲      ROSE      │ ▲
      │  │ │ └────────────────┘ │
SERVED│  │OUTLIER               │ FELL
      │  ▼                      │
     EJECTED ───────────────────┘

A worker that comes from DOWN is in turn at once, even if it had been ejected before: as a rule it
has been started anew. How often it was ejected is remembered.
"""

from dataclasses import dataclass
from enum import StrEnum

SLOW_START_SHARE = 0.1
MAX_DOUBLINGS = 16  # far above what any longest ejection allows; keeps the power small


class Outcome(StrEnum):
    """How one try at a worker ended."""

    OK = "ok"
    """A whole answer below 500."""
    SERVER_ERROR = "server_error"
    """A whole answer of 500 or above."""
    RESPONSE_FAILED = "response_failed"
    """Hang-up, reset, deadline or nonsense after the request was sent."""
    CONNECT_FAILED = "connect_failed"
    """Refused, or no connection in time."""
    ABANDONED = "abandoned"
    """The client left, or the proxy ends: not the worker's fault."""


class Check(StrEnum):
    """What a health check found."""

    PASSED = "passed"
    FAILED = "failed"
    """Connected, but no good answer in time."""
    UNREACHABLE = "unreachable"
    """Refused, or no connection in time."""


class Reason(StrEnum):
    """Why a worker was taken out of turn; a closed set, also a metric label."""

    SERVER_ERRORS = "server_errors"
    HEALTH_CHECK = "health_check"
    CONNECT_FAILED = "connect_failed"
    """A request could not connect, and the check that verified it failed as well."""
    RESPONSE_FAILED = "response_failed"
    """A request got no whole answer, and the check that verified it failed as well; or many in a
    row got none, though checks passed."""


class State(StrEnum):
    """Whether a worker is in turn."""

    UP = "up"
    EJECTED = "ejected"
    DOWN = "down"


class Event(StrEnum):
    """What can change a state."""

    FELL = "fell"
    """`fall` checks failed in a row, or one that verified a failed request."""
    ROSE = "rose"
    """`rise` checks passed in a row."""
    OUTLIER = "outlier"
    """Too many server errors, or too many answers that failed, in a row."""
    SERVED = "served"
    """The time of its ejection is over."""


TRANSITIONS = {
    (State.UP, Event.FELL): State.DOWN,
    (State.UP, Event.OUTLIER): State.EJECTED,
    (State.EJECTED, Event.FELL): State.DOWN,
    (State.EJECTED, Event.SERVED): State.UP,
    (State.DOWN, Event.ROSE): State.UP,
}
"""Any other event leaves a worker as it is."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """When a worker's state changes.

    Attributes:
        rise: Passed checks in a row that bring a worker up.
        fall: Failed checks in a row that take it down.
        eject_after_errors: Server errors, or failed answers, in a row that eject it; 0: never.
        eject_seconds: Length of a first ejection; each further one is twice as long.
        eject_max_seconds: Longest ejection. For each such time without one, one is forgiven.
        slow_start_seconds: Time in which a readmitted worker's share grows to its full one.
    """

    rise: int = 2
    fall: int = 2
    eject_after_errors: int = 5
    eject_seconds: float = 10.0
    eject_max_seconds: float = 300.0
    slow_start_seconds: float = 10.0


@dataclass(slots=True)
class Health:
    """What is known of one worker's health; all times are monotonic seconds.

    Attributes:
        reachable: Whether the last check, or the last request that told, could connect.
        checks_in_row: Checks that ended alike, in a row: above 0 passed, below 0 failed.
        errors_in_row: Server errors in a row.
        failures_in_row: Requests in a row that it took and gave no whole answer to.
        ejected_until: End of the last ejection.
        ejections: How often it was ejected, less what has been forgiven.
        slow_until: End of its slow start; 0 if there is none.
    """

    state: State = State.UP
    reachable: bool = True
    checks_in_row: int = 0
    errors_in_row: int = 0
    failures_in_row: int = 0
    ejected_until: float = 0.0
    ejections: int = 0
    slow_until: float = 0.0

    def take_check(self, check: Check, why: Reason, policy: HealthPolicy, now: float) -> bool:
        """Take a check's finding into account; the answer is whether the state has changed.

        Args:
            check: What it found.
            why: HEALTH_CHECK for a regular one. Any other reason is a failed request that it
                verifies: failing then is enough, and passing proves nothing new.
            policy: When the state changes.
            now: Monotonic seconds.
        """
        self.reachable = check is not Check.UNREACHABLE
        verifies = why is not Reason.HEALTH_CHECK
        if check is Check.PASSED:
            if verifies:
                return False
            self.checks_in_row = max(self.checks_in_row, 0) + 1
            return self.checks_in_row >= policy.rise and self._on(Event.ROSE, policy, now)
        self.checks_in_row = min(self.checks_in_row, 0) - 1
        fell = verifies or -self.checks_in_row >= policy.fall
        return fell and self._on(Event.FELL, policy, now)

    def take_outcome(self, outcome: Outcome) -> None:
        """Take the end of a try into account."""
        if outcome is Outcome.OK:
            self.reachable = True
            self.errors_in_row = self.failures_in_row = 0
        elif outcome is Outcome.SERVER_ERROR:
            self.reachable = True
            self.errors_in_row += 1
            self.failures_in_row = 0
        elif outcome is Outcome.RESPONSE_FAILED:
            self.failures_in_row += 1
        elif outcome is Outcome.CONNECT_FAILED:
            self.reachable = False

    def is_outlier(self, policy: HealthPolicy) -> bool:
        """Whether it ought to be ejected."""
        row = max(self.errors_in_row, self.failures_in_row)
        many = 0 < policy.eject_after_errors <= row
        return many and self.state is State.UP

    def eject(self, policy: HealthPolicy, now: float) -> float:
        """Eject it; the answer is for how many seconds. Call it for outliers only."""
        forgiven = max(0, int((now - self.ejected_until) // policy.eject_max_seconds))
        self.ejections = max(0, self.ejections - forgiven) + 1
        doublings = min(self.ejections - 1, MAX_DOUBLINGS)
        seconds = min(policy.eject_max_seconds, policy.eject_seconds * (1 << doublings))
        self.ejected_until = now + seconds
        self._on(Event.OUTLIER, policy, now)
        return seconds

    def take_ejection(
        self, seconds: float, ejections: int, policy: HealthPolicy, now: float
    ) -> bool:
        """Take over an ejection that another process has decided; True if that changes anything.

        Args:
            seconds: How much longer it lasts.
            ejections: How often the worker was ejected, as the other counts.
            policy: Bounds the time.
            now: Monotonic seconds.
        """
        if not self._on(Event.OUTLIER, policy, now):
            return False
        self.ejected_until = now + min(seconds, policy.eject_max_seconds)
        self.ejections = max(self.ejections, ejections)
        return True

    def settle(self, policy: HealthPolicy, now: float) -> bool:
        """End an ejection whose time is over; the answer is whether there was one."""
        over = self.state is State.EJECTED and now >= self.ejected_until
        return over and self._on(Event.SERVED, policy, self.ejected_until)

    def ramp(self, policy: HealthPolicy, now: float) -> float:
        """Which part of its share it gets now: from a tenth after readmission up to 1."""
        left = self.slow_until - now
        if left <= 0 or policy.slow_start_seconds <= 0:
            return 1.0
        done = max(0.0, 1 - left / policy.slow_start_seconds)
        return SLOW_START_SHARE + (1 - SLOW_START_SHARE) * done

    def _on(self, event: Event, policy: HealthPolicy, now: float) -> bool:
        state = TRANSITIONS.get((self.state, event))
        if state is None:
            return False
        self.state = state
        self.errors_in_row = self.failures_in_row = 0
        self.slow_until = now + policy.slow_start_seconds if state is State.UP else 0.0
        return True
