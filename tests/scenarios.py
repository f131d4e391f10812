"""The faults of a load balancer's workers, each as one experiment that returns its figures.

An experiment knows the port that clients use and the workers behind it, nothing of what is between
them: the same one can be put to any proxy. None asserts anything. Times are seconds.
"""

import asyncio
import os
import signal
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.fleet import FaultyWorker, Grave, executions
from tests.load import (
    GET,
    POST,
    Answer,
    Client,
    Load,
    Plan,
    Report,
    Request,
    connect,
    exchange,
    keyed,
)

CONNECTIONS = 64
WARM_SECONDS = 0.5
STEADY_RATE = 300.0
"""Requests a second where the fault is looked at and not the speed."""

WINDOW_SECONDS = 0.25
"""Long enough that each of three workers has to turn up in it at the steady rate."""

SERVICE_MS = 20
"""A worker's time for an answer where there shall be requests in flight."""

CROSSING = 12
"""Connections whose requests cross the ends of idle connections to workers."""

NEVER_ANSWERED = Request(target="/do/silence")

MAKERS: dict[str, Callable[[int], Request]] = {
    "GET": lambda _: GET,
    "POST": lambda _: POST,
    "POST with Idempotency-Key": keyed,
    "GET and POST": lambda index: (GET, POST)[index % 2],
}


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy under test, and the workers of its one pool.

    Attributes:
        port: Where clients connect.
        workers: The workers.
        pid: The process that serves.
    """

    port: int
    workers: tuple[FaultyWorker, ...]
    pid: int

    def plan(self, kind: str = "GET", **values: object) -> Plan:
        return Plan(
            **{"port": self.port, "make": MAKERS[kind], "connections": CONNECTIONS, **values}
        )

    async def fault(self, **changes: object) -> None:
        for worker in self.workers:
            await worker.fault(**changes)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Poll until a condition holds; False if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.02)
    return True


def read(target: Target) -> int:
    """How many requests the workers have read to their end."""
    return sum(len(worker.entries()) for worker in target.workers)


async def all_in_use(target: Target, seconds: float = 20.0) -> bool:
    """Wait until each worker answers: the proxy has found out about them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        async with Load(target.plan(connections=2, count=12)) as load:
            await load.finished()
        if len(load.report().per_worker()) == len(target.workers):
            return True
        await asyncio.sleep(0.1)
    return False


# A worker dies, and comes back


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of the requests beside which a worker was killed.

    Attributes:
        in_flight: Requests that the worker had read and did not answer.
        unrelated_errors: Errors of requests that were not under way when it was killed.
        most_executions: How often one request was read to its end, at most.
        late_attempts: Requests that were tried on it from a second later on.
    """

    requests: int
    errors: int
    kinds: Counter[str]
    disconnects: int
    in_flight: int
    unrelated_errors: int
    most_executions: int
    late_attempts: int


async def kill_one(target: Target, kind: str) -> Killed:
    """kill -9 one worker under load."""
    victim = target.workers[0]
    await target.fault(delay_ms=SERVICE_MS)
    async with Load(target.plan(kind)) as load:
        await asyncio.sleep(WARM_SECONDS)
        before = time.monotonic()
        victim.kill()
        after = time.monotonic()
        await asyncio.sleep(1.0)
        async with Grave(victim.port).open() as grave:
            await asyncio.sleep(1.5)
    report = load.report()
    return Killed(
        requests=len(report.answers),
        errors=len(report.errors),
        kinds=report.kinds(),
        disconnects=report.disconnects,
        in_flight=_unanswered(victim, report),
        unrelated_errors=sum(
            1 for answer in report.errors if answer.at > after or answer.ended < before
        ),
        most_executions=max(executions(target.workers).values(), default=0),
        late_attempts=grave.requests,
    )


def _unanswered(worker: FaultyWorker, report: Report) -> int:
    answered = {answer.id for answer in report.answers if answer.worker == worker.name}
    return sum(1 for entry in worker.entries() if entry.id not in answered)


@dataclass(frozen=True, slots=True)
class Restarted:
    """How a worker that was dead came back.

    Attributes:
        back_seconds: From when it listened again to its first request.
        early_share: Of the requests in its first two seconds; a third is fair among three.
        late_share: Of the requests from 12 seconds after it listened again.
    """

    requests: int
    errors: int
    back_seconds: float
    early_share: float
    late_share: float


async def restart_one(target: Target) -> Restarted:
    """Start a worker again that has been dead for a while."""
    worker = target.workers[0]
    async with Load(target.plan("GET and POST", rate=STEADY_RATE, connections=16)) as load:
        await asyncio.sleep(WARM_SECONDS)
        worker.kill()
        await asyncio.sleep(2.0)
        await asyncio.to_thread(worker.start)
        listening = time.monotonic()
        await asyncio.sleep(13.5)
    report = load.report()
    served = [entry.at for entry in worker.entries("request", listening)]
    first = min(served, default=float("inf"))
    return Restarted(
        requests=len(report.answers),
        errors=len(report.errors),
        back_seconds=first - listening,
        early_share=_share(report.between(first, first + 2.0), worker),
        late_share=_share(report.between(listening + 12.0), worker),
    )


def _share(report: Report, worker: FaultyWorker) -> float:
    return report.per_worker()[worker.name] / max(1, len(report.answers))


@dataclass(frozen=True, slots=True)
class PoolLost:
    """What clients got while no worker of the pool lived.

    Attributes:
        slowest_seconds: The slowest answer from the moment the last worker was killed.
        settled_kinds: What was answered from 0.3 seconds after that on.
        without_retry_after: Of these, the 503 that do not say when to come back.
        recovery_seconds: From when the workers listened again to the first answer of one.
        errors_after: Errors from two seconds after they listened again.
    """

    slowest_seconds: float
    settled_kinds: Counter[str]
    settled_workers: Counter[str]
    without_retry_after: int
    recovery_seconds: float
    errors_after: int
    disconnects: int


async def lose_pool(target: Target) -> PoolLost:
    """kill -9 all workers, and start them again."""
    names = {worker.name for worker in target.workers}
    async with Load(target.plan("GET and POST", rate=STEADY_RATE)) as load:
        await asyncio.sleep(WARM_SECONDS)
        for worker in target.workers:
            worker.kill()
        dead = time.monotonic()
        await asyncio.sleep(1.5)
        starting = time.monotonic()
        starts = (asyncio.to_thread(worker.start) for worker in target.workers)
        await asyncio.gather(*starts)
        listening = time.monotonic()
        await asyncio.sleep(3.0)
    report = load.report()
    settled = report.between(dead + 0.3, starting)
    back = (answer.ended for answer in report.between(dead).answers if answer.worker in names)
    unready = [answer for answer in settled.answers if answer.status == 503]
    return PoolLost(
        slowest_seconds=report.between(dead, starting).slowest,
        settled_kinds=Counter(
            f"{answer.status} {answer.code}".strip() for answer in settled.answers
        ),
        settled_workers=settled.per_worker(),
        without_retry_after=sum(1 for answer in unready if not answer.retry_after),
        recovery_seconds=min(back, default=float("inf")) - listening,
        errors_after=len(report.between(listening + 2.0).errors),
        disconnects=report.disconnects,
    )


# A worker does not answer, or cannot be connected to


@dataclass(frozen=True, slots=True)
class Dropped:
    """What came of the requests beside which a worker's kernel began to drop connects.

    Attributes:
        last_delay_seconds: When the last request was sent that took over 150 ms.
    """

    requests: int
    errors: int
    kinds: Counter[str]
    slowest_seconds: float
    delayed: int
    last_delay_seconds: float
    disconnects: int


async def drop_syns(target: Target) -> Dropped:
    """One worker closes its connections and can no longer be connected to."""
    async with Load(target.plan("GET and POST", rate=STEADY_RATE)) as load:
        await asyncio.sleep(WARM_SECONDS)
        dropping = time.monotonic()
        await target.workers[0].fault(accepting=False)
        await asyncio.sleep(3.0)
    report = load.report()
    delayed = [
        answer.at for answer in report.between(dropping - 1.0).answers if answer.seconds > 0.15
    ]
    return Dropped(
        requests=len(report.answers),
        errors=len(report.errors),
        kinds=report.kinds(),
        slowest_seconds=report.slowest,
        delayed=len(delayed),
        last_delay_seconds=max(delayed, default=dropping) - dropping,
        disconnects=report.disconnects,
    )


@dataclass(frozen=True, slots=True)
class Frozen:
    """What came of the requests beside which a worker froze.

    Attributes:
        error_seconds: The shortest and the longest time that an error took.
        last_stuck_seconds: When the last request was sent that took over half of a second.
        back_seconds: From when it went on to its first new request.
        most_executions: How often one request was read to its end, at most.
    """

    requests: int
    errors: int
    kinds: Counter[str]
    error_seconds: tuple[float, float]
    last_stuck_seconds: float
    back_seconds: float
    most_executions: int
    disconnects: int


async def freeze_one(target: Target, kind: str, frozen_seconds: float) -> Frozen:
    """SIGSTOP one worker, and SIGCONT it later."""
    worker = target.workers[0]
    async with Load(target.plan(kind, rate=STEADY_RATE)) as load:
        await asyncio.sleep(WARM_SECONDS)
        frozen = time.monotonic()
        worker.freeze()
        await asyncio.sleep(frozen_seconds)
        worker.thaw()
        thawed = time.monotonic()
        await asyncio.sleep(3.5)
    report = load.report()
    took = [answer.seconds for answer in report.errors] or [0.0]
    stuck = [answer.at for answer in report.answers if answer.seconds > 0.5]
    since = {answer.id for answer in report.between(thawed).answers}
    back = (entry.at for entry in worker.entries("request", thawed) if entry.id in since)
    return Frozen(
        requests=len(report.answers),
        errors=len(report.errors),
        kinds=report.kinds(),
        error_seconds=(min(took), max(took)),
        last_stuck_seconds=max(stuck, default=frozen) - frozen,
        back_seconds=min(back, default=float("inf")) - thawed,
        most_executions=max(executions(target.workers).values(), default=0),
        disconnects=report.disconnects,
    )


# A worker answers with errors


@dataclass(frozen=True, slots=True)
class Failing:
    """How often workers were asked that answer 500 each time.

    Attributes:
        asked: Requests that each bad worker got.
        changed_bodies: Answers 500 whose body was not the worker's.
        without_traffic: Workers that got nothing in the last second.
    """

    requests: int
    own_errors: int
    asked: tuple[int, ...]
    changed_bodies: int
    without_traffic: tuple[str, ...]


async def always_500(target: Target, bad: int, seconds: float = 2.0) -> Failing:
    """Some workers answer 500, to one client that sends one request after the other."""
    body = '{"error": {"code": "mine", "message": "the database is gone"}}'
    for worker in target.workers[:bad]:
        await worker.fault(status=500, body=body)
    began = time.monotonic()
    async with Load(target.plan("GET and POST", connections=1, rate=150)) as load:
        await asyncio.sleep(seconds)
    report = load.report()
    crc = zlib.crc32(body.encode())
    failed = [answer for answer in report.answers if answer.status == 500]
    last = report.between(time.monotonic() - 1.0).per_worker()
    return Failing(
        requests=len(report.answers),
        own_errors=len(report.errors),
        asked=tuple(len(worker.entries("request", began)) for worker in target.workers[:bad]),
        changed_bodies=sum(1 for answer in failed if answer.crc != crc),
        without_traffic=tuple(w.name for w in target.workers if not last[w.name]),
    )


@dataclass(frozen=True, slots=True)
class Served:
    """What came of a load, when no more is asked."""

    requests: int
    errors: int
    kinds: Counter[str]
    disconnects: int
    workers: Counter[str]


def _served(report: Report) -> Served:
    return Served(
        requests=len(report.answers),
        errors=len(report.errors),
        kinds=report.kinds(),
        disconnects=report.disconnects,
        workers=report.per_worker(),
    )


async def fail_all_checks(target: Target, seconds: float = 4.0) -> Served:
    """All workers fail their health checks while they serve well."""
    async with Load(target.plan("GET and POST", rate=STEADY_RATE)) as load:
        await target.fault(health_status=503)
        await asyncio.sleep(seconds)
        settled = time.monotonic() - 1.0
    whole = _served(load.report())
    # That all of them serve is asked of the end, when the checks have had their effect.
    last = load.report().between(settled).per_worker()
    return Served(whole.requests, whole.errors, whole.kinds, whole.disconnects, last)


# Workers hang up


async def close_idle_by_time(target: Target, kind: str, seconds: float = 4.0) -> Served:
    """Workers close connections that were idle for about as long as the gap between requests."""
    idle_ms = 10
    await target.fault(idle_close_ms=idle_ms)
    rate = len(target.workers) * 1000 / idle_ms
    async with Load(target.plan(kind, rate=rate, connections=8)) as load:
        await asyncio.sleep(seconds)
    return _served(load.report())


async def close_idle_in_crossing(target: Target, kind: str, rounds: int = 10) -> Served:
    """Each round the ends of idle connections and new requests reach the proxy at once.

    The proxy stands still meanwhile: it finds the requests first, and then that the connections
    on which it sent them were closed before.
    """
    plan = target.plan(kind)
    await target.fault(delay_ms=SERVICE_MS)
    clients: list[Client | None] = [await connect(target.port) for _ in range(CROSSING)]
    answers: list[Answer] = []
    for number in range(rounds):
        clients = await _volley(plan, clients, f"warm{number}", answers)
        os.kill(target.pid, signal.SIGSTOP)
        try:
            volley = asyncio.ensure_future(_volley(plan, clients, f"crossing{number}", answers))
            await asyncio.sleep(0.01)  # they have been written: nothing tells when it is so
            for worker in target.workers:
                await worker.close_idle()
        finally:
            os.kill(target.pid, signal.SIGCONT)
        clients = await volley
    for client in filter(None, clients):
        client.close()
    return _served(Report(tuple(answers), clients.count(None)))


async def _volley(
    plan: Plan, clients: list[Client | None], name: str, answers: list[Answer]
) -> list[Client | None]:
    """One request on each connection at once."""
    sent = [
        exchange(client, plan, plan.make(index), f"{name}-{index}")
        for index, client in enumerate(clients)
    ]
    came = await asyncio.gather(*sent)
    answers += [answer for answer, _ in came]
    return [client for _, client in came]


async def close_on_arrival(target: Target, kind: str, seconds: float = 2.0) -> Served:
    """Workers reset a used connection as soon as the next request on it has arrived, unread."""
    await target.fault(close_on_next=True)
    async with Load(target.plan(kind, rate=STEADY_RATE, connections=8)) as load:
        await asyncio.sleep(seconds)
    return _served(load.report())


@dataclass(frozen=True, slots=True)
class Amplified:
    """How much more the workers were asked than the proxy."""

    requests: int
    attempts: int
    kinds: Counter[str]

    @property
    def ratio(self) -> float:
        return self.attempts / max(1, self.requests)


async def reset_all(target: Target, seconds: float = 5.0) -> Amplified:
    """All workers reset each connection on which they have read a request."""
    await target.fault(behaviour="reset")
    began = time.monotonic()
    async with Load(target.plan("GET", rate=200)) as load:
        await asyncio.sleep(seconds)
    attempts = sum(len(worker.entries("request", began)) for worker in target.workers)
    return Amplified(len(load.report().answers), attempts, load.report().kinds())


@dataclass(frozen=True, slots=True)
class Poisoned:
    """What a request did at which workers hang up, and to whom.

    Attributes:
        most_without_traffic: Workers that got no normal request in one window, at most.
        most_attempts: How often one poison request was tried, at most.
    """

    requests: int
    errors: int
    kinds: Counter[str]
    disconnects: int
    poison_kinds: Counter[str]
    most_without_traffic: int
    most_attempts: int


async def poison(target: Target, method: str, count: int = 100) -> Poisoned:
    """A request that makes workers hang up is sent again and again beside normal load."""
    bad = Request(method, "/do/hang-up")
    normal = target.plan("GET and POST", rate=STEADY_RATE, connections=60)
    async with Load(normal) as load:
        await asyncio.sleep(WARM_SECONDS)
        began = time.monotonic()
        deadly = target.plan(make=lambda _: bad, connections=4, count=count, rate=40)
        async with Load(deadly) as poisoning:
            await poisoning.finished()
        ended = time.monotonic()
    report = load.report()
    poisoned = {answer.id for answer in poisoning.report().answers}
    tried = executions(target.workers, began)
    return Poisoned(
        requests=len(report.answers),
        errors=len(report.errors),
        kinds=report.kinds(),
        disconnects=report.disconnects,
        poison_kinds=poisoning.report().kinds(),
        most_without_traffic=_most_absent(report, target, began, ended),
        most_attempts=max((tried[request_id] for request_id in poisoned), default=0),
    )


def _most_absent(report: Report, target: Target, start: float, end: float) -> int:
    absent = [0]
    while start + WINDOW_SECONDS <= end:
        window = report.between(start, start + WINDOW_SECONDS)
        seen = window.per_worker()
        # In a stall of the whole machine a window is too thin to tell.
        if len(window.answers) > STEADY_RATE * WINDOW_SECONDS / 2:
            absent.append(sum(1 for worker in target.workers if not seen[worker.name]))
        start += WINDOW_SECONDS
    return max(absent)


# The proxy itself


@dataclass(frozen=True, slots=True)
class Drained:
    """What came of the requests in flight when the proxy was told to end."""

    requests: int
    lost: int
    kinds: Counter[str]
    seconds: float


async def drain(target: Target, terminate: Callable[[], None], requests: int = 32) -> Drained:
    """Tell the proxy to end while requests of two seconds are in flight."""
    slow = Request(target="/do/answer?ms=2000")
    plan = target.plan(make=lambda _: slow, connections=requests, count=requests)
    async with Load(plan) as load:
        await until(lambda: read(target) >= requests)
        began = time.monotonic()
        terminate()
        await load.finished()
    report = load.report()
    lost = [answer for answer in report.answers if answer.status != 200]
    return Drained(len(report.answers), len(lost), report.kinds(), time.monotonic() - began)
