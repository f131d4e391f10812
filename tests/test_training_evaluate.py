"""Leave-one-API-out: who is asked about what, on a few APIs."""

import pytest

from classifier.contracts import Label
from classifier.training.rows import RECORDED, read_rows

evaluate = pytest.importorskip("classifier.training.evaluate")

APIS = ("couchdb", "groq", "postgrest")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def rows():
    everything = read_rows()
    recorded = [row for row in everything if row.file == RECORDED]
    written = [row for row in everything if row.file != RECORDED][::20]
    return [*(row for row in recorded if row.api in APIS), *written]


@pytest.fixture(scope="module")
def tested(rows):
    return [at for at, row in enumerate(rows) if row.file == RECORDED]


@pytest.fixture(scope="module")
def said(rows, tested):
    by_api = [row.api for row in rows]
    pairs = ["both" if row.api in {"couchdb", "postgrest"} else row.api for row in rows]
    return evaluate.leave_out(rows, 1.0, ((by_api, tested), (pairs, tested)))


def test_every_row_is_answered_by_every_source(rows, tested, said) -> None:
    for grouping in said:
        for source in (evaluate.LOCAL, evaluate.BARE, evaluate.GENERAL):
            judged = grouping.judged(rows, tested, source)
            assert [one.truth for one in judged] == [str(rows[at].label) for at in tested]
            assert {one.group for one in judged} == set(APIS)


def test_the_baselines_know_less(rows, tested, said) -> None:
    local, bare, general = (
        said[0].judged(rows, tested, source)
        for source in (evaluate.LOCAL, evaluate.BARE, evaluate.GENERAL)
    )

    assert {one.said for one in general} == {Label.GENERAL}
    assert [one.confidence for one in bare] != [one.confidence for one in local]


def test_a_group_of_the_same_rows_has_the_same_model_in_every_grouping(rows, tested, said) -> None:
    alone = [at for at in tested if rows[at].api == "groq"]
    other = [at for at in tested if rows[at].api != "groq"]

    def answers(grouping, chosen):
        return [grouping.local[at].tolist() for at in chosen]

    assert answers(said[0], alone) == answers(said[1], alone)
    assert answers(said[0], other) != answers(said[1], other)
