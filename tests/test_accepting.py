"""Which process takes the next connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.accepting import (
    ABSENT,
    MAX_ROUNDS,
    ROUNDS_PER_SECOND,
    SAVED_ROUNDS,
    Counts,
    Presence,
    create_counts,
    may_accept,
    open_counts,
)


@pytest.fixture
def counts(tmp_path):
    made = create_counts(tmp_path / "counts", 8)
    yield made
    made.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def present(counts: Counts, slot: int, connections: int = 0, clock=None) -> Presence:
    presence = Presence(counts, slot, clock or Clock())
    presence.begin()
    for _ in range(connections):
        presence.enter()
    return presence


@pytest.mark.parametrize(
    ("own", "least", "expected"),
    [(0, 0, True), (1, 0, False), (7, 7, True), (9, 8, True), (10, 8, False), (112, 100, True)],
)
def test_who_has_clearly_more_than_another_leaves_it_to_that_one(own, least, expected) -> None:
    assert may_accept(own, least) is expected


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=64))
def test_somebody_always_accepts(connections) -> None:
    assert any(may_accept(own, min(connections)) for own in connections)


@given(st.integers(1, 8), st.integers(0, 500))
def test_a_burst_is_shared_fairly(processes, connections) -> None:
    """Whoever is the quickest takes as many as it may; then the next."""
    counts = [0] * processes
    for _ in range(connections):
        taker = next(one for one in counts if may_accept(one, min(counts)))
        counts[counts.index(taker)] += 1

    assert sum(counts) == connections
    assert max(counts) - min(counts) <= 1 + min(counts) // 8


def test_counts_are_seen_by_others_at_once(tmp_path, counts) -> None:
    other = open_counts(tmp_path / "counts")
    present(counts, 3, connections=2)

    assert [other[slot] for slot in (2, 3)] == [ABSENT, 2]
    assert other.present() == [3]
    other.close()


def test_the_file_is_for_this_user_alone(tmp_path, counts) -> None:
    assert (tmp_path / "counts").stat().st_mode & 0o077 == 0
    assert counts.present() == []
    with pytest.raises(IndexError):
        counts[8]


def test_a_process_alone_never_stands_back(counts) -> None:
    assert not present(counts, 0, connections=100).stands_back()


def test_a_dead_process_holds_nobody_back(counts) -> None:
    busy = present(counts, 0, connections=100)
    idle = present(counts, 1)
    assert busy.stands_back()

    idle.end()
    assert not busy.stands_back()


def rounds(presence: Presence) -> int:
    """How often it stands back until it takes the connection."""
    count = 0
    while presence.stands_back():
        count += 1
    presence.enter()
    return count


def test_who_is_stuck_is_waited_for_once(counts) -> None:
    busy = present(counts, 0, connections=100)
    present(counts, 1)

    assert [rounds(busy) for _ in range(3)] == [MAX_ROUNDS, 0, 0]


def test_who_has_moved_is_waited_for_again(counts) -> None:
    busy = present(counts, 0, connections=100)
    stuck = present(counts, 1)
    assert rounds(busy) == MAX_ROUNDS

    stuck.enter()
    assert rounds(busy) == MAX_ROUNDS


def test_one_that_is_stuck_does_not_let_another_go_empty(counts) -> None:
    busy = present(counts, 0, connections=100)
    present(counts, 1)
    assert rounds(busy) == MAX_ROUNDS

    present(counts, 2)
    assert rounds(busy) == MAX_ROUNDS


def test_nobody_stands_back_for_ever(counts) -> None:
    """Not even for one that moves all the time, and takes nothing of this."""
    busy = present(counts, 0, connections=100)
    other = present(counts, 1)
    stood_back = 0
    while busy.stands_back():
        other.enter()
        stood_back += 1

    assert stood_back == MAX_ROUNDS


def test_standing_back_takes_a_small_share_of_the_time(counts) -> None:
    """Connections that come and go by the thousand are not to wait for one another."""
    clock = Clock()
    busy = present(counts, 0, connections=10_000, clock=clock)
    other = present(counts, 1, clock=clock)

    def stood_back(connections: int) -> int:
        count = 0
        for _ in range(connections):
            count += rounds(busy)
            other.enter()
        return count

    assert stood_back(1_000) == SAVED_ROUNDS
    clock.now += 1.0
    assert stood_back(1_000) == ROUNDS_PER_SECOND


def test_a_process_at_two_ports_is_there_until_it_leaves_both(counts) -> None:
    presence = present(counts, 0)
    presence.begin()
    presence.end()
    assert counts.present() == [0]

    presence.end()
    assert counts.present() == []


def test_connections_that_are_left_do_not_bring_a_process_back(counts) -> None:
    presence = present(counts, 0, connections=2)
    presence.end()
    presence.leave()

    assert counts.present() == []


def test_when_the_other_has_taken_it_the_wait_begins_anew(counts) -> None:
    busy = present(counts, 0, connections=100)
    present(counts, 1)
    assert [busy.stands_back() for _ in range(MAX_ROUNDS)] == [True] * MAX_ROUNDS

    busy.nothing_waits()
    assert busy.stands_back()
