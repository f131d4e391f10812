"""Two sources on the same requests: where they agree, and which requests change their label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from classifier.contracts import LABELS, Classification
from classifier.evaluation import figures
from classifier.evaluation.measure import Answered, Measured
from classifier.redaction import shown_path

_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Said:
    """What a source said about a request."""

    label: str
    confidence: float
    source: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """A request that the two label differently; `truth` is "" if unknown."""

    place: str
    method: str
    path: str
    truth: str
    before: Said
    after: Said


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sources on the same requests.

    Attributes:
        matrix: Counts, one row a label of the first, one column a label of the second.
        judged: Requests whose right label is known.
        changes: Those that change their label, the surest ones of the second first.
        shown: How many of them a text lists.
    """

    file: str
    first: str
    second: str
    requests: int
    agreement: float
    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    judged: int
    first_right: int
    second_right: int
    changes: tuple[Change, ...]
    shown: int = _SHOWN


def compare(file: str, first: Measured, second: Measured, *, shown: int = _SHOWN) -> Comparison:
    """Put the answers of two sources to the same samples side by side."""
    both = list(zip(first.answers, second.answers, strict=True))
    pairs = Counter((str(one.decided.label), str(two.decided.label)) for one, two in both)
    labels = figures.labels_of(pairs, LABELS)
    changes = [(one, two) for one, two in both if one.decided.label != two.decided.label]
    changes.sort(key=lambda change: -change[1].decided.confidence)
    return Comparison(
        file=file,
        first=first.source,
        second=second.source,
        requests=len(both),
        agreement=figures.accuracy(pairs),
        labels=labels,
        matrix=figures.confusion(pairs, labels),
        judged=sum(one.sample.truth is not None for one, _ in both),
        first_right=_right(first.answers),
        second_right=_right(second.answers),
        changes=tuple(_change(one, two) for one, two in changes),
        shown=shown,
    )


def _right(answers: Sequence[Answered]) -> int:
    return sum(one.sample.truth == one.decided.label for one in answers)


def _change(one: Answered, two: Answered) -> Change:
    sample = one.sample
    return Change(
        place=sample.place,
        method=sample.view.method,
        path=shown_path(sample.view.path),
        truth=str(sample.truth or ""),
        before=_said(one.decided),
        after=_said(two.decided),
    )


def _said(decided: Classification) -> Said:
    return Said(
        label=str(decided.label),
        confidence=decided.confidence,
        source=str(decided.source),
        code=str(decided.code),
        reason=decided.reason,
    )
