"""The statistics of an evaluation, against numbers worked out by hand and against scikit-learn."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.evaluation import figures
from classifier.evaluation.figures import Judged, pairs_of

# Ten rows: of 4 a's, 3 found; of 4 b's, 2 found; of 2 c's, 1 found.
ROWS = [
    Judged("a", "a", 0.95),
    Judged("a", "a", 0.95),
    Judged("a", "a", 0.55),
    Judged("a", "b", 0.55),
    Judged("b", "b", 0.95),
    Judged("b", "b", 0.95),
    Judged("b", "a", 0.55),
    Judged("b", "c", 0.35),
    Judged("c", "c", 0.95),
    Judged("c", "a", 0.95),
]
LABELS = ("a", "b", "c")


def test_accuracy_by_hand() -> None:
    assert figures.accuracy(pairs_of(ROWS)) == pytest.approx(6 / 10)


def test_confusion_by_hand() -> None:
    assert figures.confusion(pairs_of(ROWS), LABELS) == ((3, 1, 0), (1, 2, 1), (1, 0, 1))


def test_precision_recall_and_f1_by_hand() -> None:
    a, b, c = figures.label_scores(pairs_of(ROWS))

    assert (a.precision, a.recall, a.support) == (pytest.approx(3 / 5), pytest.approx(3 / 4), 4)
    assert (b.precision, b.recall, b.support) == (pytest.approx(2 / 3), pytest.approx(2 / 4), 4)
    assert (c.precision, c.recall, c.support) == (pytest.approx(1 / 2), pytest.approx(1 / 2), 2)
    assert a.f1 == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    assert figures.macro_f1(pairs_of(ROWS)) == pytest.approx((2 / 3 + 4 / 7 + 1 / 2) / 3)


def test_reliability_and_calibration_error_by_hand() -> None:
    low, middle, high = figures.reliability(ROWS)

    assert (low.low, low.rows, low.accuracy) == (0.3, 1, 0.0)
    assert (middle.rows, middle.confidence) == (3, pytest.approx(0.55))
    assert middle.accuracy == pytest.approx(1 / 3)
    assert (high.rows, high.accuracy) == (6, pytest.approx(5 / 6))
    by_hand = (1 * 0.35 + 3 * (0.55 - 1 / 3) + 6 * (0.95 - 5 / 6)) / 10
    assert figures.calibration_error(ROWS) == pytest.approx(by_hand)


def test_certainty_belongs_to_the_last_bin() -> None:
    (only,) = figures.reliability([Judged("a", "a", 1.0)])

    assert (only.low, only.rows) == (0.9, 1)


def test_statistics_over_nothing_are_zero() -> None:
    assert figures.accuracy({}) == figures.macro_f1({}) == figures.calibration_error([]) == 0
    assert figures.score([]).accuracy == figures.Interval(0, 0, 0)


def test_quantiles_by_hand() -> None:
    assert figures.quantile([1, 2, 3, 4, 5], 0.5) == 3
    assert figures.quantile([1, 2], 0.75) == pytest.approx(1.75)
    assert figures.quantile([7], 0.99) == 7
    assert figures.quantile([], 0.5) == 0


def test_labels_stand_in_the_given_order_and_others_follow() -> None:
    pairs = pairs_of([Judged("own", "b", 1), Judged("a", "extra", 1)])

    assert figures.labels_of(pairs, ("b", "never", "a")) == ("b", "a", "extra", "own")


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    assert figures.score(ROWS, seed=1) == figures.score(ROWS, seed=1)
    assert figures.score(ROWS, seed=1) != figures.score(ROWS, seed=2)


def test_an_interval_holds_its_figure_and_narrows_with_more_rows() -> None:
    few, many = figures.score(ROWS).accuracy, figures.score(ROWS * 40).accuracy

    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 3


def test_rows_of_one_group_are_drawn_together() -> None:
    # Each group is all right or all wrong: rows alone would promise far too narrow an interval.
    alone = [Judged("a", "a" if at % 2 else "b", 0.9) for at in range(200)]
    grouped = [
        Judged(one.truth, one.said, one.confidence, f"api{at % 4}") for at, one in enumerate(alone)
    ]

    wide, narrow = figures.score(grouped).accuracy, figures.score(alone).accuracy

    assert wide.value == narrow.value
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_the_interval_is_that_of_the_binomial_distribution() -> None:
    rows = [Judged("a", "a" if at < 80 else "b", 0.9) for at in range(100)]

    interval = figures.score(rows).accuracy

    # Plus and minus 1.96 times the standard error, which is 0.04.
    assert interval.low == pytest.approx(0.72, abs=0.02)
    assert interval.high == pytest.approx(0.88, abs=0.02)


def test_a_thousand_resamples_of_600_rows_take_less_than_five_seconds() -> None:
    rng = random.Random(7)
    rows = [
        Judged(rng.choice(LABELS), rng.choice(LABELS), rng.random(), f"api{rng.randrange(32)}")
        for _ in range(600)
    ]
    began = time.process_time()

    figures.score(rows, resamples=1_000)

    assert time.process_time() - began < 5


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    rows=st.lists(
        st.builds(
            Judged, st.sampled_from(LABELS), st.sampled_from((*LABELS, "d")), st.floats(0, 1)
        ),
        min_size=1,
        max_size=60,
    )
)
def test_the_figures_are_those_of_scikit_learn(rows) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truths, said = [one.truth for one in rows], [one.said for one in rows]
    pairs = pairs_of(rows)
    labels = list(figures.labels_of(pairs))

    assert figures.accuracy(pairs) == pytest.approx(metrics.accuracy_score(truths, said))
    assert figures.macro_f1(pairs) == pytest.approx(
        metrics.f1_score(truths, said, average="macro", zero_division=0)
    )
    assert [list(row) for row in figures.confusion(pairs, labels)] == metrics.confusion_matrix(
        truths, said, labels=labels
    ).tolist()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        truths, said, labels=labels, zero_division=0
    )
    ours = figures.label_scores(pairs)
    assert [one.precision for one in ours] == pytest.approx(list(precision))
    assert [one.recall for one in ours] == pytest.approx(list(recall))
    assert [one.f1 for one in ours] == pytest.approx(list(f1))
    assert [one.support for one in ours] == list(support)
