"""What a faulty worker can do with a request: one function for each, chosen by its name.

A request asks for one by its path, `/do/sse?events=3&gap_ms=100`, with arguments in its query.
"""

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faulty_connection import Connection, HangUpError, Received, Request

SECRET = "10.1.2.3:4567"
"""An internal address in broken answers: no client may ever see it."""

PIECE = bytes(range(256)) * 256

type Journal = Callable[[str, Request], None]
type Behaviour = Callable[["Exchange"], Awaitable[None]]

BEHAVIOURS: dict[str, Behaviour] = {}


@dataclass
class Faults:
    """What a worker does wrong now; the control port changes it while the worker runs.

    Attributes:
        behaviour: What it does with a request whose path does not ask for something.
        delay_ms: How long each answer takes.
        status: Status of each answer.
        body: Body of each answer; if empty, it tells of the request.
        health_status: Status of the answers at /health.
        idle_close_ms: Closes a connection that has been idle for this long; 0 is never.
        close_on_next: Closes a connection, unread, once the next request on it has arrived.
        accepting: If not, its kernel drops whoever tries to connect, and what it has it closes.
    """

    behaviour: str = "answer"
    delay_ms: float = 0.0
    status: int = 200
    body: str = ""
    health_status: int = 200
    idle_close_ms: float = 0.0
    close_on_next: bool = False
    accepting: bool = True


@dataclass
class Exchange:
    """One request, and all that is needed to misbehave."""

    name: str
    faults: Faults
    connection: Connection
    request: Request
    journal: Journal
    received: Received = field(default_factory=Received)

    @property
    def kept_alive(self) -> bool:
        return self.request.keep_alive and self.faults.accepting

    def number(self, name: str, default: int) -> int:
        return int(self.request.query.get(name, default))

    async def read_body(self) -> None:
        if self.request.headers.get("expect", "").lower() == "100-continue":
            await self.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        async for _ in self.connection.body(self.request, self.received):
            pass
        self.journal("request", self.request)

    def head(self, *fields: str, status: int = 200) -> bytes:
        lines = [f"HTTP/1.1 {status} Whatever", f"X-Worker: {self.name}", *fields]
        if not self.kept_alive:
            lines.append("Connection: close")
        return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()

    def report(self) -> bytes:
        seen = {
            "worker": self.name,
            "id": self.request.id,
            "bytes": self.received.size,
            "crc": self.received.crc,
            "trailers": self.received.trailers,
        }
        return json.dumps(seen).encode()

    def whole(self, status: int = 200, body: bytes | None = None) -> bytes:
        content = self.report() if body is None else body
        fields = ["Content-Type: application/json", f"Content-Length: {len(content)}"]
        head = self.head(*fields, status=status)
        return head if self.request.method == "HEAD" else head + content

    async def send(self, data: bytes) -> None:
        await self.connection.send(data)

    async def pause(self, milliseconds: float) -> None:
        if milliseconds:
            await self.connection.sleep(milliseconds / 1000)


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[getattr(function, "__name__", "").replace("_", "-")] = function
    return function


@behaviour
async def answer(exchange: Exchange) -> None:
    """Answer, as late and with the status that is set or asked for: `?ms=`, `?status=`."""
    await exchange.read_body()
    faults = exchange.faults
    await exchange.pause(exchange.number("ms", 0) or faults.delay_ms)
    body = faults.body.encode() if faults.body else None
    await exchange.send(exchange.whole(exchange.number("status", faults.status), body))


@behaviour
async def reset(exchange: Exchange) -> None:
    await exchange.read_body()
    raise HangUpError(reset=True)


@behaviour
async def hang_up(exchange: Exchange) -> None:
    await exchange.read_body()
    raise HangUpError


@behaviour
async def silence(exchange: Exchange) -> None:
    """Never answer."""
    await exchange.read_body()
    await exchange.pause(3_600_000)


@behaviour
async def early(exchange: Exchange) -> None:
    """Answer before the body has come, then close."""
    exchange.journal("request", exchange.request)
    await exchange.send(exchange.whole(413))
    raise HangUpError


@behaviour
async def garbage(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(b"\x16\x03\x01 %b\r\n\r\n" % SECRET.encode())
    raise HangUpError


@behaviour
async def cut_head(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(f"HTTP/1.1 200 OK\r\nX-Internal: {SECRET}\r\nContent-Le".encode())
    raise HangUpError


@behaviour
async def stalled_head(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(f"HTTP/1.1 200 OK\r\nX-Internal: {SECRET}\r\nContent-Le".encode())
    await exchange.pause(3_600_000)


@behaviour
async def cut_length(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(exchange.head("Content-Length: 1000") + b"the beginning")
    await exchange.pause(exchange.number("ms", 0))
    raise HangUpError


@behaviour
async def cut_chunks(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(exchange.head("Transfer-Encoding: chunked") + b"d\r\nthe beginning\r\n")
    await exchange.pause(exchange.number("ms", 0))
    raise HangUpError


@behaviour
async def bad_chunks(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(
        exchange.head("Transfer-Encoding: chunked") + b"zz\r\nnonsense\r\n0\r\n\r\n"
    )


@behaviour
async def surplus(exchange: Exchange) -> None:
    """Two answers to one request: the second must not become that of another request."""
    await exchange.read_body()
    await exchange.send(exchange.whole() + exchange.whole(418, b'{"error": "stray"}'))


@behaviour
async def slow_head(exchange: Exchange) -> None:
    """The head of the answer comes byte by byte."""
    await exchange.read_body()
    for byte in exchange.whole():
        await exchange.send(bytes([byte]))
        await exchange.pause(exchange.number("gap_ms", 1))


@behaviour
async def early_hints(exchange: Exchange) -> None:
    await exchange.read_body()
    await exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
    await exchange.pause(exchange.number("gap_ms", 0))
    await exchange.send(exchange.whole())


@behaviour
async def trailers(exchange: Exchange) -> None:
    """A chunked answer with trailers."""
    await exchange.read_body()
    body = exchange.report()
    head = exchange.head("Transfer-Encoding: chunked", "Trailer: X-Checksum")
    crc = f"0\r\nX-Checksum: {exchange.received.crc}\r\nX-Last: yes\r\n\r\n"
    await exchange.send(head + b"%x\r\n%b\r\n" % (len(body), body) + crc.encode())


@behaviour
async def sse(exchange: Exchange) -> None:
    """Events that tell the monotonic time at which each was sent."""
    await exchange.read_body()
    head = exchange.head("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    await exchange.send(head)
    for _ in range(exchange.number("events", 5)):
        await exchange.pause(exchange.number("gap_ms", 100))
        event = f"data: {time.monotonic()}\n\n"
        await exchange.send(f"{len(event):x}\r\n{event}\r\n".encode())
    await exchange.send(b"0\r\n\r\n")


@behaviour
async def stream(exchange: Exchange) -> None:
    """A big answer: `?bytes=`, framed by `?framing=` length, chunked or close."""
    await exchange.read_body()
    left = exchange.number("bytes", 1_000_000)
    framing = exchange.request.query.get("framing", "length")
    announced = {"length": f"Content-Length: {left}", "chunked": "Transfer-Encoding: chunked"}
    await exchange.send(exchange.head(announced.get(framing, "Connection: close")))
    while left:
        piece = PIECE[:left]
        left -= len(piece)
        framed = b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece
        await exchange.send(framed)
    if framing == "chunked":
        await exchange.send(b"0\r\n\r\n")
    elif framing == "close":
        raise HangUpError


@behaviour
async def switch(exchange: Exchange) -> None:
    """Agree to any upgrade, or insist on one, and answer whatever comes after it."""
    protocol = exchange.request.headers.get("upgrade", "h2c")
    exchange.journal("request", exchange.request)
    await exchange.send(
        f"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()
    )
    while data := await exchange.connection.data():
        exchange.journal("tunnelled", exchange.request)
        await exchange.send(b"tunnelled:" + data)


@behaviour
async def websocket(exchange: Exchange) -> None:
    """Echo what comes, piece by piece; with `?echo=0` count it and tell at the end."""
    from wsproto import ConnectionType, WSConnection, events

    exchange.journal("request", exchange.request)
    ws = WSConnection(ConnectionType.SERVER)
    ws.receive_data(exchange.request.raw)
    worker_name = [(b"x-worker", exchange.name.encode())]
    echo = exchange.number("echo", 1)
    while True:
        for event in ws.events():
            match event:
                case events.Request():
                    accept = events.AcceptConnection(extra_headers=worker_name)
                    await exchange.send(ws.send(accept))
                case events.Message(data=data):
                    exchange.received.take(data.encode() if isinstance(data, str) else data)
                    if echo:
                        await exchange.send(ws.send(event))
                case events.Ping():
                    await exchange.send(ws.send(event.response()))
                case events.CloseConnection():
                    reason = f"{exchange.received.size} {exchange.received.crc}"
                    await exchange.send(ws.send(events.CloseConnection(event.code, reason)))
                    raise HangUpError
                case _:
                    pass
        ws.receive_data(await exchange.connection.data())


async def perform(exchange: Exchange) -> None:
    """Do what the request's path asks for, or else what is set."""
    path = exchange.request.path
    name = path.removeprefix("/do/") if path.startswith("/do/") else exchange.faults.behaviour
    await BEHAVIOURS[name](exchange)
