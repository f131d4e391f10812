"""The book of requests under way: opened when one is labelled, closed exactly once when it ends.

Closing counts the request and publishes its decision.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from addons.feed import DecisionEvent, DecisionFeed
from addons.pool import Lease
from addons.routing import client_block, client_headers
from classifier.contracts import Classification, Label
from classifier.redaction import shown_path

SHOWN_METHOD = re.compile("[A-Z]{1,16}(?:-[A-Z]{1,16})?")
"""Anything can stand where a method is expected, a secret as well: the rest is not shown."""


class Failure(StrEnum):
    """How a labelled request can end without a whole answer of a worker."""

    WORKER_FAILED = "worker_failed"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_FAULT = "client_fault"
    REJECTED = "rejected"
    INTERNAL = "internal"


@dataclass(slots=True)
class Active:
    """A request that was labelled and has not ended.

    Attributes:
        arrived_at: Seconds since the epoch, for people.
        arrived: Monotonic seconds when the request was whole.
        decided: Monotonic seconds when it had its label.
        lease: The worker that has it now; None before there is one.
    """

    decision_id: str
    method: str
    path: str
    classification: Classification
    arrived_at: float
    arrived: float
    decided: float
    lease: Lease | None = None

    @property
    def pool(self) -> Label:
        """The pool that serves the request: after a spill not the label's own."""
        return self.classification.label if self.lease is None else self.lease.pool.label

    def client_headers(self) -> tuple[tuple[str, str], ...]:
        """What the client is told about the decision."""
        return client_headers(self.classification, self.decision_id)

    def client_block(self) -> bytes:
        """The same as lines of a head."""
        return client_block(self.classification, self.decision_id)


class Observer(Protocol):
    """Who is told of what happens to requests; metrics are one."""

    def decided(self, classification: Classification, seconds: float) -> None:
        """A request got its label, `seconds` after it was whole."""
        ...

    def finished(self, label: Label, pool: Label, status: int | None, seconds: float) -> None:
        """A request ended; `status` is None if it did not get a whole answer."""
        ...


class Ledger:
    """All requests under way."""

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

    def open(
        self, method: bytes, target: bytes, classification: Classification, arrived: float
    ) -> Active:
        """Enter a request that has just been labelled; it arrived at `arrived` (monotonic)."""
        now = self._clock()
        shown = method.decode("latin-1").upper()
        active = Active(
            decision_id=uuid.uuid4().hex,
            method=shown if SHOWN_METHOD.fullmatch(shown) else "OTHER",
            path=target.decode("utf-8", "surrogateescape"),
            classification=classification,
            arrived_at=self._wall_clock() - (now - arrived),
            arrived=arrived,
            decided=now,
        )
        self._active[active.decision_id] = active
        self._observer.decided(classification, now - arrived)
        return active

    def close(self, active: Active, status: int | None, failure: Failure | None = None) -> None:
        """Close an entry; a second call does nothing.

        Args:
            active: The request that ended.
            status: What the client got; None if it got no answer.
            failure: Why it did not end well.
        """
        if self._active.pop(active.decision_id, None) is None:
            return
        ended = self._clock()
        whole = failure is not Failure.CLIENT_DISCONNECTED
        self._observer.finished(
            active.classification.label,
            active.pool,
            status if whole else None,
            ended - active.arrived,
        )
        self.feed.publish(_event(active, status, failure, ended))


def _event(
    active: Active, status: int | None, failure: Failure | None, ended: float
) -> DecisionEvent:
    decided = active.classification
    return DecisionEvent(
        id=active.decision_id,
        time=round(active.arrived_at, 3),
        method=active.method,
        path=shown_path(active.path),
        label=str(decided.label),
        source=str(decided.source),
        cached=decided.cached,
        confidence=round(decided.confidence, 4),
        reason=decided.reason,
        pool=str(active.pool),
        worker="" if active.lease is None else active.lease.worker.name,
        status=status,
        classify_ms=round((active.decided - active.arrived) * 1000, 3),
        total_ms=round((ended - active.arrived) * 1000, 3),
        error=None if failure is None else str(failure),
    )
