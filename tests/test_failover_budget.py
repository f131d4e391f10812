"""The retry budget: a share of the requests of the last seconds, and a floor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.failover import RetryBudget


class Clock:
    now = 50.5

    def __call__(self) -> float:
        return self.now


def spent(budget, wanted=10_000) -> int:
    return sum(budget.try_spend() for _ in range(wanted))


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(("requests", "retries"), [(0, 30), (100, 30), (150, 30), (1_000, 200)])
def test_one_in_five_may_be_tried_again_and_three_a_second_always(clock, requests, retries) -> None:
    budget = RetryBudget(clock=clock)
    for _ in range(requests):
        budget.on_request()

    assert spent(budget) == retries


def test_without_a_floor_and_without_requests_there_are_no_retries(clock) -> None:
    budget = RetryBudget(floor_per_second=0, clock=clock)

    assert spent(budget) == 0
    for _ in range(9):
        budget.on_request()
    assert spent(budget) == 1


def test_what_was_spent_comes_back_after_the_window(clock) -> None:
    budget = RetryBudget(clock=clock)
    assert spent(budget) == 30

    clock.now += 9
    assert spent(budget) == 0
    clock.now += 1
    assert spent(budget) == 30


def test_requests_are_forgotten_after_the_window(clock) -> None:
    budget = RetryBudget(floor_per_second=0, clock=clock)
    for _ in range(100):
        budget.on_request()

    clock.now += 10

    assert spent(budget) == 0


def test_a_long_silence_is_no_work(clock) -> None:
    budget = RetryBudget(clock=clock)
    clock.now += 1e9
    budget.on_request()

    assert spent(budget) == 30


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 3)), max_size=40))
def test_retries_never_exceed_the_budget_of_any_window(seconds) -> None:
    clock = Clock()
    budget = RetryBudget(clock=clock)
    requests, retries = [], []
    for count, pause in seconds:
        for _ in range(count):
            budget.on_request()
        requests += [clock.now] * count
        retries += [clock.now] * spent(budget, 200)
        # Seconds are counted whole: a window is at least eight of them and two parts.
        recent = [at for at in retries if at > clock.now - 8]
        allowed = max(30, 0.2 * sum(at > clock.now - 10 for at in requests))
        assert len(recent) <= allowed
        clock.now += pause


def test_when_every_request_fails_attempts_stay_within_a_quarter_more(clock) -> None:
    budget, attempts = RetryBudget(clock=clock), 0
    for request in range(200 * 30):
        clock.now = 50 + request / 200
        budget.on_request()
        attempts += 1 + budget.try_spend()

    assert attempts / (200 * 30) <= 1.25
