"""Fits the model: multinomial logistic regression over features seen in several APIs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from classifier.contracts import Label
from classifier.features import extract
from classifier.training.rows import RECORDED, Row
from classifier.training.siblings import group_of

LABELS: Final = tuple(Label)
_MIN_GROUPS: Final = 2
_PENALTY: Final = 0.2  # inverse strength
_DEBATABLE_WEIGHT: Final = 0.4
_RECORDED_WEIGHT: Final = 1.5

type Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
type Indices = np.ndarray[tuple[int, ...], np.dtype[np.intp]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as numbers.

    Attributes:
        names: Feature names, sorted: the columns.
        matrix: One row a request.
        targets: Index of the label in `LABELS`.
        weights: How much a row counts.
    """

    names: list[str]
    matrix: sparse.csr_matrix
    targets: Indices
    weights: Floats


def tabulate(rows: Sequence[Row]) -> Table:
    """The rows with those features that more than one group of APIs has."""
    bags = [extract(row.view) for row in rows]
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for row, bag in zip(rows, bags, strict=True):
        for name in bag:
            groups[name].add(group_of(row.api, strict=True))
    names = sorted(name for name, found in groups.items() if len(found) >= _MIN_GROUPS)
    return Table(
        names=names,
        matrix=_matrix(bags, {name: at for at, name in enumerate(names)}),
        targets=np.array([LABELS.index(row.label) for row in rows]),
        weights=np.array([_weight(row) for row in rows]),
    )


def _matrix(bags: list[dict[str, float]], columns: dict[str, int]) -> sparse.csr_matrix:
    cells = [
        (value, at, columns[name])
        for at, bag in enumerate(bags)
        for name, value in bag.items()
        if name in columns
    ]
    values, lines, places = zip(*cells, strict=True)
    return sparse.csr_matrix((values, (lines, places)), shape=(len(bags), len(columns)))


def _weight(row: Row) -> float:
    weight = 1.0 if row.clear else _DEBATABLE_WEIGHT
    return weight * (_RECORDED_WEIGHT if row.file == RECORDED else 1.0)


def fit(table: Table, chosen: Indices) -> LogisticRegression:
    """The model of the chosen rows."""
    model = LogisticRegression(C=_PENALTY, max_iter=400, tol=1e-4)
    model.fit(table.matrix[chosen], table.targets[chosen], sample_weight=table.weights[chosen])
    return model


def scores(model: LogisticRegression, table: Table, chosen: Indices) -> Floats:
    """Log-odds of the chosen rows, one column a label."""
    return np.asarray(model.decision_function(table.matrix[chosen]), dtype=np.float64)


def leave_groups_out(table: Table, groups: Sequence[str], tested: Indices) -> Floats:
    """Scores of the tested rows, each from a model that saw nothing of the row's group."""
    found = np.zeros((len(groups), len(LABELS)))
    names = np.array(groups)
    for group in sorted(set(names[tested])):
        held_out = names == group
        model = fit(table, np.flatnonzero(~held_out))
        chosen = np.intersect1d(np.flatnonzero(held_out), tested)
        found[chosen] = scores(model, table, chosen)
    return found


def folded(groups: Sequence[str], folds: int) -> list[str]:
    """The groups gathered into a few folds of about equal size, so that fewer fits are needed."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group] += 1
    loads = [0] * folds
    fold_of: dict[str, str] = {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        lightest = loads.index(min(loads))
        loads[lightest] += sizes[group]
        fold_of[group] = f"fold{lightest}"
    return [fold_of[group] for group in groups]


def shares(found: Floats, sharpness: float) -> Floats:
    """Probabilities from scores."""
    scaled = sharpness * (found - found.max(axis=1, keepdims=True))
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
