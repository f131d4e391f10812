"""Places and their queue: who starts, who waits, who makes room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.turns import Turns


class Stage:
    """Turns of names; what was started and evicted, in order."""

    def __init__(self, at_once=2, waiting=2):
        self.started = []
        self.evicted = []
        self.turns = Turns(
            at_once=at_once, waiting=waiting, start=self.started.append, evict=self.evicted.append
        )

    def enter(self, names):
        return [self.turns.enter(name) for name in names]


@pytest.fixture
def stage():
    return Stage()


def test_those_with_a_place_start_at_once_the_next_wait_and_the_rest_is_refused(stage) -> None:
    assert stage.enter("abcde") == [True, True, True, True, False]
    assert stage.started == ["a", "b"]
    assert (len(stage.turns.running), stage.turns.queued) == (2, 2)


def test_a_free_place_goes_to_who_has_waited_longest(stage) -> None:
    stage.enter("abcd")

    stage.turns.leave("b")

    assert stage.started == ["a", "b", "c"]
    assert stage.turns.queued == 1


def test_who_withdraws_gets_no_place(stage) -> None:
    stage.enter("abcd")

    assert stage.turns.withdraw("c")
    assert not stage.turns.withdraw("a")
    stage.turns.leave("a")

    assert stage.started == ["a", "b", "d"]


def test_a_lapsed_one_runs_on_while_nobody_needs_its_place(stage) -> None:
    stage.enter("ab")
    stage.turns.lapse("a")

    assert stage.evicted == []
    assert len(stage.turns.running) == 2


def test_the_oldest_lapsed_one_makes_room_and_counts_until_it_has_left(stage) -> None:
    stage.enter("ab")
    stage.turns.lapse("b")
    stage.turns.lapse("a")

    stage.enter("c")
    assert stage.evicted == ["b"]
    assert stage.started == ["a", "b"]

    stage.turns.leave("b")
    assert stage.started == ["a", "b", "c"]


def test_who_lapses_while_others_wait_makes_room_at_once(stage) -> None:
    stage.enter("abc")

    stage.turns.lapse("a")
    stage.turns.lapse("b")

    assert stage.evicted == ["a"]


def test_without_a_queue_a_place_that_will_be_free_is_still_given(stage) -> None:
    stage = Stage(waiting=0)
    stage.enter("ab")
    stage.turns.lapse("a")

    assert stage.enter("cd") == [True, False]
    stage.turns.leave("a")
    assert stage.started == ["a", "b", "c"]


def test_an_emptied_queue_tells_who_waited(stage) -> None:
    stage.enter("abcd")

    assert stage.turns.empty_queue() == ["c", "d"]
    stage.turns.leave("a")
    assert stage.started == ["a", "b"]


def test_one_that_has_left_does_not_lapse_any_more(stage) -> None:
    stage.enter("a")
    stage.turns.leave("a")
    stage.turns.lapse("a")
    stage.turns.evict_lapsed()

    assert stage.evicted == []


EVENTS = st.lists(
    st.tuples(st.sampled_from(["enter", "lapse", "leave", "withdraw"]), st.integers())
)


@given(EVENTS, st.integers(1, 3), st.integers(0, 3))
def test_the_bounds_hold_and_nobody_waits_beside_a_free_place(events, at_once, waiting) -> None:
    stage = Stage(at_once, waiting)
    turns, entered = stage.turns, 0
    for event, choice in events:
        running = sorted(turns.running)
        if event == "enter":
            turns.enter(entered)
            entered += 1
        elif event == "withdraw":
            turns.withdraw(choice % max(1, entered))
        elif running:
            getattr(turns, event)(running[choice % len(running)])
        assert len(turns.running) <= at_once
        assert turns.queued <= waiting + at_once
        assert not turns.queued or len(turns.running) == at_once
        assert len(stage.evicted) == len(set(stage.evicted))
    assert stage.started == sorted(stage.started)
