"""The book of requests under way: opened when one is labelled, closed exactly once when it ends.

Closing counts the request and hands it to the feed. What people are shown of it is worked out only
when somebody reads the feed; until then the feed keeps the entry, which is why an entry that has
ended holds neither worker nor connection, and no more of a target than `MAX_KEPT_TARGET_BYTES`.
"""

import os
import re
from collections.abc import Callable, Iterator
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

MAX_KEPT_TARGET_BYTES = 256
"""A longer target is redacted when its request ends, which makes it short."""

_IDS_AT_ONCE = 128
_ID_BYTES = 16


class Failure(StrEnum):
    """How a labelled request can end without a whole answer of a worker."""

    WORKER_FAILED = "worker_failed"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_FAULT = "client_fault"
    REJECTED = "rejected"
    INTERNAL = "internal"


@dataclass(slots=True)
class Active:
    """A request that was labelled: under way, or ended and remembered by the feed.

    Attributes:
        method: As it came.
        target: As it came; b"" if the request has ended and `shown` stands for it.
        labelled_at: Seconds since the epoch when it had its label, for people.
        arrived: Monotonic seconds when it was whole.
        decided: Monotonic seconds when it had its label.
        lease: The worker that has it now; None before there is one, and when it has ended.
        ended: Monotonic seconds; None while it is under way.
        status: What the client got; None if it got no answer.
        failure: Why it did not end well.
        served_by: The pool, and the name of the worker, that had it last.
        shown: The target of which too much would be kept, redacted.
    """

    decision_id: str
    method: bytes
    target: bytes
    classification: Classification
    labelled_at: float
    arrived: float
    decided: float
    lease: Lease | None = None
    ended: float | None = None
    status: int | None = None
    failure: Failure | None = None
    served_by: tuple[Label, str] | None = None
    shown: str = ""

    def client_headers(self) -> tuple[tuple[str, str], ...]:
        """What the client is told about the decision."""
        return client_headers(self.classification, self.decision_id)

    def client_block(self) -> bytes:
        """The same as lines of a head."""
        return client_block(self.classification, self.decision_id)

    def end(self, ended: float, status: int | None, failure: Failure | None) -> Label:
        """It ended at `ended`, in monotonic seconds; return the pool that had it last."""
        lease = self.lease
        if lease is None:
            pool, worker = self.classification.label, ""
        else:
            pool, worker = lease.pool.label, lease.worker.name
        self.ended, self.status, self.failure = ended, status, failure
        # A lease holds a pool, and that all that ever served it.
        self.lease, self.served_by = None, (pool, worker)
        if len(self.target) > MAX_KEPT_TARGET_BYTES:
            self.target, self.shown = b"", _shown_target(self.target)
        return pool

    def event(self) -> DecisionEvent:
        """What people are shown of it."""
        decided = self.classification
        ended = self.decided if self.ended is None else self.ended
        pool, worker = self.served_by or (decided.label, "")
        return DecisionEvent(
            id=self.decision_id,
            time=round(self.labelled_at - (self.decided - self.arrived), 3),
            method=_shown_method(self.method),
            path=self.shown or _shown_target(self.target),
            label=str(decided.label),
            source=str(decided.source),
            cached=decided.cached,
            confidence=round(decided.confidence, 4),
            reason=decided.reason,
            pool=str(pool),
            worker=worker,
            status=self.status,
            classify_ms=round((self.decided - self.arrived) * 1000, 3),
            total_ms=round((ended - self.arrived) * 1000, 3),
            error=None if self.failure is None else str(self.failure),
        )


def _shown_method(method: bytes) -> str:
    shown = method.decode("latin-1").upper()
    return shown if SHOWN_METHOD.fullmatch(shown) else "OTHER"


def _shown_target(target: bytes) -> str:
    return shown_path(target.decode("utf-8", "surrogateescape"))


def decision_ids() -> Iterator[str]:
    """Random ids of 32 hexadecimal digits; the system is asked for many at once."""
    digits = _ID_BYTES * 2
    while True:
        drawn = os.urandom(_ID_BYTES * _IDS_AT_ONCE).hex()
        for start in range(0, len(drawn), digits):
            yield drawn[start : start + digits]


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
        self._ids = decision_ids()
        self._under_way = 0

    def __len__(self) -> int:
        return self._under_way

    def open(
        self, method: bytes, target: bytes, classification: Classification, arrived: float
    ) -> Active:
        """Enter a request that has just been labelled; it arrived at `arrived` (monotonic)."""
        now = self._clock()
        active = Active(
            next(self._ids), method, target, classification, self._wall_clock(), arrived, now
        )
        self._under_way += 1
        self._observer.decided(classification, now - arrived)
        return active

    def close(self, active: Active, status: int | None, failure: Failure | None = None) -> None:
        """Close an entry; a second call does nothing.

        Args:
            active: The request that ended.
            status: What the client got; None if it got no answer.
            failure: Why it did not end well.
        """
        if active.ended is not None:
            return
        self._under_way -= 1
        ended = self._clock()
        pool = active.end(ended, status, failure)
        self._observer.finished(
            active.classification.label,
            pool,
            None if failure is Failure.CLIENT_DISCONNECTED else status,
            ended - active.arrived,
        )
        self.feed.publish(active)
