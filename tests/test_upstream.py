"""Connections to workers, against real sockets: reuse, faults and how they are told, deadlines."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import pytest

from addons import http1
from addons.bounds import Timeouts
from addons.deadlines import NEVER, Deadlines
from addons.pool import Worker
from addons.upstream import (
    MAX_HEAD_BYTES,
    MAX_UNREAD_BYTES,
    Fault,
    UpstreamConnection,
    UpstreamError,
    UpstreamPool,
)

TIMEOUTS = Timeouts(connect=0.2, first_byte=0.3, idle=0.3, keepalive=60)
GET = http1.parse_request_head(b"GET /x HTTP/1.1\r\nHost: a", 10)
POST = http1.parse_request_head(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5", 10)
HEAD = http1.parse_request_head(b"HEAD /x HTTP/1.1\r\nHost: a", 10)
REQUEST = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def no_tls() -> ssl.SSLContext:
    raise AssertionError


@pytest.fixture
async def pool() -> AsyncIterator[UpstreamPool]:
    deadlines = Deadlines()
    pool = UpstreamPool(TIMEOUTS, deadlines, no_tls)
    clock = asyncio.create_task(deadlines.run())
    yield pool
    pool.close()
    clock.cancel()
    await asyncio.gather(clock, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(deadlines) == 0, "a connection was left open"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(5)
        yield sock


@pytest.fixture
def worker(listener) -> Worker:
    return Worker("http", *listener.getsockname())


@dataclass
class Line:
    """A connection of the pool, and its other end in the test's hands."""

    pool: UpstreamPool
    connection: UpstreamConnection
    peer: socket.socket
    interims: list[http1.ResponseHead] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)

    def ask(self, request: http1.RequestHead = GET, raw: bytes = REQUEST) -> None:
        """Send a request, whole."""
        self.connection.begin(request, self.interims.append)
        self.connection.write(raw)
        self.connection.flush()
        self.connection.expect_head()

    def hear(self) -> bytes:
        """What the other end has got; there must be something."""
        return self.peer.recv(1_000_000)

    def say(self, data: bytes) -> None:
        self.peer.sendall(data)

    async def answer(self) -> tuple[http1.ResponseHead, bytes]:
        """The whole answer."""
        head = await self.connection.head()
        error = await self.connection.relay(head, self.received.append)
        if error is not None:
            raise error
        return head, b"".join(self.received)

    async def fault(self) -> Fault:
        """How the exchange fails."""
        with pytest.raises(UpstreamError) as told:
            async with asyncio.timeout(5):
                await self.answer()
        return told.value.fault

    async def serve(self) -> None:
        """One whole exchange, after which the connection is idle."""
        self.ask()
        assert self.hear() == REQUEST
        self.say(OK)
        head, body = await self.answer()
        assert body == b"ok"
        assert self.connection.reusable(head)
        self.pool.give_back(self.connection)
        self.received.clear()

    def reset(self) -> None:
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()


@pytest.fixture
async def open_line(pool, worker, listener):
    lines: list[Line] = []

    async def opened() -> Line:
        connection = await pool.open(worker)
        peer, _ = listener.accept()
        peer.settimeout(5)
        lines.append(Line(pool, connection, peer))
        return lines[-1]

    yield opened
    for line in lines:
        line.connection.abort()
        line.peer.close()
    await asyncio.sleep(0)


@pytest.fixture
async def line(open_line) -> Line:
    return await open_line()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - sockets have no event for it
            await asyncio.sleep(0.001)


# Reuse


async def test_one_connection_serves_many_requests(line, pool, worker) -> None:
    for _ in range(5):
        await line.serve()
        assert pool.take(worker) is line.connection

    assert line.connection.reused


async def test_the_connection_that_was_used_last_is_taken_first(open_line, pool, worker) -> None:
    lines = [await open_line() for _ in range(3)]
    for one in lines:
        await one.serve()
    assert pool.idle == 3

    taken = [pool.take(worker) for _ in range(4)]

    assert taken == [*(one.connection for one in reversed(lines)), None]


async def test_a_worker_that_is_another_gets_a_connection_of_its_own(line, pool, worker) -> None:
    await line.serve()

    assert pool.take(Worker("http", worker.host, worker.port + 1)) is None
    assert pool.take(Worker("https", worker.host, worker.port)) is None
    assert pool.take(Worker("http", worker.host, worker.port, weight=7)) is line.connection


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"H",
        OK + OK,
    ],
)
async def test_a_connection_that_may_not_be_used_again_is_not(line, answer) -> None:
    line.ask()
    line.say(answer)

    head, body = await line.answer()

    assert body == b"ok"
    assert not line.connection.reusable(head)


async def test_an_http_1_0_worker_may_ask_for_more(line) -> None:
    line.ask()
    line.say(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")

    head, _ = await line.answer()

    assert line.connection.reusable(head)


async def test_an_idle_connection_that_the_worker_has_closed_is_not_taken(
    line, pool, worker
) -> None:
    await line.serve()
    line.peer.close()
    await until(lambda: line.connection.closed)

    assert pool.idle == 0
    assert pool.take(worker) is None


async def test_what_a_worker_says_unasked_ends_its_connection(line, pool, worker) -> None:
    await line.serve()
    line.say(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
    await until(lambda: line.connection.closed)

    assert pool.take(worker) is None


async def test_connections_that_have_been_idle_for_long_are_closed(open_line, pool, worker) -> None:
    old, young = await open_line(), await open_line()
    await old.serve()
    await young.serve()
    old.connection.idle_since -= 100

    pool.close_idle(time.monotonic())

    assert await asyncio.to_thread(old.peer.recv, 1) == b""
    assert pool.take(worker) is young.connection
    assert pool.take(worker) is None


async def test_idle_connections_to_workers_that_are_gone_are_closed(line, pool, worker) -> None:
    await line.serve()

    pool.keep_only([worker])
    assert pool.idle == 1
    pool.keep_only([Worker("http", "other.test", 1)])

    assert pool.idle == 0
    assert await asyncio.to_thread(line.peer.recv, 1) == b""


# A worker that closes an idle connection


async def test_a_connection_that_was_closed_before_the_request_is_stale(line, pool, worker) -> None:
    for _ in range(3):
        await line.serve()
        assert pool.take(worker) is line.connection
    line.peer.close()

    line.ask()

    assert await line.fault() is Fault.STALE


async def test_so_it_is_with_a_long_request(line, pool, worker) -> None:
    await line.serve()
    assert pool.take(worker) is line.connection
    line.peer.close()

    line.ask(raw=REQUEST + b"x" * 5_000_000)

    assert await line.fault() is Fault.STALE


async def test_a_request_that_was_read_is_never_stale_when_the_worker_closes(
    open_line, pool
) -> None:
    for _ in range(20):
        line = await open_line()
        await line.serve()
        pool.take(line.connection.worker)
        line.ask()
        assert line.hear()
        line.peer.close()

        assert await line.fault() is Fault.CLOSED


async def test_a_request_that_was_read_is_never_stale_when_the_worker_resets(
    open_line, pool
) -> None:
    for _ in range(20):
        line = await open_line()
        await line.serve()
        pool.take(line.connection.worker)
        line.ask()
        assert line.hear()
        line.reset()

        assert await line.fault() is Fault.CLOSED


async def test_a_request_that_reached_the_workers_kernel_is_not_stale(line, pool, worker) -> None:
    await line.serve()
    pool.take(worker)
    line.ask()
    await asyncio.sleep(0.05)
    # Unread bytes: its kernel resets the connection.
    line.peer.close()

    assert await line.fault() is Fault.CLOSED


@pytest.mark.parametrize("more", [b"the body", b"x" * 5_000_000])
async def test_a_request_of_which_a_part_was_read_is_not_stale(line, pool, worker, more) -> None:
    await line.serve()
    pool.take(worker)
    line.connection.begin(POST, line.interims.append)
    line.connection.write(REQUEST)
    line.connection.flush()
    assert line.hear() == REQUEST
    line.peer.close()
    line.connection.write(more)
    line.connection.flush()
    line.connection.expect_head()

    assert await line.fault() is Fault.CLOSED


async def test_a_first_request_can_be_stale_as_well(line) -> None:
    line.peer.close()
    line.ask()

    assert await line.fault() is Fault.STALE


@pytest.mark.parametrize("beginning", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early\r\n\r\n"])
async def test_an_answer_that_has_begun_is_not_stale(line, pool, worker, beginning) -> None:
    await line.serve()
    pool.take(worker)
    line.ask()
    line.hear()
    line.say(beginning)
    line.peer.close()

    assert await line.fault() is Fault.CLOSED


def test_only_faults_before_the_request_was_taken_prove_that_nothing_was_sent() -> None:
    proofs = {fault for fault in Fault if UpstreamError(fault).nothing_sent}

    assert proofs == {Fault.REFUSED, Fault.CONNECT_TIMEOUT, Fault.LOCAL, Fault.STALE}


# Answers


ANSWERS = {
    "length": (OK, b"ok"),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n"
        b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"abc0123456789",
    ),
    "interim": (b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_read_wherever_it_is_split(open_line, name) -> None:
    raw, body = ANSWERS[name]
    line = await open_line()
    for split in range(len(raw) + 1):
        line.ask()
        for piece in (raw[:split], raw[split:]):
            if piece:
                line.connection.data_received(piece)
        line.received.clear()
        head, received = await line.answer()
        assert received == body, split
        assert line.connection.reusable(head), split
        line.pool.give_back(line.connection)
        line.pool.take(line.connection.worker)


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_read_byte_by_byte_while_it_is_waited_for(line, name) -> None:
    raw, body = ANSWERS[name]
    line.ask()
    answer = asyncio.create_task(line.answer())
    for index in range(len(raw)):
        line.connection.data_received(raw[index : index + 1])
        await asyncio.sleep(0)

    head, received = await answer

    assert received == body
    assert line.connection.reusable(head)


async def test_interim_answers_are_told_but_for_100(line) -> None:
    line.ask()
    line.say(ANSWERS["interim"][0])

    head, _ = await line.answer()

    assert head.status == 200
    assert [interim.status for interim in line.interims] == [103]


async def test_trailers_are_kept(line) -> None:
    line.ask()
    line.say(ANSWERS["chunked"][0])

    await line.answer()

    assert line.connection.trailers == [(b"X-Sum", b"1")]


async def test_an_answer_to_head_has_no_body(line) -> None:
    line.ask(HEAD)
    line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    head, body = await line.answer()

    assert body == b""
    assert line.connection.reusable(head)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n folded\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX A: a\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 600 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD_BYTES,
        b"HTTP/1.1 103 Early\r\n\r\n" * 17 + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
    ],
)
async def test_nonsense_is_a_bad_answer_and_ends_the_connection(line, answer) -> None:
    line.ask()
    with contextlib.suppress(OSError):
        line.say(answer)

    assert await line.fault() is Fault.BAD_ANSWER
    await until(lambda: line.connection.closed)


async def test_a_body_without_an_announced_end_ends_with_the_connection(line) -> None:
    line.ask()
    line.hear()
    line.say(b"HTTP/1.1 200 OK\r\n\r\nsome ")
    answer = asyncio.create_task(line.answer())
    await until(lambda: bool(line.received))
    line.say(b"more")
    line.peer.close()

    head, body = await answer

    assert body == b"some more"
    assert not line.connection.reusable(head)


@pytest.mark.parametrize("relays_at_once", [True, False])
async def test_so_it_does_not_if_the_connection_was_reset(line, relays_at_once) -> None:
    line.ask()
    line.say(b"HTTP/1.1 200 OK\r\n\r\nsome ")
    head = await line.connection.head()
    if relays_at_once:
        end = line.connection.relay(head, line.received.append)
        line.reset()
    else:
        line.reset()
        await until(lambda: line.connection.closed)
        end = line.connection.relay(head, line.received.append)

    error = await end

    assert error is not None
    assert error.fault is Fault.CLOSED


@pytest.mark.parametrize("relays_at_once", [True, False])
async def test_nor_does_it_if_we_ourselves_gave_it_up(line, relays_at_once) -> None:
    line.ask()
    line.say(b"HTTP/1.1 200 OK\r\n\r\nsome ")
    head = await line.connection.head()
    if relays_at_once:
        end = line.connection.relay(head, line.received.append)
        line.connection.abort()
    else:
        line.connection.abort()
        await until(lambda: line.connection.closed)
        end = line.connection.relay(head, line.received.append)

    error = await end

    assert error is not None
    assert error.fault is Fault.CLOSED


@pytest.mark.parametrize("relays_at_once", [True, False])
@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n",
    ],
)
async def test_a_body_that_breaks_off_is_not_whole(line, part, relays_at_once) -> None:
    line.ask()
    line.say(part)
    head = await line.connection.head()
    if not relays_at_once:
        line.peer.close()
        await until(lambda: line.connection.closed)
    end = line.connection.relay(head, line.received.append)
    line.peer.close()

    error = await end

    assert error is not None
    assert error.fault is Fault.CLOSED
    assert b"".join(line.received) == b"some"


async def test_a_whole_answer_is_whole_though_the_connection_has_closed(line) -> None:
    line.ask()
    line.say(OK)
    head = await line.connection.head()
    line.peer.close()
    await until(lambda: line.connection.closed)

    assert await line.connection.relay(head, line.received.append) is None
    assert line.received == [b"ok"]
    assert not line.connection.reusable(head)


async def test_an_answer_may_come_while_the_request_is_still_being_sent(line) -> None:
    line.connection.begin(POST, line.interims.append)
    line.connection.write(REQUEST + b"x" * 5_000_000)
    line.connection.flush()
    line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    head, body = await line.answer()

    assert (head.status, body) == (413, b"no")


async def test_an_early_answer_is_read_though_the_worker_then_closes(line) -> None:
    line.connection.begin(POST, line.interims.append)
    line.connection.write(REQUEST)
    line.connection.flush()
    line.hear()
    line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    line.peer.shutdown(socket.SHUT_WR)
    answer = asyncio.create_task(line.answer())
    for _ in range(5):
        line.connection.write(b"x" * 1_000)
        line.connection.flush()
        await asyncio.sleep(0.01)

    head, body = await answer

    assert (head.status, body) == (413, b"no")


async def test_a_tunnel_carries_bytes_both_ways_until_the_worker_closes(line) -> None:
    line.ask()
    line.say(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\nfirst")
    head = await line.connection.head()
    assert head.status == 101

    end = line.connection.tunnel(line.received.append)
    line.hear()
    line.connection.write(b"ping")
    line.connection.flush()
    assert line.hear() == b"ping"
    line.say(b" second")
    line.peer.close()

    assert await end is None
    assert b"".join(line.received) == b"first second"


# Pace


async def test_a_worker_is_not_read_while_its_client_takes_no_more(line) -> None:
    line.ask()
    line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
    head = await line.connection.head()
    end = line.connection.relay(head, line.received.append)
    line.connection.pause(paused=True)

    line.peer.setblocking(False)
    sent = 0
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            sent += line.peer.send(b"x" * 1_000_000)
        await asyncio.sleep(0.001)

    assert sent < 30_000_000
    assert sum(map(len, line.received)) == 0
    line.connection.pause(paused=False)
    line.peer.setblocking(True)
    await asyncio.to_thread(line.peer.sendall, b"x" * (50_000_000 - sent))
    assert await end is None
    assert sum(map(len, line.received)) == 50_000_000


async def test_a_connection_that_was_paused_with_the_last_piece_is_read_again(
    line, pool, worker
) -> None:
    line.ask()
    assert line.hear() == REQUEST
    line.say(OK[:-2])
    head = await line.connection.head()
    end = line.connection.relay(head, lambda _: line.connection.pause(paused=True))
    line.say(OK[-2:])
    assert await end is None
    assert line.connection.reusable(head)

    pool.give_back(line.connection)

    assert line.connection.transport.is_reading()
    assert line.connection.deadline == NEVER
    assert pool.take(worker) is line.connection
    await line.serve()


async def test_little_is_read_of_a_body_before_somebody_takes_it(line) -> None:
    line.ask()
    line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
    head = await line.connection.head()

    line.peer.setblocking(False)
    sent = 0
    for _ in range(100):
        with contextlib.suppress(BlockingIOError):
            sent += line.peer.send(b"x" * 1_000_000)
        await asyncio.sleep(0.001)

    assert len(line.connection._unread) < MAX_UNREAD_BYTES + 300_000
    assert sent < 30_000_000
    end = line.connection.relay(head, line.received.append)
    line.peer.setblocking(True)
    await asyncio.to_thread(line.peer.sendall, b"x" * (50_000_000 - sent))
    assert await end is None


async def test_who_sends_the_request_is_told_when_the_worker_does_not_take_it(line) -> None:
    told: list[bool] = []
    line.connection.begin(POST, line.interims.append)
    line.connection.on_writable = told.append

    line.connection.write(b"x" * 10_000_000)
    line.connection.flush()
    await until(lambda: told == [False])
    taken = 0
    line.peer.setblocking(False)
    while taken < 10_000_000:
        with contextlib.suppress(BlockingIOError):
            taken += len(line.peer.recv(1_000_000))
        await asyncio.sleep(0)

    await until(lambda: told == [False, True])


# Deadlines


@contextlib.contextmanager
def unreachable() -> Iterator[Worker]:
    """A worker whose kernel drops whoever tries to connect."""
    with socket.socket() as sock, contextlib.ExitStack() as fillers:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(sock.getsockname())
        yield Worker("http", *sock.getsockname())


async def test_a_connection_is_not_waited_for_longer_than_allowed(pool) -> None:
    with unreachable() as worker:
        began = time.monotonic()
        with pytest.raises(UpstreamError) as told:
            await pool.open(worker)

    assert told.value.fault is Fault.CONNECT_TIMEOUT
    assert time.monotonic() - began == pytest.approx(TIMEOUTS.connect, abs=0.1)


async def test_a_port_that_nobody_listens_on_refuses(pool, worker, listener) -> None:
    listener.close()

    with pytest.raises(UpstreamError) as told:
        await pool.open(worker)

    assert told.value.fault is Fault.REFUSED


@pytest.mark.parametrize("host", ["unrouted.invalid", "a" * 70 + ".invalid", "a..invalid"])
async def test_a_name_that_is_none_cannot_be_reached(pool, host) -> None:
    with pytest.raises(UpstreamError) as told:
        await pool.open(Worker("http", host, 80))

    assert told.value.fault in {Fault.REFUSED, Fault.CONNECT_TIMEOUT}


async def test_a_lookup_that_is_slow_takes_nothing_from_the_time_to_connect(
    pool, worker, monkeypatch
) -> None:
    look_up = socket.getaddrinfo

    def find(_, *args, **options):
        time.sleep(TIMEOUTS.connect + 0.1)
        return look_up(worker.host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)

    connection = await pool.open(Worker("http", "worker.test", worker.port))

    assert connection.worker.host == "worker.test"
    connection.abort()


async def test_a_lookup_that_takes_too_long_has_sent_nothing(pool, worker, monkeypatch) -> None:
    monkeypatch.setattr("addons.upstream.LOOKUP_SECONDS", 0.05)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.3) or [])

    with pytest.raises(UpstreamError) as told:
        await pool.open(Worker("http", "worker.test", worker.port))

    assert told.value.fault is Fault.REFUSED


async def test_a_worker_that_speaks_no_tls_is_refused(pool, listener) -> None:
    pool._make_tls = ssl.create_default_context
    opening = asyncio.create_task(pool.open(Worker("https", *listener.getsockname())))
    peer, _ = await asyncio.to_thread(listener.accept)
    peer.sendall(OK)

    with pytest.raises(UpstreamError) as told:
        await opening

    assert told.value.fault is Fault.REFUSED
    peer.close()


async def test_whoever_stops_waiting_for_a_connection_leaves_none(pool) -> None:
    with unreachable() as worker:
        opening = asyncio.create_task(pool.open(worker))
        await asyncio.sleep(0.01)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    assert len(pool.deadlines) == 0


async def test_an_answer_has_to_begin_in_time_from_the_end_of_the_request(line) -> None:
    line.connection.begin(POST, line.interims.append)
    line.connection.write(REQUEST)
    line.connection.flush()
    await asyncio.sleep(TIMEOUTS.first_byte + 0.1)
    began = time.monotonic()
    line.connection.expect_head()

    assert await line.fault() is Fault.TIMEOUT
    assert time.monotonic() - began == pytest.approx(TIMEOUTS.first_byte, abs=0.15)


async def test_a_head_that_trickles_in_gains_no_time(line) -> None:
    line.ask()
    began = time.monotonic()
    failing = asyncio.create_task(line.fault())
    with contextlib.suppress(OSError):
        for byte in OK * 100:
            line.say(bytes([byte])) if byte != 10 else None
            await asyncio.sleep(0.02)
            if failing.done():
                break

    assert await failing is Fault.TIMEOUT
    assert time.monotonic() - began == pytest.approx(TIMEOUTS.first_byte, abs=0.15)


async def test_a_pause_in_an_answer_may_last_so_long_and_no_longer(line) -> None:
    line.ask()
    line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    failing = asyncio.create_task(line.fault())
    for _ in range(5):
        await asyncio.sleep(TIMEOUTS.idle / 2)
        line.say(b"x")
    said = time.monotonic()

    assert await failing is Fault.TIMEOUT
    assert time.monotonic() - said == pytest.approx(TIMEOUTS.idle, abs=0.15)


async def test_a_worker_is_not_blamed_for_a_client_that_does_not_read(line) -> None:
    line.ask()
    line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin")
    head = await line.connection.head()
    end = line.connection.relay(head, line.received.append)
    line.connection.pause(paused=True)
    await asyncio.sleep(TIMEOUTS.idle * 2)
    assert not end.done()

    line.connection.pause(paused=False)

    error = await end
    assert error is not None
    assert error.fault is Fault.TIMEOUT


async def test_a_worker_that_does_not_read_the_request_is_not_waited_for_either(line) -> None:
    line.connection.begin(POST, line.interims.append)
    line.connection.write(b"x" * 20_000_000)
    line.connection.flush()

    assert await line.fault() is Fault.TIMEOUT


async def test_the_deadline_of_an_answer_holds_though_the_request_is_still_being_sent(line) -> None:
    line.connection.begin(POST, line.interims.append)
    line.connection.write(REQUEST)
    line.connection.flush()
    line.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin")
    head = await line.connection.head()
    end = line.connection.relay(head, line.received.append)
    line.connection.write(b"x" * 10_000_000)
    line.connection.flush()
    taken = 0
    line.peer.setblocking(False)
    while taken < 10_000_000 + len(REQUEST):
        with contextlib.suppress(BlockingIOError):
            taken += len(line.peer.recv(1_000_000))
        await asyncio.sleep(0)

    assert line.connection.deadline < NEVER
    async with asyncio.timeout(2):
        error = await end
    assert error is not None
    assert error.fault is Fault.TIMEOUT


async def test_an_idle_connection_has_no_deadline(line) -> None:
    await line.serve()

    assert line.connection.deadline == NEVER
    await asyncio.sleep(TIMEOUTS.idle + 0.1)
    assert not line.connection.closed


async def test_a_failed_connection_is_closed_at_once_with_what_was_unsent(line) -> None:
    line.connection.begin(POST, line.interims.append)
    line.connection.write(b"x" * 20_000_000)
    line.connection.flush()
    line.connection.fail(Fault.TIMEOUT)

    assert await line.fault() is Fault.TIMEOUT
    await until(lambda: line.connection.closed)


async def test_who_waits_for_room_is_let_go_when_the_connection_ends(line) -> None:
    told: list[bool] = []
    line.connection.begin(POST, line.interims.append)
    line.connection.on_writable = told.append
    line.connection.write(b"x" * 10_000_000)
    line.connection.flush()
    await until(lambda: told == [False])

    line.reset()

    await until(lambda: told == [False, True])
    assert await line.fault() is Fault.CLOSED
