"""How well the model does on APIs it never saw: `python -m classifier.training.evaluate`.

Leave-one-API-out over the recorded APIs, once with siblings of the tested API left out, once with
all chat-alike APIs treated as one; then each written file tested on the rest. Beside the model
stand what can be had without reading requests: the same models shown method and path alone, and
`general` for all.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]  # no stubs are published with it

from classifier.contracts import LABELS, Label
from classifier.evaluation import figures
from classifier.evaluation.figures import Interval, Judged, pairs_of
from classifier.evaluation.measure import without_content
from classifier.features import extract
from classifier.local_model import LocalModel
from classifier.training.model import (
    Floats,
    Indices,
    Table,
    fit,
    matrix_of,
    shares,
    tabulate,
)
from classifier.training.rows import FILES, RECORDED, Row, read_rows
from classifier.training.siblings import group_of

LOCAL: Final = "local model"
BARE: Final = "method and path only"
GENERAL: Final = "always general"

type Held = frozenset[int]
"""Rows that a model must not have seen."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the sources say about tested rows, each row by a model that saw nothing like it.

    Attributes:
        local: Probabilities from the whole request, by row.
        bare: From method and path alone.
    """

    local: Mapping[int, Floats]
    bare: Mapping[int, Floats]

    def judged(self, rows: Sequence[Row], chosen: Iterable[int], source: str) -> list[Judged]:
        """The chosen rows with what a source says about them."""
        return [_judged(rows[at], *self._answer(at, source)) for at in chosen]

    def _answer(self, at: int, source: str) -> tuple[Label, float]:
        if source == GENERAL:
            return Label.GENERAL, 1.0
        probabilities = (self.local if source == LOCAL else self.bare)[at]
        best = int(probabilities.argmax())
        return LABELS[best], float(probabilities[best])


def _judged(row: Row, label: Label, confidence: float) -> Judged:
    return Judged(str(row.label), str(label), confidence, row.api)


def main() -> None:
    """Print the report."""
    for line in report(read_rows(), LocalModel.load()):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def report(rows: list[Row], model: LocalModel) -> Iterable[str]:
    """The lines of the report."""
    recorded = [at for at, row in enumerate(rows) if row.file == RECORDED]
    siblings = [group_of(row.api) for row in rows]
    strict = [group_of(row.api, strict=True) for row in rows]
    files = [row.file for row in rows]
    written = [at for at, row in enumerate(rows) if row.file != RECORDED and row.clear]
    wanted = ((siblings, recorded), (strict, recorded), (files, written))
    first, second, by_file = leave_out(rows, model.sharpness, wanted)
    for name, said in (("siblings", first), ("strict", second)):
        yield f"leave one API out, recorded APIs, {name} groups (in brackets: 95 %, APIs resampled)"
        yield from _slices(rows, said, recorded)
        yield from _confidence(said.judged(rows, recorded, LOCAL), model.min_confidence)
    yield "leave one written file out (clear cases)"
    for file in FILES[1:]:
        chosen = [at for at in written if rows[at].file == file]
        if chosen:
            yield _score(file, LOCAL, by_file.judged(rows, chosen, LOCAL))
    yield _latency(rows, model)


def leave_out(
    rows: list[Row], sharpness: float, wanted: Sequence[tuple[Sequence[str], Sequence[int]]]
) -> list[Said]:
    """What models say about rows whose group they did not see.

    Groups of different groupings that hold the same rows share a model; models are fitted on all
    cores.

    Args:
        rows: All rows.
        sharpness: Turns scores into probabilities.
        wanted: Groupings (one group a row) with the rows to test.
    """
    table = tabulate(rows)
    columns = {name: at for at, name in enumerate(table.names)}
    bare = matrix_of([extract(without_content(row.view)) for row in rows], columns)
    held = [list(_held(groups, tested)) for groups, tested in wanted]
    folds = sorted({fold for some in held for fold in some}, key=sorted)
    with ProcessPoolExecutor(os.process_cpu_count()) as pool:
        asked = partial(_ask_about, table, bare, sharpness)
        answers = dict(zip(folds, pool.map(asked, map(sorted, folds)), strict=True))
    return [
        Said(
            local={at: answers[fold].local[at] for fold in some for at in fold},
            bare={at: answers[fold].bare[at] for fold in some for at in fold},
        )
        for some in held
    ]


def _held(groups: Sequence[str], tested: Sequence[int]) -> Iterable[Held]:
    for group in sorted({groups[at] for at in tested}):
        yield frozenset(at for at, name in enumerate(groups) if name == group)


def _ask_about(
    table: Table, bare: sparse.csr_matrix, sharpness: float, held: Sequence[int]
) -> Said:
    lines: Indices = np.array(held, dtype=np.intp)
    model = fit(table, np.setdiff1d(np.arange(table.real, dtype=np.intp), lines))

    def answers(matrix: sparse.csr_matrix) -> dict[int, Floats]:
        return dict(
            zip(held, shares(model.decision_function(matrix[lines]), sharpness), strict=True)
        )

    return Said(local=answers(table.matrix), bare=answers(bare))


def _slices(rows: list[Row], said: Said, recorded: Sequence[int]) -> Iterable[str]:
    first_half = set(sorted({rows[at].api for at in recorded})[0::2])
    slices: tuple[tuple[str, Callable[[Row], bool]], ...] = (
        ("clear", lambda row: row.clear),
        ("all", lambda _: True),
        ("same endpoint, clear", lambda row: row.same_endpoint and row.clear),
        ("same endpoint, all", lambda row: row.same_endpoint),
        ("clear, first half", lambda row: row.clear and row.api in first_half),
        ("clear, second half", lambda row: row.clear and row.api not in first_half),
    )
    for name, wanted in slices:
        chosen = [at for at in recorded if wanted(rows[at])]
        for source in (LOCAL, BARE, GENERAL):
            yield _score(name, source, said.judged(rows, chosen, source))


def _score(name: str, source: str, judged: list[Judged]) -> str:
    score = figures.score(judged)
    shown = f"  {name:22} {source:20} n={score.rows:4}"
    shown += f" accuracy {_interval(score.accuracy)} macro-F1 {_interval(score.macro_f1)}"
    if source != LOCAL:
        return shown
    matrix = figures.confusion(pairs_of(judged), [str(label) for label in LABELS])
    return f"{shown} confusion {[list(line) for line in matrix]}"


def _interval(figure: Interval) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f} {figure.high:.3f}]"


def _confidence(judged: list[Judged], least: float) -> Iterable[str]:
    """Calibration, and what lies above and below the threshold that asks an LLM."""
    above = [one for one in judged if one.confidence >= least]
    below = [one for one in judged if one.confidence < least]
    error = figures.score(judged).calibration_error
    yield (
        f"  expected calibration error {_interval(error)};"
        f" under min_confidence {least}: {len(below) / len(judged):.3f} of all;"
        f" accuracy above {figures.accuracy(pairs_of(above)):.3f},"
        f" below {figures.accuracy(pairs_of(below)):.3f}"
    )
    for one in figures.reliability(judged):
        yield (
            f"    confidence {one.low:.1f}: n={one.rows:4} said {one.confidence:.3f}"
            f" right {one.accuracy:.3f}"
        )


def _latency(rows: list[Row], model: LocalModel) -> str:
    """Microseconds a call, over all rows, after a first round that fills the word caches."""
    taken: list[float] = []
    for _ in range(2):
        taken.clear()
        for row in rows:
            start = time.perf_counter()
            model.classify(row.view)
            taken.append((time.perf_counter() - start) * 1e6)
    taken.sort()
    median, high, highest = (figures.quantile(taken, share) for share in (0.5, 0.9, 0.99))
    return f"latency per call: median {median:.0f} us, p90 {high:.0f} us, p99 {highest:.0f} us"


if __name__ == "__main__":
    main()
