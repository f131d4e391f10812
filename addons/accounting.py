"""The book of requests under way: opened when one is routed, closed exactly once when it ends.

Closing gives the worker back, counts the request and publishes its decision.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from addons.feed import DecisionEvent, DecisionFeed
from addons.routing import Route
from classifier.contracts import Classification, Label, RequestView
from classifier.redaction import shown_path

BAD_GATEWAY = 502


class Failure(StrEnum):
    """How a routed request can end without a whole answer."""

    WORKER_FAILED = "worker_failed"
    CLIENT_DISCONNECTED = "client_disconnected"


@dataclass(frozen=True, slots=True)
class Active:
    """A request that was routed and has not ended.

    Attributes:
        arrived_at: Seconds since the epoch, for people.
        arrived: Monotonic seconds when the request was whole.
        decided: Monotonic seconds when it had its label.
    """

    decision_id: str
    method: str
    path: str
    route: Route
    arrived_at: float
    arrived: float
    decided: float


class Observer(Protocol):
    """Who is told of what happens to requests; metrics are one."""

    def decided(self, classification: Classification, seconds: float) -> None:
        """A request got its label, `seconds` after it was whole."""
        ...

    def finished(self, label: Label, pool: Label, status: int | None, seconds: float) -> None:
        """A request ended; `status` is None if it did not get a whole answer."""
        ...


class Ledger:
    """All requests under way, by flow id."""

    def __init__(
        self,
        feed: DecisionFeed,
        observer: Observer,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """An empty book.

        Args:
            feed: Gets an event for each request that ends.
            observer: Is told of each label and of each end.
            clock: Monotonic seconds.
            wall_clock: Seconds since the epoch.
        """
        self.feed = feed
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._active: dict[str, Active] = {}

    def __len__(self) -> int:
        return len(self._active)

    def get(self, flow_id: str) -> Active | None:
        """The open entry of a flow."""
        return self._active.get(flow_id)

    def open(self, flow_id: str, view: RequestView, route: Route, arrived: float) -> None:
        """Enter a request that has just been routed; it arrived at `arrived` (monotonic)."""
        now = self._clock()
        active = Active(
            decision_id=uuid.uuid4().hex,
            method=view.method,
            path=view.path,
            route=route,
            arrived_at=self._wall_clock() - (now - arrived),
            arrived=arrived,
            decided=now,
        )
        self._active[flow_id] = active
        self._observer.decided(route.classification, now - arrived)

    def close(self, flow_id: str, status: int | None, failure: Failure | None = None) -> None:
        """Close an entry; a flow without one is none of ours.

        Args:
            flow_id: The flow that ended.
            status: What the client got; None if it got no whole answer.
            failure: Why it did not end well.
        """
        active = self._active.pop(flow_id, None)
        if active is None:
            return
        active.route.lease.release(failed=failure is Failure.WORKER_FAILED)
        ended = self._clock()
        label, pool = active.route.classification.label, active.route.lease.pool.label
        self._observer.finished(label, pool, status, ended - active.arrived)
        self.feed.publish(_event(active, status, failure, ended))

    def drop(self, flow_id: str) -> None:
        """Close an entry whose request never left: its end is neither counted nor published."""
        if (active := self._active.pop(flow_id, None)) is not None:
            active.route.lease.release()


def _event(
    active: Active, status: int | None, failure: Failure | None, ended: float
) -> DecisionEvent:
    decided = active.route.classification
    return DecisionEvent(
        id=active.decision_id,
        time=round(active.arrived_at, 3),
        method=active.method[:32],
        path=shown_path(active.path),
        label=str(decided.label),
        source=str(decided.source),
        cached=decided.cached,
        confidence=round(decided.confidence, 4),
        reason=decided.reason,
        pool=str(active.route.lease.pool.label),
        worker=active.route.lease.worker.name,
        status=status,
        classify_ms=round((active.decided - active.arrived) * 1000, 3),
        total_ms=round((ended - active.arrived) * 1000, 3),
        error=None if failure is None else str(failure),
    )
