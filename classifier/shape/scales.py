"""Numbers, lengths and ranges as magnitudes: what of a literal may stand in a shape.

The steps are narrower than those that any label depends on, and none reaches over a bound that
`classifier.features.magnitudes` draws: two magnitudes that differ there differ here.
"""

# The cut-offs are the magnitudes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import math
from functools import lru_cache
from itertools import pairwise
from typing import Final

from classifier.features.magnitudes import bucket, span

_HUGE: Final = 1e300
_MAX_RANGES: Final = 12
_EPOCH_MS: Final = 10_000_000_000


@lru_cache(maxsize=4_096)
def fine(value: float) -> str:
    """A number that scales the work: its first two digits, and whether others follow.

    So a bound that anybody draws at a round number has both its sides told apart.
    """
    if not -_HUGE < value < _HUGE:
        return "inf"
    if value <= 1:
        return "1" if value == 1 else "0" if value == 0 else "all" if value == -1 else "part"
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    digits, rest = divmod(value, scale)
    return f"{bucket(value)[0]}{round(math.log10(scale))}.{digits - 10:.0f}{'+' if rest else ''}"


@lru_cache(maxsize=4_096)
def step(value: float) -> str:
    """A number that may scale the work: steps of a tenth, up to a whole power of ten."""
    if not 1 < value < _HUGE:
        return fine(value)
    return f"{bucket(value)[0]}{math.ceil(24 * math.log10(value) - 1e-9)}"


@lru_cache(maxsize=4_096)
def decade(value: float) -> str:
    """Any other number: how many digits it has."""
    if not -_HUGE < value < _HUGE:
        return "inf"
    if value < 1:
        return "0" if value == 0 else "-" if value < 0 else "."
    return f"e{int(math.log10(value))}"


@lru_cache(maxsize=1_024)
def count(number: int) -> str:
    """How many of something: exact up to three, then four steps a decade."""
    if number <= 3:
        return f"*{number}"
    return f"*{bucket(number)[0]}{round(4 * math.log10(number))}"


def length(number: int, least: int = 7) -> int:
    """How long something is: steps of two; up to `least` all is one."""
    return max(least, number).bit_length()


def duration(seconds: float) -> str:
    """A time span: eight steps a decade."""
    if not 0 < abs(seconds) < _HUGE:
        return "0"
    sign = "-" if seconds < 0 else ""
    return f"{sign}{span(abs(seconds))[0]}{round(8 * math.log10(abs(seconds)))}"


class Ranges:
    """Where ranges begin and end; of them only their lengths are told."""

    __slots__ = ("_instants", "_numbers")

    def __init__(self) -> None:
        """No range yet."""
        self._instants: list[float] = []
        self._numbers: list[float] = []

    def number(self, value: float) -> str:
        """Takes in an end of a range of numbers, heights or pages."""
        if len(self._numbers) < _MAX_RANGES and -_HUGE < value < _HUGE:
            self._numbers.append(value)
        return "r"

    def epoch(self, value: float) -> str:
        """Takes in a time in seconds or milliseconds since 1970."""
        return self.instant(value / 1000 if value > _EPOCH_MS else value)

    def instant(self, seconds: float) -> str:
        """Takes in a time in seconds."""
        if len(self._instants) < _MAX_RANGES:
            self._instants.append(seconds)
        return "d"

    def told(self) -> str:
        """How far the ends lie apart, in the order in which they came."""
        times = ",".join(duration(after - before) for before, after in pairwise(self._instants))
        if len(self._numbers) == 1:
            return f"{times};{decade(self._numbers[0])}"
        steps = ",".join(
            f"{'-' if after < before else ''}{fine(abs(after - before))}"
            for before, after in pairwise(self._numbers)
        )
        return f"{times};{steps}"
