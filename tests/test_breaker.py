"""The circuit breaker: when it opens, whom it lets through, when it closes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.breaker import Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(failures=3, open_seconds=1.0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(POLICY, clock)


def fail(breaker, times=1):
    return [breaker.failed(breaker.generation) for _ in range(times)]


def fail_the_trial(breaker, clock):
    clock.now += breaker.trial_in_seconds
    assert breaker.try_again()
    fail(breaker)


def test_it_opens_after_failures_in_a_row(breaker) -> None:
    assert fail(breaker, 3) == [False, False, True]
    assert breaker.state is BreakerState.OPEN


def test_one_success_starts_the_count_anew(breaker) -> None:
    fail(breaker, 2)
    assert not breaker.succeeded(breaker.generation)

    assert fail(breaker, 2) == [False, False]
    assert breaker.state is BreakerState.CLOSED


def test_no_trial_before_its_time(breaker, clock) -> None:
    fail(breaker, 3)
    clock.now = 0.999

    assert not breaker.try_again()
    assert breaker.trial_in_seconds == pytest.approx(0.001)


def test_one_trial_at_a_time(breaker, clock) -> None:
    fail(breaker, 3)
    clock.now = 1.0

    assert [breaker.try_again() for _ in range(3)] == [True, False, False]
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_closed_breaker_asks_for_no_trial(breaker) -> None:
    assert not breaker.try_again()


def test_one_success_of_the_trial_closes_it(breaker, clock) -> None:
    fail(breaker, 3)
    clock.now = 1.0
    breaker.try_again()

    assert breaker.succeeded(breaker.generation)
    assert breaker.state is BreakerState.CLOSED
    assert fail(breaker, 2) == [False, False]


def test_each_failed_trial_doubles_the_pause_up_to_a_bound(breaker, clock) -> None:
    fail(breaker, 3)
    pauses = [breaker.trial_in_seconds]
    for _ in range(4):
        fail_the_trial(breaker, clock)
        pauses.append(breaker.trial_in_seconds)

    assert pauses == [1, 2, 4, 4, 4]


def test_what_was_asked_before_it_opened_does_not_count_any_more(breaker, clock) -> None:
    before = breaker.generation
    fail(breaker, 3)

    assert not breaker.succeeded(before)
    assert not breaker.failed(before)

    assert breaker.state is BreakerState.OPEN
    assert breaker.trial_in_seconds == 1


def test_what_was_asked_before_the_trial_does_not_decide_for_it(breaker, clock) -> None:
    before = breaker.generation
    fail(breaker, 3)
    clock.now = 1.0
    breaker.try_again()

    assert not breaker.failed(before)
    assert not breaker.succeeded(before)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_service_that_fails_again_soon_after_its_trial_gets_a_longer_pause(
    breaker, clock
) -> None:
    fail(breaker, 3)
    clock.now = 1.0
    breaker.try_again()
    breaker.succeeded(breaker.generation)
    clock.now = 2.0
    fail(breaker, 3)

    assert breaker.trial_in_seconds == 2


def test_a_service_that_was_well_for_a_while_gets_the_first_pause(breaker, clock) -> None:
    fail(breaker, 3)
    clock.now = 1.0
    breaker.try_again()
    breaker.succeeded(breaker.generation)
    clock.now = 5.0
    fail(breaker, 3)

    assert breaker.trial_in_seconds == 1


@given(st.lists(st.sampled_from(["ok", "fail", "stale ok", "stale fail", "try", "wait"])))
def test_it_is_open_only_with_a_trial_to_come_within_the_longest_pause(events) -> None:
    clock = Clock()
    breaker = Breaker(POLICY, clock)
    for event in events:
        match event:
            case "ok":
                breaker.succeeded(breaker.generation)
            case "fail":
                breaker.failed(breaker.generation)
            case "stale ok":
                breaker.succeeded(breaker.generation - 1)
            case "stale fail":
                breaker.failed(breaker.generation - 1)
            case "try":
                breaker.try_again()
            case _:
                clock.now += 0.7
        if breaker.state is BreakerState.OPEN:
            assert breaker.trial_in_seconds <= POLICY.max_open_seconds
