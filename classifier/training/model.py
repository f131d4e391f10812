"""Fits the model: multinomial logistic regression over features seen in several APIs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]  # no stubs are published with it
from sklearn.linear_model import LogisticRegression

from classifier.contracts import LABELS
from classifier.features import extract
from classifier.training import drills
from classifier.training.rows import RECORDED, Row
from classifier.training.siblings import group_of

_MIN_GROUPS: Final = 2
_PENALTY: Final = 0.3  # inverse strength
_DEBATABLE_WEIGHT: Final = 0.4
_RECORDED_WEIGHT: Final = 2.5
_DRILL_WEIGHT: Final = 0.4

type Floats = NDArray[np.float64]
type Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as numbers; drills follow the real rows.

    Attributes:
        names: Feature names, sorted: the columns.
        matrix: One row a request.
        targets: Index of the label in `LABELS`.
        weights: How much a row counts.
        real: How many of the rows are no drills.
    """

    names: list[str]
    matrix: sparse.csr_matrix
    targets: Indices
    weights: Floats
    real: int


def tabulate(rows: Sequence[Row]) -> Table:
    """The rows and the drills, with those features that more than one group of APIs has."""
    everything = [*rows, *drills.drills()]
    bags = [extract(row.view) for row in everything]
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for row, bag in zip(everything, bags, strict=True):
        for name in bag:
            groups[name].add(group_of(row.api, strict=True))
    names = sorted(name for name, found in groups.items() if len(found) >= _MIN_GROUPS)
    targets = np.array([LABELS.index(row.label) for row in everything], dtype=np.intp)
    return Table(
        names=names,
        matrix=matrix_of(bags, {name: at for at, name in enumerate(names)}),
        targets=targets,
        weights=_as_frequent_as_recorded(everything, targets),
        real=len(rows),
    )


def matrix_of(bags: list[dict[str, float]], columns: dict[str, int]) -> sparse.csr_matrix:
    """Features as numbers, one row a request; those without a column are left out."""
    cells = [
        (value, at, columns[name])
        for at, bag in enumerate(bags)
        for name, value in bag.items()
        if name in columns
    ]
    values, lines, places = zip(*cells, strict=True)
    return sparse.csr_matrix((values, (lines, places)), shape=(len(bags), len(columns)))


def _as_frequent_as_recorded(rows: Sequence[Row], targets: Indices) -> Floats:
    """Weights under which labels are as frequent in each kind of rows as among the recorded.

    Written rows and drills hold more of the rarer labels than traffic does, on purpose.
    """
    weights = np.array([_weight(row) for row in rows])
    kinds = np.array([row.file if row.file in (RECORDED, drills.FILE) else "" for row in rows])
    wanted = np.bincount(targets[kinds == RECORDED], minlength=len(LABELS)).astype(np.float64)
    for kind in (drills.FILE, ""):
        chosen = kinds == kind
        there = np.bincount(targets[chosen], weights[chosen], minlength=len(LABELS))
        factors = (wanted / wanted.sum()) / (there / there.sum())
        weights[chosen] *= factors[targets[chosen]]
    return weights


def _weight(row: Row) -> float:
    if row.file == drills.FILE:
        return _DRILL_WEIGHT
    weight = 1.0 if row.clear else _DEBATABLE_WEIGHT
    return weight * (_RECORDED_WEIGHT if row.file == RECORDED else 1.0)


def fit(table: Table, chosen: Indices) -> LogisticRegression:
    """The model of the chosen real rows and of all drills."""
    lines = np.concatenate([chosen, np.arange(table.real, len(table.targets), dtype=np.intp)])
    model = LogisticRegression(C=_PENALTY, max_iter=400, tol=1e-4)
    model.fit(table.matrix[lines], table.targets[lines], sample_weight=table.weights[lines])
    return model


def scores(model: LogisticRegression, table: Table, chosen: Indices) -> Floats:
    """Log-odds of the chosen rows, one column a label."""
    return np.asarray(model.decision_function(table.matrix[chosen]), dtype=np.float64)


def leave_groups_out(table: Table, groups: Sequence[str], tested: Indices) -> Floats:
    """Scores of the real rows that are tested, each from a model that saw none of its group.

    Rows that are not tested keep zeros.
    """
    found = np.zeros((table.real, len(LABELS)))
    names = np.array(groups)
    for group in sorted(set(names[tested])):
        held_out = names == group
        model = fit(table, np.flatnonzero(~held_out))
        chosen = np.intersect1d(np.flatnonzero(held_out), tested)
        found[chosen] = scores(model, table, chosen)
    return found


def folded(groups: Iterable[str], folds: int) -> list[str]:
    """The groups gathered into a few folds of about equal size, so that fewer fits are needed."""
    names = list(groups)
    sizes: defaultdict[str, int] = defaultdict(int)
    for group in names:
        sizes[group] += 1
    loads = [0] * folds
    fold_of: dict[str, str] = {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[group]
        fold_of[group] = f"fold{lightest}"
    return [fold_of[group] for group in names]


def shares(found: Floats, sharpness: float) -> Floats:
    """Probabilities from scores."""
    powers = np.exp(sharpness * (found - found.max(axis=1, keepdims=True)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)
