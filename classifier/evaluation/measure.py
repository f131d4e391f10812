"""Asks a source for labels and takes the time of it."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from classifier.contracts import Classification, Label, RequestView, Source
from classifier.evaluation.figures import Judged, quantile
from classifier.evaluation.samples import EMPTY, Sample
from classifier.evaluation.sources import Asked
from classifier.local_model import LocalModel

_WARM_UP_CALLS: Final = 20
_CONFIDENCE_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Answered:
    """A request with the label it was given."""

    sample: Sample
    decided: Classification


@dataclass(frozen=True, slots=True)
class Latency:
    """What a label costs, in microseconds, beside a call with nothing to read in the same run."""

    median_us: float
    p99_us: float
    empty_median_us: float
    empty_p99_us: float

    @property
    def ratio(self) -> float:
        """How many empty calls a label costs, in the median."""
        return self.median_us / self.empty_median_us if self.empty_median_us else 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """All that was asked of a source."""

    source: str
    answers: tuple[Answered, ...]
    latency: Latency


async def measure(
    source: Asked,
    samples: Sequence[Sample],
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Ask for the label of every sample, one after the other.

    A source that remembers nothing is asked twice, and the second round counts: the first fills
    what Python itself remembers.
    """
    for _ in range(_WARM_UP_CALLS):
        await source.classify(EMPTY)
    if not source.remembers:
        await _round(source, samples, clock)
    answers, taken, empty = await _round(source, samples, clock)
    return Measured(source.name, tuple(answers), _latency(taken, empty))


async def _round(
    source: Asked, samples: Sequence[Sample], clock: Callable[[], float]
) -> tuple[list[Answered], list[float], list[float]]:
    """Answers, seconds a label, seconds an empty call.

    The two kinds of calls alternate, so that both see the same machine.
    """
    answers: list[Answered] = []
    taken: list[float] = []
    empty: list[float] = []
    for sample in samples:
        began = clock()
        first = await source.classify(sample)
        answered = clock()
        await source.classify(EMPTY)
        empty.append(clock() - answered)
        taken.append(answered - began)
        answers.append(Answered(sample, await source.settled(sample, first)))
    return answers, taken, empty


def _latency(taken: list[float], empty: list[float]) -> Latency:
    taken.sort()
    empty.sort()
    shares = (taken, 0.5), (taken, 0.99), (empty, 0.5), (empty, 0.99)
    return Latency(*(1e6 * quantile(values, share) for values, share in shares))


def judged(answers: Iterable[Answered]) -> list[Judged]:
    """The answers to requests whose right label is known, as statistics take them."""
    known = [one for one in answers if one.sample.truth is not None]
    # Rows of one API resemble each other: they are drawn together, if all say whose they are.
    by_api = all(one.sample.api for one in known)
    return [
        Judged(
            truth=str(one.sample.truth),
            said=str(one.decided.label),
            # Its last bits may differ from run to run: they depend on the order of a sum.
            confidence=round(one.decided.confidence, _CONFIDENCE_DIGITS),
            group=one.sample.api if by_api else "",
        )
        for one in known
    ]


def baselines(samples: Sequence[Sample], model: LocalModel) -> dict[str, list[Judged]]:
    """What could be had without reading requests, by name, judged like any source."""
    general = Classification(Label.GENERAL, 1.0, Source.FALLBACK, "")
    return {
        "always general": judged(Answered(sample, general) for sample in samples),
        "method and path only": judged(
            Answered(sample, model.classify(without_content(sample.view))) for sample in samples
        ),
    }


def without_content(view: RequestView) -> RequestView:
    """What a router of URLs knows of a request: method and path."""
    path = view.path.partition("?")[0]
    return replace(view, path=path, content_type="", headers=(), body=b"", body_bytes=0)
