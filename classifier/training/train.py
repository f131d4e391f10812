"""Trains the embedded model and writes it: `python -m classifier.training.train`.

The same data and library versions give the same bytes.
"""

import json
from pathlib import Path
from typing import Final

import numpy as np

from classifier.training.model import (
    LABELS,
    Floats,
    Table,
    fit,
    folded,
    leave_groups_out,
    shares,
    tabulate,
)
from classifier.training.rows import Row, read_rows
from classifier.training.siblings import group_of

ARTIFACT: Final = Path(__file__).parents[1] / "model.json"
_FOLDS: Final = 10
_SCALE: Final = 1000
_WANTED_ACCURACY: Final = 0.95


def main() -> None:
    """Train on all rows, write the artifact, print what was chosen."""
    text = artifact(read_rows())
    ARTIFACT.write_text(text, encoding="utf-8")
    head = {k: v for k, v in json.loads(text).items() if k != "weights"}
    print(f"{ARTIFACT}: {len(text)} bytes, {head}")  # noqa: T201 - a command's output


def artifact(rows: list[Row]) -> str:
    """The artifact's text for the given rows."""
    table = tabulate(rows)
    groups = folded([group_of(row.api, strict=True) for row in rows], _FOLDS)
    unseen = leave_groups_out(table, groups, np.arange(len(rows)))
    sharpness = calibrate(unseen, table)
    model = fit(table, np.arange(len(rows)))
    weights = {
        name: column
        for name, column in zip(table.names, _whole(model.coef_.T), strict=True)
        if any(column)
    }
    content = {
        "labels": [str(label) for label in LABELS],
        "rows": len(rows),
        "scale": _SCALE,
        "sharpness": sharpness,
        "min_confidence": threshold(shares(unseen, sharpness), table),
        "bias": _whole(model.intercept_.reshape(1, -1))[0],
        "weights": weights,
    }
    return json.dumps(content, separators=(",", ":"), indent=None) + "\n"


def _whole(numbers: Floats) -> list[list[int]]:
    return [[round(float(number) * _SCALE) for number in line] for line in numbers]


def calibrate(unseen: Floats, table: Table) -> float:
    """The sharpness with the least log loss on rows of unseen APIs."""
    candidates = [round(0.4 + 0.05 * step, 2) for step in range(33)]
    lines = np.arange(len(table.targets))

    def loss(sharpness: float) -> float:
        right = shares(unseen, sharpness)[lines, table.targets]
        return float(-(table.weights * np.log(np.maximum(right, 1e-9))).sum())

    return min(candidates, key=loss)


def threshold(probabilities: Floats, table: Table) -> float:
    """The lowest confidence from which on answers about unseen APIs are right often enough."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == table.targets
    for step in range(40, 96):
        above = sure >= step / 100
        if right[above].mean() >= _WANTED_ACCURACY:
            return step / 100
    return 0.95


if __name__ == "__main__":
    main()
