"""What a measurement comes to: one value that text, JSON and plot are made from."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from classifier.contracts import LABELS, Source
from classifier.evaluation import figures
from classifier.evaluation.figures import Bin, Judged, LabelScore, Score
from classifier.evaluation.measure import Answered, Latency, Measured, baselines, judged
from classifier.evaluation.samples import Sample
from classifier.local_model import LocalModel
from classifier.redaction import shown_path

ALL: Final = "all"
CLEAR: Final = "clear"
SAME_ENDPOINT: Final = "same_endpoint"
SAME_ENDPOINT_CLEAR: Final = "same_endpoint_clear"
SLICES: Final[dict[str, Callable[[Sample], bool]]] = {
    ALL: lambda _: True,
    CLEAR: lambda sample: bool(sample.clear),
    SAME_ENDPOINT: lambda sample: bool(sample.same_endpoint),
    SAME_ENDPOINT_CLEAR: lambda sample: bool(sample.same_endpoint and sample.clear),
}
"""Parts of the rows that have figures of their own, where rows say that they belong there."""
_SHOWN_MISTAKES: Final = 10


@dataclass(frozen=True, slots=True)
class Slice:
    """The figures of a part of the rows, and what could be had there without reading requests."""

    name: str
    score: Score
    baselines: dict[str, Score]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one source decided.

    Attributes:
        source: One of `Source`.
        share: Of all requests.
        cached: How many of its answers came out of a cache.
        accuracy: Of those whose right label is known; None if there are none.
    """

    source: str
    requests: int
    share: float
    cached: int
    confidence: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A request with the wrong label; its path is fit for people."""

    place: str
    method: str
    path: str
    truth: str
    said: str
    confidence: float
    source: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All about one measurement; without known labels, the parts that need them are empty."""

    file: str
    source: str
    requests: int
    judged: int
    given: dict[str, int]
    codes: dict[str, int]
    coverage: tuple[Coverage, ...]
    latency: Latency
    slices: tuple[Slice, ...] = ()
    labels: tuple[LabelScore, ...] = ()
    confusion_labels: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    reliability: tuple[Bin, ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    def macro_f1(self, slice_name: str) -> float | None:
        """The macro-F1 of a slice; None if no row with a known label is in it."""
        scores = (one.score.macro_f1.value for one in self.slices if one.name == slice_name)
        return next(scores, None)


def find(
    file: str,
    measured: Measured,
    model: LocalModel,
    *,
    seed: int = figures.SEED,
    resamples: int = figures.RESAMPLES,
    shown_mistakes: int = _SHOWN_MISTAKES,
) -> Findings:
    """Work a measurement out.

    Args:
        file: What the requests were read from.
        measured: The answers.
        model: Makes the baseline that knows method and path alone.
        seed: Of the resampling.
        resamples: How many times.
        shown_mistakes: How many of the worst mistakes are listed.
    """
    answers = measured.answers
    rows = judged(answers)
    pairs = figures.pairs_of(rows)
    labels = figures.labels_of(pairs, LABELS)

    def score(chosen: Sequence[Judged]) -> Score:
        return figures.score(chosen, seed=seed, resamples=resamples)

    return Findings(
        file=file,
        source=measured.source,
        requests=len(answers),
        judged=len(rows),
        given=_counted(str(one.decided.label) for one in answers),
        codes=_counted(str(one.decided.code) for one in answers),
        coverage=_coverage(answers),
        latency=measured.latency,
        slices=tuple(_slices(answers, model, score)),
        labels=figures.label_scores(pairs, LABELS),
        confusion_labels=labels,
        confusion=figures.confusion(pairs, labels),
        reliability=figures.reliability(rows),
        mistakes=_worst(answers, shown_mistakes),
    )


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _slices(
    answers: Sequence[Answered], model: LocalModel, score: Callable[[Sequence[Judged]], Score]
) -> Iterable[Slice]:
    for name, belongs in SLICES.items():
        chosen = [one for one in answers if one.sample.truth is not None and belongs(one.sample)]
        if not chosen:
            continue
        samples = [one.sample for one in chosen]
        others = {said: score(rows) for said, rows in baselines(samples, model).items()}
        yield Slice(name, score(judged(chosen)), others)


def _coverage(answers: Sequence[Answered]) -> tuple[Coverage, ...]:
    return tuple(
        _covered(source, [one for one in answers if one.decided.source is source], len(answers))
        for source in Source
        if any(one.decided.source is source for one in answers)
    )


def _covered(source: Source, mine: list[Answered], requests: int) -> Coverage:
    rows = judged(mine)
    return Coverage(
        source=str(source),
        requests=len(mine),
        share=len(mine) / requests,
        cached=sum(one.decided.cached for one in mine),
        confidence=sum(one.decided.confidence for one in mine) / len(mine),
        accuracy=figures.accuracy(figures.pairs_of(rows)) if rows else None,
    )


def _worst(answers: Iterable[Answered], most: int) -> tuple[Mistake, ...]:
    """The wrong labels that were given with the greatest confidence."""
    wrong = [
        one
        for one in answers
        if one.sample.truth is not None and one.sample.truth != one.decided.label
    ]
    wrong.sort(key=lambda one: -one.decided.confidence)
    return tuple(_mistake(one) for one in wrong[:most])


def _mistake(one: Answered) -> Mistake:
    sample, decided = one.sample, one.decided
    return Mistake(
        place=sample.place,
        method=sample.view.method,
        path=shown_path(sample.view.path),
        truth=str(sample.truth),
        said=str(decided.label),
        confidence=decided.confidence,
        source=str(decided.source),
        code=str(decided.code),
        reason=decided.reason,
    )
