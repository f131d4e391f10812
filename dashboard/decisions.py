"""Decisions of the proxy: read, kept, and searched.

Paths, methods and reasons were written by strangers. Here they are bounded and made printable;
the page shows them as text and never as markup.
"""

from collections import deque
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from dashboard.journal import Journal

MAX_TEXT_CHARS = 1_024
KEPT_DECISIONS = 2_000
MAX_TIME = 250_000_000_000.0
"""The latest time that a calendar of four-digit years can show, about."""


def printable(value: object) -> object:
    """Text cut to size, with every character escaped that would not show as itself.

    Among them are the marks that turn the direction of text, by which a path can look like
    another one.
    """
    if not isinstance(value, str):
        return value
    text = value if len(value) <= MAX_TEXT_CHARS else f"{value[: MAX_TEXT_CHARS - 1]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


type Text = Annotated[str, BeforeValidator(printable)]


@dataclass(frozen=True, slots=True)
class Decision:
    """One finished request. Times in `time` are seconds since the epoch.

    Attributes:
        status: Status that the client got; None if it got none.
        error: What went wrong, as one word; None if nothing did.
    """

    id: Text
    time: Annotated[float, Field(ge=0, le=MAX_TIME)]
    method: Text
    path: Text
    label: Text
    source: Text
    cached: bool
    confidence: FiniteFloat | None
    reason: Text
    pool: Text | None
    worker: Text | None
    status: Annotated[int, Field(ge=0, le=999)] | None
    classify_ms: FiniteFloat | None
    total_ms: FiniteFloat | None
    error: Text | None = None

    def search_text(self) -> str:
        """What a free-text filter looks at, in lower case."""
        parts = (
            self.method,
            self.path,
            self.label,
            self.source,
            "cached" if self.cached else "",
            self.reason,
            self.pool or "",
            self.worker or "",
            "" if self.status is None else str(self.status),
            self.error or "",
            self.id,
        )
        return "\n".join(parts).lower()


_DECISION = TypeAdapter(Decision)


def parse_decision(data: str) -> Decision | None:
    """Read one event; None if it is not a decision."""
    try:
        return _DECISION.validate_json(data)
    except ValidationError:
        return None


class DecisionLog:
    """The last decisions, each once, however often the feed is replayed."""

    def __init__(self, limit: int = KEPT_DECISIONS) -> None:
        """Keep at most `limit`."""
        self._journal: Journal[Decision] = Journal(limit)
        # An id alone is not enough: a proxy that restarts may count from the beginning.
        self._seen: set[tuple[str, float]] = set()
        self._order: deque[tuple[str, float]] = deque()
        self._limit = limit

    @property
    def last(self) -> int:
        """Number of the newest decision; 0 if none ever came."""
        return self._journal.last

    def add(self, decision: Decision) -> None:
        """Keep a decision, unless it is known."""
        key = (decision.id, decision.time)
        if key in self._seen:
            return
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > self._limit:
            self._seen.discard(self._order.popleft())
        self._journal.append(decision)

    def since(self, number: int) -> list[tuple[int, Decision]]:
        """Numbered decisions after that number, oldest first."""
        return self._journal.since(number)
