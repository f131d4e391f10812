"""Statistics of labels given against labels that are right. Pure, and plain Python.

A statistic over nothing is 0. Chance is a parameter: the same generator gives the same intervals.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

BINS: Final = 10
RESAMPLES: Final = 1_000
SEED: Final = 20_240_601
_LOWEST, _HIGHEST = 0.025, 0.975
"""The ends of an interval that holds 95 % of the resamples."""

type Pairs = Mapping[tuple[str, str], int]
"""How often each (true label, given label) occurs."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One label that was given, and the one that is right.

    Attributes:
        group: What it is drawn with when resampling: its API, or itself alone.
    """

    truth: str
    said: str
    confidence: float
    group: str = ""

    @property
    def right(self) -> bool:
        """Whether the two are the same."""
        return self.truth == self.said


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Score:
    """The figures of some rows."""

    rows: int
    accuracy: Interval
    macro_f1: Interval
    calibration_error: Interval


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How one label fares.

    Attributes:
        precision: Share of the rows given this label that have it.
        recall: Share of the rows that have this label that were given it.
        support: How many rows have it.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of about the same confidence.

    Attributes:
        low: Smallest confidence that belongs here; the largest is a tenth above.
        confidence: Their mean confidence.
        accuracy: Share of them that are right.
    """

    low: float
    rows: int
    confidence: float
    accuracy: float


def pairs_of(judged: Iterable[Judged]) -> Pairs:
    """Count the pairs of true and given label."""
    return Counter((one.truth, one.said) for one in judged)


def labels_of(pairs: Pairs, order: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels that occur on either side: those of `order` first, others by name."""
    there = {label for pair in pairs for label in pair}
    known = [label for label in order if label in there]
    return (*known, *sorted(there.difference(known)))


def confusion(pairs: Pairs, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Counts, one row a true label, one column a given one."""
    return tuple(tuple(pairs.get((truth, said), 0) for said in labels) for truth in labels)


def accuracy(pairs: Pairs) -> float:
    """Share of the rows that are right."""
    right = sum(count for (truth, said), count in pairs.items() if truth == said)
    return _share(right, sum(pairs.values()))


def label_scores(pairs: Pairs, order: Sequence[str] = ()) -> tuple[LabelScore, ...]:
    """The figures of every label that occurs."""
    support: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for (truth, said), count in pairs.items():
        support[truth] += count
        given[said] += count
    return tuple(
        _label_score(label, pairs.get((label, label), 0), given[label], support[label])
        for label in labels_of(pairs, order)
    )


def _label_score(label: str, right: int, given: int, support: int) -> LabelScore:
    f1 = _share(2 * right, given + support)
    return LabelScore(label, _share(right, given), _share(right, support), f1, support)


def macro_f1(pairs: Pairs) -> float:
    """The mean F1 of the labels that occur."""
    scores = label_scores(pairs)
    return _share(sum(score.f1 for score in scores), len(scores))


def reliability(judged: Iterable[Judged]) -> tuple[Bin, ...]:
    """The rows by confidence; bins without rows are left out."""
    members: defaultdict[int, list[Judged]] = defaultdict(list)
    for one in judged:
        members[_bin_of(one.confidence)].append(one)
    return tuple(
        Bin(
            low=at / BINS,
            rows=len(rows),
            confidence=sum(one.confidence for one in rows) / len(rows),
            accuracy=sum(one.right for one in rows) / len(rows),
        )
        for at, rows in sorted(members.items())
    )


def calibration_error(judged: Sequence[Judged]) -> float:
    """Expected calibration error: the mean gap between confidence and the share that is right."""
    gaps = [0.0] * BINS
    for one in judged:
        gaps[_bin_of(one.confidence)] += one.confidence - one.right
    return _share(sum(map(abs, gaps)), len(judged))


def _bin_of(confidence: float) -> int:
    return min(int(confidence * BINS), BINS - 1)


def score(judged: Sequence[Judged], *, seed: int = SEED, resamples: int = RESAMPLES) -> Score:
    """The figures of the rows, with intervals from resampling their groups.

    Args:
        judged: The rows; those of one group are drawn together.
        seed: Of the draws.
        resamples: How many draws.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret is drawn
    draws = [_figures(drawn) for drawn in _resampled(judged, rng, resamples)]
    values = _figures(judged)
    spread = zip(*draws, strict=True) if draws else ((value,) for value in values)
    return Score(
        len(judged),
        *(_interval(value, drawn) for value, drawn in zip(values, spread, strict=True)),
    )


def _figures(judged: Sequence[Judged]) -> tuple[float, float, float]:
    pairs = pairs_of(judged)
    return accuracy(pairs), macro_f1(pairs), calibration_error(judged)


def _resampled(
    judged: Sequence[Judged], rng: random.Random, resamples: int
) -> Iterator[list[Judged]]:
    groups: defaultdict[str, list[Judged]] = defaultdict(list)
    for at, one in enumerate(judged):
        groups[one.group or f"#{at}"].append(one)
    members = list(groups.values())
    for _ in range(resamples if members else 0):
        yield list(chain.from_iterable(rng.choices(members, k=len(members))))


def _interval(value: float, drawn: Iterable[float]) -> Interval:
    ordered = sorted(drawn)
    return Interval(value, quantile(ordered, _LOWEST), quantile(ordered, _HIGHEST))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of the sorted values lies, interpolated between neighbours."""
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
