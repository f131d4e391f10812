"""Connections from clients: order, bounds, deadlines, the end; without sockets."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from addons import downstream, http1
from addons.bounds import Limits
from addons.deadlines import NEVER, Deadlines
from addons.downstream import (
    LINGER_SECONDS,
    PIPELINED_BYTES,
    ClientConnection,
    Clients,
    RequestBody,
    State,
)
from addons.forwarding import Peer
from tests.stand_ins import Transport, settle

LIMITS = Limits(
    head_bytes=2_000,
    head_fields=20,
    body_bytes=1_000_000,
    head_seconds=10,
    progress_seconds=8,
    keepalive_seconds=60,
    connections=1_000,
    connections_per_client=0,
)
GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class World:
    """Clients, and a clock of their own.

    Attributes:
        served: Methods of the requests, and their bodies.
        answer: Serves a request; the answer is whether its connection goes on.
    """

    clients: Clients
    deadlines: Deadlines
    clock: SimpleNamespace
    now: float = 1_000.0
    served: list[tuple[bytes, bytes]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failures: list[http1.ProtocolError] = field(default_factory=list)
    answer: Callable[[ClientConnection, http1.RequestHead, RequestBody], Awaitable[bool]] | None = (
        None
    )

    async def serve(
        self, client: ClientConnection, head: http1.RequestHead, body: RequestBody
    ) -> bool:
        if self.answer is not None:
            return await self.answer(client, head, body)
        try:
            content = await body.collect(LIMITS.body_bytes)
        except http1.ProtocolError as exc:
            self.failures.append(exc)
            client.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % exc.status)
            return False
        self.served.append((head.method, content))
        client.write(OK)
        return head.keep_alive

    def connect(self, address: str = "192.0.2.1") -> tuple[ClientConnection, Transport]:
        transport = Transport()
        connection = ClientConnection(self.clients, Peer(address, "http"), lambda: None)
        connection.connection_made(transport)
        return connection, transport

    async def passes(self, seconds: float = 0.0) -> None:
        """Time passes, in steps as the clock of the deadlines takes them."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.5)
            self.deadlines.tick(self.now)
            await settle()
        await settle()


@pytest.fixture
def world(monkeypatch):
    return a_world(monkeypatch)


def a_world(monkeypatch, **limits: int) -> World:
    deadlines = Deadlines()
    clock = SimpleNamespace()
    bounds = Limits(**{**{n: getattr(LIMITS, n) for n in LIMITS.__slots__}, **limits})
    world: World
    clients = Clients(
        bounds,
        deadlines,
        lambda *parts: world.serve(*parts),  # noqa: PLW0108 - it is made below
        lambda refusal: world.refused.append(refusal.code),
    )
    world = World(clients, deadlines, clock)
    clock.monotonic = lambda: world.now
    monkeypatch.setattr(downstream, "time", clock)
    return world


def answers(transport: Transport) -> list[tuple[int, bytes]]:
    """Statuses and bodies of what was written."""
    found, rest = [], transport.written
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append((int(head.split(b" ")[1]), rest[:length]))
        rest = rest[length:]
    return found


def error(transport: Transport) -> tuple[int, str]:
    """The one answer, which is an error of ours."""
    ((status, body),) = answers(transport)
    assert b"connection: close" in transport.written
    return status, json.loads(body)["error"]["code"]


# One request after the other


async def test_pipelined_requests_are_served_in_their_order(world) -> None:
    connection, transport = world.connect()

    connection.data_received(GET + POST + CHUNKED + GET)
    await settle()

    assert world.served == [(b"GET", b""), (b"POST", b"hello"), (b"POST", b"hello"), (b"GET", b"")]
    assert transport.written == OK * 4
    assert connection.state is State.IDLE


async def test_a_request_waits_for_the_end_of_the_one_before(world) -> None:
    turns: list[asyncio.Future[bool]] = []

    async def wait(*_: object) -> bool:
        turns.append(asyncio.get_running_loop().create_future())
        return await turns[-1]

    world.answer = wait
    connection, _ = world.connect()
    connection.data_received(GET + GET)
    connection.data_received(GET)
    for number in (1, 2, 3):
        await settle()
        assert len(turns) == number
        turns[-1].set_result(True)
    await settle()
    assert connection.state is State.IDLE


@pytest.mark.parametrize("first", [GET, POST, CHUNKED])
async def test_requests_are_read_wherever_they_are_split(world, first) -> None:
    raw = first + POST
    for split in range(1, len(raw)):
        world.served.clear()
        connection, transport = world.connect()
        connection.data_received(raw[:split])
        await settle()
        connection.data_received(raw[split:])
        await settle()
        assert [method for method, _ in world.served] == [first.split(b" ")[0], b"POST"], split
        assert transport.written == OK * 2


async def test_requests_are_read_byte_by_byte(world) -> None:
    connection, transport = world.connect()
    for index, _ in enumerate(raw := CHUNKED + POST + GET):
        connection.data_received(raw[index : index + 1])
        await asyncio.sleep(0)
    await settle()

    assert [body for _, body in world.served] == [b"hello", b"hello", b""]
    assert transport.written == OK * 3


@pytest.mark.parametrize("split", [0, 1, 2, 3])
async def test_an_empty_line_before_a_request_is_tolerated(world, split) -> None:
    connection, transport = world.connect()
    for piece in ((b"\r\n" + GET)[:split], (b"\r\n" + GET)[split:]):
        if piece:
            connection.data_received(piece)
            await settle()

    assert transport.written == OK


async def test_what_comes_beyond_the_present_request_is_bounded(world) -> None:
    world.answer = lambda *_: asyncio.get_running_loop().create_future()
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()

    for _ in range(PIPELINED_BYTES // 1_024):
        connection.data_received(b"x" * 1_024)
    assert not transport.aborted
    connection.data_received(b"x")

    assert transport.aborted


async def test_of_a_body_that_nobody_wants_nothing_is_taken_for_a_request(world) -> None:
    async def refuse(client: ClientConnection, *_: object) -> bool:
        client.write(OK)
        return True

    world.answer = refuse
    connection, transport = world.connect()
    connection.data_received(POST[:-2])
    await settle()
    connection.data_received(POST[-2:] + GET)
    await settle()

    assert transport.written == OK
    assert transport.ended


# Refusals


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"GET /x HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"\x00\r\n", 400, "bad_request"),
        (b"GET /x HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "connect_not_allowed"),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version_not_supported"),
        (b"GET /x HTTP/1.1\r\nX: " + b"x" * 2_000, 431, "headers_too_large"),
        (b"GET /x HTTP/1.1\r\n" + b"X: 1\r\n" * 21 + b"\r\n", 431, "too_many_headers"),
    ],
)
async def test_what_is_refused_is_answered_and_ends_the_connection(
    world, raw, status, code
) -> None:
    connection, transport = world.connect()

    connection.data_received(raw)
    connection.data_received(GET)
    await settle()

    assert error(transport) == (status, code)
    assert world.refused == [code]
    assert world.served == []
    assert transport.ended
    await world.passes(LINGER_SECONDS + 1)
    assert transport.closed


async def test_what_was_asked_before_a_malformed_request_is_still_answered(world) -> None:
    connection, transport = world.connect()

    connection.data_received(GET + b"nonsense\r\n\r\n")
    await settle()

    assert [status for status, _ in answers(transport)] == [200, 400]


# Deadlines


async def test_a_client_that_says_nothing_is_left_without_a_word(world) -> None:
    _, transport = world.connect()

    await world.passes(9)
    assert not transport.ended
    await world.passes(2)

    assert transport.ended
    assert transport.written == b""


async def test_a_head_that_takes_too_long_is_a_408(world) -> None:
    connection, transport = world.connect()
    for byte in b"GET /x HTTP/1.1":
        connection.data_received(bytes([byte]))
        await world.passes(1)

    assert error(transport) == (408, "request_timeout")
    assert world.refused == ["request_timeout"]
    assert transport.ended


async def test_the_time_for_a_head_begins_with_its_first_byte(world) -> None:
    connection, transport = world.connect()
    connection.data_received(GET)
    await world.passes(7)
    connection.data_received(GET[:5])
    await world.passes(9)
    connection.data_received(GET[5:])
    await world.passes()

    assert transport.written == OK * 2


async def test_an_idle_client_is_left_without_a_word(world) -> None:
    connection, transport = world.connect()
    connection.data_received(GET)
    await world.passes(59)
    assert not transport.ended
    await world.passes(2)

    assert transport.ended
    assert transport.written == OK


@pytest.mark.parametrize(
    "pieces", [[POST + b"\r\n"], [POST, b"\r\n"], [POST, b"\r", b"\n"], [GET, b"\r\n", b"\r\n"]]
)
async def test_an_empty_line_after_a_request_begins_no_other(world, pieces) -> None:
    connection, transport = world.connect()
    for piece in pieces:
        connection.data_received(piece)
        await settle()
    await world.passes(59)
    assert not transport.ended
    assert world.refused == []

    await world.passes(2)

    assert transport.ended
    assert transport.written == OK


async def test_a_request_after_such_an_empty_line_is_served(world) -> None:
    connection, transport = world.connect()
    connection.data_received(POST + b"\r\n")
    await world.passes(20)
    connection.data_received(GET)
    await settle()

    assert transport.written == OK * 2


async def test_a_body_that_does_not_come_is_a_408(world) -> None:
    connection, transport = world.connect()
    connection.data_received(POST[:-1])
    await world.passes(7)
    assert world.failures == []
    await world.passes(2)

    assert [(exc.status, exc.code) for exc in world.failures] == [(408, "request_timeout")]
    assert transport.ended


@pytest.mark.parametrize(("rate", "holds"), [(100, False), (499, False), (600, True)])
async def test_a_body_has_to_come_at_a_least_rate(world, rate, holds) -> None:
    connection, _ = world.connect()
    connection.data_received(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(30):
        connection.data_received(b"x" * rate)
        await world.passes(1)

    assert (world.failures == []) is holds


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_body_that_has_become_whole_is_not_waited_for_any_more(world, streamed) -> None:
    bodies: list[RequestBody] = []

    async def hold(_: ClientConnection, __: http1.RequestHead, body: RequestBody) -> bool:
        bodies.append(body)
        if streamed:
            await body.collect(1)
            body.stream(lambda _: None, lambda: None)
        else:
            await body.collect(10)
        await asyncio.get_running_loop().create_future()
        return True

    world.answer = hold
    connection, transport = world.connect()
    connection.data_received(POST[:-2])
    await world.passes(1)
    connection.data_received(POST[-2:])
    await settle()
    assert bodies[0].done
    assert connection.deadline == NEVER

    await world.passes(100)

    assert bodies[0].failure is None
    assert (transport.written, transport.aborted) == (b"", False)


async def test_a_client_is_not_hurried_while_it_is_not_read(world) -> None:
    async def hold(_: ClientConnection, __: http1.RequestHead, body: RequestBody) -> bool:
        await body.collect(10)
        await asyncio.get_running_loop().create_future()
        return True

    world.answer = hold
    connection, transport = world.connect()
    connection.data_received(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    await settle()
    connection.data_received(b"x" * 20)
    await settle()
    assert not transport.reading

    await world.passes(100)

    assert not transport.aborted


async def answer_slowly(client: ClientConnection, *_: object) -> bool:
    client.write(b"x" * 1_000_000)
    await asyncio.get_running_loop().create_future()
    return True


@pytest.mark.parametrize(("rate", "holds"), [(0, False), (400, False), (600, True)])
async def test_a_client_has_to_read_at_a_least_rate(world, rate, holds) -> None:
    world.answer = answer_slowly
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()
    transport.unsent = 1_000_000
    connection.pause_writing()
    for _ in range(30):
        transport.unsent -= rate
        await world.passes(1)
        if transport.aborted:
            break

    assert transport.aborted is not holds


async def test_a_client_that_reads_again_is_not_hurried_any_more(world) -> None:
    world.answer = answer_slowly
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()
    transport.unsent = 1_000_000
    connection.pause_writing()
    await world.passes(7)
    transport.unsent = 0
    connection.resume_writing()

    await world.passes(100)

    assert not transport.aborted


async def test_a_client_that_does_not_read_its_last_answer_is_cut(world) -> None:
    connection, transport = world.connect()
    transport.unsent = 100_000
    connection.data_received(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await world.passes(7)
    assert transport.ended
    assert not transport.aborted

    await world.passes(3)

    assert transport.aborted


async def test_a_slow_client_gets_its_last_answer_whole(world) -> None:
    connection, transport = world.connect()
    transport.unsent = 100_000
    connection.data_received(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    while transport.unsent:
        transport.unsent -= 1_000
        await world.passes(1)
        assert not transport.aborted

    await world.passes(20)

    assert transport.closed


async def test_a_client_that_does_not_take_an_answer_before_it_asks_again_is_cut(
    world,
) -> None:
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()
    transport.unsent = 500

    await world.passes(9)

    assert transport.aborted


async def test_a_client_that_only_asks_and_never_reads_is_served_no_further_request(world) -> None:
    served: list[bytes] = []

    async def answer(client: ClientConnection, head: http1.RequestHead, _: RequestBody) -> bool:
        served.append(head.method)
        client.write(OK)
        transport.unsent += 100_000
        client.pause_writing()
        return True

    world.answer = answer
    connection, transport = world.connect()
    connection.data_received(GET * 3)
    await world.passes(7)
    assert served == [b"GET"]
    assert not transport.aborted

    await world.passes(2)

    assert served == [b"GET"]
    assert transport.aborted


async def test_its_next_request_is_served_once_it_has_read(world) -> None:
    async def answer(client: ClientConnection, *_: object) -> bool:
        client.write(OK)
        client.pause_writing()
        return True

    world.answer = answer
    connection, transport = world.connect()
    connection.data_received(GET * 3)
    for number in (1, 2, 3):
        await settle()
        assert transport.written == OK * number
        connection.resume_writing()
    await settle()

    assert connection.state is State.IDLE


# The end


@pytest.mark.parametrize(
    "raw",
    [GET.replace(b"1.1\r\nHost", b"1.0\r\nHost"), GET[:-2] + b"Connection: close\r\n\r\n"],
)
async def test_a_client_that_wants_no_more_gets_no_more(world, raw) -> None:
    connection, transport = world.connect()

    connection.data_received(raw + GET)
    await settle()

    assert transport.written == OK
    assert transport.ended
    # It may still be sending: closed at once, the answer might be lost to it.
    assert not transport.closed
    assert transport.reading
    await world.passes(LINGER_SECONDS + 0.5)
    assert transport.closed


async def test_a_client_that_leaves_cancels_what_serves_it(world) -> None:
    ends: list[str] = []

    async def wait(*_: object) -> bool:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return True

    world.answer = wait
    connection, _ = world.connect()
    told: list[bool] = []
    connection.on_writable = told.append
    connection.data_received(GET)
    await settle()
    connection.connection_lost(None)
    await settle()

    assert ends == ["cancelled"]
    assert told == [True]
    assert (len(world.clients), len(world.deadlines)) == (0, 0)


async def test_an_error_while_serving_ends_the_connection(world, caplog) -> None:
    async def fail(*_: object) -> bool:
        raise ZeroDivisionError

    world.answer = fail
    connection, transport = world.connect()
    connection.data_received(GET)
    await world.passes(LINGER_SECONDS + 1)

    assert transport.closed
    connection.connection_lost(None)


async def test_a_tunnel_hands_on_what_comes_early_too(world) -> None:
    received: list[bytes] = []

    async def tunnel(client: ClientConnection, *_: object) -> bool:
        await asyncio.sleep(0)
        client.tunnel(received.append)
        await asyncio.get_running_loop().create_future()
        return False

    world.answer = tunnel
    connection, transport = world.connect()
    connection.data_received(GET + b"early")
    await settle()
    connection.data_received(b" late")
    await world.passes(1_000)

    assert b"".join(received) == b"early late"
    assert not transport.closed


async def test_let_go_a_connection_touches_nothing(world) -> None:
    connection, transport = world.connect()

    connection.let_go()
    await world.passes(100)

    assert (transport.written, transport.closed, transport.reading) == (b"", False, True)
    assert (len(world.clients), len(world.deadlines)) == (0, 0)


# Limits


async def test_over_the_limit_of_connections_there_is_a_503(monkeypatch) -> None:
    world = a_world(monkeypatch, connections=2)
    (first, _), (_, second) = world.connect(), world.connect()

    third, transport = world.connect()

    assert error(transport) == (503, "too_many_connections")
    assert b"retry-after: 1" in transport.written
    assert transport.ended
    assert not second.ended
    assert world.refused == ["too_many_connections"]
    third.connection_lost(None)
    first.connection_lost(None)
    assert world.connect()[1].written == b""


async def test_one_client_cannot_have_them_all(monkeypatch) -> None:
    world = a_world(monkeypatch, connections_per_client=2)
    first, _ = world.connect()
    world.connect()

    _, refused = world.connect()
    _, other = world.connect("192.0.2.2")

    assert error(refused) == (503, "too_many_connections")
    assert other.written == b""
    first.connection_lost(None)
    first.connection_lost(None)
    assert error(world.connect()[1])[0] == 503, "the refused one still counts"


async def test_connections_that_have_closed_do_not_count(monkeypatch) -> None:
    world = a_world(monkeypatch, connections=3, connections_per_client=3)
    for _ in range(20):
        opened = [world.connect()[0] for _ in range(3)]
        for connection in opened:
            connection.connection_lost(None)

    assert len(world.clients) == 0
    assert not world.clients._by_address
    assert world.refused == []


# Drain


async def test_a_drain_lets_requests_end_and_closes_idle_connections(world) -> None:
    turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def wait(client: ClientConnection, *_: object) -> bool:
        keep = await turn
        client.write(OK)
        return keep

    idle, idle_transport = world.connect()
    idle.data_received(GET)
    await settle()
    world.answer = wait
    busy, busy_transport = world.connect()
    busy.data_received(GET)
    await settle()

    draining = asyncio.create_task(world.clients.drain(20))
    await world.passes(2)
    assert idle_transport.ended
    assert not busy_transport.ended
    idle.connection_lost(None)
    turn.set_result(True)
    await world.passes(2)

    assert busy_transport.written == OK
    assert busy_transport.ended
    busy.connection_lost(None)
    assert await draining == 0


async def test_a_request_that_comes_as_the_drain_begins_is_served(world) -> None:
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()
    draining = asyncio.create_task(world.clients.drain(20))
    await settle()

    connection.data_received(GET)
    await settle()
    await world.passes(2)

    assert transport.written == OK * 2
    assert transport.ended
    connection.connection_lost(None)
    assert await draining == 0


async def test_a_new_connection_that_asks_nothing_does_not_hold_up_a_drain(world) -> None:
    connection, transport = world.connect()
    draining = asyncio.create_task(world.clients.drain(20))
    await settle()
    await world.passes(1)

    assert transport.ended
    connection.connection_lost(None)
    assert await draining == 0


async def test_what_does_not_end_in_time_is_cut(world) -> None:
    world.answer = lambda *_: asyncio.get_running_loop().create_future()
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()

    assert await world.clients.drain(0.01) == 1

    assert transport.aborted
    connection.connection_lost(None)


# Bodies


def a_body(raw: bytes, max_bytes: int = 100) -> tuple[RequestBody, list[bool]]:
    wanted: list[bool] = []
    head = http1.parse_request_head(raw.partition(b"\r\n\r\n")[0], 20)
    return RequestBody(head, max_bytes, wanted.append), wanted


LENGTH_100 = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
IN_CHUNKS = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_body_is_collected_until_it_is_whole_or_long_enough() -> None:
    body, wanted = a_body(LENGTH_100)
    collecting = asyncio.create_task(body.collect(50))
    await settle()
    body.feed(b"x" * 40)
    await settle()
    assert not collecting.done()
    body.feed(b"x" * 20)

    assert len(await collecting) == 60
    assert wanted[-1] is False
    collecting = asyncio.create_task(body.collect(1_000))
    await settle()
    assert wanted[-1] is True
    body.feed(b"x" * 40 + b"next")
    assert len(await collecting) == 100
    assert (body.done, body.rest) == (True, b"next")


async def test_a_body_that_is_announced_too_long_is_refused_before_it_comes() -> None:
    body, _ = a_body(LENGTH_100, max_bytes=99)

    with pytest.raises(http1.ProtocolError) as told:
        await body.collect(10)

    assert (told.value.status, told.value.code) == (413, "request_too_large")


async def test_a_body_that_becomes_too_long_is_refused() -> None:
    body, _ = a_body(IN_CHUNKS)
    collecting = asyncio.create_task(body.collect(1_000))
    await settle()
    body.feed(b"64\r\n" + b"x" * 100 + b"\r\n")
    await settle()
    assert not collecting.done()
    body.feed(b"1\r\nx\r\n")

    with pytest.raises(http1.ProtocolError) as told:
        await collecting
    assert told.value.status == 413


async def test_a_body_is_replayable_until_a_part_of_it_was_handed_on() -> None:
    body, wanted = a_body(LENGTH_100)
    parts: list[bytes] = []
    ends: list[bool] = []
    body.feed(b"a" * 30)
    assert await body.collect(10) == b"a" * 30

    body.stream(parts.append, lambda: ends.append(body.done))
    assert (body.replayable, wanted[-1]) == (True, True)
    body.stop_streaming()
    assert wanted[-1] is False
    body.feed(b"b" * 10)
    assert (body.replayable, body.kept()) == (True, b"a" * 30 + b"b" * 10)
    body.stream(parts.append, lambda: ends.append(body.done))
    body.feed(b"c" * 10)
    assert body.replayable is False
    body.feed(b"d" * 50)

    assert b"".join(parts) == b"c" * 10 + b"d" * 50
    assert ends == [True]


@pytest.mark.parametrize("before", [True, False])
async def test_who_takes_a_body_is_told_that_it_broke_off(before) -> None:
    body, _ = a_body(IN_CHUNKS)
    ends: list[int] = []
    body.feed(b"a\r\n0123456789\r\n")
    await body.collect(10)

    def tell() -> None:
        ends.append(0 if body.failure is None else body.failure.status)

    # More may have come between the two: over TLS, reading does not stop at once.
    if before:
        body.feed(b"zz\r\n")
    body.stream(lambda _: None, tell)
    if not before:
        body.feed(b"zz\r\n")

    assert ends == [400]


async def test_trailers_come_with_the_end_of_a_body() -> None:
    body, _ = a_body(IN_CHUNKS)
    body.feed(b"0\r\nX-Sum: 1\r\n\r\nGET")

    assert await body.collect(10) == b""
    assert (body.trailers, body.rest) == ([(b"X-Sum", b"1")], b"GET")


async def test_a_waiter_that_gives_up_leaves_the_body_usable() -> None:
    body, _ = a_body(LENGTH_100)
    collecting = asyncio.create_task(body.collect(50))
    await settle()
    collecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await collecting
    body.feed(b"x" * 100)

    assert len(await body.collect(50)) == 100


async def test_over_tls_the_end_comes_as_soon_as_all_has_gone_out(world) -> None:
    connection, transport = world.connect()
    transport.can_write_eof = lambda: False
    connection.data_received(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await settle()
    transport.unsent = 1
    await world.passes(1)
    assert not transport.closed

    transport.unsent = 0
    await world.passes(0.5)

    assert transport.closed
    assert not transport.aborted


async def test_a_client_that_takes_nothing_is_cut_though_it_has_asked_again(world) -> None:
    connection, transport = world.connect()
    connection.data_received(GET)
    await settle()
    connection.pause_writing()
    transport.unsent = 100_000

    connection.data_received(GET)
    await settle()
    assert len(world.served) == 2
    await world.passes(2 * LIMITS.progress_seconds + 1)

    assert transport.aborted


async def test_a_client_that_takes_nothing_gets_no_further_request_served(world) -> None:
    connection, transport = world.connect()
    connection.pause_writing()
    transport.unsent = 100_000
    connection.data_received(GET * 3)
    await settle()
    assert len(world.served) == 1

    transport.unsent = 0
    connection.resume_writing()
    await settle()

    assert len(world.served) == 3


async def test_a_client_that_closes_its_half_still_gets_what_was_written(world) -> None:
    connection, transport = world.connect()

    connection.write(b"answer")
    assert connection.eof_received() is False

    assert transport.written == b"answer"


async def test_a_flooded_connection_is_not_served(world) -> None:
    world.clients.limits = Limits(
        **{n: getattr(LIMITS, n) for n in LIMITS.__slots__} | {"connections": 1}
    )
    for _ in range(downstream.MAX_REFUSED + 1):
        world.connect()
    connection, transport = world.connect()

    connection.data_received(GET)
    await settle()

    assert transport.aborted
    assert world.served == []
