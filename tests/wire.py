"""The wire as it is: a worker that keeps every byte it gets, and clients that send any byte."""

import asyncio
import contextlib
import fcntl
import json
import re
import select
import socket
import ssl
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import h11

from tests import loopback

HOP_BY_HOP = {
    b"connection", b"http2-settings", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"upgrade",
}  # fmt: skip
"""Of Transfer-Encoding the judge asks more; see `complaints_of`."""

WEBSOCKET = {b"connection": b"upgrade", b"upgrade": b"websocket"}

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    _TOKEN + rb" (?:/[\x21\x22\x24-\x7e]*|\*) HTTP/1\.1"
    rb"(?:\r\n" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*)*"
)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
MAX_HEAD_BYTES = 1 << 20
LAST_REQUEST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """A whole request as a worker got it, trailers after the fields."""

    head: bytes
    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]

    def values(self, name: bytes) -> list[bytes]:
        return [value for known, value in self.fields if known == name]


def complaints_of(head: bytes, fields: list[tuple[bytes, bytes]]) -> list[str]:
    """Why this head is not one that a worker should ever see."""
    found = [] if _HEAD.fullmatch(head) else ["the head's syntax"]
    names = [name for name, _ in fields]
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        found.append(f"hosts {hosts}")
    if names.count(b"content-length") + names.count(b"transfer-encoding") > 1:
        found.append("two framings")
    if any(name == b"transfer-encoding" and value != b"chunked" for name, value in fields):
        found.append("another transfer coding than chunked")
    hop_by_hop = {name: value.lower() for name, value in fields if name in HOP_BY_HOP}
    if head.startswith(b"GET ") and hop_by_hop == WEBSOCKET:
        # The one protocol that may be switched to is asked for from hop to hop.
        return found
    return found + [f"hop-by-hop {name.decode()}" for name in hop_by_hop]


@dataclass
class Recorder:
    """A worker that keeps what it gets, byte for byte, and has a strict parser (h11) judge it.

    It answers 200, and to `/health` as well, but requests to that are not kept. A query changes the
    answer: `?wait=SECONDS` delays it, `?size=BYTES` makes it larger.

    Attributes:
        port: Where it listens.
        replies: For these targets, what it says instead, byte for byte, before it closes.
        raw: What came, for each connection.
        requests: The whole requests, in the order in which they were answered.
        complaints: What no worker should ever see; empty if all went well.
        partial: Requests that broke off, which is no fault of the one who sent them on.
        unreadable: How many of the complaints are the parser's: what came is no request to it.
    """

    port: int = 0
    replies: dict[bytes, bytes] = field(default_factory=dict)
    raw: list[bytearray] = field(default_factory=list)
    requests: list[Seen] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    partial: int = 0
    unreadable: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Recorded(self, reader, writer)
        self.raw.append(connection.raw)
        try:
            while await connection.serve_one():
                pass
        except (ConnectionError, asyncio.CancelledError):
            self.partial += connection.amid
        except h11.LocalProtocolError:
            pass  # a CONNECT, about which it has complained, cannot be answered so
        except h11.RemoteProtocolError as exc:
            self.unreadable += 1
            self.complaints.append(f"{exc}: {bytes(connection.raw[connection.start :])[:2000]!r}")
        finally:
            writer.close()


@dataclass
class _Recorded:
    """One connection of a recorder."""

    recorder: Recorder
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    raw: bytearray = field(default_factory=bytearray)
    start: int = 0
    amid: bool = False

    def __post_init__(self) -> None:
        self.parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def serve_one(self) -> bool:
        """Answer one request; False if there are no more."""
        target = await self._receive()
        if target is None:
            return False
        if target in self.recorder.replies:
            self.writer.write(self.recorder.replies[target])
            await self.writer.drain()
            return False
        await self._answer(target)
        if self.parser.our_state is h11.MUST_CLOSE:
            return False
        self.start = len(self.raw) - len(self.parser.trailing_data[0])
        self.parser.start_next_cycle()
        return True

    async def _receive(self) -> bytes | None:
        """Take a whole request; the answer is its target, or None if there is none."""
        head, body = None, []
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._keep(head, b"".join(body), event)
                return head.target
            elif not await self._feed():
                self.recorder.partial += self.amid
                return None

    async def _feed(self) -> bool:
        data = await self.reader.read(65_536)
        self.raw += data
        self.amid = len(self.raw) > self.start
        if data:
            self.parser.receive_data(data)
        return bool(data)

    def _keep(self, head: h11.Request, body: bytes, end: h11.EndOfMessage) -> None:
        text = bytes(self.raw[self.start : self.raw.index(b"\r\n\r\n", self.start)])
        fields, trailers = list(head.headers), list(end.headers)
        seen = Seen(text, head.method, head.target, fields, body, trailers)
        self.amid = False
        if head.target == b"/health":
            # The proxy's own check, which it sends on a connection of its own.
            return
        self.recorder.requests.append(seen)
        found = complaints_of(text, fields)
        if found:
            self.recorder.complaints.append(f"{', '.join(found)}: {text[:2000]!r}")

    async def _answer(self, target: bytes) -> None:
        query = parse_qs(urlsplit(target.decode("latin-1")).query)
        await asyncio.sleep(float(query.get("wait", ["0"])[0]))
        answer = b"x" * int(query.get("size", ["2"])[0])
        fields = [("content-type", "text/plain"), ("content-length", str(len(answer)))]
        self.writer.write(self.parser.send(h11.Response(status_code=200, headers=fields)))
        # To a HEAD request, h11 leaves the body away.
        self.writer.write(self.parser.send(h11.Data(data=answer)))
        self.writer.write(self.parser.send(h11.EndOfMessage()))
        await self.writer.drain()


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    """A recorder that serves in a thread while the context lasts."""
    recorder = Recorder()
    with loopback.serving(recorder.serve, backlog=2_048) as recorder.port:
        yield recorder


@contextlib.contextmanager
def untouched() -> Iterator[list[str]]:
    """A listener that nobody may contact: yields its `host:port` and then those who did."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        visits = ["127.0.0.1:{1}".format(*listener.getsockname())]
        yield visits
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, peer = listener.accept()
                connection.setblocking(False)
                sent = b""
                with contextlib.suppress(OSError):
                    sent = connection.recv(200)
                visits.append(f"{peer}: {sent!r}")
                connection.close()


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer.

    Attributes:
        seconds: From the call that sent the request.
        interim: Statuses of the 1xx before it.
        last: The server said that it closes the connection.
    """

    status: int
    fields: dict[str, str]
    body: bytes
    seconds: float
    interim: list[int]
    last: bool

    @property
    def text(self) -> str:
        """All that a client could read in it."""
        return json.dumps(self.fields) + self.body.decode("latin-1")


class BrokenError(Exception):
    """The server closed before its answer was whole."""


class SilentError(BrokenError):
    """The server neither answered nor closed in time."""


@cache
def tls_context() -> ssl.SSLContext:
    """TLS that takes any certificate; without those of the system, whose loading takes a while."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Client:
    """A raw connection to a server."""

    def __init__(
        self,
        port: int,
        *,
        tls: bool = False,
        source: str = "127.0.0.1",
        timeout: float = 5,
        buffer_bytes: int = 0,
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if buffer_bytes:
            # Only before it is connected does that bound what the other side may send.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        if tls:
            self.socket = tls_context().wrap_socket(self.socket, server_hostname="localhost")
        self.began = time.monotonic()
        self.unread = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; that the other side does not want them is no error."""
        self.began = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.socket.sendall(data)

    def answer(self, method: str = "GET", seconds: float = 5) -> Answer:
        """The next whole answer.

        Raises:
            BrokenError: If there is none in time.
        """
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(self.unread) if self.unread else None
        head, body, interim = None, [], []
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(self._more(seconds))
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            else:
                break
        self.unread, last = parser.trailing_data[0], parser.their_state is h11.MUST_CLOSE
        fields = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        took = time.monotonic() - self.began
        return Answer(head.status_code, fields, b"".join(body), took, interim, last)

    def readable(self, seconds: float) -> bool:
        """Whether the server says something, or closes, within this time."""
        return bool(select.select([self.socket], [], [], seconds)[0])

    def _more(self, seconds: float) -> bytes:
        left = self.began + seconds - time.monotonic()
        if left <= 0:
            raise SilentError
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(262_144)
        except TimeoutError:
            raise SilentError from None
        except OSError as exc:
            raise BrokenError(str(exc)) from exc
        if not data:
            raise BrokenError
        return data

    def rest(self, seconds: float = 5) -> bytes:
        """All that comes until the server closes.

        Raises:
            SilentError: If it does not close in time.
        """
        data, self.unread, self.began = self.unread, b"", time.monotonic()
        while True:
            try:
                data += self._more(seconds)
            except SilentError:
                raise
            except BrokenError:
                return data


@dataclass(frozen=True)
class TcpSocket:
    """A line of the kernel's table of TCP sockets.

    Attributes:
        local: Address and port, in hexadecimal.
        state: See include/net/tcp_states.h of Linux.
        unread: Bytes that have come, and that its program has not read.
    """

    local: str
    remote: str
    state: str
    unread: int


def tcp_sockets() -> list[TcpSocket]:
    """All TCP sockets over IPv4 of this machine."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    columns = [line.split() for line in lines]
    return [TcpSocket(*line[1:4], int(line[4].partition(":")[2], 16)) for line in columns]


def has_read(client: Client) -> bool:
    """Whether the server's program has read all that the client sent."""
    port = f":{client.socket.getsockname()[1]:04X}"
    return all(one.unread == 0 for one in tcp_sockets() if one.remote.endswith(port)) and (
        unsent(client.socket) == 0
    )


def unsent(sock: socket.socket) -> int:
    """Bytes that the other side's kernel has not acknowledged yet."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def ask(port: int, request: bytes, *, tls: bool = False, seconds: float = 5) -> Answer:
    """Send bytes on a connection of their own; return the first answer."""
    with Client(port, tls=tls) as client:
        client.send(request)
        return client.answer(request.partition(b" ")[0].decode("latin-1") or "GET", seconds)


def converse(port: int, request: bytes, *, tls: bool = False) -> list[Answer]:
    """Send bytes on a connection of their own; return all answers until it closes.

    If it stays open, a last request follows: should the server still be amid the bytes, or have
    seen one request more in them than it answered, that shows in the answers.
    """
    with Client(port, tls=tls) as client:
        client.send(request)
        began = client.began
        answers = [client.answer()]
        if not answers[-1].last:
            client.send(LAST_REQUEST)
            client.began = began
        while not answers[-1].last:
            answers.append(client.answer())
        assert client.rest() == b""
        return answers


@dataclass(frozen=True)
class Flooded:
    """How a server took a flood.

    Attributes:
        sent: Bytes that it, or its kernel, took.
        seconds: Until it closed.
        received: The beginning of what it said.
        closed: It closed within the time given.
    """

    sent: int
    seconds: float
    received: bytes
    closed: bool

    @property
    def status(self) -> int:
        """Of the first answer; 0 if there is none."""
        matched = re.match(rb"HTTP/1\.1 (\d{3}) ", self.received)
        return int(matched[1]) if matched else 0


def flood(port: int, pieces: Iterable[bytes], seconds: float = 5) -> Flooded:
    """Send as fast as the server takes it, and read whatever it says, until it closes."""
    sent, received, pending, more = 0, b"", memoryview(b""), filter(None, pieces)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.setblocking(False)
        while (left := began + seconds - time.monotonic()) > 0:
            if not pending:
                pending = memoryview(next(more, b""))
            readable, writable, _ = select.select([sock], [sock] if pending else [], [], left)
            try:
                if readable:
                    data = sock.recv(262_144)
                    received = (received + data)[:65_536]
                    if not data:
                        break
                if writable:
                    count = sock.send(pending)
                    sent, pending = sent + count, pending[count:]
            except BlockingIOError:
                continue
            except OSError:
                break
        else:
            return Flooded(sent, seconds, received, closed=False)
    return Flooded(sent, time.monotonic() - began, received, closed=True)


def repeated(piece: bytes, total: int, start: bytes = b"") -> Iterator[bytes]:
    """`start`, and then pieces until `total` bytes are reached."""
    yield start
    block = piece * max(1, 262_144 // len(piece))
    for _ in range(0, total, len(block)):
        yield block


class Probe:
    """A normal client that asks again and again on one connection, and takes the time.

    `{number}` in its path becomes another number each time.
    """

    PAUSE_SECONDS = 0.003

    def __init__(self, port: int, path: str = "/probe", pause: float = PAUSE_SECONDS) -> None:
        self._port, self._pause = port, pause
        self._request = f"GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seconds: list[float] = []
        self.faults: list[str] = []

    def __enter__(self) -> "Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with Client(self._port) as client:
                    self._ask_on(client)
            except (BrokenError, OSError, h11.RemoteProtocolError) as exc:
                self.faults.append(str(exc) or type(exc).__name__)

    def _ask_on(self, client: Client) -> None:
        while not self._stop.is_set():
            client.send(self._request.replace("{number}", str(len(self.seconds))).encode())
            answer = client.answer()
            self.seconds.append(answer.seconds)
            if answer.status != 200:
                self.faults.append(str(answer.status))
            self._stop.wait(self._pause)

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of the requests stayed below."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1_000

    def __str__(self) -> str:
        p50, p99, top = (self.percentile(share) for share in (0.5, 0.99, 1))
        return f"{len(self.seconds)} probes, p50 {p50:.1f} p99 {p99:.1f} max {top:.1f} ms"


def probe_for(
    port: int, seconds: float, work: Callable[[], None] | None = None, path: str = "/probe"
) -> Probe:
    """Probe a server for some seconds, while `work` is done again and again."""
    until = time.monotonic() + seconds
    with Probe(port, path) as probe:
        while time.monotonic() < until:
            work() if work else time.sleep(0.05)
    return probe


class Memory:
    """Memory of a process, from its page in /proc."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def _read(self, name: str) -> float:
        text = (self._folder / "status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) / 1_024

    @property
    def now(self) -> float:
        """Resident megabytes."""
        return self._read("VmRSS")

    @property
    def peak(self) -> float:
        """Most resident megabytes since the last `mark`."""
        return self._read("VmHWM")

    def mark(self) -> float:
        """Forget the peak so far; return the resident megabytes now."""
        (self._folder / "clear_refs").write_text("5")
        return self.now


@contextlib.contextmanager
def growth(pid: int) -> Iterator[Callable[[], float]]:
    """Yields a function that tells by how many megabytes a process has grown at most."""
    memory = Memory(pid)
    before = memory.mark()
    yield lambda: memory.peak - before
