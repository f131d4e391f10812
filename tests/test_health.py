"""Health of one worker: transitions, hysteresis, ejection times, slow start."""

from typing import override

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from addons.health import (
    TRANSITIONS,
    Check,
    Event,
    Health,
    HealthPolicy,
    Outcome,
    Reason,
    State,
)

POLICY = HealthPolicy(rise=2, fall=3, eject_after_errors=5, eject_seconds=10, eject_max_seconds=60)
REGULAR, VERIFYING = Reason.HEALTH_CHECK, Reason.RESPONSE_FAILED


def down() -> Health:
    health = Health()
    assert health.take_check(Check.UNREACHABLE, VERIFYING, POLICY, 0)
    return health


def test_no_transition_leads_to_where_it_began() -> None:
    assert all(before is not after for (before, _), after in TRANSITIONS.items())


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_left_and_entered(state) -> None:
    assert state in TRANSITIONS.values()
    assert state in {before for before, _ in TRANSITIONS}


@pytest.mark.parametrize("event", Event)
def test_every_event_changes_some_state(event) -> None:
    assert event in {known for _, known in TRANSITIONS}


def test_a_worker_goes_down_after_failed_checks_in_a_row() -> None:
    health = Health()
    found = [Check.FAILED, Check.FAILED, Check.PASSED, *[Check.FAILED] * 4]

    changes = [health.take_check(check, REGULAR, POLICY, 0) for check in found]

    assert changes == [False, False, False, False, False, True, False]
    assert health.state is State.DOWN


def test_a_worker_comes_up_after_passed_checks_in_a_row() -> None:
    health = down()
    found = [Check.PASSED, Check.FAILED, Check.PASSED, Check.PASSED]

    changes = [health.take_check(check, REGULAR, POLICY, 0) for check in found]

    assert changes == [False, False, False, True]
    assert health.state is State.UP


@pytest.mark.parametrize("check", [Check.FAILED, Check.UNREACHABLE])
def test_one_verifying_check_that_fails_is_enough(check) -> None:
    health = Health()

    assert health.take_check(check, VERIFYING, POLICY, 0)
    assert health.state is State.DOWN


def test_verifying_checks_that_pass_change_nothing() -> None:
    up, not_up = Health(), down()

    assert not any(up.take_check(Check.PASSED, VERIFYING, POLICY, 0) for _ in range(100))
    assert not any(not_up.take_check(Check.PASSED, VERIFYING, POLICY, 0) for _ in range(100))
    assert (up.state, not_up.state) == (State.UP, State.DOWN)


def test_a_worker_is_reachable_unless_the_last_attempt_could_not_connect() -> None:
    health = Health()
    for step, reachable in (
        (Outcome.CONNECT_FAILED, False),
        (Outcome.RESPONSE_FAILED, False),
        (Outcome.ABANDONED, False),
        (Outcome.OK, True),
        (Check.UNREACHABLE, False),
        (Check.FAILED, True),
    ):
        if isinstance(step, Outcome):
            health.take_outcome(step)
        else:
            health.take_check(step, REGULAR, POLICY, 0)
        assert health.reachable is reachable, step


@given(st.lists(st.sampled_from(Outcome), max_size=30))
def test_an_outlier_is_who_has_answered_badly_five_times_without_a_good_answer(outcomes) -> None:
    health, row, failed = Health(), 0, 0
    for outcome in outcomes:
        health.take_outcome(outcome)
        row = 0 if outcome is Outcome.OK else row + (outcome is Outcome.SERVER_ERROR)
        answered = outcome in {Outcome.OK, Outcome.SERVER_ERROR}
        failed = 0 if answered else failed + (outcome is Outcome.RESPONSE_FAILED)
        assert health.is_outlier(POLICY) is (row >= 5 or failed >= 5)


def test_nobody_is_an_outlier_where_ejection_is_off() -> None:
    health = Health(errors_in_row=100)

    assert not health.is_outlier(HealthPolicy(eject_after_errors=0))


def test_each_ejection_is_twice_as_long_up_to_the_longest() -> None:
    health, now, lengths = Health(), 1_000.0, []
    for _ in range(5):
        lengths.append(health.eject(POLICY, now))
        assert not health.settle(POLICY, health.ejected_until - 0.001)
        now = health.ejected_until
        assert health.settle(POLICY, now)

    assert lengths == [10, 20, 40, 60, 60]


@pytest.mark.parametrize(("healthy_seconds", "length"), [(59, 40), (60, 20), (120, 10), (1e9, 10)])
def test_ejections_are_forgiven_one_by_one(healthy_seconds, length) -> None:
    health = Health()
    for _ in range(2):
        health.eject(POLICY, health.ejected_until)
        health.settle(POLICY, health.ejected_until)

    assert health.eject(POLICY, health.ejected_until + healthy_seconds) == length


def test_a_worker_that_was_down_is_not_ejected_any_more() -> None:
    health = Health()
    health.eject(POLICY, 0)
    health.take_check(Check.UNREACHABLE, VERIFYING, POLICY, 1)

    changes = [health.take_check(Check.PASSED, REGULAR, POLICY, 2) for _ in range(2)]

    assert changes == [False, True]
    assert health.state is State.UP
    assert health.ejections == 1
    assert health.eject(POLICY, 3) == 20


def test_checks_alone_do_not_end_an_ejection() -> None:
    health = Health()
    health.eject(POLICY, 0)

    assert not any(health.take_check(Check.PASSED, REGULAR, POLICY, 1) for _ in range(9))
    assert health.state is State.EJECTED


@pytest.mark.parametrize(
    ("after", "share"), [(0, 0.1), (2.5, 0.325), (5, 0.55), (10, 1), (1_000, 1)]
)
def test_a_readmitted_worker_starts_slowly(after, share) -> None:
    health = down()
    for _ in range(2):
        health.take_check(Check.PASSED, REGULAR, POLICY, 100)

    assert health.ramp(POLICY, 100 + after) == pytest.approx(share)


def test_slow_start_counts_from_the_end_of_an_ejection_not_from_when_it_was_seen() -> None:
    health = Health()
    health.eject(POLICY, 0)

    health.settle(POLICY, 15)

    assert health.ramp(POLICY, 15) == pytest.approx(0.55)


def test_a_worker_starts_at_full_share_before_anything_is_known_of_it() -> None:
    assert Health().ramp(POLICY, 0) == 1


def test_there_is_no_slow_start_where_it_is_off() -> None:
    policy = HealthPolicy(slow_start_seconds=0)
    health = Health()
    health.eject(policy, 0)
    health.settle(policy, 10)

    assert health.ramp(policy, 10) == 1


class AnyLife(RuleBasedStateMachine):
    """Whatever happens to a worker, in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health()
        self.now = 0.0

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds) -> None:
        self.now += seconds
        self.health.settle(POLICY, self.now)

    @rule(check=st.sampled_from(Check), why=st.sampled_from(Reason))
    def check(self, check, why) -> None:
        before = self.health.state
        changed = self.health.take_check(check, why, POLICY, self.now)
        assert changed is (before is not self.health.state)

    @rule(outcome=st.sampled_from(Outcome), times=st.integers(1, 6))
    def answer(self, outcome, times) -> None:
        before = self.health.state
        for _ in range(times):
            self.health.take_outcome(outcome)
        assert self.health.state is before
        if self.health.is_outlier(POLICY):
            assert 10 <= self.health.eject(POLICY, self.now) <= 60

    @invariant()
    def an_ejected_worker_has_time_left(self) -> None:
        assert self.health.state is not State.EJECTED or self.health.ejected_until > self.now

    @invariant()
    def shares_lie_between_a_tenth_and_one(self) -> None:
        assert 0.1 <= self.health.ramp(POLICY, self.now) <= 1

    @override
    def teardown(self) -> None:
        """Whatever has happened: a worker that passes its checks comes back."""
        self.now += 60
        self.health.settle(POLICY, self.now)
        for _ in range(2):
            self.health.take_check(Check.PASSED, REGULAR, POLICY, self.now)
        assert self.health.state is State.UP


TestAnyLife = AnyLife.TestCase
