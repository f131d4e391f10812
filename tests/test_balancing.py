"""Balancing policies: fair shares, spread turns, the less busy first."""

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.balancing import Balancing, least_inflight, policy_of, round_robin, two_choices

RNG = random.Random(1)


@dataclass
class Fake:
    share: float = 1.0
    inflight: int = 0
    turn: float = 0.0
    name: str = ""


WEIGHTS = st.lists(st.integers(1, 20), min_size=1, max_size=6)
LOADS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 50)), min_size=1, max_size=6)


def fakes(weights):
    return [Fake(weight) for weight in weights]


@given(WEIGHTS, st.integers(1, 3))
def test_in_whole_rounds_each_worker_gets_exactly_its_share(weights, rounds) -> None:
    workers = fakes(weights)

    taken = Counter(id(round_robin(workers, RNG)) for _ in range(rounds * sum(weights)))

    assert [taken[id(one)] for one in workers] == [weight * rounds for weight in weights]


@given(WEIGHTS, st.integers(0, 200))
def test_at_no_time_is_a_worker_more_than_one_round_away_from_its_share(weights, requests) -> None:
    workers = fakes(weights)

    taken = Counter(id(round_robin(workers, RNG)) for _ in range(requests))

    for worker in workers:
        assert abs(taken[id(worker)] - requests * worker.share / sum(weights)) < len(weights)


def test_the_turns_of_a_heavy_worker_are_spread() -> None:
    workers = [Fake(5, name="a"), Fake(1, name="b"), Fake(1, name="c")]

    assert "".join(round_robin(workers, RNG).name for _ in range(7)) == "aabacaa"


def test_equal_workers_have_their_turns_in_order() -> None:
    workers = [Fake(name="a"), Fake(name="b"), Fake(name="c")]

    assert "".join(round_robin(workers, RNG).name for _ in range(6)) == "abcabc"


def test_a_worker_that_was_away_does_not_make_up_for_it() -> None:
    workers = [Fake(name="a"), Fake(name="b"), Fake(name="c")]
    for _ in range(100):
        round_robin(workers[:2], RNG)

    names = Counter(round_robin(workers, RNG).name for _ in range(30))

    assert all(9 <= count <= 11 for count in names.values())


@given(LOADS)
def test_least_inflight_takes_nobody_who_is_busier_for_its_share_than_another(loads) -> None:
    workers = [Fake(share, inflight) for share, inflight in loads]

    taken = least_inflight(workers, RNG)

    assert taken.inflight / taken.share == min(one.inflight / one.share for one in workers)


@given(WEIGHTS, st.integers(1, 3))
def test_idle_workers_get_their_shares_from_least_inflight(weights, rounds) -> None:
    workers = fakes(weights)

    taken = Counter(id(least_inflight(workers, RNG)) for _ in range(rounds * sum(weights)))

    assert [taken[id(one)] for one in workers] == [weight * rounds for weight in weights]


@given(WEIGHTS, st.integers(1, 30))
def test_least_inflight_keeps_held_requests_in_proportion(weights, times) -> None:
    workers = fakes(weights)

    for _ in range(times * sum(weights)):
        least_inflight(workers, RNG).inflight += 1

    assert [one.inflight for one in workers] == [weight * times for weight in weights]


@given(LOADS, st.integers())
def test_two_choices_never_takes_the_one_that_is_busier_than_all_others(loads, seed) -> None:
    workers = [Fake(share, inflight) for share, inflight in loads]

    taken = two_choices(workers, random.Random(seed))

    others = [one for one in workers if one is not taken]
    load = taken.inflight / taken.share
    assert not others or load <= max(one.inflight / one.share for one in others)


def test_two_choices_looks_at_two_different_workers() -> None:
    workers = [Fake(inflight=0), Fake(inflight=9)]

    assert all(two_choices(workers, RNG) is workers[0] for _ in range(200))


def test_idle_workers_get_their_shares_from_two_choices() -> None:
    workers, rng = [Fake(1), Fake(3)], random.Random(7)

    heavy = sum(two_choices(workers, rng) is workers[1] for _ in range(4_000))

    assert 2_900 < heavy < 3_100


def test_two_choices_holds_loads_together() -> None:
    workers, rng = fakes([1] * 8), random.Random(3)

    for _ in range(8_000):
        two_choices(workers, rng).inflight += 1

    assert all(abs(one.inflight - 1_000) < 10 for one in workers)


@pytest.mark.parametrize("balancing", Balancing)
def test_every_policy_takes_the_only_worker(balancing) -> None:
    only = Fake(0.1, 99)

    assert policy_of(balancing)([only], RNG) is only
