"""The live decision feed: the last N finished requests, and those that come."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

SUBSCRIBER_BACKLOG = 256
MAX_SUBSCRIBERS = 64


class TooManySubscribersError(Exception):
    """The feed has as many readers as it serves."""


@dataclass(frozen=True, slots=True)
class DecisionEvent:
    """One finished request, as shown to operators. Holds nothing that could be a secret.

    Attributes:
        id: Decision id, the same that the client got in `x-slb-decision-id`.
        time: Seconds since the epoch, when the request came.
        path: Redacted request target.
        status: Status that the client got; None if it got none.
        classify_ms: Time from the request's end to its label.
        total_ms: Time from the request's end to the response's end.
        error: What went wrong, as one word; None if nothing did.
    """

    id: str
    time: float
    method: str
    path: str
    label: str
    source: str
    cached: bool
    confidence: float
    reason: str
    pool: str
    worker: str
    status: int | None
    classify_ms: float
    total_ms: float
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The event as it goes over the wire."""
        return asdict(self)


class Finished(Protocol):
    """A request that has ended, as the feed keeps it.

    Attributes:
        decision_id: The id of its event.
    """

    decision_id: str

    def event(self) -> DecisionEvent:
        """What is shown of it; the same each time."""
        ...


class DecisionFeed:
    """Remembers the last decisions and hands new ones to subscribers.

    Most requests are forgotten before anybody asks: an event is made only when it is read.
    A subscriber that does not keep up loses its oldest events, never delays the proxy.
    """

    def __init__(self, history: int) -> None:
        """A feed that remembers `history` decisions."""
        self._recent: deque[Finished] = deque(maxlen=history)
        self._subscribers: set[asyncio.Queue[DecisionEvent]] = set()

    def publish(self, finished: Finished) -> None:
        """Remember a request that has ended and hand its event on."""
        self._recent.append(finished)
        if self._subscribers:
            event = finished.event()
            for queue in self._subscribers:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(event)

    def recent(self, limit: int, after_id: str | None = None) -> list[DecisionEvent]:
        """The last `limit` decisions, oldest first; with a known `after_id` only those since."""
        kept = list(self._recent)
        if after_id is not None:
            for index in range(len(kept) - 1, -1, -1):
                if kept[index].decision_id == after_id:
                    kept = kept[index + 1 :]
                    break
        return [one.event() for one in kept[-limit:]] if limit > 0 else []

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[DecisionEvent]]:
        """New events while the context lasts.

        Raises:
            TooManySubscribersError: If `MAX_SUBSCRIBERS` read already.
        """
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(MAX_SUBSCRIBERS)
        queue: asyncio.Queue[DecisionEvent] = asyncio.Queue(SUBSCRIBER_BACKLOG)
        self._subscribers.add(queue)
        try:
            yield queue
        finally:
            self._subscribers.discard(queue)
