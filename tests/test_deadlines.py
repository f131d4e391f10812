"""Waits on a loop that is busy: nobody else is blamed for the time that our own work takes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from addons.bounds import Timeouts
from addons.deadlines import FAIR_TURNS, NEVER, Deadlines, fair_timeout
from addons.health import Check
from addons.probes import ProbePolicy, probe
from addons.questions import Question, Questions
from addons.upstream import UpstreamPool
from addons.worker import Worker
from classifier.contracts import Classification, Label, RequestView, Source
from tests import loopback

ANSWER = Classification(Label.GENERAL, 1.0, Source.LOCAL, "it says so")
TURN_SECONDS = 0.02
# Less than the turns that a connection takes, which are four.
SECONDS = 0.001


@contextlib.contextmanager
def busy_loop() -> Iterator[None]:
    """Every turn of the loop takes longer than anything may that is waited for."""
    loop = asyncio.get_running_loop()
    idle = False

    def work() -> None:
        time.sleep(TURN_SECONDS)
        if not idle:
            loop.call_soon(work)

    loop.call_soon(work)
    try:
        yield
    finally:
        idle = True


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await reader.read()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    # In a thread of its own: the worker is not busy.
    with loopback.serving(answer) as port:
        yield Worker("http", "127.0.0.1", port)


async def test_a_worker_is_connected_to_however_busy_the_loop_is(worker) -> None:
    timeouts = Timeouts(connect=SECONDS, first_byte=60, idle=60, keepalive=60)
    pool = UpstreamPool(timeouts, Deadlines(), lambda: pytest.fail("no TLS here"))
    # It begins in a turn that has a lot to do afterwards, as with many clients.
    opening = asyncio.create_task(pool.open(worker))
    with busy_loop():
        connection = await opening

    assert not connection.closed
    connection.abort()


async def test_a_healthy_worker_passes_its_check_however_busy_the_loop_is(worker) -> None:
    policy = ProbePolicy(connect_seconds=SECONDS, timeout_seconds=SECONDS)
    probing = asyncio.create_task(probe(worker, policy, None))
    with busy_loop():
        found = await probing

    assert found is Check.PASSED


async def test_a_classifier_is_not_blamed_however_busy_the_loop_is() -> None:
    judged: asyncio.Queue[str | None] = asyncio.Queue()

    class Listener:
        def answered(self, question: Question, answer: Classification) -> None:
            pass

        def failed(self, question: Question, failure: Classification) -> None:
            pass

        def judged(self, question: Question, fault: str | None) -> None:
            judged.put_nowait(fault)

    async def ask(view: RequestView, seconds: float) -> Classification:
        for _ in range(FAIR_TURNS - 2):  # as a new connection and an answer take
            await asyncio.sleep(0)
        return ANSWER

    questions = Questions(ask, Listener(), timeout_seconds=SECONDS, max_inflight=1, max_queue=1)
    with busy_loop():
        question = questions.put(b"key", RequestView("GET", "/"), 0)
        assert question is not None
        # Whoever has asked is told by the clock.
        assert (await question.told).source is Source.FALLBACK
        assert await judged.get() is None
    await questions.aclose()


async def test_a_wait_ends_all_the_same() -> None:
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(count)

    loop = asyncio.get_running_loop()
    with busy_loop():
        loop.call_soon(count)
        with pytest.raises(TimeoutError):
            async with fair_timeout(SECONDS):
                await asyncio.Event().wait()
    assert turns >= FAIR_TURNS


async def test_on_an_idle_loop_it_is_a_timeout_like_others() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with fair_timeout(0.05):
            await asyncio.Event().wait()
    assert loop.time() - began >= 0.05


async def test_what_is_done_in_time_leaves_no_timer_behind() -> None:
    async with fair_timeout(0.01):
        await asyncio.sleep(0)
    # Had a timer been left, it would find its scope closed, and asyncio would report it.
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    await asyncio.sleep(0.02)
    assert failed == []


class Waiting:
    """Something that waits until a time."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.expired_at: list[float] = []

    def expire(self, now: float) -> None:
        self.expired_at.append(now)
        self.deadline = NEVER


def test_what_is_over_expires_once() -> None:
    deadlines, early, late = Deadlines(), Waiting(1.0), Waiting(2.0)
    deadlines.add(early)
    deadlines.add(late)
    for now in (0.5, 1.0, 1.5, 2.5, 3.0):
        deadlines.tick(now)
    assert (early.expired_at, late.expired_at) == ([1.0], [2.5])


def test_one_that_fails_to_give_up_takes_nothing_from_the_others(caplog) -> None:
    class Broken(Waiting):
        def expire(self, now: float) -> None:
            raise LookupError(now)

    deadlines, other = Deadlines(), Waiting(1.0)
    deadlines.add(Broken(1.0))
    deadlines.add(other)
    deadlines.tick(1.0)
    assert other.expired_at == [1.0]
    assert "LookupError" in caplog.text
    assert len(deadlines) == 1
