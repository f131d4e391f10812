"""What is known of an endpoint: whether it answers, since when not, and why."""

from dataclasses import dataclass, replace
from enum import StrEnum


class Endpoint(StrEnum):
    """What the dashboard reads; the value is the name that an operator sees."""

    PROXY_METRICS = "Proxy metrics"
    POOLS = "Pools"
    DECISIONS = "Decision feed"
    CLASSIFIER = "Classifier"
    CLASSIFIER_METRICS = "Classifier metrics"


class EndpointError(Exception):
    """An endpoint gave no usable answer.

    The message goes between the endpoint's name and "since ...", so it reads like "unreachable".
    """


class State(StrEnum):
    """How an endpoint does."""

    WAITING = "waiting"
    OK = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Health:
    """The record of one endpoint. Times are seconds since the epoch.

    Attributes:
        last_ok: When it last gave a usable answer; None if never.
        failing_since: When the first of the present failures came; None if it is well.
        fault: What is wrong now; empty if nothing.
    """

    last_ok: float | None = None
    failing_since: float | None = None
    fault: str = ""

    @property
    def state(self) -> State:
        """Failed from the first failure on: an old success never looks like a present one."""
        if self.failing_since is not None:
            return State.FAILED
        return State.WAITING if self.last_ok is None else State.OK

    def succeeded(self, now: float) -> "Health":
        """The record after a usable answer."""
        return Health(last_ok=now)

    def failed(self, now: float, fault: str) -> "Health":
        """The record after a failure."""
        since = now if self.failing_since is None else self.failing_since
        return replace(self, failing_since=since, fault=fault)
