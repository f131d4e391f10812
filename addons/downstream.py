"""Connections from clients: what is read, how much of it, and for how long it is waited.

Invariants:
* A connection reads one request at a time; what comes beyond it is bounded, or ends the connection.
* Every wait for the client has a deadline, and very slow progress is none.
* A client that leaves cancels the exchange that serves it.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import struct
import termios
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Any, Protocol, override

from addons import http1
from addons.bounds import Limits
from addons.classification import failure_text
from addons.deadlines import NEVER, Deadlines, Expiring
from addons.forwarding import Peer
from addons.outbox import BatchingProtocol, Outbox
from addons.routing import INTERNAL_ERROR, Rejection, error_response

logger = logging.getLogger(__name__)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LINGER_SECONDS = 1.0
PIPELINED_BYTES = 65_536
WRITE_BUFFER_BYTES = 65_536
UNKNOWN = -1
LOOK_SECONDS = 1.0
TCP_CLOSE = b"\x07"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

MAX_REFUSED = 256
"""Connections over the limit that get an answer; further ones are closed without a word."""

MIN_BYTES_PER_SECOND = 500
"""A client that moves less, over a window of `progress_seconds`, makes no progress."""


class RequestBody:
    """The body of one request: kept until somebody takes it, handed on from then.

    Attributes:
        done: All of it has come.
        size: Bytes that have come.
        trailers: Fields after a chunked body.
    """

    __slots__ = (
        "_decoder", "_kept", "_limit", "_max_bytes", "_on_end", "_read_more", "_sink", "_waiter",
        "done", "failure", "replayable", "size",
    )  # fmt: skip

    def __init__(
        self, head: http1.RequestHead, max_bytes: int, read_more: Callable[[bool], None]
    ) -> None:
        """A body of which nothing has come.

        Args:
            head: What was announced.
            max_bytes: Longest body taken.
            read_more: Told whether more of it is wanted now.
        """
        self._decoder = http1.request_body(head) if head.has_body else http1.NO_BODY
        self._max_bytes = max_bytes
        self._read_more = read_more
        self._kept: list[bytes] = []
        self._limit = PIPELINED_BYTES
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._on_end: Callable[[], None] | None = None
        self.size = 0
        too_long = (head.content_length or 0) > max_bytes
        self.failure = too_large() if too_long else None
        self.replayable = True
        self.done = self._decoder.done

    @property
    def trailers(self) -> http1.Fields:
        """Fields after a chunked body, once it is done."""
        return self._decoder.trailers

    @property
    def rest(self) -> bytes:
        """What came beyond the end of the body."""
        return self._decoder.rest

    def feed(self, data: bytes) -> None:
        """Take what the client sent."""
        if self.failure is not None:
            return
        try:
            payload = self._decoder.feed(data)
        except http1.ProtocolError as exc:
            self.fail(exc)
            return
        self.size += len(payload)
        if self.size + self._decoder.remaining > self._max_bytes:
            self.fail(too_large())
            return
        self.done = self._decoder.done
        if self._sink is not None and payload:
            self.replayable = False
            self._kept = []
            self._sink(payload)
        elif payload:
            self._kept.append(payload)
            self._read_more(self.size < self._limit or self.done)
        if self.done and self._on_end is not None:
            self._on_end()
        if self.done or self.size >= self._limit:
            self._wake()

    async def collect(self, limit: int) -> bytes:
        """The body, or its beginning: waits until it is whole or has at least `limit` bytes.

        Raises:
            ProtocolError: If it is malformed or too long.
        """
        self._limit = limit
        while not self.done and self.failure is None and self.size < limit:
            self._read_more(True)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.failure is not None:
            raise self.failure
        return self.kept()

    def kept(self) -> bytes:
        """What has come and is still kept."""
        if len(self._kept) > 1:
            self._kept = [b"".join(self._kept)]
        return self._kept[0] if self._kept else b""

    def replace(self, payload: bytes) -> None:
        """Put another payload in the place of a whole body."""
        self._kept = [payload]

    def stream(self, sink: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Hand on what comes from now on; what is kept has been sent already."""
        self._sink, self._on_end = sink, on_end
        if self.failure is not None:
            on_end()
        else:
            self._read_more(True)

    def stop_streaming(self) -> None:
        """Keep what comes from now on: its taker is gone."""
        self._sink = self._on_end = None
        self._read_more(False)

    def want_more(self, wanted: bool) -> None:
        """Whether the taker takes more now."""
        if self._sink is not None and not self.done:
            self._read_more(wanted)

    def fail(self, error: http1.ProtocolError) -> None:
        """Give the body up: no more of it is taken."""
        self.failure = error
        self._wake()
        if self._on_end is not None:
            self._on_end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def too_large() -> http1.ProtocolError:
    """The refusal of a body over the limit."""
    return http1.ProtocolError(
        413, "request_too_large", "the request is larger than the proxy takes"
    )


class State(Enum):
    """What a client connection is doing."""

    IDLE = auto()
    HEAD = auto()
    EXCHANGE = auto()
    TUNNEL = auto()
    CLOSING = auto()


class ClientConnection(BatchingProtocol):
    """One connection from a client.

    Attributes:
        peer: Who the client is.
        owner: What the owner of the listener knows the connection by.
        state: What it is doing.
        deadline: Until when the client has to do something, in monotonic seconds.
    """

    __slots__ = (
        "__weakref__", "_body", "_clients", "_head", "_idle_deadline", "_idle_since", "_look_until",
        "_on_closed", "_reading", "_scanned", "_sink", "_task", "_unread", "_waits_to_write",
        "_window_from", "_written", "_written_before", "deadline", "on_left", "on_writable",
        "owner", "peer", "state", "writable",
    )  # fmt: skip

    def __init__(self, clients: "Clients", peer: Peer, on_closed: Callable[[], None]) -> None:
        """A connection that `connection_made` has to start.

        Args:
            clients: All connections, this one included from then on.
            peer: Who the client is.
            on_closed: Called once it is closed.
        """
        super().__init__(clients.outbox)
        self.peer = peer
        self.owner: object = None
        self.deadline = NEVER
        self.state = State.IDLE
        self.writable = True
        self.on_writable: Callable[[bool], None] | None = None
        self._clients = clients
        self._on_closed = on_closed
        self._unread = b""
        self._scanned = 0
        self._head: http1.RequestHead | None = None
        self._body: RequestBody | None = None
        self.on_left: Callable[[], None] | None = None
        self._waits_to_write = False
        self._task: asyncio.Task[None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._reading = True
        self._written = self._written_before = 0
        self._window_from = 0
        self._idle_since: float | None = None
        self._idle_deadline = NEVER
        self._look_until = 0.0

    # What an exchange does with it

    def introduce(self) -> object:
        """What the owner of the listener knows it by."""
        return self.owner

    @property
    def draining(self) -> bool:
        """Whether the request that is being served is the last one."""
        return self._clients.draining

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self._written += len(data)
        self.send(data)

    def abort(self) -> None:
        """Reset the connection: the client must not take what it got for a whole answer.

        Without a reset, the kernel would go on to offer what a slow client has not taken.
        """
        if self.closed:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.transport.abort()

    def tunnel(self, sink: Callable[[bytes], None]) -> None:
        """From now on hand on whatever the client sends."""
        self.state = State.TUNNEL
        self._sink = sink
        self._start_window()
        data, self._unread = self._unread, b""
        if data:
            sink(data)

    def read_more(self, wanted: bool) -> None:
        """Go on reading from the client, or stop."""
        if wanted is self._reading or self.closed:
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()
        self._start_window()

    def drain(self) -> None:
        """Take no further request after the one that is being served."""
        if self.state is State.IDLE:
            # A request may be on its way: it is served if it comes now.
            self.deadline = min(self.deadline, time.monotonic() + LINGER_SECONDS / 2)

    def let_go(self) -> None:
        """Give the transport up to somebody else, untouched."""
        self.closed = True
        self.deadline = NEVER
        self._clients.leave(self)
        if self._task is not None:
            self._task.cancel()
        left, self.on_left = self.on_left, None
        if left is not None:
            left()

    # What asyncio does with it

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(
            transport, asyncio.Transport
        ):  # pragma: no cover - asyncio gives no other
            raise TypeError(transport)
        self.transport = transport
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        refusal = self._clients.enter(self)
        if refusal is not None:
            if self._clients.is_flooded:
                self.state = State.CLOSING
                transport.abort()
            else:
                self._refuse(refusal)
            return
        self.deadline = time.monotonic() + self._clients.limits.head_seconds
        if self._clients.draining:
            self.drain()

    @override
    def data_received(self, data: bytes) -> None:
        if self.state is State.EXCHANGE:
            self._take_body(data)
        elif self.state is State.TUNNEL:
            if self._sink is not None:
                self._sink(data)
        elif self.state is not State.CLOSING:
            self._unread += data
            self._read_head()

    @override
    def eof_received(self) -> bool:
        # A client may close its half and still read: asyncio closes once all is sent that it knows.
        self.flush()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.let_go()
        if self.on_writable is not None:
            # Nobody shall wait for a closed connection.
            self.on_writable(True)
        self._on_closed()

    @override
    def pause_writing(self) -> None:
        self.writable = False
        self._start_window()
        if self.on_writable is not None:
            self.on_writable(False)

    @override
    def resume_writing(self) -> None:
        self.writable = True
        if self.state is State.CLOSING:
            self._window_from = UNKNOWN
            self.deadline = time.monotonic()
        else:
            self._start_window()
        if self.on_writable is not None:
            self.on_writable(True)
        if self._waits_to_write and not self.closed:
            self._waits_to_write = False
            self._become_idle()

    # Requests, one after the other

    def run(self, work: Coroutine[Any, Any, bool]) -> None:
        """Serve the request, or the rest of it, in a task of its own.

        Args:
            work: Serves it; the answer is whether the connection may bring another.
        """
        if self.closed:
            work.close()
            return
        task = self._clients.spawn(self._run(work))
        # Where it could be done at once, another request may have begun already.
        if not task.done():
            self._task = task

    async def _run(self, work: Coroutine[Any, Any, bool]) -> None:
        try:
            keep_alive = await work
        except asyncio.CancelledError:
            # The client has left; whoever served it has cleaned up.
            self.abort()
        except Exception as exc:
            # Supervisor: nobody awaits this task, and the client must not wait for nothing.
            self._task = None
            self._end_badly(exc)
        else:
            self._task = None
            self.ended(keep_alive=keep_alive)

    def _end_badly(self, error: Exception) -> None:
        logger.error("a client connection failed: %s", failure_text(error))
        if self._written == self._written_before:
            self._refuse(INTERNAL_ERROR)
        # Else the answer is out, or broken off already.
        self._finish()

    def ended(self, *, keep_alive: bool) -> None:
        """The request has been served.

        Args:
            keep_alive: Whether the connection may bring another.
        """
        self.on_left = None
        if not keep_alive or self._body is None or not self._body.done or self.closed:
            self._finish()
        elif self.writable:
            self._become_idle()
        else:
            # Take no further request from a client that does not take the answers.
            self._waits_to_write = True
            self._start_window()

    def _become_idle(self) -> None:
        rest = self._body.rest if self._body is not None else b""
        self._head = self._body = None
        self.state = State.IDLE
        self._idle_since = now = time.monotonic()
        # What it has not taken yet is only counted if it is still there by then.
        self._window_from = UNKNOWN
        self.deadline = now + min(self._clients.limits.keepalive_seconds, self._window_seconds())
        if self._clients.draining:
            self.drain()
        if not self._reading:
            self.read_more(True)
        self._scanned = 0
        if rest or self._unread:
            self._unread = rest + self._unread
            # Not at once: a row of requests that are all refused would be a tower of calls.
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """Read the request that had come before the one ahead of it was served."""
        if self.state is State.IDLE and self._unread and not self.closed:
            self._read_head()

    def _read_head(self) -> None:
        if self._unread.startswith(b"\r\n"):
            # An empty line before a request is tolerated (RFC 9112, section 2.2).
            self._unread, self._scanned = self._unread[2:], 0
            if not self._unread and self._idle_since is not None:
                # No request has begun.
                if self.state is State.HEAD:
                    self.state = State.IDLE
                    self.deadline = self._idle_deadline
                return
        end = self._unread.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0 and self.state is State.IDLE:
            self.state = State.HEAD
            self._idle_deadline = self.deadline
            self.deadline = time.monotonic() + self._clients.limits.head_seconds
        try:
            head = self._parse_head(end)
        except http1.ProtocolError as exc:
            self._refuse(refusal_of(exc))
            return
        if head is not None:
            self._begin_exchange(head, self._unread[end + 4 :])

    def _parse_head(self, end: int) -> http1.RequestHead | None:
        limits = self._clients.limits
        if (end if end >= 0 else len(self._unread)) > limits.head_bytes:
            raise http1.ProtocolError(
                431, "headers_too_large", f"the head is longer than {limits.head_bytes} bytes"
            )
        if end >= 0:
            memory = self._clients.memory
            return http1.parse_request_head(self._unread[:end], limits.head_fields, memory)
        http1.check_partial_head(self._unread, self._scanned)
        self._scanned = len(self._unread)
        return None

    def _begin_exchange(self, head: http1.RequestHead, data: bytes) -> None:
        self.state = State.EXCHANGE
        self._unread, self._scanned = b"", 0
        self._head = head
        self._written_before = self._written
        self._body = RequestBody(head, self._clients.limits.body_bytes, self.read_more)
        self.deadline = NEVER
        if data:
            self._take_body(data)
        if not self._body.done or not self.writable:
            # What the client has not taken of the answer before counts on.
            self._start_window()
        try:
            work = self._clients.serve(self, head, self._body)
        except Exception as exc:
            # Supervisor: asyncio would break the connection off without an answer.
            self._end_badly(exc)
            return
        if work is not None:
            self.run(work)

    def _take_body(self, data: bytes) -> None:
        body = self._body
        if body is not None and not body.done:
            # What belongs to a body that was given up is thrown away.
            body.feed(data)
            if body.done and body.failure is None:
                # Nothing more is waited for.
                self._start_window()
            return
        self._unread += data
        if len(self._unread) > PIPELINED_BYTES:
            self.abort()

    # The end of a connection

    def _refuse(self, refusal: Rejection) -> None:
        """Answer what cannot be served, and close."""
        self._clients.refused(refusal)
        self.write(error_response(refusal, keep_alive=False))
        self._finish()

    def _finish(self) -> None:
        """Close, but give the client time to read what was written.

        A socket that is closed with unread bytes resets the connection, and the client may lose the
        answer: what still comes is read and thrown away for a moment.
        """
        if self.closed or self.state is State.CLOSING:
            return
        self.flush()
        self.state = State.CLOSING
        self._unread = b""
        self.read_more(True)
        self._window_from = UNKNOWN
        if self.transport.can_write_eof():
            self.deadline = time.monotonic() + LINGER_SECONDS
            with contextlib.suppress(OSError):
                # The client may have reset the connection in this very moment.
                self.transport.write_eof()
        else:
            # TLS has no end of one direction alone: it is closed once the client has taken all.
            self._look_soon()

    # Deadlines

    def expire(self, now: float) -> None:
        """The client made no progress for too long, or was idle for long enough."""
        if not self._reading and self._has_left():
            self.abort()
        elif self.state is State.HEAD:
            self._refuse(Rejection(408, "request_timeout", "The request did not come in time."))
        elif self.state is State.IDLE and not self._unacknowledged():
            self._expire_idle(now)
        elif self.state is State.CLOSING and self._is_through():
            # It has had all of the answer: no reset.
            self.transport.close()
        elif self.state is State.CLOSING and now < self._look_until:
            # A client waits for the end, and nothing tells that the last bytes have gone out.
            self.deadline = now
        elif self._has_moved() or (self.writable and not self._reading):
            self._start_window()
        elif self.state is State.EXCHANGE and self.writable and self._body is not None:
            self.deadline = NEVER
            late = http1.ProtocolError(408, "request_timeout", "the body did not come in time")
            self._body.fail(late)
        else:
            # It does not read the answer that it asked for.
            self.abort()

    def _look_soon(self) -> None:
        """Look at each tick whether all has gone out; after a window of time, at the progress."""
        now = time.monotonic()
        self.deadline, self._look_until = now, now + self._window_seconds()

    def _is_through(self) -> bool:
        """Whether a connection that is being closed has no more to send."""
        if self.transport.can_write_eof():
            return not self._unacknowledged()
        return not self.transport.get_write_buffer_size()

    def _expire_idle(self, now: float) -> None:
        until = (self._idle_since or 0.0) + self._clients.limits.keepalive_seconds
        if self._idle_since is None or self._clients.draining or now >= until:
            self._finish()
        else:
            self.deadline = until

    def _window_seconds(self) -> float:
        # Two windows of an idle connection have to fit in.
        return self._clients.limits.progress_seconds / (2 if self.state is State.IDLE else 1)

    def _has_moved(self) -> bool:
        if self._window_from == UNKNOWN:
            return True
        least = self._window_seconds() * MIN_BYTES_PER_SECOND
        return self._moved() - self._window_from >= least

    def _start_window(self) -> None:
        """Look at the client's progress again when a window of time is over."""
        body = self._body
        reads = (
            self.state is State.EXCHANGE and self._reading and body is not None and not body.done
        )
        if reads or not self.writable or self.state in {State.IDLE, State.CLOSING}:
            self._window_from = self._moved()
            self.deadline = time.monotonic() + self._window_seconds()
            if self.state is State.CLOSING and not self.transport.can_write_eof():
                self._look_soon()
        elif not self._reading:
            # What is not read from cannot tell that it has gone.
            self._window_from = UNKNOWN
            self.deadline = time.monotonic() + LOOK_SECONDS
        elif self.state in {State.EXCHANGE, State.TUNNEL}:
            self.deadline = NEVER

    def _moved(self) -> int:
        """Bytes that the client sent, or took, whichever it is that is waited for."""
        if self.state is State.EXCHANGE and self.writable and self._body is not None:
            return self._body.size
        return self._written - self._unacknowledged()

    def _has_left(self) -> bool:
        """Whether the client has reset the connection, as the kernel knows."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return False
        try:
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return True
        return bool(state == TCP_CLOSE)

    def _unacknowledged(self) -> int:
        """Bytes of answers that the client's side has not acknowledged yet."""
        waiting = self.transport.get_write_buffer_size() + len(self._unsent)
        sock = self.transport.get_extra_info("socket")
        if sock is None:
            return waiting
        try:
            told = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except (OSError, ValueError):
            return waiting
        return waiting + int(struct.unpack("i", told)[0])


def refusal_of(error: http1.ProtocolError) -> Rejection:
    """What a client is told about a request that is not taken."""
    message = f"{str(error)[:1].upper()}{str(error)[1:]}."
    return Rejection(error.status, error.code, message)


type Serve = Callable[
    [ClientConnection, http1.RequestHead, RequestBody], Coroutine[Any, Any, bool] | None
]
"""Serves one request: by a coroutine, whose answer is whether the connection may bring another; or
at once and by callbacks (None), at the end of which it calls `ended`."""


class Connected(Expiring, Protocol):
    """What counts as a connection: one that is served, or whose TLS handshake is under way."""

    peer: Peer

    def drain(self) -> None:
        """End soon."""
        ...

    def abort(self) -> None:
        """End at once."""
        ...


class Clients:
    """All connections from clients, and what they may do."""

    def __init__(
        self,
        limits: Limits,
        deadlines: Deadlines,
        serve: Serve,
        refused: Callable[[Rejection], None],
        outbox: Outbox | None = None,
    ) -> None:
        """No connection yet.

        Args:
            limits: Bounds; replaced as a whole when settings change.
            deadlines: Who watches over waits.
            serve: Serves a request.
            refused: Told of each request that is refused before it is served.
            outbox: Sends what is written to clients; its own if it shares none.
        """
        self._limits = limits
        self.memory = http1.Memory()
        self.outbox = outbox or Outbox()
        self.serve = serve
        self.refused = refused
        self.draining = False
        self._deadlines = deadlines
        self._connections: set[Connected] = set()
        self._by_address: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def limits(self) -> Limits:
        """Bounds in force."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        if limits != self._limits:
            # What was within the old bounds may not be within these.
            self.memory = http1.Memory()
        self._limits = limits

    @staticmethod
    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start the task of one connection at once; the loop holds on to it, and so does it."""
        loop = asyncio.get_running_loop()
        return asyncio.Task(work, loop=loop, name="client connection", eager_start=True)

    def enter(self, connection: Connected) -> Rejection | None:
        """Count a connection in; the answer is why it may not stay."""
        address = connection.peer.address
        limits = self.limits
        here = self._by_address[address] if limits.connections_per_client else 0
        refusal = None
        if len(self._connections) >= limits.connections:
            refusal = Rejection(503, "too_many_connections", "The proxy is full.", 1)
        elif limits.connections_per_client and here >= limits.connections_per_client:
            refusal = Rejection(503, "too_many_connections", "Too many connections from you.", 1)
        self._connections.add(connection)
        self._by_address[address] += 1
        self._deadlines.add(connection)
        self._empty.clear()
        return refusal

    @property
    def is_flooded(self) -> bool:
        """Whether there are so many connections that not even a refusal can be afforded."""
        return len(self) > self.limits.connections + MAX_REFUSED

    def leave(self, connection: Connected) -> None:
        """Count a connection out."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._deadlines.discard(connection)
        address = connection.peer.address
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._connections:
            self._empty.set()

    async def drain(self, timeout_seconds: float) -> int:
        """Let the requests under way end and all connections close.

        Returns:
            How many connections had to be cut when the time was over.
        """
        self.draining = True
        for connection in list(self._connections):
            connection.drain()
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._empty.wait()
        except TimeoutError:
            return self.cut()
        return 0

    def cut(self) -> int:
        """Close all connections at once; return how many there were."""
        for connection in list(self._connections):
            connection.abort()
        return len(self._connections)
