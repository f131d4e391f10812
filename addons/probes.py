"""Health checks: a small request to each worker at regular times, and at once on suspicion.

A *verifying probe* answers the question whether a request failed by the worker's fault. So one
request that makes every worker hang up (poison) takes none of them out of turn, and a worker that
is dead is out within milliseconds.

Every wait stands inside a deadline. What a check finds goes to one function; nothing here knows
pools.
"""

import asyncio
import logging
import math
import random
import re
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from addons.classification import failure_text
from addons.deadlines import fair_timeout
from addons.health import Check, Reason
from addons.names import addresses_of, first_of, is_our_own
from addons.worker import Worker

logger = logging.getLogger(__name__)

MIN_VERIFY_SECONDS = 0.1
JITTER = 0.1
MAX_LINE_BYTES = 8_192

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5])[0-9]{2}(?: [^\r\n]*)?\r?\n")


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """How workers are checked.

    Attributes:
        path: What is asked for; any answer below 500 will do.
        interval_seconds: From the start of a check to the start of the next, give or take a tenth.
        timeout_seconds: Longest time for a check as a whole, and for the lookup of a name before.
        connect_seconds: Longest wait for its connection.
    """

    path: str = "/health"
    interval_seconds: float = 0.5
    timeout_seconds: float = 1.0
    connect_seconds: float = 0.2


type Report = Callable[[Worker, Check, Reason], None]
type Turn = Callable[[], tuple[int, int]]
"""Which of the processes that share the checks this one is, counted from 0, and of how many."""


def alone() -> tuple[int, int]:
    """The turn of a process that has no others beside it."""
    return 0, 1


class Probes:
    """Checks workers until it is closed."""

    def __init__(
        self,
        report: Report,
        *,
        tls: Callable[[], ssl.SSLContext],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        turn: Turn = alone,
    ) -> None:
        """Probes without workers; `watch` brings them, `start` starts them.

        Args:
            report: Is told what each check has found, and why it was made.
            tls: Makes the context for workers that speak TLS; called once, when first needed.
            clock: Monotonic seconds.
            rng: Source of the jitter.
            turn: Whose turn it is to check: each process then checks the less often.
        """
        self._report = report
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._turn = turn
        self._policy = ProbePolicy()
        self._workers: tuple[Worker, ...] = ()
        self._started = False
        self._regular: dict[Worker, asyncio.Task[None]] = {}
        self._verifying: dict[Worker, asyncio.Task[None]] = {}
        self._verified_at: dict[Worker, float] = {}

    def watch(self, workers: Iterable[Worker], policy: ProbePolicy) -> None:
        """Check these workers from now on, and no others."""
        other_interval = policy.interval_seconds != self._policy.interval_seconds
        self._workers = tuple(dict.fromkeys(workers))
        self._policy = policy
        self._verified_at = {
            worker: at for worker, at in self._verified_at.items() if worker in self._workers
        }
        for tasks in (self._regular, self._verifying):
            for worker in tasks.keys() - set(self._workers):
                tasks[worker].cancel()
        if other_interval:
            # They sleep for as long as the old one was: all begin anew.
            for task in self._regular.values():
                task.cancel()
        if self._started:
            self.start()

    def start(self) -> None:
        """Begin with the regular checks; each worker's first is made at once."""
        self._started = True
        for worker in self._workers:
            task = self._regular.get(worker)
            if task is None or task.cancelling():
                self._keep(self._regular, worker, self._check_regularly(worker))

    async def aclose(self) -> None:
        """End all checks."""
        self._started = False
        tasks = [*self._regular.values(), *self._verifying.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def verify(self, worker: Worker, why: Reason) -> None:
        """Find out at once whether a request failed by the worker's fault.

        At most one such check of a worker is under way, and at most ten begin in a second: more
        suspicions ask for nothing new.
        """
        if not self._started or worker not in self._workers or worker in self._verifying:
            return
        now = self._clock()
        if now - self._verified_at.get(worker, float("-inf")) < MIN_VERIFY_SECONDS:
            return
        self._verified_at[worker] = now
        self._keep(self._verifying, worker, self._check(worker, why))

    # Parts

    async def _check_regularly(self, worker: Worker) -> None:
        while True:
            began = self._clock()
            await self._check(worker, Reason.HEALTH_CHECK)
            jitter = 1 - JITTER + 2 * JITTER * self._rng.random()
            interval, now = self._policy.interval_seconds, self._clock()
            index, count = self._turn()
            if count > 1:
                wait = seconds_to_turn(now, interval, index, count) + interval * (jitter - 1)
            else:
                wait = interval * jitter - (now - began)
            await asyncio.sleep(max(0.0, wait))

    async def _check(self, worker: Worker, why: Reason) -> None:
        try:
            tls = self._context() if worker.scheme == "https" else None
            check = await probe(worker, self._policy, tls)
            if check is not None:
                self._report(worker, check, why)
        except Exception as exc:
            # Supervisor: an error of ours must not end the checks.
            logger.warning("a health check failed by itself: %s", failure_text(exc))

    def _keep(
        self,
        tasks: dict[Worker, asyncio.Task[None]],
        worker: Worker,
        work: Coroutine[Any, Any, None],
    ) -> None:
        """Run in the background, one task for a worker in each of the two roles."""
        task = asyncio.get_running_loop().create_task(work)
        tasks[worker] = task

        def forget(done: asyncio.Task[None]) -> None:
            # It may have been replaced already.
            if tasks.get(worker) is done:
                del tasks[worker]

        task.add_done_callback(forget)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls


def seconds_to_turn(now: float, interval: float, index: int, count: int) -> float:
    """How long until it is this process's turn to check, over half an interval from now.

    Monotonic time is the machine's, the same in all processes: the turns of one, an interval after
    those of the one before it, are known to all without a word.

    Args:
        now: Monotonic seconds.
        interval: From the turn of one process to that of the next.
        index: Which process this is, counted from 0.
        count: How many there are.
    """
    earliest = now + interval / 2
    rounds = math.ceil((earliest / interval - index) / count)
    return (rounds * count + index) * interval - now


async def probe(worker: Worker, policy: ProbePolicy, tls: ssl.SSLContext | None) -> Check | None:
    """Make one check; None if it could not be made for reasons of our own."""
    try:
        addresses = await addresses_of(worker.host, worker.port, policy.timeout_seconds)
    except TimeoutError:
        # Name servers are slow: the worker may be fine, and connections to it open.
        return None
    except (OSError, ValueError) as exc:
        return None if is_our_own(exc) else Check.UNREACHABLE
    connected = False
    try:
        # Within each other, not one after the other: what the connection has taken on a busy loop
        # is no time that the worker has had for its answer.
        async with fair_timeout(policy.timeout_seconds):
            async with fair_timeout(min(policy.connect_seconds, policy.timeout_seconds)):
                reader, writer = await first_of(addresses, partial(_connect, worker, tls))
            connected = True
            return await _ask(worker, policy, reader, writer)
    except (OSError, ValueError) as exc:
        # A time that is over is an OSError as well, whichever of the two it was.
        if connected:
            return Check.FAILED
        return None if is_our_own(exc) else Check.UNREACHABLE


async def _ask(
    worker: Worker, policy: ProbePolicy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Check:
    """Ask a worker that is connected; see `probe`."""
    try:
        writer.write(_request(worker, policy.path))
        status_line = await reader.readline()
    finally:
        # Not `close`: with TLS it would wait for the worker's goodbye.
        writer.transport.abort()
    return Check.PASSED if _is_good(status_line) else Check.FAILED


async def _connect(
    worker: Worker, tls: ssl.SSLContext | None, address: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        address,
        worker.port,
        ssl=tls,
        server_hostname=worker.host if tls else None,
        limit=MAX_LINE_BYTES,
    )


def _request(worker: Worker, path: str) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {worker.name}",
        "User-Agent: slb-health-check",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join(lines).encode("ascii", "replace") + b"\r\n\r\n"


def _is_good(status_line: bytes) -> bool:
    match = _STATUS_LINE.fullmatch(status_line)
    return match is not None and match[1] != b"5"
