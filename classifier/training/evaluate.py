"""How well the model does on APIs it never saw: `python -m classifier.training.evaluate`.

Leave-one-API-out over the recorded APIs, once with siblings of the tested API left out, once
with all chat-alike APIs treated as one; then each written file tested on the rest.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from statistics import quantiles
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score

from classifier.contracts import LABELS
from classifier.local_model import LocalModel
from classifier.training.model import (
    Floats,
    Indices,
    Table,
    leave_groups_out,
    shares,
    tabulate,
)
from classifier.training.rows import FILES, RECORDED, Row, read_rows
from classifier.training.siblings import group_of

_BINS: Final = 10


def main() -> None:
    """Print the report."""
    rows = read_rows()
    model = LocalModel.load()
    for line in report(rows, model):
        sys.stdout.write(f"{line}\n")


def report(rows: list[Row], model: LocalModel) -> Iterable[str]:
    """The lines of the report."""
    table = tabulate(rows)
    recorded = _where(rows, lambda row: row.file == RECORDED)
    for strict in (False, True):
        yield f"leave one API out, recorded APIs, {'strict' if strict else 'siblings'} groups"
        groups = [group_of(row.api, strict=strict) for row in rows]
        found = shares(leave_groups_out(table, groups, recorded), model.sharpness)
        yield from _slices(rows, table, found, recorded)
        yield from _confidence(table, found, recorded, model.min_confidence)
    yield "leave one written file out (clear cases)"
    for file in FILES[1:]:
        yield _file_out(rows, table, model.sharpness, file)
    yield _latency(rows, model)


def _where(rows: Sequence[Row], wanted: Callable[[Row], bool]) -> Indices:
    return np.array([at for at, row in enumerate(rows) if wanted(row)], dtype=np.intp)


def _slices(rows: list[Row], table: Table, found: Floats, recorded: Indices) -> Iterable[str]:
    apis = sorted({rows[at].api for at in recorded})
    first_half = set(apis[0::2])
    slices: tuple[tuple[str, Callable[[Row], bool]], ...] = (
        ("clear", lambda row: row.clear),
        ("all", lambda _: True),
        ("same endpoint, clear", lambda row: row.same_endpoint and row.clear),
        ("same endpoint, all", lambda row: row.same_endpoint),
        ("clear, first half", lambda row: row.clear and row.api in first_half),
        ("clear, second half", lambda row: row.clear and row.api not in first_half),
        (
            "same endpoint, clear, second half",
            lambda row: row.clear and row.same_endpoint and row.api not in first_half,
        ),
    )
    for name, wanted in slices:
        chosen = np.array([at for at in recorded if wanted(rows[at])], dtype=np.intp)
        yield _score(name, table.targets[chosen], found[chosen])


def _score(name: str, targets: Indices, found: Floats) -> str:
    said = found.argmax(axis=1)
    accuracy = float((said == targets).mean())
    labels = range(len(LABELS))
    f1 = f1_score(targets, said, average="macro", labels=list(labels), zero_division=0)
    matrix = confusion_matrix(targets, said, labels=list(labels)).tolist()
    return (
        f"  {name:36} n={len(targets):4} accuracy={accuracy:.3f} "
        f"macro-F1={f1:.3f} confusion={matrix}"
    )


def _confidence(table: Table, found: Floats, chosen: Indices, least: float) -> Iterable[str]:
    sure = found[chosen].max(axis=1)
    right = found[chosen].argmax(axis=1) == table.targets[chosen]
    above = sure >= least
    yield (
        f"  expected calibration error={_calibration_error(sure, right):.3f}; "
        f"under min_confidence {least}: {1 - above.mean():.3f} of all; "
        f"accuracy above: {right[above].mean():.3f}, below: {right[~above].mean():.3f}"
    )


def _calibration_error(sure: Floats, right: NDArray[np.bool_]) -> float:
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    return float(
        sum(
            abs(sure[bins == at].mean() - right[bins == at].mean()) * (bins == at).mean()
            for at in set(bins)
        )
    )


def _file_out(rows: list[Row], table: Table, sharpness: float, file: str) -> str:
    groups = [row.file for row in rows]
    tested = _where(rows, lambda row: row.file == file and row.clear)
    found = shares(leave_groups_out(table, groups, tested), sharpness)
    return _score(file, table.targets[tested], found[tested])


def _latency(rows: list[Row], model: LocalModel) -> str:
    """Microseconds a call, over all rows, after a first round that fills the word caches."""
    taken: list[float] = []
    for _ in range(2):
        taken.clear()
        for row in rows:
            start = time.perf_counter()
            model.classify(row.view)
            taken.append((time.perf_counter() - start) * 1e6)
    cuts = quantiles(taken, n=100)
    return (
        f"latency per call: median {cuts[49]:.0f} us, p90 {cuts[89]:.0f} us, p99 {cuts[98]:.0f} us"
    )


if __name__ == "__main__":
    main()
