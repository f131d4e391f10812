"""What a tile is: text with a source and a tone."""

from dataclasses import dataclass
from enum import StrEnum

from dashboard.health import Endpoint


class Tone(StrEnum):
    """How a tile looks; `Tile.verdict` says the same in words."""

    PLAIN = "plain"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a tile.

    Attributes:
        mark: A label whose colour goes beside the name.
        source: The endpoint that it comes from; None for the tile's own.
    """

    name: str
    value: str
    mark: str = ""
    source: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile.

    Attributes:
        figure: The one thing to see from across the room.
        unit: What the figure counts.
        verdict: A word of judgement; empty if all is well.
        source: The endpoint that the figure comes from.
    """

    title: str
    figure: str
    unit: str
    facts: tuple[Fact, ...]
    source: Endpoint
    tone: Tone = Tone.PLAIN
    verdict: str = ""
