"""One connection of a faulty worker: HTTP/1.1 read by hand from a bare socket.

Nothing is read before somebody asks for it, so that what the worker leaves unread is exact.
"""

import asyncio
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

ID_HEADER = "x-load-id"
READ_BYTES = 262_144
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class GoneError(Exception):
    """The other side has closed or reset the connection."""


class HangUpError(Exception):
    """The worker wants this connection closed now.

    Attributes:
        reset: With a reset instead of an orderly end.
    """

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    target: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes

    @property
    def id(self) -> str:
        return self.headers.get(ID_HEADER, "-")

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close" and b"HTTP/1.1\r\n" in self.raw


@dataclass
class Received:
    """What has come of a body."""

    size: int = 0
    crc: int = 0
    trailers: dict[str, str] = field(default_factory=dict)

    def take(self, piece: bytes) -> None:
        self.size += len(piece)
        self.crc = zlib.crc32(piece, self.crc)


def parse(raw: bytes) -> Request:
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    parts = urlsplit(target)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            headers[name.lower()] = value.strip()
    return Request(method, target, parts.path, dict(parse_qsl(parts.query)), headers, raw)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Connection:
    """An accepted connection.

    Attributes:
        used: A request on it has been answered.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.used = False
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()

    async def head(self) -> Request | None:
        """The next request's head; None if the other side closes instead."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            if not await self._read():
                return None
        raw = bytes(self._unread[: end + 4])
        del self._unread[: end + 4]
        return parse(raw)

    async def body(self, request: Request, received: Received) -> AsyncIterator[bytes]:
        """The pieces of a request's body as they come."""
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            async for piece in self._chunks(received):
                received.take(piece)
                yield piece
            return
        left = int(request.headers.get("content-length", "0"))
        while left:
            if not self._unread:
                await self._more()
            piece = self._take(left)
            left -= len(piece)
            received.take(piece)
            yield piece

    async def data(self) -> bytes:
        """Whatever comes next, no matter what it means."""
        if not self._unread:
            await self._more()
        return self._take(len(self._unread))

    async def send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as exc:
            raise GoneError from exc

    async def arrival(self, timeout_seconds: float | None = None) -> bool:
        """Wait until there is something to read, an end included, and leave it unread."""
        if self._unread:
            return True
        ready: asyncio.Future[None] = self._loop.create_future()
        number = self._sock.fileno()
        self._loop.add_reader(number, _set, ready)
        try:
            async with asyncio.timeout(timeout_seconds):
                await ready
        except TimeoutError:
            return False
        finally:
            self._loop.remove_reader(number)
        return True

    def close_unless_arrived(self) -> bool:
        """Close now, unless there is something to read; whether it has closed.

        The loop may find an arrival and the end of a wait at once. What arrives between the look
        and the close is lost with a reset: no more than a moment lies between them.
        """
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self._sock.close()
            return True
        except OSError:
            pass
        return False

    async def sleep(self, seconds: float) -> None:
        """Wait, unless the other side leaves before."""
        until = self._loop.time() + seconds
        if await self.arrival(seconds):
            try:
                if not self._sock.recv(1, socket.MSG_PEEK):
                    raise GoneError
            except OSError as exc:
                raise GoneError from exc
            # The next request is here already: let it wait.
            await asyncio.sleep(max(0.0, until - self._loop.time()))

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._sock.close()

    def _take(self, size: int) -> bytes:
        piece = bytes(self._unread[:size])
        del self._unread[:size]
        return piece

    async def _chunks(self, received: Received) -> AsyncIterator[bytes]:
        while size := int((await self._line()).partition(b";")[0], 16):
            left = size
            while left:
                if not self._unread:
                    await self._more()
                piece = self._take(left)
                left -= len(piece)
                yield piece
            await self._line()
        while line := await self._line():
            name, _, value = line.decode("latin-1").partition(":")
            received.trailers[name.lower()] = value.strip()

    async def _line(self) -> bytes:
        while (end := self._unread.find(b"\r\n")) < 0:
            await self._more()
        return self._take(end + 2)[:-2]

    async def _more(self) -> None:
        if not await self._read():
            raise GoneError

    async def _read(self) -> bool:
        try:
            data = await self._loop.sock_recv(self._sock, READ_BYTES)
        except OSError as exc:
            raise GoneError from exc
        self._unread += data
        return bool(data)
