"""One request on its way: which faults are tried again, who is blamed, what the client gets.

Workers are real sockets; the client's transport and the labels are stand-ins.
"""

import asyncio
import contextlib
import json
import random
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons import deadlines as deadlines_module
from addons import http1
from addons.accounting import Ledger
from addons.admission import Admission, AdmissionPolicy
from addons.bounds import Bounds, Limits, Timeouts
from addons.deadlines import Deadlines
from addons.downstream import ClientConnection, Clients, RequestBody
from addons.exchange import IDEMPOTENT, Backend, Exchange
from addons.failover import RetryBudget
from addons.feed import DecisionFeed
from addons.forwarding import Peer
from addons.health import Outcome
from addons.orders import StandingOrders
from addons.pool import Lease, Pool, PoolPolicy, Worker
from addons.upstream import UpstreamPool
from classifier.contracts import LABELS, Classification, Label, RequestView, Source
from tests.stand_ins import Transport

LIMITS = Limits(
    head_bytes=10_000,
    head_fields=50,
    body_bytes=10_000_000,
    head_seconds=10,
    progress_seconds=10,
    keepalive_seconds=60,
    connections=100,
    connections_per_client=0,
)
BOUNDS = Bounds(classify_body_bytes=1_000, total_seconds=20, client_headers=True)
TIMEOUTS = Timeouts(connect=0.2, first_byte=0.15, idle=0.25, keepalive=60)
DECIDED = Classification(Label.GENERAL, 0.913, Source.LOCAL, "the test says so")


@dataclass
class Scripted:
    """A worker in the test's loop that does with each request what its script says next.

    Attributes:
        script: What to do with the requests, one after the other; then it answers.
        read: Methods of the requests that were read to their end.
        heads: What came before their bodies.
        connections: How many were made.
    """

    script: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: int = 0
    connections: int = 0
    worker: Worker = field(default_factory=lambda: Worker("http", "127.0.0.1", 1))
    _idle: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self._idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self._idle.discard(writer)
                await self._one(head, reader, writer)
        except (EOFError, OSError, asyncio.CancelledError):
            self.gone += 1
        finally:
            self._idle.discard(writer)
            writer.close()

    def close_idle(self) -> None:
        """Close what is idle, so that whoever writes at once does not know it yet."""
        for writer in self._idle:
            writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
            writer.transport.abort()

    async def _one(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        act = self.script.pop(0) if self.script else "answer"
        self.heads.append(head)
        if act.startswith("early"):
            writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
            # It reads no more; one that keeps the connection only ends with the test.
            await asyncio.sleep(0.05 if act == "early" else 60)
            raise EOFError
        body = await read_body(head, reader)
        self.read.append(head.split(b" ")[0].decode())
        self.bodies.append(body)
        await ACTS[act](reader, writer, head)


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readuntil(b"\r\n")
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return body
    length = lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return await reader.readexactly(int(length or 0))


type Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


def saying(*pieces: bytes, then: str = "") -> Act:
    """Say these bytes, a moment apart, and then stay, `close` or `reset`."""

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01 if len(pieces) > 1 else 0)
        if then == "reset":
            linger = struct.pack("ii", 1, 0)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if then:
            raise EOFError

    return act


async def answer_in_full(
    _: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
) -> None:
    body = b"" if head.startswith(b"HEAD") else b"ok"
    writer.write(b"HTTP/1.1 200 OK\r\nX-Worker: w\r\nContent-Length: 2\r\n\r\n" + body)


async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: bytes) -> None:
    await reader.read(1)
    raise EOFError


LENGTH_10 = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

ACTS: dict[str, Act] = {
    "answer": answer_in_full,
    "silence": say_nothing,
    "500": saying(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno"),
    "hang up": saying(then="close"),
    "reset": saying(then="reset"),
    "garbage": saying(b"nonsense\r\n\r\n"),
    "cut head": saying(b"HTTP/1.1 200 OK\r\nContent-Le", then="close"),
    "stalled head": saying(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "bad first chunk": saying(IN_CHUNKS + b"zz\r\n"),
    "switch": saying(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
    "cut body": saying(LENGTH_10 + b"begin", then="close"),
    "reset body": saying(LENGTH_10 + b"begin", b"", then="reset"),
    "cut chunks": saying(IN_CHUNKS + b"5\r\nbegin\r\n", then="close"),
    "stalled body": saying(LENGTH_10 + b"begin"),
    "bad chunk": saying(IN_CHUNKS + b"5\r\nbegin\r\n", b"zz\r\n"),
    "only a head": saying(LENGTH_10, then="close"),
    "late chunks": saying(IN_CHUNKS, b"5\r\nhello\r\n", b"0\r\n\r\n"),
    "until close": saying(b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", then="close"),
    "interim": saying(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", LENGTH_10 + b"0123456789"),
    "interim, then hang up": saying(b"HTTP/1.1 103 Early\r\n\r\n", then="close"),
}

BEFORE_A_BYTE = ["hang up", "reset", "garbage", "cut head", "silence", "stalled head"]
"""Faults after which a worker may have executed the request, and the client has seen nothing."""

AFTER_A_BYTE = ["cut body", "reset body", "cut chunks", "stalled body", "bad chunk"]


class FixedLabels:
    """Stands where labels come from.

    Attributes:
        knows: It tells labels at once: on idle connections exchanges then run by callbacks.
    """

    def __init__(self) -> None:
        self.views: list[RequestView] = []
        self.seconds = 0.0
        self.error: Exception | None = None
        self.knows = True

    def known(self, key: bytes) -> Classification | None:
        return DECIDED if self.knows and not self.seconds and self.error is None else None

    async def classify(self, view: RequestView) -> Classification:
        self.views.append(view)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return DECIDED


class Told:
    """Everyone who is told of something."""

    def __init__(self) -> None:
        self.retries: list[str] = []
        self.on_retry: Callable[[], object] = lambda: None
        self.rejections: list[str] = []
        self.ends: list[int | None] = []

    def retried(self, fault: object) -> None:
        self.retries.append(str(fault))
        self.on_retry()

    def rejected(self, code: str) -> None:
        self.rejections.append(code)

    def decided(self, classification: Classification, seconds: float) -> None:
        pass

    def finished(self, label: Label, pool: Label, status: int | None, seconds: float) -> None:
        self.ends.append(status)

    def spilled(self, origin: Label, target: Label) -> None:
        pass


class CountingPool(Pool):
    """A pool that remembers how its leases ended."""

    def __init__(self, *parts: object, **named: object) -> None:
        super().__init__(*parts, **named)  # type: ignore[arg-type]
        self.outcomes: list[tuple[Worker, Outcome]] = []

    def take_back(self, state: object, outcome: Outcome) -> None:
        self.outcomes.append((state.worker, outcome))  # type: ignore[attr-defined]
        super().take_back(state, outcome)  # type: ignore[arg-type]


@dataclass
class Client:
    """A client, whose bytes go through no socket."""

    connection: ClientConnection
    transport: Transport

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    def leave(self) -> None:
        self.connection.connection_lost(None)

    async def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.002)

    async def ended(self) -> None:
        """Wait until all that was sent has been served."""
        await self.until(
            lambda: (
                (self.connection._head is None and not self.connection._unsent)
                or self.transport.ended
                or self.transport.closed
            )
        )

    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        """All whole answers, interim ones as well; a broken one raises."""
        found = []
        parser = None
        rest = self.transport.written
        while rest:
            parser = h11.Connection(h11.CLIENT)
            parser.send(h11.Request(method=self.method, target="/", headers=[("host", "x")]))
            parser.send(h11.EndOfMessage())
            parser.receive_data(rest)
            if self.transport.ended:
                parser.receive_data(b"")
            head, body = None, b""
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                assert event is not h11.NEED_DATA, f"not whole: {self.transport.written!r}"
                if isinstance(event, h11.InformationalResponse):
                    found.append((event.status_code, {}, b""))
                elif isinstance(event, h11.Response):
                    head = event
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
            assert head is not None
            fields = {name.decode(): value.decode() for name, value in head.headers}
            found.append((head.status_code, fields, body))
            rest = parser.trailing_data[0]
        return found

    method: str = "GET"


@dataclass
class Site:
    """The data path between stand-in clients and scripted workers."""

    workers: list[Scripted]
    pool: CountingPool
    backend: Backend
    labels: FixedLabels
    told: Told
    clients: Clients
    open: list[Client] = field(default_factory=list)

    def connect(self) -> Client:
        transport = Transport()
        connection = ClientConnection(self.clients, Peer("192.0.2.7", "http"), lambda: None)
        connection.connection_made(transport)
        self.open.append(Client(connection, transport))
        return self.open[-1]

    async def ask(self, raw: bytes) -> Client:
        """A client that has asked this and been served."""
        client = self.connect()
        client.method = raw.split(b" ")[0].decode()
        client.send(raw)
        await client.ended()
        return client

    @property
    def outcomes(self) -> list[str]:
        """How the leases ended, each with the number of its worker."""
        numbers = {scripted.worker: index for index, scripted in enumerate(self.workers)}
        return [f"{numbers[worker]} {outcome}" for worker, outcome in self.pool.outcomes]

    @property
    def read(self) -> list[list[str]]:
        return [worker.read for worker in self.workers]

    def everything_is_given_back(self) -> bool:
        leased = sum(state.requests for state in self.pool.states)
        return (
            leased == len(self.pool.outcomes)
            and all(state.inflight == 0 for state in self.pool.states)
            and len(self.backend.ledger) == 0
        )


async def serve_nobody(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def no_tls() -> ssl.SSLContext:
    raise AssertionError


@contextlib.asynccontextmanager
async def site_of(
    *scripts: list[str], policy: AdmissionPolicy | None = None, max_inflight: int = 0, **bounds
) -> AsyncIterator[Site]:
    """A site with these workers; one whose script says `refuse` listens nowhere."""
    workers = [Scripted(list(script)) for script in scripts]
    async with contextlib.AsyncExitStack() as stack:
        for scripted in workers:
            server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
            scripted.worker = Worker("http", *server.sockets[0].getsockname())
            if scripted.script[:1] == ["refuse"]:
                server.close()
            else:
                stack.callback(server.close)
        told, labels, deadlines = Told(), FixedLabels(), Deadlines()
        pool = CountingPool(
            Label.GENERAL,
            [scripted.worker for scripted in workers],
            policy=PoolPolicy(max_inflight=max_inflight),
            rng=random.Random(1),
        )
        admission = Admission(told)
        admission.take_over({Label.GENERAL: pool}, policy or AdmissionPolicy())
        pool._watcher = SimpleNamespace(
            suspected=lambda *_: None, changed=lambda *_: None, freed=admission.wake
        )
        feed = DecisionFeed(100)
        upstreams = UpstreamPool(TIMEOUTS, deadlines, no_tls)
        backend = Backend(
            bounds=replace(BOUNDS, **bounds),
            labels=labels,
            orders=StandingOrders(),
            admission=admission,
            upstreams=upstreams,
            budget=RetryBudget(clock=time.monotonic),
            ledger=Ledger(feed, told, clock=time.monotonic, wall_clock=time.time),
            observer=told,
            deadlines=deadlines,
        )

        def serve(
            client: ClientConnection, head: http1.RequestHead, body: RequestBody
        ) -> Coroutine[Any, Any, bool] | None:
            return Exchange(site.backend, client, head, body).begin()

        clients = Clients(LIMITS, deadlines, serve, lambda _: None)
        site = Site(workers, pool, backend, labels, told, clients)
        clock = asyncio.create_task(deadlines.run())
        try:
            yield site
            for client in site.open:
                if not client.connection.closed:
                    client.leave()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert site.everything_is_given_back(), site.outcomes
        finally:
            upstreams.close()
            clock.cancel()
            await asyncio.sleep(0.01)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                if "Scripted.serve" in repr(task):
                    task.cancel()
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick_clock(monkeypatch):
    monkeypatch.setattr(deadlines_module, "TICK_SECONDS", 0.01)


def request(method: str = "GET", *fields: str, body: bytes = b"", target: str = "/x") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: a.test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def chunked(method: str, *pieces: bytes) -> bytes:
    chunks = [http1.chunk(piece) for piece in pieces]
    return request(method, "Transfer-Encoding: chunked") + b"".join(chunks) + b"0\r\n\r\n"


def error_of(client: Client) -> tuple[int, str]:
    """The one answer, an error of ours."""
    ((status, fields, body),) = client.answers()
    assert fields["content-type"] == "application/json"
    return status, json.loads(body)["error"]["code"]


# What the worker and the client get


async def test_without_routing_nobody_is_asked() -> None:
    async with site_of([]) as site:
        site.labels.error = AssertionError()
        site.backend.orders.take_over(LABELS, (), "", routing=False)

        # Once on a new connection to the worker, and once, by callbacks, on an idle one.
        for _ in range(2):
            client = await site.ask(request("POST", body=b"hello"))
            ((status, _, _),) = client.answers()
            assert status == 200

        heads = site.workers[0].heads
        assert [b"X-Route-Source: override" in head for head in heads] == [True, True]
        assert site.labels.views == []


async def test_a_request_reaches_a_worker_and_its_answer_the_client() -> None:
    async with site_of([]) as site:
        client = await site.ask(request("POST", "Cookie: a=1", body=b"hello"))

        ((status, fields, body),) = client.answers()
        worker = site.workers[0]
        assert (status, body, fields["x-worker"]) == (200, b"ok", "w")
        assert worker.bodies == [b"hello"]
        head = worker.heads[0].decode()
        assert head.startswith("POST /x HTTP/1.1\r\nHost: a.test\r\nCookie: a=1\r\n")
        for line in (
            "X-Route-Label: general",
            "X-Route-Confidence: 0.913",
            "X-Route-Source: local",
        ):
            assert f"\r\n{line}\r\n" in head
        assert site.outcomes == ["0 ok"]
        event = site.backend.ledger.feed.recent(1)[0]
        assert (event.label, event.worker, event.status, event.error) == (
            "general", worker.worker.name, 200, None,
        )  # fmt: skip
        assert event.id == fields["x-slb-decision-id"]
        assert (fields["x-slb-label"], fields["x-slb-source"]) == ("general", "local")


async def test_client_headers_can_be_switched_off() -> None:
    async with site_of([], client_headers=False) as site:
        client = await site.ask(request())

        assert [name for name in client.answers()[0][1] if name.startswith("x-slb")] == []


async def test_the_classifier_sees_a_prefix_and_only_meaningful_headers() -> None:
    async with site_of([]) as site:
        site.labels.knows = False
        fields = ("Authorization: Bearer s", "X-Amz-Target: Scan", "Content-Type: text/x")
        await site.ask(request("POST", *fields, body=b"z" * 5_000, target="/x?y=1"))

        (view,) = site.labels.views
        assert (view.method, view.path, view.content_type) == ("POST", "/x?y=1", "text/x")
        assert view.headers == (("x-amz-target", "Scan"),)
        assert (view.body, view.body_bytes) == (b"z" * 1_000, 5_000)


async def test_the_length_of_a_chunked_body_is_unknown_until_it_is_whole() -> None:
    async with site_of([], classify_body_bytes=10) as site:
        site.labels.knows = False
        client = site.connect()
        whole = chunked("POST", b"x" * 6)
        client.send(whole)
        await client.ended()
        client.send(chunked("POST", b"x" * 600)[:-5])
        await client.until(lambda: len(site.labels.views) == 2)
        client.send(b"0\r\n\r\n")
        await client.ended()

        assert [view.body_bytes for view in site.labels.views] == [6, -1]
        assert [len(body) for body in site.workers[0].bodies] == [6, 600]
        assert b"Content-Length: 6\r\n" in site.workers[0].heads[0]
        assert b"Transfer-Encoding: chunked\r\n" in site.workers[0].heads[1]


async def test_a_long_body_is_labelled_and_sent_on_before_it_is_whole() -> None:
    async with site_of([]) as site:
        client = site.connect()
        raw = request("PUT", body=b"x" * 2_000_000)
        client.send(raw[:5_000])
        await client.until(lambda: site.workers[0].heads != [])
        assert site.labels.views[0].body_bytes == 2_000_000
        for start in range(5_000, len(raw), 60_000):
            client.send(raw[start : start + 60_000])
            await asyncio.sleep(0)
        await client.ended()

        assert client.answers()[0][0] == 200
        assert len(site.workers[0].bodies[0]) == 2_000_000


@pytest.mark.parametrize(
    ("act", "body"), [("late chunks", b"hello"), ("until close", b"hello"), ("answer", b"ok")]
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_is_framed_as_the_client_can_read_it(act, body, version) -> None:
    async with site_of([act]) as site:
        raw = request().replace(b"HTTP/1.1", f"HTTP/{version}".encode())
        client = await site.ask(raw)

        ((status, fields, received),) = client.answers()
        assert (status, received) == (200, body)
        assert ("transfer-encoding" in fields) is (version == "1.1" and act != "answer")
        assert client.transport.ended is (version == "1.0")


async def test_an_http_1_0_client_may_keep_its_connection() -> None:
    async with site_of([]) as site:
        raw = request("GET", "Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0")
        client = await site.ask(raw)

        assert client.answers()[0][1]["connection"] == "keep-alive"
        assert not client.transport.ended


async def test_an_answer_to_head_keeps_its_length() -> None:
    async with site_of([]) as site:
        client = await site.ask(request("HEAD"))
        client.send(request("HEAD"))
        await client.ended()

        assert [(status, body) for status, _, body in client.answers()] == [(200, b"")] * 2
        assert client.answers()[0][1]["content-length"] == "2"
        assert site.workers[0].connections == 1


async def test_interim_answers_pass_but_not_to_http_1_0() -> None:
    async with site_of(["interim", "interim"]) as site:
        client = await site.ask(request())
        old = await site.ask(request().replace(b"HTTP/1.1", b"HTTP/1.0"))

        assert [status for status, _, _ in client.answers()] == [103, 200]
        assert [status for status, _, _ in old.answers()] == [200]


async def test_an_early_answer_reaches_the_client_and_ends_the_connection() -> None:
    async with site_of(["early"]) as site:
        client = site.connect()
        client.send(request("PUT", body=b"x" * 9_000_000)[:100_000])
        await client.ended()

        assert [(status, body) for status, _, body in client.answers()] == [(413, b"no")]
        assert client.transport.ended


async def test_workers_connections_are_shared_by_all_clients() -> None:
    async with site_of([]) as site:
        for _ in range(5):
            await site.ask(request())

        assert site.workers[0].connections == 1


# What is tried again


@pytest.mark.parametrize("method", sorted(method.decode() for method in IDEMPOTENT))
@pytest.mark.parametrize("fault", BEFORE_A_BYTE)
async def test_an_idempotent_request_is_tried_again(fault, method) -> None:
    async with site_of([fault], []) as site:
        client = await site.ask(request(method, body=b"hello"))

        assert client.answers()[0][0] == 200
        assert site.outcomes == ["0 response_failed", "1 ok"]
        assert site.workers[1].bodies == [b"hello"]
        assert len(site.told.retries) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK", "get"])
@pytest.mark.parametrize("fault", BEFORE_A_BYTE)
async def test_any_other_request_is_not(fault, method) -> None:
    async with site_of([fault], []) as site:
        client = await site.ask(request(method, body=b"hello"))

        late = fault in {"silence", "stalled head"}
        expected = (504, "gateway_timeout") if late else (502, "bad_gateway")
        assert error_of(client) == expected
        assert site.read == [[method], []]
        assert site.outcomes == ["0 response_failed"]
        assert site.told.rejections == [expected[1]]
        # The client may ask again: its own request was whole.
        client.send(request())
        await client.ended()
        assert [status for status, _, _ in client.answers()] == [expected[0], 200]


@pytest.mark.parametrize("fault", BEFORE_A_BYTE)
async def test_it_is_if_the_client_says_that_it_may_be(fault) -> None:
    async with site_of([fault], []) as site:
        client = await site.ask(request("POST", "Idempotency-Key: 42", body=b"hello"))

        assert client.answers()[0][0] == 200
        assert site.workers[1].bodies == [b"hello"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_any_request_is_tried_again_if_the_worker_cannot_be_reached(method) -> None:
    async with site_of(["refuse"], []) as site:
        client = await site.ask(request(method, body=b"hello"))

        assert client.answers()[0][0] == 200
        assert site.outcomes == ["0 connect_failed", "1 ok"]
        assert site.told.retries == ["refused"]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_connection_that_the_worker_closed_in_the_meantime_costs_nobody_anything(
    method, workers
) -> None:
    async with site_of(*([] for _ in range(workers))) as site:
        for _ in range(workers):
            await site.ask(request())
        for worker in site.workers:
            worker.close_idle()
        client = site.connect()
        client.send(request(method, body=b"hello"))
        await client.ended()

        assert client.answers()[0][0] == 200
        assert site.told.retries == ["stale"]
        assert {outcome.partition(" ")[2] for outcome in site.outcomes} == {"ok"}


@pytest.mark.parametrize("fault", AFTER_A_BYTE)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_is_tried_again_once_the_client_has_a_byte(fault, method) -> None:
    async with site_of([fault], []) as site:
        client = await site.ask(request(method))

        assert site.read == [[method], []]
        assert site.outcomes == ["0 response_failed"]
        assert client.transport.written.startswith(b"HTTP/1.1 200")
        assert client.transport.aborted, "a broken answer must not look like a whole one"


@pytest.mark.parametrize("fault", ["only a head", "bad first chunk"])
async def test_a_head_without_its_body_has_not_gone_to_the_client_yet(fault) -> None:
    async with site_of([fault], []) as site:
        client = await site.ask(request())

        assert [status for status, _, _ in client.answers()] == [200]
        assert site.outcomes == ["0 response_failed", "1 ok"]


async def test_an_interim_answer_does_not_count_as_an_answer() -> None:
    async with site_of(["interim, then hang up"], []) as site:
        client = await site.ask(request())

        assert [status for status, _, _ in client.answers()] == [103, 200]


async def test_two_workers_are_tried_and_no_more() -> None:
    async with site_of(["hang up"], ["hang up"], []) as site:
        client = await site.ask(request())

        assert error_of(client) == (502, "bad_gateway")
        assert site.outcomes == ["0 response_failed", "1 response_failed"]


async def test_so_it_is_if_none_can_be_reached() -> None:
    async with site_of(["refuse"], ["refuse"], []) as site:
        client = await site.ask(request("POST"))

        assert error_of(client) == (503, "no_worker")
        assert client.answers()[0][1]["retry-after"] == "1"
        assert site.outcomes == ["0 connect_failed", "1 connect_failed"]


async def test_the_second_worker_may_fail_in_another_way() -> None:
    async with site_of(["refuse"], ["silence"], []) as site:
        client = await site.ask(request("POST"))

        assert error_of(client) == (504, "gateway_timeout")
        assert site.outcomes == ["0 connect_failed", "1 response_failed"]


async def test_the_second_try_takes_no_idle_connection_for_that_may_be_stale_as_well() -> None:
    async with site_of([], [], []) as site:
        for _ in range(3):
            await site.ask(request())
        site.workers[0].script = ["hang up"]
        site.told.on_retry = lambda: [worker.close_idle() for worker in site.workers[1:]]
        client = await site.ask(request())

        assert client.answers()[0][0] == 200
        assert site.told.retries == ["closed"]
        assert [outcome[2:] for outcome in site.outcomes[3:]] == ["response_failed", "ok"]


async def test_the_only_worker_is_tried_again_if_it_closed_a_used_connection() -> None:
    async with site_of([]) as site:
        await site.ask(request())
        site.workers[0].script = ["hang up"]
        client = await site.ask(request())

        assert client.answers()[0][0] == 200
        assert site.told.retries == ["closed"]


async def test_errors_of_a_worker_pass_and_are_not_tried_again() -> None:
    async with site_of(["500"], []) as site:
        client = await site.ask(request())

        assert [(status, body) for status, _, body in client.answers()] == [(500, b"no")]
        assert site.outcomes == ["0 server_error"]


async def test_a_switch_that_nobody_asked_for_is_a_bad_answer() -> None:
    async with site_of(["switch"]) as site:
        client = await site.ask(request("POST"))

        assert error_of(client) == (502, "bad_gateway")


@pytest.mark.parametrize("fault", ["hang up", "refuse"])
async def test_retries_are_on_a_budget_unless_nothing_was_sent(fault) -> None:
    async with site_of([fault], []) as site:
        empty = RetryBudget(0.0, 0, clock=time.monotonic)
        site.backend = replace(site.backend, budget=empty)
        client = await site.ask(request())

        assert client.answers()[0][0] == (502 if fault == "hang up" else 200)


async def test_a_body_that_was_sent_on_in_part_is_not_sent_again() -> None:
    async with site_of(["hang up"], []) as site:
        client = site.connect()
        raw = request("PUT", body=b"x" * 50_000)
        client.send(raw[:10_000])
        await client.until(lambda: site.workers[0].heads != [])
        client.send(raw[10_000:])
        await client.ended()

        assert error_of(client) == (502, "bad_gateway")
        assert site.workers[1].heads == []


@pytest.mark.parametrize("fault", ["refuse", "stale"])
async def test_a_body_of_which_only_the_beginning_was_sent_is_sent_again(fault) -> None:
    async with site_of(["refuse"] if fault == "refuse" else [], []) as site:
        if fault == "stale":
            await site.ask(request())
            await site.ask(request())
            for worker in site.workers:
                worker.close_idle()
        client = site.connect()
        raw = request("POST", body=bytes(range(250)) * 200)
        client.send(raw[:10_000])
        await client.until(lambda: any(len(w.heads) > (fault == "stale") for w in site.workers))
        client.send(raw[10_000:])
        await client.ended()

        assert client.answers()[0][0] == 200
        assert [b for w in site.workers for b in w.bodies if b] == [bytes(range(250)) * 200]


# Time


async def test_the_answer_has_to_begin_in_time() -> None:
    async with site_of(["silence"]) as site:
        began = time.monotonic()
        client = await site.ask(request("POST"))

        assert error_of(client) == (504, "gateway_timeout")
        assert time.monotonic() - began == pytest.approx(TIMEOUTS.first_byte, abs=0.1)
        assert site.workers[0].gone == 1


async def test_the_whole_has_to_end_in_time() -> None:
    async with site_of(["late chunks"] * 2, total_seconds=0.1) as site:
        site.workers[0].script = ["stalled body"]
        began = time.monotonic()
        client = await site.ask(request("POST"))

        assert client.transport.aborted
        assert time.monotonic() - began == pytest.approx(0.1, abs=0.08)


async def test_the_time_for_the_whole_is_not_prolonged_by_a_second_worker() -> None:
    async with site_of(["silence"], ["silence"], total_seconds=0.3) as site:
        began = time.monotonic()
        client = await site.ask(request())

        assert error_of(client) == (504, "gateway_timeout")
        assert time.monotonic() - began == pytest.approx(0.3, abs=0.08)


async def test_time_that_was_over_before_a_worker_was_asked_is_not_given_anew() -> None:
    async with site_of(["silence"], total_seconds=0.1) as site:
        site.labels.seconds = 0.15
        began = time.monotonic()
        client = await site.ask(request("POST"))

        assert error_of(client) == (504, "gateway_timeout")
        assert time.monotonic() - began < 0.15 + 0.1
        assert site.read == [[]]


# Clients that are at fault, or leave


@pytest.mark.parametrize("size", [10, 5_000])
async def test_a_malformed_body_is_the_clients_fault(size) -> None:
    async with site_of([]) as site:
        client = site.connect()
        client.send(request("POST", "Transfer-Encoding: chunked") + http1.chunk(b"x" * size))
        if size > BOUNDS.classify_body_bytes:
            await client.until(lambda: site.workers[0].heads != [])
        client.send(b"zz\r\n")
        await client.ended()

        assert error_of(client) == (400, "bad_request")
        assert client.transport.ended
        assert set(site.outcomes) <= {"0 abandoned"}
        await client.until(lambda: site.workers[0].gone == site.workers[0].connections)


async def test_a_body_that_breaks_off_while_its_label_is_asked_for_is_refused_at_once() -> None:
    async with site_of([]) as site:
        site.labels.seconds = 0.05
        client = site.connect()
        client.send(request("POST", "Transfer-Encoding: chunked") + http1.chunk(b"x" * 5_000))
        await client.until(lambda: site.labels.views != [])
        # Over TLS, reading does not stop at once.
        client.send(b"zz\r\n")
        await client.until(lambda: client.transport.ended, 1)

        assert error_of(client) == (400, "bad_request")


async def test_a_body_over_the_limit_is_a_413_wherever_it_is_noticed() -> None:
    async with site_of([]) as site:
        announced = await site.ask(request("POST", "Content-Length: 10000001"))
        client = site.connect()
        client.send(request("POST", "Transfer-Encoding: chunked"))
        for _ in range(11):
            client.send(http1.chunk(b"x" * 1_000_000))
            await asyncio.sleep(0.01)
        await client.ended()

        assert error_of(announced) == (413, "request_too_large")
        assert error_of(client) == (413, "request_too_large")


async def phase_body(site: Site, client: Client) -> None:
    client.send(request("POST", body=b"x" * 500)[:-1])


async def phase_label(site: Site, client: Client) -> None:
    site.labels.seconds = 10
    client.send(request())


async def phase_queue(site: Site, client: Client) -> None:
    site.workers[0].script = ["silence"]
    other = site.connect()
    other.send(request("POST"))
    await other.until(lambda: site.read == [["POST"]])
    client.send(request())
    await client.until(lambda: site.backend.admission.waiting(Label.GENERAL) == 1)


async def phase_sending(site: Site, client: Client) -> None:
    client.send(request("PUT", body=b"x" * 50_000)[:-1])
    await client.until(lambda: site.workers[0].heads != [])


async def phase_waiting(site: Site, client: Client) -> None:
    site.workers[0].script = ["silence"]
    client.send(request())
    await client.until(lambda: site.read == [["GET"]])


async def phase_answer(site: Site, client: Client) -> None:
    site.workers[0].script = ["stalled body"]
    client.send(request())
    await client.until(lambda: b"begin" in client.transport.written)


PHASES = [phase_body, phase_label, phase_queue, phase_sending, phase_waiting, phase_answer]


@pytest.mark.parametrize("phase", PHASES, ids=[phase.__name__ for phase in PHASES])
async def test_a_client_that_leaves_gives_its_worker_back_unblamed(phase) -> None:
    async with site_of([], max_inflight=1) as site:
        client = site.connect()
        await phase(site, client)
        await asyncio.sleep(0.02)
        client.leave()
        await asyncio.sleep(0.02)
        for other in site.open:
            if not other.connection.closed:
                other.leave()
        await asyncio.sleep(0.02)

        assert site.everything_is_given_back()
        assert {outcome.partition(" ")[2] for outcome in site.outcomes} <= {"abandoned"}
        worker = site.workers[0]
        await client.until(lambda: worker.gone == worker.connections)
        ends = {event.error for event in site.backend.ledger.feed.recent(9)}
        assert ends <= {"client_disconnected"}


async def test_a_slow_client_holds_its_worker_back() -> None:
    async with site_of(["stalled body"]) as site:
        client = site.connect()
        client.send(request())
        await client.until(lambda: b"begin" in client.transport.written)
        client.connection.pause_writing()
        await asyncio.sleep(TIMEOUTS.idle + 0.1)
        assert not client.transport.aborted
        client.connection.resume_writing()
        await client.ended()

        assert client.transport.aborted
        assert site.outcomes == ["0 response_failed"]


# Faults of our own


async def test_an_error_of_ours_is_a_503_that_does_not_tell_it(caplog) -> None:
    async with site_of([]) as site:
        site.labels.error = ValueError("canary-secret")
        client = await site.ask(request())

        assert error_of(client) == (503, "routing_failed")
        assert client.answers()[0][1]["retry-after"] == "1"
        assert site.read == [[]]
        assert "ValueError" in caplog.text
        assert "canary-secret" not in caplog.text + client.transport.written.decode()


async def test_a_full_pool_lets_wait_and_then_refuses() -> None:
    policy = AdmissionPolicy(queue_requests=1, queue_seconds=0.1)
    async with site_of(["silence"], policy=policy, max_inflight=1) as site:
        site.connect().send(request("POST"))
        await asyncio.sleep(0.01)
        clients = [site.connect() for _ in range(2)]
        for client in clients:
            client.send(request())
        for client in clients:
            await client.ended()

        assert [error_of(client) for client in clients] == [(503, "pool_full")] * 2


async def test_a_request_whose_worker_fails_waits_for_another_that_is_full() -> None:
    policy = AdmissionPolicy(queue_requests=1, queue_seconds=5)
    async with site_of(["answer"], ["refuse"], policy=policy, max_inflight=1) as site:
        held = await site.backend.admission.lease(Label.GENERAL)
        assert isinstance(held, Lease)
        client = site.connect()
        client.send(request("POST"))
        async with asyncio.timeout(2):
            while not site.backend.admission.waiting(Label.GENERAL):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

        # The one that failed it is given back before.
        assert site.outcomes == ["1 connect_failed"]
        held.release()
        await client.ended()

        assert client.answers()[-1][0] == 200
        assert site.outcomes == ["1 connect_failed", "0 ok", "0 ok"]


# Whatever happens


@settings(max_examples=30, deadline=None)
@given(
    scripts=st.lists(
        st.lists(st.sampled_from([*sorted(ACTS), "refuse"]), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    requests=st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
            st.booleans(),
            st.sampled_from([0, 5, 3_000]),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_whatever_workers_do_each_request_has_one_end(scripts, requests) -> None:
    async def play() -> None:
        async with site_of(*scripts) as site:
            for number, (method, has_key, size, in_chunks) in enumerate(requests):
                await one(site, number, method, size, has_key=has_key, in_chunks=in_chunks)

    async def one(site, number, method, size, *, has_key, in_chunks) -> None:
        before = len(site.pool.outcomes)
        heads = Counter({w.worker: len(w.read) for w in site.workers})
        key = f"Idempotency-Key: {number}" if has_key else "X-A: 1"
        body = b"x" * size
        raw = chunked(method, body or b"y") if in_chunks else request(method, key, body=body)
        repeats = method != "POST" or (has_key and not in_chunks)

        client = await site.ask(raw)

        executed = sum(len(w.read) - heads[w.worker] for w in site.workers)
        tries = site.pool.outcomes[before:]
        assert len(tries) <= 2
        # Only where there is no other worker is the same one tried again.
        assert len({worker for worker, _ in tries}) == len(tries) or len(scripts) == 1
        assert executed <= (2 if repeats else 1)
        assert site.everything_is_given_back()
        if not client.transport.aborted:
            finals = [status for status, _, _ in client.answers() if status >= 200]
            assert len(finals) == 1
            if finals[0] < 500:
                assert tries[-1][1] is Outcome.OK
        client.leave()

    asyncio.run(play())


# On idle connections, by callbacks


async def warm(site: Site) -> Client:
    """A client that has been served by each of the workers, which now have an idle connection."""
    client = site.connect()
    for _ in site.workers:
        client.send(request("GET"))
        await client.ended()
    assert site.labels.views == []
    return client


@pytest.mark.parametrize("fault", BEFORE_A_BYTE)
async def test_a_worker_that_fails_on_an_idle_connection_is_replaced(fault: str) -> None:
    async with site_of(["answer", fault], []) as site:
        client = await warm(site)

        client.send(request("GET"))
        await client.ended()

        assert [status for status, _, _ in client.answers()] == [200] * 3
        assert site.outcomes[2] == "0 response_failed"
        assert site.told.ends == [200] * 3


@pytest.mark.parametrize("fault", AFTER_A_BYTE)
async def test_an_answer_that_breaks_off_on_an_idle_connection_is_broken_for_the_client(
    fault: str,
) -> None:
    async with site_of(["answer", fault], []) as site:
        client = await warm(site)
        before = len(client.transport.written)

        client.send(request("GET"))
        await client.until(lambda: client.transport.aborted)

        assert len(client.transport.written) > before
        assert site.outcomes[2:] == ["0 response_failed"]
        assert site.told.ends == [200, 200, None]


@pytest.mark.parametrize("fault", ["silence", "stalled body"])
async def test_a_client_that_leaves_gives_back_what_it_had_on_an_idle_connection(
    fault: str,
) -> None:
    async with site_of(["answer", fault], []) as site:
        client = await warm(site)

        client.send(request("GET"))
        await client.until(lambda: len(site.workers[0].heads) == 2)
        client.leave()

        assert site.everything_is_given_back()
        assert site.outcomes[2:] == ["0 abandoned"]
        assert site.told.ends == [200, 200, None]
        await client.until(lambda: site.workers[0].gone == 1)


async def test_requests_in_a_row_come_back_in_their_order_by_callbacks() -> None:
    async with site_of([], []) as site:
        client = await warm(site)

        client.send(request("GET") * 20 + request("POST", body=b"last"))
        await client.ended()
        await client.until(lambda: len(client.answers()) == 23)

        assert [len(worker.read) for worker in site.workers] == [12, 11]
        assert site.labels.views == []


async def test_a_row_of_refused_requests_is_no_tower_of_calls() -> None:
    async with site_of([]) as site:
        client = await warm(site)
        site.backend.admission.take_over(
            {Label.GENERAL: CountingPool(Label.GENERAL, [Worker("http", "127.0.0.1", 1)])},
            AdmissionPolicy(),
        )
        site.backend.admission._routes[Label.GENERAL][0].drain("127.0.0.1:1")
        client.send(request("GET", target="/") * 1_500)
        await client.until(lambda: len(site.told.rejections) == 1_500)

        assert {status for status, _, _ in client.answers()[1:]} == {503}


async def test_a_connection_with_unsent_bytes_of_a_request_is_not_kept() -> None:
    async with site_of(["early keep"]) as site:
        client = site.connect()
        client.method = "POST"
        client.send(request("POST", body=b"x" * 9_000_000))
        await client.until(lambda: bool(client.answers()) if client.transport.written else False)

        assert client.answers()[0][0] == 413
        assert site.backend.upstreams.idle == 0
