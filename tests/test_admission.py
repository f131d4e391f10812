"""Admission: the queue before a full pool, spilling to another, and honest refusals."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.admission import POOL_FULL, Admission, AdmissionPolicy
from addons.health import Check, Outcome, Reason
from addons.pool import Lease, Pool, PoolPolicy, Worker
from addons.routing import NO_WORKER
from classifier.contracts import LABELS, Label

FAST, GENERAL, HEAVY = Label.FAST_PATH, Label.GENERAL, Label.HIGH_COMPUTE
PATIENT = AdmissionPolicy(queue_requests=100, queue_seconds=10)


class Door:
    """Pools with one worker each, which serves one request at a time, and the door to them."""

    def __init__(self, policy=PATIENT, workers=1, max_inflight=1):
        self.spills = []
        self.admission = Admission(self)
        self.open(policy, workers, max_inflight)

    def open(self, policy=PATIENT, workers=1, max_inflight=1):
        before = getattr(self, "pools", {})
        self.pools = {
            label: Pool(
                label,
                [Worker("http", label, 1 + number) for number in range(workers)],
                policy=PoolPolicy(max_inflight=max_inflight),
                before=before.get(label),
                watcher=self,
            )
            for label in LABELS
        }
        self.admission.take_over(self.pools, policy)

    def take_down(self, label, check=Check.UNREACHABLE):
        for worker in self.pools[label].workers:
            self.pools[label].take_check(worker, check, Reason.CONNECT_FAILED)

    # Observer and watcher

    def spilled(self, origin, target):
        self.spills.append((origin, target))

    def suspected(self, worker, why):
        pass

    def changed(self, pool, state, why):
        self.admission.wake(pool.label)

    def freed(self, label):
        self.admission.wake(label)


async def standing(door, label, count=1):
    """So many requests that wait for the label's pool, in line."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.ensure_future(door.admission.lease(label)))
        await asyncio.sleep(0)
    return tasks


async def test_a_free_worker_is_taken_without_waiting() -> None:
    door = Door()

    lease = await door.admission.lease(GENERAL)

    assert isinstance(lease, Lease)
    assert lease.pool is door.pools[GENERAL]
    assert door.spills == []


async def test_who_waits_gets_the_worker_in_the_step_that_frees_it() -> None:
    door = Door()
    held = await door.admission.lease(GENERAL)
    (waiting,) = await standing(door, GENERAL)
    assert door.admission.waiting(GENERAL) == 1

    held.release()

    # Nobody can get in between: it has its new request already.
    assert door.pools[GENERAL].states[0].inflight == 1
    assert isinstance(await waiting, Lease)
    assert door.admission.waiting(GENERAL) == 0


async def test_who_came_first_is_served_first() -> None:
    door, served = Door(), []
    held = await door.admission.lease(GENERAL)

    async def ask(number):
        lease = await door.admission.lease(GENERAL)
        served.append(number)
        lease.release()

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(ask(number))
        await asyncio.sleep(0)
        held.release()

    assert served == [0, 1, 2, 3, 4]
    assert door.pools[GENERAL].states[0].inflight == 0


async def test_a_full_queue_refuses_at_once() -> None:
    door = Door(AdmissionPolicy(queue_requests=2, queue_seconds=10))
    await door.admission.lease(GENERAL)
    waiting = await standing(door, GENERAL, 2)

    async with asyncio.timeout(0.2):
        assert await door.admission.lease(GENERAL) == POOL_FULL

    assert POOL_FULL.retry_after_seconds is not None
    for task in waiting:
        task.cancel()


async def test_without_a_queue_a_full_pool_refuses_at_once() -> None:
    door = Door(AdmissionPolicy(queue_requests=0))
    await door.admission.lease(GENERAL)

    assert await door.admission.lease(GENERAL) == POOL_FULL


async def test_who_has_waited_long_enough_is_refused() -> None:
    door = Door(AdmissionPolicy(queue_seconds=0.02))
    held = await door.admission.lease(GENERAL)

    assert await door.admission.lease(GENERAL) == POOL_FULL

    assert door.admission.waiting(GENERAL) == 0
    held.release()
    assert door.pools[GENERAL].states[0].inflight == 0


async def test_a_cancelled_waiter_leaves_nothing_behind() -> None:
    door = Door()
    held = await door.admission.lease(GENERAL)
    first, second = await standing(door, GENERAL, 2)

    first.cancel()
    held.release()

    assert isinstance(await second, Lease)
    assert first.cancelled()
    assert door.pools[GENERAL].states[0].inflight == 1
    assert door.admission.waiting(GENERAL) == 0


async def test_a_worker_handed_to_a_waiter_that_is_cancelled_goes_to_the_next() -> None:
    door = Door()
    held = await door.admission.lease(GENERAL)
    first, second = await standing(door, GENERAL, 2)

    held.release()
    first.cancel()

    assert isinstance(await second, Lease)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert door.pools[GENERAL].states[0].inflight == 1


async def test_a_worker_freed_just_as_time_runs_out_is_not_lost() -> None:
    door = Door(AdmissionPolicy(queue_seconds=0.001))
    for _ in range(50):
        held = await door.admission.lease(GENERAL)
        (waiting,) = await standing(door, GENERAL)
        await asyncio.sleep(0.001)
        held.release()
        if isinstance(lease := await waiting, Lease):
            lease.release()

    assert door.pools[GENERAL].states[0].inflight == 0


class Crowd:
    """Clients that come, are served, leave, or lose patience."""

    def __init__(self):
        self.door = Door(workers=2)
        self.pool = self.door.pools[GENERAL]
        self.tasks = []

    async def ask(self, _):
        self.tasks += await standing(self.door, GENERAL)

    async def release(self, _):
        served = [task for task in self.tasks if task.done()]
        if served:
            self.tasks.remove(served[0])
            give_back(served[0].result())

    async def cancel(self, number):
        if self.tasks:
            task = self.tasks.pop(number % len(self.tasks))
            if not task.cancel():
                give_back(task.result())

    async def drain(self, number):
        self.pool.drain(f"general:{1 + number % 2}")

    async def undrain(self, number):
        self.pool.undrain(f"general:{1 + number % 2}")

    async def breathe(self, _):
        await asyncio.sleep(0)

    async def go_home(self):
        """Whoever still waits is served once those before have ended."""
        for worker in self.pool.workers:
            self.pool.undrain(worker.name)
        for task in self.tasks:
            async with asyncio.timeout(5):
                give_back(await task)


def give_back(answer):
    if isinstance(answer, Lease):
        answer.release()


@given(st.lists(st.sampled_from([name for name in vars(Crowd) if name[0] != "_"]), max_size=40))
def test_no_worker_and_no_waiter_is_ever_lost(steps) -> None:
    async def live():
        crowd = Crowd()
        for number, step in enumerate(steps):
            if step != "go_home":
                await getattr(crowd, step)(number)
        await crowd.go_home()
        assert [state.inflight for state in crowd.pool.states] == [0, 0]
        assert crowd.door.admission.waiting(GENERAL) == 0

    asyncio.run(live())


async def test_a_worker_that_comes_back_serves_those_who_wait() -> None:
    door = Door(workers=2)
    pool = door.pools[GENERAL]
    pool.drain("general:2")
    await door.admission.lease(GENERAL)
    (waiting,) = await standing(door, GENERAL)

    pool.undrain("general:2")

    assert (await waiting).worker.port == 2


async def test_a_pool_without_workers_spills() -> None:
    door = Door(AdmissionPolicy(spill={FAST: GENERAL}))
    door.take_down(FAST)

    lease = await door.admission.lease(FAST)

    assert lease.pool.label is GENERAL
    assert door.spills == [(FAST, GENERAL)]


async def test_a_full_pool_does_not_spill() -> None:
    door = Door(AdmissionPolicy(spill={FAST: GENERAL}, queue_seconds=0.02))
    await door.admission.lease(FAST)

    assert await door.admission.lease(FAST) == POOL_FULL
    assert door.spills == []


async def test_what_spills_waits_in_the_other_pools_queue() -> None:
    door = Door(AdmissionPolicy(spill={FAST: GENERAL}, queue_seconds=10))
    held = await door.admission.lease(GENERAL)
    door.take_down(FAST)
    (waiting,) = await standing(door, FAST)
    assert door.admission.waiting(GENERAL) == 1

    held.release()

    assert (await waiting).pool.label is GENERAL


async def test_those_who_wait_spill_when_their_pool_goes_down() -> None:
    door = Door(AdmissionPolicy(spill={FAST: GENERAL}, queue_seconds=10))
    await door.admission.lease(FAST)
    (waiting,) = await standing(door, FAST)

    door.take_down(FAST)

    async with asyncio.timeout(1):
        assert (await waiting).pool.label is GENERAL


async def test_spilling_goes_on_to_the_next_pool_and_never_in_circles() -> None:
    spill = {FAST: GENERAL, GENERAL: HEAVY, HEAVY: FAST}
    door = Door(AdmissionPolicy(spill=spill))
    door.take_down(FAST)
    door.take_down(GENERAL)

    lease = await door.admission.lease(FAST)
    assert lease.pool.label is HEAVY
    assert door.spills == [(FAST, HEAVY)]

    lease.release()
    door.take_down(HEAVY)
    assert await door.admission.lease(FAST) == NO_WORKER


async def test_where_nobody_can_be_reached_a_refusal_says_at_once_when_to_come_back() -> None:
    door = Door()
    door.take_down(GENERAL)

    async with asyncio.timeout(0.2):
        refusal = await door.admission.lease(GENERAL)

    assert (refusal.status, refusal.retry_after_seconds) == (503, 1)


async def test_panic_comes_before_spilling() -> None:
    door = Door(AdmissionPolicy(spill={FAST: GENERAL}))
    door.take_down(FAST, Check.FAILED)

    assert (await door.admission.lease(FAST)).pool.label is FAST


async def test_a_second_try_gets_another_worker_of_the_pool() -> None:
    door = Door(workers=2)
    first = await door.admission.lease(GENERAL)

    second = await door.admission.second(first, (first.worker,))

    assert second.worker != first.worker
    assert second.pool is first.pool


async def test_a_second_try_spills() -> None:
    door = Door(AdmissionPolicy(spill={FAST: GENERAL}))
    first = await door.admission.lease(FAST)

    second = await door.admission.second(first, (first.worker,))

    assert second.pool.label is GENERAL
    assert door.spills == [(FAST, GENERAL)]


async def test_a_second_try_waits_for_another_worker_that_is_full() -> None:
    door = Door(workers=2)
    first, other = [await door.admission.lease(GENERAL) for _ in range(2)]
    first.release(Outcome.CONNECT_FAILED)

    waiting = asyncio.ensure_future(door.admission.second(first, (first.worker,)))
    await asyncio.sleep(0)
    assert not waiting.done()
    other.release()

    assert (await waiting).worker == other.worker


async def test_a_second_try_that_has_waited_long_enough_gets_nobody() -> None:
    door = Door(AdmissionPolicy(queue_seconds=0.02), workers=2)
    first, _ = [await door.admission.lease(GENERAL) for _ in range(2)]
    first.release(Outcome.CONNECT_FAILED)

    assert await door.admission.second(first, (first.worker,)) is None


async def test_a_second_try_that_waits_keeps_nobody_from_the_worker_that_failed_it() -> None:
    door = Door(workers=2)
    first, other = [await door.admission.lease(GENERAL) for _ in range(2)]
    (ahead,) = await standing(door, GENERAL)
    second = asyncio.ensure_future(door.admission.second(first, (first.worker,)))
    await asyncio.sleep(0)
    (behind,) = await standing(door, GENERAL)

    first.release()
    again = await ahead
    assert again.worker == first.worker
    again.release()

    assert (await behind).worker == first.worker
    other.release()
    assert (await second).worker == other.worker


async def test_who_waits_over_a_change_spills_to_a_worker_of_the_new_pool() -> None:
    spilling = AdmissionPolicy(queue_requests=9, queue_seconds=10, spill={FAST: GENERAL})
    door = Door(spilling, workers=2)
    for _ in range(2):
        await door.admission.lease(FAST)
    # Of the old general pool only the second worker is free, which the new one has not.
    held = await door.admission.lease(GENERAL)
    (waiting,) = await standing(door, FAST)

    door.open(spilling, workers=1)
    door.take_down(FAST)
    await asyncio.sleep(0)
    held.release()

    lease = await waiting
    assert lease.pool is door.pools[GENERAL]
    assert lease.worker in lease.pool.workers


async def test_after_a_change_those_who_wait_are_served_by_the_new_workers() -> None:
    door = Door()
    await door.admission.lease(GENERAL)
    (waiting,) = await standing(door, GENERAL)

    door.open(workers=2)

    assert (await waiting).worker.port == 2


async def test_a_worker_leased_before_a_change_frees_its_place_after_it() -> None:
    door = Door()
    held = await door.admission.lease(GENERAL)
    (waiting,) = await standing(door, GENERAL)
    door.open()
    assert not waiting.done()

    held.release(Outcome.ABANDONED)

    assert (await waiting).pool is door.pools[GENERAL]


async def test_waking_a_pool_for_which_nobody_waits_takes_nobody() -> None:
    door = Door()

    door.admission.wake(GENERAL)

    assert door.pools[GENERAL].states[0].inflight == 0


async def test_a_worker_whose_ejection_ends_while_others_are_served_loses_nobody() -> None:
    """Taking a worker can itself tell that one is back, in the middle of serving."""
    now = [0.0]
    door = Door(workers=2)
    pools = {
        label: Pool(
            label,
            door.pools[label].workers,
            policy=PoolPolicy(max_inflight=1),
            clock=lambda: now[0],
            watcher=door,
        )
        for label in LABELS
    }
    door.pools = pools
    door.admission.take_over(pools, PATIENT)
    pool = pools[GENERAL]
    for _ in range(5):
        pool.lease(pool.workers[:1]).release(Outcome.SERVER_ERROR)
    held = await door.admission.lease(GENERAL)
    waiting = await standing(door, GENERAL, 3)
    now[0] = 60

    held.release()
    await asyncio.sleep(0)

    assert [task.done() for task in waiting] == [True, True, False]
    assert [state.inflight for state in pool.states] == [1, 1]
    waiting[2].cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting[2]


# Labels of an operator's own

REPORTS, BATCH = Label("reports"), Label("batch")


def pool_for(door, label):
    return Pool(label, [Worker("http", label, 1)], policy=PoolPolicy(max_inflight=1), watcher=door)


def with_reports(door, **policy):
    """The same door with a pool for reports, which also serves batch."""
    door.pools = {**door.pools, REPORTS: pool_for(door, REPORTS)}
    shares = {BATCH: REPORTS}
    door.admission.take_over(door.pools, AdmissionPolicy(shares=shares, **policy))
    return door


async def test_a_label_without_a_pool_of_its_own_shares_that_of_another() -> None:
    door = with_reports(Door())

    held = await door.admission.lease(BATCH)
    waiting = await standing(door, REPORTS)
    held.release()

    assert (await waiting[0]).pool.label == REPORTS
    assert door.spills == []


async def test_an_own_pool_spills_and_who_shares_it_spills_with_it() -> None:
    door = with_reports(Door(), spill={REPORTS: GENERAL})
    door.take_down(REPORTS)

    lease = await door.admission.lease(BATCH)

    assert lease.pool.label == GENERAL
    assert door.spills == [(REPORTS, GENERAL)]
    assert door.admission.routes()[BATCH] == (REPORTS, GENERAL)


async def test_who_waits_for_a_pool_that_goes_is_served_by_general() -> None:
    door = with_reports(Door(), queue_seconds=10)
    held = await door.admission.lease(REPORTS)
    waiting = await standing(door, REPORTS) + await standing(door, BATCH)
    both = [await door.admission.lease(GENERAL)]

    door.pools = {label: pool for label, pool in door.pools.items() if label != REPORTS}
    door.admission.take_over(door.pools, PATIENT)
    await asyncio.sleep(0)
    assert (door.admission.waiting(REPORTS), door.admission.waiting(GENERAL)) == (0, 2)
    for lease in waiting:
        both.pop().release()
        both.append(await lease)
        assert both[0].pool.label == GENERAL

    held.release()
    assert (await standing(door, REPORTS))[0].cancel()


async def test_a_label_that_is_gone_when_its_request_comes_is_served_by_general() -> None:
    lease = await Door().admission.lease(REPORTS)

    assert lease.pool.label == GENERAL


async def test_a_second_try_finds_its_way_when_the_first_pool_is_gone() -> None:
    door = with_reports(Door())
    first = await door.admission.lease(REPORTS)
    door.open()
    first.release(Outcome.CONNECT_FAILED)

    second = await door.admission.second(first, (first.worker,))

    assert second.pool.label == GENERAL
