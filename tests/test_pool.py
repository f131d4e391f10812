"""Pools: parsing of upstreams, who may be taken, leases, ejection, panic, drain, reload."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.balancing import Balancing
from addons.health import Check, HealthPolicy, Outcome, Reason, State
from addons.pool import Pool, PoolPolicy, UnknownWorkerError, Worker, parse_workers
from classifier.contracts import Label


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Notes:
    """A watcher that writes down what it is told."""

    def __init__(self):
        self.suspicions = []
        self.changes = []
        self.freed_labels = []

    def suspected(self, worker, why):
        self.suspicions.append((worker.port, why))

    def changed(self, pool, state, why):
        self.changes.append((state.worker.port, state.health.state, why))

    def freed(self, label):
        self.freed_labels.append(label)


def workers_of(count, weight=1):
    return [Worker("http", "w", 9000 + index, weight) for index in range(count)]


def pool_of(count: int, **options) -> Pool:
    return Pool(Label.GENERAL, workers_of(count), **options)


def ports(pool, count=12):
    """Whom so many requests one after the other get."""
    taken = []
    for _ in range(count):
        lease = pool.lease()
        taken.append(lease.worker.port)
        lease.release()
    return taken


def answer(pool, port, outcome, times=1):
    """Requests to one worker that end like this."""
    others = [worker for worker in pool.workers if worker.port != port]
    for _ in range(times):
        pool.lease(others).release(outcome)


def take_down(pool, port, check=Check.FAILED):
    worker = next(worker for worker in pool.workers if worker.port == port)
    pool.take_check(worker, check, Reason.RESPONSE_FAILED)


def bring_up(pool, port):
    worker = next(worker for worker in pool.workers if worker.port == port)
    for _ in range(pool.policy.health.rise):
        pool.take_check(worker, Check.PASSED, Reason.HEALTH_CHECK)


def states(pool):
    return [state.health.state.value for state in pool.states]


@given(st.integers(1, 7), st.integers(0, 60))
def test_round_robin_gives_each_worker_its_turn(workers, requests) -> None:
    pool = pool_of(workers)

    ports = [pool.lease().worker.port for _ in range(requests)]

    assert ports == [9000 + turn % workers for turn in range(requests)]


def test_a_heavier_worker_gets_more() -> None:
    pool = Pool(Label.GENERAL, parse_workers("http://a:1;weight=3,http://b:2"))

    assert Counter(ports(pool, 40)) == {1: 30, 2: 10}


@given(
    st.sampled_from(Balancing),
    st.integers(0, 3),
    st.lists(st.sampled_from([None, *Outcome]), max_size=40),
)
def test_inflight_counts_the_leases_that_are_out_and_never_exceeds_the_cap(
    balancing, cap, actions
) -> None:
    policy = PoolPolicy(balancing=balancing, max_inflight=cap)
    pool, held = pool_of(3, policy=policy, rng=random.Random(1)), []
    for outcome in actions:
        if outcome is None or not held:
            if (lease := pool.lease()) is not None:
                held.append(lease)
            else:
                assert pool.is_crowded()
        else:
            held.pop(0).release(outcome)
        assert sum(state.inflight for state in pool.states) == len(held)
        assert not cap or all(state.inflight <= cap for state in pool.states)


def test_a_lease_is_given_back_once() -> None:
    notes = Notes()
    pool = pool_of(1, watcher=notes)
    lease = pool.lease()

    lease.release(Outcome.RESPONSE_FAILED)
    lease.release(Outcome.RESPONSE_FAILED)

    state = pool.states[0]
    assert (state.inflight, state.requests, state.errors) == (0, 1, 1)
    assert notes.freed_labels == [Label.GENERAL]


@pytest.mark.parametrize(
    ("outcome", "why"),
    [
        (Outcome.CONNECT_FAILED, Reason.CONNECT_FAILED),
        (Outcome.RESPONSE_FAILED, Reason.RESPONSE_FAILED),
    ],
)
def test_a_failed_try_asks_for_a_verifying_probe_and_ejects_nobody(outcome, why) -> None:
    notes = Notes()
    pool = pool_of(2, watcher=notes)

    answer(pool, 9000, outcome, times=4)

    assert notes.suspicions == [(9000, why)] * 4
    assert notes.changes == []
    assert pool.in_turn == 2


def test_a_pool_shows_who_is_busy() -> None:
    pool = pool_of(2)
    pool.lease()

    assert repr(pool) == "<Pool general [w:9000: 1, w:9001: 0]>"


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.SERVER_ERROR, Outcome.ABANDONED])
def test_other_ends_are_no_suspicion(outcome) -> None:
    notes = Notes()
    pool = pool_of(2, watcher=notes)

    answer(pool, 9000, outcome)

    assert notes.suspicions == []
    assert pool.states[0].errors == 0


def test_a_worker_that_is_down_gets_nothing() -> None:
    pool = pool_of(3)

    take_down(pool, 9001)

    assert Counter(ports(pool)) == {9000: 6, 9002: 6}


def test_excluded_workers_are_not_taken() -> None:
    pool = pool_of(2)

    lease = pool.lease(exclude=pool.workers[:1])

    assert lease.worker == pool.workers[1]
    assert pool.lease(exclude=pool.workers) is None
    assert not pool.is_crowded(exclude=pool.workers)


def test_five_server_errors_in_a_row_eject_a_worker_for_ten_seconds() -> None:
    clock, notes = Clock(), Notes()
    pool = pool_of(3, clock=clock, watcher=notes)

    answer(pool, 9000, Outcome.SERVER_ERROR, times=4)
    assert states(pool) == ["up"] * 3
    answer(pool, 9000, Outcome.SERVER_ERROR)

    assert states(pool) == ["ejected", "up", "up"]
    assert notes.changes == [(9000, State.EJECTED, Reason.SERVER_ERRORS)]
    clock.now += 9.9
    assert 9000 not in ports(pool)
    clock.now += 0.2
    assert 9000 in ports(pool, 30)
    assert notes.changes[1:] == [(9000, State.UP, None)]


def test_answers_that_come_after_the_ejection_do_not_lengthen_it() -> None:
    clock = Clock()
    pool = pool_of(3, clock=clock)
    held = [pool.lease(pool.workers[1:]) for _ in range(20)]

    for lease in held:
        lease.release(Outcome.SERVER_ERROR)

    assert pool.views()[0].ejected_seconds == 10
    assert pool.states[0].health.ejections == 1


def test_a_worker_that_hangs_up_on_requests_and_passes_its_checks_is_ejected() -> None:
    notes = Notes()
    pool = pool_of(3, watcher=notes)

    for times, expected in ((4, "up"), (1, "ejected")):
        answer(pool, 9000, Outcome.RESPONSE_FAILED, times)
        for _ in range(2):
            pool.take_check(pool.workers[0], Check.PASSED, Reason.RESPONSE_FAILED)
        assert states(pool) == [expected, "up", "up"]

    assert notes.changes == [(9000, State.EJECTED, Reason.RESPONSE_FAILED)]


def test_answers_that_fail_at_most_workers_eject_nobody() -> None:
    pool = pool_of(3)

    for _ in range(30):
        pool.lease().release(Outcome.RESPONSE_FAILED)

    assert states(pool) == ["up"] * 3


@given(st.integers(1, 7), st.randoms(use_true_random=False))
def test_at_most_half_of_a_pool_is_ejected(count, rng) -> None:
    pool = pool_of(count, clock=Clock())

    for _ in range(count * 40):
        pool.lease([rng.choice(pool.workers)] if count > 1 else ()).release(Outcome.SERVER_ERROR)

    assert states(pool).count("ejected") == count // 2


def test_the_last_worker_in_turn_is_not_ejected() -> None:
    pool = pool_of(4)
    for port in (9001, 9002, 9003):
        take_down(pool, port)

    answer(pool, 9000, Outcome.SERVER_ERROR, times=20)

    assert states(pool) == ["up", "down", "down", "down"]


def test_when_one_comes_back_another_that_still_fails_can_be_ejected() -> None:
    clock = Clock()
    pool = pool_of(3, clock=clock)
    for port in (9000, 9001):
        answer(pool, port, Outcome.SERVER_ERROR, times=5)
    assert states(pool) == ["ejected", "up", "up"]

    clock.now += 10
    answer(pool, 9001, Outcome.SERVER_ERROR)

    assert states(pool) == ["up", "ejected", "up"]


def test_a_pool_without_healthy_workers_uses_those_that_can_be_reached() -> None:
    pool = pool_of(3)
    take_down(pool, 9000, Check.FAILED)
    take_down(pool, 9001, Check.UNREACHABLE)
    assert not pool.in_panic
    take_down(pool, 9002, Check.FAILED)

    assert pool.in_panic
    assert Counter(ports(pool)) == {9000: 6, 9002: 6}


def test_a_pool_of_which_too_few_are_healthy_uses_all_that_can_be_reached() -> None:
    pool = pool_of(4)
    for port, check in ((9000, Check.FAILED), (9001, Check.UNREACHABLE)):
        take_down(pool, port, check)
    assert not pool.in_panic
    assert set(ports(pool)) == {9002, 9003}

    take_down(pool, 9002, Check.FAILED)

    assert pool.in_panic
    assert Counter(ports(pool)) == {9000: 4, 9002: 4, 9003: 4}
    bring_up(pool, 9002)
    assert not pool.in_panic
    assert set(ports(pool)) == {9002, 9003}


def test_one_of_three_workers_is_not_too_few() -> None:
    pool = pool_of(3)
    for port in (9000, 9001):
        take_down(pool, port)

    assert set(ports(pool)) == {9002}


def test_where_the_threshold_is_off_one_healthy_worker_is_enough() -> None:
    pool = pool_of(4, policy=PoolPolicy(panic_percent=0))
    for port in (9000, 9001, 9002):
        take_down(pool, port)

    assert not pool.in_panic
    assert set(ports(pool)) == {9003}


def test_workers_that_drain_do_not_count_as_ailing() -> None:
    pool = pool_of(5)
    for port in (9000, 9001, 9002):
        pool.drain(f"w:{port}")

    take_down(pool, 9003)

    assert not pool.in_panic
    assert set(ports(pool)) == {9004}


def test_a_worker_that_starts_slowly_does_so_though_most_others_are_dead() -> None:
    clock = Clock()
    pool = pool_of(10, clock=clock)
    for port in range(9001, 9010):
        take_down(pool, port, Check.UNREACHABLE)

    bring_up(pool, 9001)

    assert Counter(ports(pool, 110)) == {9000: 100, 9001: 10}


def test_a_pool_of_which_nothing_can_be_reached_is_down() -> None:
    pool = pool_of(2)
    for port in (9000, 9001):
        take_down(pool, port, Check.UNREACHABLE)

    assert pool.lease() is None
    assert not pool.is_crowded()
    assert not pool.in_panic


def test_panic_ends_with_the_first_worker_that_is_healthy() -> None:
    pool = pool_of(2)
    for port in (9000, 9001):
        take_down(pool, port)

    bring_up(pool, 9001)

    assert not pool.in_panic
    assert set(ports(pool)) == {9001}


def test_a_draining_worker_gets_nothing_new_not_even_in_panic() -> None:
    pool = pool_of(2)
    held = pool.lease()

    pool.drain("w:9000")

    assert set(ports(pool)) == {9001}
    assert held.state.inflight == 1
    take_down(pool, 9001)
    assert set(ports(pool)) == {9001}
    pool.drain("w:9001")
    assert pool.lease() is None
    assert not pool.in_panic


def test_a_worker_can_be_taken_back_from_its_drain() -> None:
    notes = Notes()
    pool = pool_of(2, watcher=notes)
    pool.drain("w:9000")

    pool.undrain("w:9000")

    assert set(ports(pool)) == {9000, 9001}
    assert Label.GENERAL in notes.freed_labels


@pytest.mark.parametrize("act", [Pool.drain, Pool.undrain])
def test_only_workers_of_the_pool_can_be_drained(act) -> None:
    with pytest.raises(
        UnknownWorkerError, match="no worker 'w:1' in pool general; there are w:9000"
    ):
        act(pool_of(1), "w:1")


def test_a_full_worker_is_passed_over_and_a_full_pool_is_crowded() -> None:
    pool = pool_of(2, policy=PoolPolicy(max_inflight=1))
    first, second = pool.lease(), pool.lease()

    assert {first.worker.port, second.worker.port} == {9000, 9001}
    assert pool.lease() is None
    assert pool.is_crowded()
    second.release()
    assert pool.lease().worker == second.worker


def test_fullness_is_no_reason_for_panic() -> None:
    pool = pool_of(2, policy=PoolPolicy(max_inflight=1))
    take_down(pool, 9001)

    assert pool.lease().worker.port == 9000
    assert pool.lease() is None
    assert not pool.in_panic


def test_a_readmitted_worker_starts_with_a_tenth_and_has_its_share_after_ten_seconds() -> None:
    clock = Clock()
    pool = pool_of(2, clock=clock)
    take_down(pool, 9001)
    bring_up(pool, 9001)

    assert Counter(ports(pool, 110))[9001] == 10
    clock.now += 5
    assert Counter(ports(pool, 310))[9001] == pytest.approx(110, abs=2)
    clock.now += 5
    assert Counter(ports(pool, 100))[9001] == pytest.approx(50, abs=1)


def test_a_worker_is_seen_in_slow_start() -> None:
    clock = Clock()
    pool = Pool(Label.GENERAL, workers_of(2, weight=4), clock=clock)
    take_down(pool, 9001)
    bring_up(pool, 9001)

    views = pool.views()

    assert [(one.slow_start, one.share) for one in views] == [(False, 4), (True, 0.4)]
    clock.now += 10
    # Looking at it must not keep it from its full share.
    assert not pool.views()[1].slow_start
    assert Counter(ports(pool, 100))[9001] == 50


def test_regular_checks_change_a_state_only_when_enough_of_them_agree() -> None:
    notes = Notes()
    pool = pool_of(2, watcher=notes, policy=PoolPolicy(health=HealthPolicy(rise=3, fall=2)))
    for check in (Check.FAILED, Check.FAILED, Check.FAILED, *[Check.PASSED] * 4):
        pool.take_check(pool.workers[0], check, Reason.HEALTH_CHECK)

    assert notes.changes == [
        (9000, State.DOWN, Reason.HEALTH_CHECK),
        (9000, State.UP, None),
    ]


def test_the_check_of_a_stranger_changes_nothing() -> None:
    pool = pool_of(1)

    pool.take_check(Worker("http", "elsewhere", 9000), Check.FAILED, Reason.CONNECT_FAILED)

    assert states(pool) == ["up"]


def test_a_worker_that_stays_keeps_its_state_even_with_another_weight() -> None:
    before = pool_of(3)
    take_down(before, 9000)
    before.drain("w:9001")
    lease = before.lease()

    after = Pool(
        Label.GENERAL,
        parse_workers("http://w:9001;weight=7,http://w:9000;weight=2,http://w:9002,http://w:9009"),
        before=before,
    )

    assert [one.weight for one in after.views()] == [7, 2, 1, 1]
    assert [one.health.value for one in after.views()] == ["up", "down", "up", "up"]
    assert [one.draining for one in after.views()] == [True, False, False, False]
    assert after.states[2].inflight == 1
    lease.release()
    assert after.states[2].inflight == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("http://w:1;weight=1000,http://w:2", "http://w:1,http://w:2"),
        ("http://w:1,http://w:2,http://w:3;weight=1000", "http://w:1,http://w:2"),
    ],
)
def test_turns_of_other_weights_let_no_worker_starve(old, new) -> None:
    before = Pool(Label.GENERAL, parse_workers(old))
    for _ in range(501):
        before.lease()

    after = Pool(Label.GENERAL, parse_workers(new), before=before)

    assert Counter(ports(after, 10)) == {1: 5, 2: 5}


def test_turns_outlive_a_change_of_anything_else() -> None:
    before = pool_of(2)
    first = before.lease()

    after = Pool(Label.GENERAL, before.workers, before=before)

    assert after.lease().worker != first.worker


@pytest.mark.parametrize("outcome", [Outcome.SERVER_ERROR, Outcome.RESPONSE_FAILED])
def test_answers_to_requests_from_before_a_change_count_by_the_new_rules(outcome) -> None:
    clock, notes = Clock(), Notes()
    before = pool_of(3, clock=clock)
    held = [before.lease(before.workers[1:]) for _ in range(5)]
    lost = [before.lease(before.workers[:2]) for _ in range(5)]
    between = Pool(Label.GENERAL, before.workers, before=before, clock=clock)
    policy = PoolPolicy(health=HealthPolicy(eject_after_errors=5, eject_seconds=77))
    kept = before.workers[:2]
    after = Pool(Label.GENERAL, kept, policy=policy, before=between, clock=clock, watcher=notes)

    for lease in (*lost, *held):
        lease.release(outcome)

    assert after.views()[0].ejected_seconds == 77
    assert notes.changes == [(9000, State.EJECTED, Reason(after_reason(outcome)))]


def after_reason(outcome):
    return "server_errors" if outcome is Outcome.SERVER_ERROR else "response_failed"


def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="no worker"):
        Pool(Label.GENERAL, [])


@pytest.mark.parametrize(
    ("upstream", "worker"),
    [
        ("http://localhost:9001", Worker("http", "localhost", 9001)),
        (" http://10.0.0.1:80/ ", Worker("http", "10.0.0.1", 80)),
        ("http://localhost:9001;weight=1000", Worker("http", "localhost", 9001, 1000)),
        ("http://localhost:9001/ ; weight=3 ", Worker("http", "localhost", 9001, 3)),
        ("https://workers.example.com", Worker("https", "workers.example.com", 443)),
        ("http://[::1]:9001", Worker("http", "::1", 9001)),
    ],
)
def test_an_upstream_is_scheme_host_and_port(upstream, worker) -> None:
    parsed = parse_workers(upstream)

    assert parsed == (worker,)
    assert parsed[0].weight == worker.weight


@pytest.mark.parametrize(
    "parameter", ["", "weight", "weight=", "weight=0", "weight=1001", "weight=-1", "weight=1.5"]
)
def test_a_weight_is_a_whole_number_from_one_to_a_thousand(parameter) -> None:
    with pytest.raises(ValueError, match="no usable weight; write 1 to 1000, like http://"):
        parse_workers(f"http://a:1;{parameter}")


def test_a_weight_is_no_part_of_what_a_worker_is() -> None:
    assert Worker("http", "a", 1, 5) == Worker("http", "a", 1)
    with pytest.raises(ValueError, match="named twice"):
        parse_workers("http://a:1;weight=2,http://a:1;weight=3")


def test_the_name_of_an_ipv6_worker_has_brackets() -> None:
    assert Worker("http", "::1", 9001).url == "http://[::1]:9001"


@pytest.mark.parametrize(
    "upstream",
    [
        *("localhost:9001", "ftp://a:1", "http://", "http://a:0", "http://a:99999", "http://a:b"),
        *("http://a/path", "http://a?x", "http://user@a:1", "http://a b:1", "//a:1", "http://[::1"),
    ],
)
def test_anything_else_is_refused_with_an_example(upstream) -> None:
    with pytest.raises(ValueError, match="write scheme, host and port, like http://"):
        parse_workers(upstream)


@pytest.mark.parametrize("upstreams", ["", " , ,"])
def test_an_empty_pool_is_refused(upstreams) -> None:
    with pytest.raises(ValueError, match="the pool is empty"):
        parse_workers(upstreams)


def test_a_worker_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="named twice"):
        parse_workers("http://a:1,http://b:1,http://a:1/")


def test_two_workers_of_one_name_are_refused_whatever_their_scheme() -> None:
    with pytest.raises(ValueError, match="a:1 is named twice"):
        parse_workers("http://a:1,https://a:1")
