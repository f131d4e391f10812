"""The fleet: what one part sees reaches the others, with real workers on loopback."""

import asyncio
import contextlib
import time
from collections import Counter

import pytest

from addons.fleet import Fleet
from addons.health import Outcome, Reason
from addons.pool import Lease
from addons.routing import Rejection
from addons.settings import RouterSettings
from classifier.contracts import Label
from tests.processes import free_port
from tests.test_probes import Server, dropping, no_tls, serving, until

FAST, GENERAL, HEAVY = Label.FAST_PATH, Label.GENERAL, Label.HIGH_COMPUTE


class Counts:
    """An observer that counts."""

    def __init__(self):
        self.ejections = Counter()
        self.spills = Counter()

    def ejected(self, pool, reason):
        self.ejections[pool, reason] += 1

    def spilled(self, origin, target):
        self.spills[origin, target] += 1


def settings(general, **others):
    """Settings with these workers in the general pool; the other pools have none that live."""
    nobody = f"http://127.0.0.1:{free_port()}"
    others = {"health_interval_ms": 50, "health_timeout_ms": 200, **others}
    return RouterSettings(
        _env_file=None,
        general_pool=",".join(worker.url for worker in general),
        fast_path_pool=nobody,
        high_compute_pool=nobody,
        **others,
    )


@contextlib.asynccontextmanager
async def running(*workers, **others):
    counts = Counts()
    fleet = Fleet(counts, tls=no_tls)
    fleet.take_over(settings(workers, **others))
    fleet.start()
    try:
        yield fleet, counts
    finally:
        await fleet.aclose()


@contextlib.asynccontextmanager
async def three(**faults):
    """Three workers; a fault replaces one."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [faults.get(name, Server()) for name in ("first", "second", "third")]
        yield [await stack.enter_async_context(serving(server)) for server in servers]


def health(fleet, label=GENERAL):
    return [one.health.value for one in fleet.pools[label].views()]


async def try_one(fleet, port, outcome):
    """A request to one worker that ends like this."""
    pool = fleet.pools[GENERAL]
    lease = pool.lease([worker for worker in pool.workers if worker.port != port])
    assert lease is not None
    lease.release(outcome)


async def test_a_dead_worker_is_out_within_milliseconds_of_the_first_failed_try() -> None:
    async with three() as workers, contextlib.AsyncExitStack() as stack:
        dying = await stack.enter_async_context(serving(Server()))
        named = [*workers[:2], dying]
        async with running(*named, health_interval_ms=60_000) as (fleet, counts):
            await asyncio.sleep(0.05)
            await stack.aclose()
            assert health(fleet) == ["up"] * 3
            began = time.monotonic()

            await try_one(fleet, dying.port, Outcome.CONNECT_FAILED)
            await until(lambda: health(fleet) == ["up", "up", "down"], 0.2)

            assert time.monotonic() - began < 0.1
            assert counts.ejections[GENERAL, Reason.CONNECT_FAILED] == 1


async def test_a_poison_request_takes_nobody_out() -> None:
    async with three() as workers, running(*workers) as (fleet, counts):
        for number in range(100):
            await try_one(fleet, workers[number % 3].port, Outcome.RESPONSE_FAILED)
            await asyncio.sleep(0.003)
            assert health(fleet) == ["up"] * 3

    assert not [key for key in counts.ejections if key[0] is GENERAL]


async def test_a_worker_that_drops_syns_is_out_within_a_second() -> None:
    with dropping() as stuck:
        async with three() as workers, running(*workers[:2], stuck) as (fleet, _):
            began = time.monotonic()
            await try_one(fleet, stuck.port, Outcome.CONNECT_FAILED)

            await until(lambda: health(fleet) == ["up", "up", "down"], 1)

            assert time.monotonic() - began < 0.5
            assert not fleet.pools[GENERAL].views()[2].reachable


async def test_a_worker_that_hangs_fails_its_checks_and_comes_back() -> None:
    server = Server(hangs=True)
    async with three(third=server) as workers, running(*workers) as (fleet, counts):
        await until(lambda: health(fleet) == ["up", "up", "down"], 2)
        assert counts.ejections[GENERAL, Reason.HEALTH_CHECK] == 1
        assert fleet.pools[GENERAL].views()[2].reachable

        server.hangs = False

        await until(lambda: health(fleet) == ["up"] * 3, 2)
        assert fleet.pools[GENERAL].views()[2].slow_start


async def test_a_worker_that_is_started_again_is_back_within_two_seconds_at_the_defaults() -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        workers = await stack.enter_async_context(three())
        late = type(workers[0])("http", "127.0.0.1", port)
        fleet, _ = await stack.enter_async_context(
            running(*workers[:2], late, health_interval_ms=500, health_timeout_ms=1_000)
        )
        await until(lambda: health(fleet) == ["up", "up", "down"])
        began = time.monotonic()
        await stack.enter_async_context(serving(Server(), port))

        await until(lambda: health(fleet) == ["up"] * 3)

        assert time.monotonic() - began < 2


async def test_when_all_checks_fail_requests_still_get_the_workers_that_can_be_reached() -> None:
    bad = b"HTTP/1.1 500 Oops\r\n\r\n"
    async with (
        three(first=Server(bad), second=Server(bad), third=Server(bad)) as workers,
        running(*workers) as (fleet, _),
    ):
        await until(lambda: fleet.pools[GENERAL].in_panic, 2)
        taken = Counter()
        for _ in range(30):
            lease = await fleet.admission.lease(GENERAL)
            taken[lease.worker.port] += 1
            lease.release()
            await asyncio.sleep(0.002)

        assert taken == {worker.port: 10 for worker in workers}


async def test_a_pool_that_is_down_spills_or_refuses_at_once() -> None:
    async with three() as workers, running(*workers) as (fleet, counts):
        await until(lambda: not fleet.pools[FAST].lease(), 2)
        async with asyncio.timeout(0.1):
            spilled = await fleet.admission.lease(FAST)
            refused = await fleet.admission.lease(HEAVY)

        assert spilled.pool.label is GENERAL
        assert counts.spills == {(FAST, GENERAL): 1}
        assert isinstance(refused, Rejection)
        assert (refused.status, refused.code, refused.retry_after_seconds) == (503, "no_worker", 1)


async def test_those_who_wait_are_served_when_a_worker_comes_back() -> None:
    server = Server(b"HTTP/1.1 500 Oops\r\n\r\n")
    async with (
        three(third=server) as workers,
        running(*workers, worker_max_inflight=1, queue_timeout_ms=5_000) as (fleet, _),
    ):
        await until(lambda: health(fleet) == ["up", "up", "down"], 2)
        for _ in range(2):
            assert isinstance(await fleet.admission.lease(GENERAL), Lease)
        waiting = asyncio.ensure_future(fleet.admission.lease(GENERAL))
        await asyncio.sleep(0.05)
        assert fleet.admission.waiting(GENERAL) == 1

        server.answer = b"HTTP/1.1 200 OK\r\n\r\n"

        async with asyncio.timeout(2):
            assert (await waiting).worker == workers[2]


async def test_a_worker_of_two_pools_is_checked_once_for_both() -> None:
    server = Server(b"HTTP/1.1 500 Oops\r\n\r\n")
    async with serving(server) as worker:
        fleet = Fleet(Counts(), tls=no_tls)
        fleet.take_over(
            settings([worker], health_interval_ms=60_000).model_copy(
                update={"fast_path_pool": worker.url, "health_fall": 1}
            )
        )
        fleet.start()
        await until(lambda: health(fleet) == health(fleet, FAST) == ["down"])
        assert len(server.times) == 1
        await fleet.aclose()


async def test_a_change_of_settings_keeps_health_and_drain_and_checks_new_workers() -> None:
    async with three() as workers, running(*workers[:2]) as (fleet, _):
        fleet.pools[GENERAL].drain(workers[0].name)

        fleet.take_over(settings([*workers], balancing="least-inflight", worker_max_inflight=7))

        views = fleet.pools[GENERAL].views()
        assert [one.draining for one in views] == [True, False, False]
        assert fleet.pools[GENERAL].policy.max_inflight == 7


async def test_each_change_is_logged_once(caplog) -> None:
    caplog.set_level("INFO", "addons.fleet")
    server = Server(b"HTTP/1.1 500 Oops\r\n\r\n")
    async with three(third=server) as workers, running(*workers) as (fleet, _):
        await until(lambda: health(fleet) == ["up", "up", "down"], 2)
        await asyncio.sleep(0.3)
        server.answer = b"HTTP/1.1 200 OK\r\n\r\n"
        await until(lambda: health(fleet) == ["up"] * 3, 2)
        await asyncio.sleep(0.2)
        for _ in range(5):
            await try_one(fleet, workers[0].port, Outcome.SERVER_ERROR)

    lines = [line for line in caplog.messages if line.startswith("general: ")]
    assert lines == [
        f"general: {workers[2].name} is down (health_check); 2 of 3 in turn",
        f"general: {workers[2].name} is back; 3 of 3 in turn",
        f"general: {workers[0].name} is ejected (server_errors); 2 of 3 in turn",
    ]


async def test_panic_is_logged_when_it_begins(caplog) -> None:
    server = Server(b"HTTP/1.1 500 Oops\r\n\r\n")
    async with serving(server) as worker, running(worker) as (fleet, _):
        await until(lambda: fleet.pools[GENERAL].in_panic, 2)
        await asyncio.sleep(0.2)
        server.answer = b"HTTP/1.1 200 OK\r\n\r\n"
        await until(lambda: health(fleet) == ["up"], 2)

    assert [line for line in caplog.messages if "too few workers" in line] == [
        "general: too few workers are healthy; using all that can be reached"
    ]


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.SERVER_ERROR, Outcome.ABANDONED])
async def test_only_failed_tries_are_verified(outcome) -> None:
    server = Server()
    async with serving(server) as worker, running(worker, health_interval_ms=60_000) as (fleet, _):
        await until(lambda: server.times)
        await try_one(fleet, worker.port, outcome)
        await asyncio.sleep(0.05)

        assert len(server.times) == 1
