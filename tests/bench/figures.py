"""The arithmetic: medians with their spread, and ratios between targets that ran side by side."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stat:
    """A figure over several rounds.

    Attributes:
        deviation: Median of the distances from the median.
    """

    median: float
    low: float
    high: float
    deviation: float


def stat(values: Sequence[float | None]) -> Stat | None:
    """Of the values that are there; None if none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    middle = statistics.median(known)
    deviation = statistics.median(abs(value - middle) for value in known)
    return Stat(middle, min(known), max(known), deviation)


def ratio(over: float | None, under: float | None) -> float | None:
    """None if one is not known, or there is nothing to divide by."""
    return None if over is None or not under else over / under


def paired(over: Sequence[float | None], under: Sequence[float | None]) -> Stat | None:
    """The ratio of two figures, taken in each round: what slowed all of it cancels out."""
    return stat([ratio(one, other) for one, other in zip(over, under, strict=True)])
