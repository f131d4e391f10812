"""Load from keep-alive connections that is cheap on CPU, and what came of each request.

async with Load(Plan(port=8080, connections=64)) as load:
    ...                      # do harm
report = load.report()
"""

import asyncio
import contextlib
import itertools
import json
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, override

from tests.faulty_connection import ID_HEADER

PREFIXES = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Request:
    """What to send; the id is added as a header, so that equal requests stay equal."""

    method: str = "GET"
    target: str = "/users?page=2"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def encoded(self, request_id: str) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: load.test"]
        lines.append(f"{ID_HEADER}: {request_id}")
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body or self.method not in {"GET", "HEAD", "DELETE"}:
            lines.append(f"Content-Length: {len(self.body)}")
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + self.body


GET = Request()
POST = Request("POST", "/users", (("Content-Type", "application/json"),), b'{"name": "Ada"}')


def keyed(index: int) -> Request:
    """A POST that says it may be repeated."""
    return Request(
        POST.method, POST.target, (*POST.headers, ("Idempotency-Key", f"k{index}")), POST.body
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what to send.

    Attributes:
        port: Where, on loopback.
        make: The request with this index.
        connections: How many keep-alive connections.
        rate: Requests a second in all; 0 is each connection's next as soon as it is answered.
        count: Stop after so many requests; 0 goes on until it is told to stop.
        timeout_seconds: For one answer.
    """

    port: int
    make: Callable[[int], Request] = lambda _: GET
    connections: int = 64
    rate: float = 0.0
    count: int = 0
    timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    Attributes:
        at: When it was sent, in monotonic seconds.
        seconds: Until the end of its answer, or of the wait for it.
        status: 0 if there was no whole answer.
        worker: Whom the answer names; empty if it is the proxy's own.
        code: `error.code` of a JSON answer of the proxy's own.
        fault: Why there was no whole answer: refused, reset, closed, truncated, timeout, nonsense.
        retry_after: Whether a Retry-After came.
        crc: Of the body.
    """

    id: str
    method: str
    at: float
    seconds: float
    status: int = 0
    worker: str = ""
    code: str = ""
    fault: str = ""
    retry_after: bool = False
    crc: int = 0

    @property
    def is_error(self) -> bool:
        """As the acceptance table counts: the proxy's own 5xx, or no whole answer."""
        return bool(self.fault) or (self.status >= 500 and not self.worker)

    @property
    def ended(self) -> float:
        return self.at + self.seconds


@dataclass(frozen=True, slots=True)
class Report:
    """All answers of a load.

    Attributes:
        disconnects: How often the proxy closed a connection, or said that it would.
    """

    answers: tuple[Answer, ...]
    disconnects: int

    @property
    def errors(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.is_error]

    def between(self, start: float, end: float = float("inf")) -> "Report":
        """The requests sent in a span of monotonic seconds."""
        chosen = tuple(answer for answer in self.answers if start <= answer.at < end)
        return Report(chosen, self.disconnects)

    def per_worker(self) -> Counter[str]:
        return Counter(answer.worker for answer in self.answers if answer.worker)

    def quantile(self, share: float) -> float:
        """A quantile of the seconds that answers took; 0 without answers."""
        took = sorted(answer.seconds for answer in self.answers)
        return took[min(len(took) - 1, int(share * len(took)))] if took else 0.0

    @property
    def slowest(self) -> float:
        return self.quantile(1.0)

    def kinds(self) -> Counter[str]:
        """How many of each status, error code or fault."""
        return Counter(
            answer.fault or f"{answer.status} {'worker' if answer.worker else answer.code}".strip()
            for answer in self.answers
            if answer.is_error or answer.status != 200
        )


@dataclass
class _Response:
    status: int
    fields: bytes
    body: bytes = b""

    def field(self, name: bytes) -> str:
        start = self.fields.find(b"\r\n" + name + b":")
        if start < 0:
            return ""
        line = self.fields[start + len(name) + 3 : self.fields.find(b"\r\n", start + 2)]
        return line.strip().decode("latin-1")


class FaultError(Exception):
    """No whole answer; its text is the kind of fault."""


class Client(asyncio.Protocol):
    """A keep-alive connection that reads whole answers."""

    def __init__(self) -> None:
        self.closed = False
        self._unread = bytearray()
        self._waiter: asyncio.Future[_Response] | None = None
        self._method = ""
        self._transport: asyncio.Transport | None = None

    async def ask(self, request: bytes, method: str, timeout_seconds: float) -> _Response:
        assert self._transport is not None
        self._method = method
        self._waiter = asyncio.get_running_loop().create_future()
        if self.closed:
            message = "closed"
            raise FaultError(message)
        self._transport.write(request)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._waiter
        except TimeoutError:
            self.close()
            message = "timeout"
            raise FaultError(message) from None

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self._unread += data
        if self._waiter is None or self._waiter.done():
            return  # nobody asked: the next answer will show it
        try:
            response = _parse(self._unread, self._method)
        except (ValueError, IndexError):
            self._waiter.set_exception(FaultError("nonsense"))
            return
        if response is not None:
            self._waiter.set_result(response)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._waiter is not None and not self._waiter.done():
            kind = "truncated" if self._unread else "reset" if exc else "closed"
            self._waiter.set_exception(FaultError(kind))


def _parse(unread: bytearray, method: str) -> _Response | None:
    """Take one whole final answer off the front, if it is there."""
    while (end := unread.find(b"\r\n\r\n")) >= 0:
        fields = bytes(unread[: end + 2]).lower()
        response = _Response(int(fields[9:12]), fields)
        length = _body_length(unread, end + 4, response, method)
        if length is None:
            return None
        response.body = bytes(unread[end + 4 : end + 4 + length])
        del unread[: end + 4 + length]
        if response.status >= 200:
            return response
    return None


def _body_length(unread: bytearray, start: int, response: _Response, method: str) -> int | None:
    """Bytes of the body as it lies in the buffer; None while it is not whole."""
    if response.status < 200 or response.status in {204, 304} or method == "HEAD":
        return 0
    if response.field(b"transfer-encoding") == "chunked":
        end = unread.find(b"0\r\n\r\n", start)  # good enough for answers without trailers
        return end + 5 - start if end >= 0 else None
    length = int(response.field(b"content-length"))
    return length if len(unread) >= start + length else None


@dataclass
class Load:
    """A load that runs while its context lasts, or until its count is done."""

    plan: Plan
    disconnects: int = 0
    _answers: list[Answer] = field(default_factory=list)
    _next: int = 0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _prefix: str = field(default_factory=lambda: f"r{next(PREFIXES)}")
    _began: float = 0.0

    async def __aenter__(self) -> Self:
        self._began = time.monotonic()
        drives = (self._drive() for _ in range(self.plan.connections))
        self._tasks = [asyncio.ensure_future(drive) for drive in drives]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Send no more, and wait for what is under way."""
        self._stopping.set()
        await self.finished()

    async def finished(self) -> None:
        """Wait for the end of a load with a count."""
        await asyncio.gather(*self._tasks)

    @property
    def sent(self) -> int:
        return self._next

    def report(self) -> Report:
        return Report(tuple(self._answers), self.disconnects)

    async def _drive(self) -> None:
        client: Client | None = None
        while not self._over():
            index, self._next = self._next, self._next + 1
            if self.plan.rate:
                await self._until_due(index)
                if self._stopping.is_set():
                    break
            client = await self._one(client, index)
        if client is not None:
            self.disconnects += client.closed
            client.close()

    def _over(self) -> bool:
        return self._stopping.is_set() or bool(self.plan.count and self._next >= self.plan.count)

    async def _until_due(self, index: int) -> None:
        due = self._began + index / self.plan.rate
        wait = due - time.monotonic()
        if wait > 0 and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()

    async def _one(self, client: Client | None, index: int) -> Client | None:
        request = self.plan.make(index)
        request_id = f"{self._prefix}-{index}"
        if client is not None and client.closed:
            self.disconnects += 1
            client = None
        answer, client = await exchange(client, self.plan, request, request_id)
        self._answers.append(answer)
        if client is None:
            self.disconnects += answer.fault != "refused"
        return client


async def exchange(
    client: Client | None, plan: Plan, request: Request, request_id: str
) -> tuple[Answer, Client | None]:
    """Send one request; the client is None after it if it cannot be used again."""
    began = time.monotonic()
    try:
        client = client or await connect(plan.port)
        encoded = request.encoded(request_id)
        response = await client.ask(encoded, request.method, plan.timeout_seconds)
    except FaultError as fault:
        took = time.monotonic() - began
        return Answer(request_id, request.method, began, took, fault=str(fault)), None
    answer = _answer(request_id, request.method, began, time.monotonic() - began, response)
    if response.field(b"connection") == "close":
        client.close()
        return answer, None
    return answer, client


async def connect(port: int) -> Client:
    try:
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    except OSError:
        message = "refused"
        raise FaultError(message) from None
    return client


def _answer(request_id: str, method: str, at: float, seconds: float, response: _Response) -> Answer:
    worker = response.field(b"x-worker")
    code = "" if worker or response.status < 400 else _code(response.body)
    retry_after = response.field(b"retry-after") != ""
    crc = zlib.crc32(response.body)
    return Answer(
        request_id, method, at, seconds, response.status, worker, code, "", retry_after, crc
    )


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return "not JSON"
