"""Findings and comparisons as text for people and as JSON for programs."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from classifier.evaluation.comparison import Change, Comparison
from classifier.evaluation.figures import Bin, Interval, Score
from classifier.evaluation.findings import Coverage, Findings, Mistake, Slice
from classifier.evaluation.measure import Latency

_BAR_CHARS: Final = 40
_NAME_CHARS: Final = 22


def as_json(value: Findings | Comparison) -> str:
    """All of it, indented."""
    return json.dumps(dataclasses.asdict(value), indent=2, ensure_ascii=False)


def as_text(found: Findings) -> Iterator[str]:
    """The lines of a report."""
    yield f"{found.file}: {found.requests} requests, source {found.source}"
    yield ""
    yield from _shares("labels given", found.given, found.requests)
    yield from _shares("reasons", found.codes, found.requests)
    yield from _covered(found.coverage)
    yield _latency(found.latency)
    if not found.judged:
        yield ""
        yield "No request says what its right label is, so there is nothing to be right about."
        return
    if found.judged < found.requests:
        yield f"right label known for {found.judged} of {found.requests}; figures are about these"
    yield ""
    yield from _scores(found.slices)
    yield from _labels(found)
    yield from _reliability(found.reliability)
    yield from _mistakes(found.mistakes)


def _shares(title: str, counts: Mapping[str, int], requests: int) -> Iterator[str]:
    said = ", ".join(f"{name} {count / requests:.1%}" for name, count in counts.items())
    yield f"{title}: {said}"


def _covered(coverage: Sequence[Coverage]) -> Iterator[str]:
    for one in coverage:
        right = "" if one.accuracy is None else f", accuracy {one.accuracy:.3f}"
        yield (
            f"decided by {one.source}: {one.requests} ({one.share:.1%}, {one.cached} cached),"
            f" mean confidence {one.confidence:.3f}{right}"
        )


def _latency(latency: Latency) -> str:
    return (
        f"latency: median {latency.median_us:.0f} us, p99 {latency.p99_us:.0f} us;"
        f" {latency.ratio:.1f} times an empty call"
        f" ({latency.empty_median_us:.0f} us, p99 {latency.empty_p99_us:.0f} us)"
    )


def _scores(slices: Iterable[Slice]) -> Iterator[str]:
    head = ("rows", "accuracy", "macro-F1", "calibration error")
    yield f"{'':{_NAME_CHARS}} {head[0]:>6}  {head[1]:21} {head[2]:21} {head[3]}"
    for one in slices:
        calibration = _interval(one.score.calibration_error)
        yield f"{_score(one.name.replace('_', ' '), one.score)} {calibration}"
        # How sure a baseline is, nobody asks.
        for name, score in one.baselines.items():
            yield _score(f"  {name}", score)
    yield "(in brackets: 95 % of the resamples)"
    yield ""


def _score(name: str, score: Score) -> str:
    shown = " ".join(_interval(one) for one in (score.accuracy, score.macro_f1))
    return f"{name:{_NAME_CHARS}} {score.rows:6}  {shown}"


def _interval(figure: Interval) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f} {figure.high:.3f}]"


def _labels(found: Findings) -> Iterator[str]:
    width = max(map(len, (*found.confusion_labels, "right label")))
    heads = " ".join(f"{label:>{max(len(label), 6)}}" for label in found.confusion_labels)
    yield f"{'right label':{width}}  given: {heads}   precision recall     F1"
    scores = {score.label: score for score in found.labels}
    for label, counts in zip(found.confusion_labels, found.confusion, strict=True):
        cells = " ".join(
            f"{count:>{max(len(said), 6)}}"
            for count, said in zip(counts, found.confusion_labels, strict=True)
        )
        of = scores[label]
        yield (
            f"{label:{width}}         {cells}   {of.precision:9.3f} {of.recall:6.3f} {of.f1:6.3f}"
        )
    yield ""


def _reliability(bins: Sequence[Bin]) -> Iterator[str]:
    """A bar as long as the share that was right; `|` stands where the confidence was."""
    yield "confidence   rows   said  right"
    for one in bins:
        filled = round(one.accuracy * _BAR_CHARS)
        bar = [*("#" * filled), *(" " * (_BAR_CHARS + 1 - filled))]
        bar[round(one.confidence * _BAR_CHARS)] = "|"
        drawn = "".join(bar).rstrip()
        yield (
            f"{one.low:.1f} to {one.low + 0.1:.1f} {one.rows:6}  {one.confidence:.3f}"
            f"  {one.accuracy:.3f}  {drawn}"
        )
    yield ""


def _mistakes(mistakes: Sequence[Mistake]) -> Iterator[str]:
    if not mistakes:
        yield "no mistakes"
        return
    yield "worst mistakes (wrong, with the greatest confidence):"
    for one in mistakes:
        yield (
            f"  {one.place}: {one.method} {one.path}: {one.truth}, was given {one.said}"
            f" ({one.source} {one.confidence:.2f} {one.code}) {one.reason}"
        )


def comparison_text(compared: Comparison) -> Iterator[str]:
    """The lines about two sources."""
    yield f"{compared.first} against {compared.second}: {compared.requests} requests"
    yield (
        f"agreement {compared.agreement:.3f};"
        f" {len(compared.changes)} requests would change their label"
    )
    yield ""
    width = max(map(len, (*compared.labels, compared.first, "against")))
    heads = " ".join(f"{label:>{max(len(label), 6)}}" for label in compared.labels)
    yield f"{compared.first:{width}}  {compared.second}: {heads}"
    gap = " " * (len(compared.second) + 2)
    for label, counts in zip(compared.labels, compared.matrix, strict=True):
        cells = " ".join(
            f"{count:>{max(len(said), 6)}}"
            for count, said in zip(counts, compared.labels, strict=True)
        )
        yield f"{label:{width}}  {gap}{cells}"
    if compared.judged:
        yield (
            f"right label known for {compared.judged}: {compared.first} right on"
            f" {compared.first_right}, {compared.second} on {compared.second_right}"
        )
    yield ""
    for change in compared.changes[: compared.shown]:
        yield from _change(change)


def _change(change: Change) -> Iterator[str]:
    truth = f" (right: {change.truth})" if change.truth else ""
    yield f"  {change.place}: {change.method} {change.path}{truth}"
    for said in (change.before, change.after):
        yield (f"    {said.label} ({said.source} {said.confidence:.2f} {said.code}) {said.reason}")
