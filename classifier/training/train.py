"""Trains the embedded model and writes it: `python -m classifier.training.train`.

The same data and library versions give the same bytes.
"""

import json
import sys
from pathlib import Path
from typing import Final

import numpy as np

from classifier.contracts import LABELS
from classifier.training.model import (
    Floats,
    Table,
    fit,
    folded,
    leave_groups_out,
    shares,
    tabulate,
)
from classifier.training.rows import RECORDED, Row, read_rows
from classifier.training.siblings import group_of

ARTIFACT: Final = Path(__file__).parents[1] / "model.json"
_FOLDS: Final = 10
_SCALE: Final = 1000
_WANTED_ACCURACY: Final = 0.94
_SHARPNESSES: Final = tuple(round(0.4 + 0.05 * step, 2) for step in range(33))


def main() -> None:
    """Train on all rows, write the artifact, print what was chosen."""
    text = artifact(read_rows())
    ARTIFACT.write_text(text, encoding="utf-8")
    content = json.loads(text)
    weights = content.pop("weights")
    sys.stdout.write(f"{ARTIFACT}: {len(text)} bytes, {len(weights)} features, {content}\n")


def artifact(rows: list[Row]) -> str:
    """The artifact's text for the given rows."""
    table = tabulate(rows)
    groups = folded((group_of(row.api, strict=True) for row in rows), _FOLDS)
    unseen = leave_groups_out(table, groups, np.arange(len(rows), dtype=np.intp))
    recorded = np.array([row.file == RECORDED and row.clear for row in rows])
    sharpness = calibrate(unseen, table)
    content = {
        "labels": [str(label) for label in LABELS],
        "rows": len(rows),
        "scale": _SCALE,
        "sharpness": sharpness,
        "min_confidence": threshold(
            shares(unseen, sharpness)[recorded], table.targets[: len(rows)][recorded]
        ),
        **_weights(table),
    }
    return json.dumps(content, separators=(",", ":")).replace('],"', '],\n"') + "\n"


def _weights(table: Table) -> dict[str, object]:
    """Bias and weights as whole numbers, so that the last bits of a float decide nothing."""
    model = fit(table, np.arange(table.real, dtype=np.intp))
    columns = zip(table.names, _whole(model.coef_.T), strict=True)
    return {
        "bias": _whole(model.intercept_.reshape(1, -1))[0],
        "weights": {name: column for name, column in columns if any(column)},
    }


def _whole(numbers: Floats) -> list[list[int]]:
    return [[round(float(number) * _SCALE) for number in line] for line in numbers]


def calibrate(unseen: Floats, table: Table) -> float:
    """The sharpness with the least log loss on rows of unseen APIs."""
    lines = np.arange(table.real)
    targets, weights = table.targets[: table.real], table.weights[: table.real]

    def loss(sharpness: float) -> float:
        right = shares(unseen, sharpness)[lines, targets]
        return float(-(weights * np.log(np.maximum(right, 1e-9))).sum())

    return min(_SHARPNESSES, key=loss)


def threshold(probabilities: Floats, targets: np.typing.NDArray[np.intp]) -> float:
    """The lowest confidence from which on answers about unseen APIs are right often enough."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    for step in range(40, 95):
        above = sure >= step / 100
        if right[above].mean() >= _WANTED_ACCURACY:
            return step / 100
    return 0.95


if __name__ == "__main__":
    main()
