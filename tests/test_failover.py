"""Workers fail in front of real clients: the rows of the acceptance table, with real processes.

Each test prints its figures (`pytest -s`). The bounds are the table's.
"""

import pytest

from tests import scenarios
from tests.targets import FIRST_BYTE_MS, LABEL, SPILL_NAME, our_proxy

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = FIRST_BYTE_MS / 1000


@pytest.fixture
def figures():
    """Prints what a scenario found, and hands it on."""

    def show(result):
        print(result)
        return result

    return show


@pytest.fixture
def target(tmp_path):
    with our_proxy(tmp_path) as ours:
        yield ours.target


async def test_no_get_fails_when_a_worker_is_killed(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    killed = figures(await scenarios.kill_one(target, "GET"))

    assert (killed.errors, killed.disconnects) == (0, 0), killed
    assert killed.late_attempts == 0, killed
    # Some were under way on it, or nothing was proven.
    assert killed.in_flight > 0, killed


async def test_only_posts_in_flight_on_a_killed_worker_fail_and_none_is_done_twice(
    target, figures
) -> None:
    assert await scenarios.all_in_use(target)

    killed = figures(await scenarios.kill_one(target, "POST"))

    assert 0 < killed.errors <= killed.in_flight, killed
    assert killed.unrelated_errors == 0, killed
    assert killed.most_executions == 1, killed
    assert (killed.disconnects, killed.late_attempts) == (0, 0), killed


async def test_a_post_with_an_idempotency_key_survives_the_kill_of_its_worker(
    target, figures
) -> None:
    assert await scenarios.all_in_use(target)

    killed = figures(await scenarios.kill_one(target, "POST with Idempotency-Key"))

    assert (killed.errors, killed.disconnects) == (0, 0), killed
    assert killed.most_executions <= 2, killed
    assert killed.in_flight > 0, killed


@pytest.mark.slow
async def test_a_restarted_worker_is_back_soon_and_starts_slowly(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    restarted = figures(await scenarios.restart_one(target))

    assert restarted.errors == 0, restarted
    assert restarted.back_seconds <= 2.0, restarted
    assert restarted.early_share < 0.25, restarted
    assert restarted.late_share >= 0.3, restarted


async def test_a_worker_that_cannot_be_connected_to_delays_nobody_for_long(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    dropped = figures(await scenarios.drop_syns(target))

    assert (dropped.errors, dropped.disconnects) == (0, 0), dropped
    assert dropped.slowest_seconds <= 0.3, dropped
    assert dropped.last_delay_seconds <= 1.0, dropped


async def test_no_get_fails_when_a_worker_freezes_and_it_is_used_again_once_it_thaws(
    target, figures
) -> None:
    assert await scenarios.all_in_use(target)

    frozen = figures(await scenarios.freeze_one(target, "GET", frozen_seconds=3.0))

    assert (frozen.errors, frozen.disconnects) == (0, 0), frozen
    # The first that meets the deadline asks for a probe, and that has a deadline of a second.
    assert frozen.last_stuck_seconds <= DEADLINE_SECONDS + 1.2, frozen
    assert frozen.back_seconds <= 3.0, frozen


async def test_a_post_to_a_frozen_worker_is_a_504_at_the_deadline(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    frozen = figures(await scenarios.freeze_one(target, "POST", frozen_seconds=3.0))

    assert set(frozen.kinds) == {"504 gateway_timeout"}, frozen
    for seconds in frozen.error_seconds:
        assert seconds == pytest.approx(DEADLINE_SECONDS, abs=0.2), frozen
    assert frozen.disconnects == 0, frozen
    assert frozen.most_executions == 1, frozen
    assert frozen.back_seconds <= 3.0, frozen


async def test_a_worker_that_always_answers_500_is_ejected_after_five(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    failing = figures(await scenarios.always_500(target, bad=1))

    assert failing.asked == (5,), failing
    assert failing.changed_bodies == 0, failing
    assert failing.own_errors == 0, failing
    assert failing.without_traffic == ("a",), failing


async def test_of_two_bad_workers_among_three_only_one_is_ejected(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    failing = figures(await scenarios.always_500(target, bad=2))

    assert min(failing.asked) == 5, failing
    assert max(failing.asked) > 20, failing
    assert len(failing.without_traffic) == 1, failing
    assert (failing.changed_bodies, failing.own_errors) == (0, 0), failing


async def test_a_pool_without_workers_is_an_honest_503_and_recovers_by_itself(
    target, figures
) -> None:
    assert await scenarios.all_in_use(target)

    lost = figures(await scenarios.lose_pool(target))

    assert lost.slowest_seconds <= 0.3, lost
    assert set(lost.settled_kinds) == {"503 no_worker"}, lost
    assert lost.without_retry_after == 0, lost
    assert lost.recovery_seconds <= 2.0, lost
    assert (lost.errors_after, lost.disconnects) == (0, 0), lost


async def test_the_requests_of_a_dead_pool_spill_to_the_configured_one(tmp_path, figures) -> None:
    with our_proxy(tmp_path, **{f"{LABEL.upper()}_SPILL_POOL": "fast-path"}) as ours:
        assert await scenarios.all_in_use(ours.target)

        lost = figures(await scenarios.lose_pool(ours.target))

    assert lost.slowest_seconds <= 0.3, lost
    assert set(lost.settled_kinds) == {"200"}, lost
    assert set(lost.settled_workers) == {SPILL_NAME}, lost
    assert lost.recovery_seconds <= 2.0, lost
    assert (lost.errors_after, lost.disconnects) == (0, 0), lost


async def test_workers_that_only_fail_their_checks_go_on_serving(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    served = figures(await scenarios.fail_all_checks(target))

    assert (served.errors, served.disconnects) == (0, 0), served
    assert set(served.workers) == {"a", "b", "c"}, served


@pytest.mark.parametrize("kind", ["GET", "POST"])
async def test_idle_connections_that_workers_close_cost_no_request(target, figures, kind) -> None:
    assert await scenarios.all_in_use(target)

    in_crossing = figures(await scenarios.close_idle_in_crossing(target, kind))
    by_time = figures(await scenarios.close_idle_by_time(target, kind))

    assert (in_crossing.errors, in_crossing.disconnects) == (0, 0), in_crossing
    assert by_time.disconnects == 0, by_time
    # A request that arrives within the very close is lost with a reset that acknowledges nothing:
    # nobody can tell whether it was read, so a POST must not be sent again.
    assert by_time.errors <= (0 if kind == "GET" else by_time.requests / 100), by_time


@pytest.mark.parametrize("kind", ["GET", "POST with Idempotency-Key"])
async def test_a_used_connection_that_is_reset_on_arrival_costs_no_repeatable_request(
    target, figures, kind
) -> None:
    """What arrived may have been read: a plain POST is not sent again, and fails."""
    assert await scenarios.all_in_use(target)

    served = figures(await scenarios.close_on_arrival(target, kind))

    assert (served.errors, served.disconnects) == (0, 0), served


async def test_retries_do_not_multiply_the_load_of_failing_workers(target, figures) -> None:
    assert await scenarios.all_in_use(target)

    amplified = figures(await scenarios.reset_all(target))

    assert amplified.ratio <= 1.25, amplified
    assert set(amplified.kinds) <= {"502 bad_gateway", "503 no_worker"}, amplified


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_makes_workers_hang_up_empties_no_pool(
    target, figures, method
) -> None:
    assert await scenarios.all_in_use(target)

    poisoned = figures(await scenarios.poison(target, method))

    assert (poisoned.errors, poisoned.disconnects) == (0, 0), poisoned
    assert poisoned.most_without_traffic <= 1, poisoned
    assert poisoned.most_attempts <= (2 if method == "GET" else 1), poisoned
    assert set(poisoned.poison_kinds) <= {"502 bad_gateway", "503 no_worker"}, poisoned
