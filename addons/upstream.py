"""Connections to workers: one protocol class, and a pool of idle ones that all clients share.

Invariants:
* A connection serves one exchange at a time and goes back to the pool only after a whole answer.
* Nothing raises into asyncio: every end of a wait is a value, `ResponseHead` or `UpstreamError`.
* Each wait ends once, by one call of whoever waits; that call may begin the next exchange.
* Reading from the worker stops while the client does not take what was read.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum, StrEnum, auto
from functools import partial
from typing import override

from addons import http1
from addons.bounds import Timeouts
from addons.deadlines import NEVER, Deadlines, fair_timeout
from addons.names import addresses_of, first_of, is_our_own
from addons.outbox import BatchingProtocol, Outbox
from addons.pool import Worker

# A head that is longer, or more fields, come from no sane worker.
MAX_HEAD_BYTES = 131_072
MAX_HEAD_FIELDS = 512
MAX_INTERIM_HEADS = 16
MAX_UNREAD_BYTES = 262_144
WRITE_BUFFER_BYTES = 65_536
LOOKUP_SECONDS = 3.0

# Of struct tcp_info (linux/tcp.h): tcpi_bytes_acked, unsigned 64 bit.
_TCP_INFO_BYTES = 192
_BYTES_ACKED = slice(120, 128)

type Sink = Callable[[bytes], None]
type Answer = http1.ResponseHead | UpstreamError
type TakeAnswer = Callable[[Answer], None]
type TakeEnd = Callable[[UpstreamError | None], None]


class Fault(StrEnum):
    """How a try at a worker can fail; a closed set, also a metric label."""

    REFUSED = "refused"
    CONNECT_TIMEOUT = "connect_timeout"
    LOCAL = "local"
    """No connection, for want of our own means: open files, ports, memory."""
    STALE = "stale"
    CLOSED = "closed"
    TIMEOUT = "timeout"
    BAD_ANSWER = "bad_answer"


NOTHING_SENT = frozenset({Fault.REFUSED, Fault.CONNECT_TIMEOUT, Fault.LOCAL, Fault.STALE})


class UpstreamError(Exception):
    """A worker gave no usable answer.

    Attributes:
        fault: What went wrong.
    """

    def __init__(self, fault: Fault) -> None:
        """A failure of this kind; it names no address, for clients may see it."""
        super().__init__(fault.value)
        self.fault = fault

    @property
    def nothing_sent(self) -> bool:
        """Whether the worker is known not to have seen the request."""
        return self.fault in NOTHING_SENT


class _Phase(Enum):
    """Where a connection stands in its exchange."""

    IDLE = auto()
    HEAD = auto()
    """The head of the answer is waited for."""
    ANSWERED = auto()
    """It has come, or never will; nobody has asked for the body yet."""
    BODY = auto()
    ENDED = auto()


class UpstreamConnection(BatchingProtocol):
    """One connection to a worker."""

    __slots__ = (
        "_acked_at_start", "_answered", "_body", "_head_deadline", "_interims", "_loop",
        "_on_answer", "_on_end", "_on_interim", "_paused", "_phase", "_plain", "_pool", "_request",
        "_reset", "_scanned", "_sent", "_sent_before", "_sink", "_unread", "_whole", "deadline",
        "idle_since", "on_writable", "reused", "worker", "writable",
    )  # fmt: skip

    def __init__(self, worker: Worker, pool: "UpstreamPool") -> None:
        """A connection that is not made yet."""
        super().__init__(pool.outbox)
        self.worker = worker
        self.deadline = NEVER
        self.idle_since = 0.0
        self.reused = False
        self.writable = True
        self.on_writable: Callable[[bool], None] | None = None
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._plain = worker.scheme == "http"
        self._unread = b""
        self._scanned = 0
        self._interims = 0
        self._sent = self._sent_before = 0
        self._acked_at_start = 0
        self._head_deadline = NEVER
        self._phase = _Phase.IDLE
        self._answered: Answer | None = None
        self._on_answer: TakeAnswer | None = None
        self._on_end: TakeEnd | None = None
        self._whole = False
        self._body: http1.Body | None = None
        self._sink: Sink | None = None
        self._on_interim: Callable[[http1.ResponseHead], None] | None = None
        self._request: http1.RequestHead | None = None
        self._paused = False
        self._reset = False

    # What an exchange does with it

    def begin(
        self,
        request: http1.RequestHead,
        on_interim: Callable[[http1.ResponseHead], None],
        on_answer: TakeAnswer | None = None,
    ) -> None:
        """Start an exchange: `write` the request next, then wait for `head`.

        Args:
            request: What is asked.
            on_interim: Gets interim answers.
            on_answer: Gets the head of the answer, or why there is none, as soon as it is known;
                without it, `head` has to be awaited.
        """
        self._request = request
        self._on_interim = on_interim
        self._on_answer = on_answer
        self._interims = 0
        self._sent_before = self._sent
        self._head_deadline = NEVER
        self._answered = None
        self._whole = False
        self._phase = _Phase.HEAD

    def expect_head(self, now: float | None = None) -> None:
        """The request has gone out: its answer has to begin in time.

        Args:
            now: The present, in monotonic seconds, if the caller knows it.
        """
        now = time.monotonic() if now is None else now
        self._head_deadline = now + self._pool.timeouts.first_byte
        if self._phase is _Phase.HEAD:
            self.deadline = self._head_deadline

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        self._sent += len(data)
        self.send(data)

    def write_parts(self, parts: Sequence[bytes]) -> None:
        """Send bytes of the request, in one go and without joining long ones."""
        self._sent += sum(map(len, parts))
        self.flush()
        # Not `writelines`, which in some releases of Python tells nobody that the buffer is full.
        for part in parts:
            if not self.closed:
                self.transport.write(part)

    async def head(self) -> http1.ResponseHead:
        """The head of the answer.

        Raises:
            UpstreamError: If there is none.
        """
        if self._phase is _Phase.HEAD:
            told: asyncio.Future[Answer] = self._loop.create_future()
            self._on_answer = partial(tell, told)
            await told
        answer = self._answered
        if not isinstance(answer, http1.ResponseHead):
            raise answer or UpstreamError(Fault.CLOSED)
        return answer

    def take_whole(self, head: http1.ResponseHead) -> bytes | None:
        """The body of the answer, if all of it has come already; None if it has to be relayed."""
        length = head.content_length
        if self._request is None or self.closed:
            return None
        if self._request.method == b"HEAD" or head.status in http1.NO_CONTENT:
            length = 0
        data = self._unread
        if length is None or len(data) != length:
            return None
        self._unread = b""
        self._body = http1.NO_BODY
        self._phase = _Phase.ENDED
        self._whole = True
        return data

    def relay(self, head: http1.ResponseHead, sink: Sink) -> "asyncio.Future[UpstreamError | None]":
        """Hand the answer's body on as it comes; the future ends with the body, or says why not."""
        told: asyncio.Future[UpstreamError | None] = self._loop.create_future()
        self.relay_to(head, sink, partial(tell, told))
        return told

    def relay_to(self, head: http1.ResponseHead, sink: Sink, on_end: TakeEnd) -> None:
        """Hand the answer's body on as it comes.

        Args:
            head: Its head.
            sink: Gets what comes.
            on_end: Called once, when the body has ended (None), or with why it has not; perhaps
                before this returns.
        """
        method = self._request.method if self._request else b""
        self._body = body = http1.response_body(head, method)
        self._sink = sink
        self._on_end = on_end
        self._phase = _Phase.BODY
        data, self._unread = self._unread, b""
        if body.done:
            body.rest = data
            self._finish(None)
            return
        self.deadline = time.monotonic() + self._pool.timeouts.idle
        if data:
            self._relay(data)
        if self.closed:
            self._finish(self._end_of_body())
        if self._paused:
            self.pause(paused=False)

    @property
    def trailers(self) -> http1.Fields:
        """The trailers of the body that was relayed."""
        return self._body.trailers if self._body else []

    def tunnel(self, sink: Sink) -> "asyncio.Future[UpstreamError | None]":
        """From now on hand on whatever comes, until the worker closes."""
        head = http1.ResponseHead(200, b"", 1, [])
        return self.relay(head, sink)

    def forward(self, data: bytes) -> None:
        """Send what the client's end of a tunnel sent; it counts as life in the tunnel."""
        self.write(data)
        if not self._paused:
            self.deadline = time.monotonic() + self._pool.timeouts.idle

    def pause(self, *, paused: bool) -> None:
        """Stop or go on reading from the worker: its client does not take more now."""
        if paused is not self._paused and not self.closed:
            self._paused = paused
            if paused:
                self.deadline = NEVER
                self.transport.pause_reading()
            else:
                self.deadline = time.monotonic() + self._pool.timeouts.idle
                self.transport.resume_reading()

    def reusable(self, head: http1.ResponseHead) -> bool:
        """Whether another exchange can use it after this answer."""
        body = self._body
        return (
            self._whole
            and not self.closed
            and not self._reset
            and head.keep_alive
            and body is not None
            and not body.rest
            # An early answer may have come before the worker had taken all of the request.
            and not self._unsent
            and not self.transport.get_write_buffer_size()
            and not isinstance(body, http1.UntilCloseBody)
        )

    def abort(self) -> None:
        """Close at once, unsent bytes included."""
        self.deadline = NEVER
        if not self.closed:
            # Not the worker's end: an answer that has no other is not whole.
            self._reset = True
            self.transport.abort()

    def drop(self) -> None:
        """Close at once, and tell nobody: the exchange is over for whoever waited."""
        self._on_answer = self._on_end = self.on_writable = None
        self.abort()

    def fail(self, fault: Fault) -> None:
        """End the exchange's wait with a fault, and the connection with it."""
        self.abort()
        error = UpstreamError(fault)
        self._answer(error)
        self._finish(error)

    def stop(self) -> None:
        """Take no more of an answer, by no fault of the worker."""
        self.abort()
        self._finish(None)

    def rest(self, now: float) -> None:
        """Make ready for the next exchange."""
        # The client of the last one may have stopped it with the very last piece.
        if self._paused:
            self.pause(paused=False)
        self.reused = True
        self.idle_since = now
        self.deadline = NEVER
        self._phase = _Phase.IDLE
        self._on_answer = self._on_end = self._body = self._sink = self._answered = None
        self._request = self._on_interim = self.on_writable = None
        self._unread, self._scanned = b"", 0

    def expire(self, now: float) -> None:
        """The worker took too long."""
        del now
        self.fail(Fault.TIMEOUT)

    # What asyncio does with it

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(
            transport, asyncio.Transport
        ):  # pragma: no cover - asyncio gives no other
            raise TypeError(transport)
        self.transport = transport
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        self._acked_at_start = self._acked()
        self._pool.deadlines.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is _Phase.HEAD:
            self._unread += data
            self._read_head()
        elif phase is _Phase.BODY:
            self.deadline = time.monotonic() + self._pool.timeouts.idle
            self._relay(data)
        elif phase is _Phase.ANSWERED:
            self._unread += data
            if len(self._unread) > MAX_UNREAD_BYTES:
                self.pause(paused=True)
        else:
            # Nobody asked: it cannot be told whose answer this would be.
            self.abort()

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.deadline = NEVER
        self._pool.deadlines.discard(self)
        self._pool.lost(self)
        if self._waits_for_head():
            stale = not self._unread and self._is_undelivered(exc)
            self._answer(UpstreamError(Fault.STALE if stale else Fault.CLOSED))
        self._reset = self._reset or exc is not None
        self._finish(self._end_of_body())
        if self.on_writable is not None:
            self.on_writable(True)

    @override
    def pause_writing(self) -> None:
        self.writable = False
        if self._waits_for_head():
            # A worker that does not read the request fails like one that does not answer.
            self.deadline = time.monotonic() + self._pool.timeouts.first_byte
        if self.on_writable is not None:
            self.on_writable(False)

    @override
    def resume_writing(self) -> None:
        self.writable = True
        if self._waits_for_head():
            self.deadline = self._head_deadline
        if self.on_writable is not None:
            self.on_writable(True)

    # Parts

    def _waits_for_head(self) -> bool:
        return self._phase is _Phase.HEAD

    def _read_head(self) -> None:
        while self._phase is _Phase.HEAD:
            end = self._unread.find(b"\r\n\r\n", max(0, self._scanned - 3))
            if end < 0:
                self._scanned = len(self._unread)
                if self._scanned > MAX_HEAD_BYTES:
                    self.fail(Fault.BAD_ANSWER)
                return
            raw, self._unread, self._scanned = self._unread[:end], self._unread[end + 4 :], 0
            try:
                head = http1.parse_response_head(raw, MAX_HEAD_FIELDS, self._pool.memory)
                final = self._is_final(head)
            except http1.ProtocolError:
                self.fail(Fault.BAD_ANSWER)
                return
            if final:
                self.deadline = NEVER
                self._answer(head)

    def _is_final(self, head: http1.ResponseHead) -> bool:
        """Whether it is the answer itself; hands interim ones on."""
        if head.status >= 200 or head.status == 101:  # noqa: PLR2004 - RFC 9110, section 15
            return True
        self._interims += 1
        if self._interims > MAX_INTERIM_HEADS:
            msg = "too many interim answers"
            raise http1.bad_request(msg)
        # Expectations were met by ourselves: a 100 says nothing new to the client.
        if head.status != 100 and self._on_interim is not None:  # noqa: PLR2004
            self._on_interim(head)
        return False

    def _relay(self, data: bytes) -> None:
        body, sink = self._body, self._sink
        if body is None or sink is None:
            return
        try:
            payload = body.feed(data)
        except http1.ProtocolError:
            self.fail(Fault.BAD_ANSWER)
            return
        if payload:
            sink(payload)
        if body.done:
            self._finish(None)

    def _answer(self, answer: Answer) -> None:
        """End the wait for the head, if there is one."""
        if self._phase is not _Phase.HEAD:
            return
        self._phase = _Phase.ANSWERED
        self._answered = answer
        take, self._on_answer = self._on_answer, None
        if take is not None:
            take(answer)

    def _finish(self, error: UpstreamError | None) -> None:
        """End the wait for the body, if there is one."""
        self.deadline = NEVER
        if self._phase is not _Phase.BODY:
            return
        self._phase = _Phase.ENDED
        self._whole = error is None
        take, self._on_end = self._on_end, None
        if take is not None:
            take(error)

    def _end_of_body(self) -> UpstreamError | None:
        """What the end of the connection means for the body."""
        if isinstance(self._body, http1.UntilCloseBody) and not self._reset:
            self._body.done = True
            return None
        return UpstreamError(Fault.CLOSED)

    def _is_undelivered(self, exc: Exception | None) -> bool:
        """Whether the worker's kernel is known not to have taken one byte of the request.

        A worker may close an idle connection just as a request is sent on it. Its FIN then
        acknowledges nothing of the request. A plain reset proves nothing: with it the worker may
        have thrown away an acknowledgement that it owed. After a FIN, Linux reports a reset as
        a broken pipe.
        """
        orderly = exc is None or isinstance(exc, BrokenPipeError)
        acked = self._acked() if orderly else -1
        return acked >= 0 and acked - self._acked_at_start <= self._sent_before

    def _acked(self) -> int:
        """How many bytes the worker's kernel has acknowledged so far; -1 if that is not known."""
        if not self._plain or not hasattr(socket, "TCP_INFO"):
            return -1
        try:
            sock = self.transport.get_extra_info("socket")
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except (OSError, AttributeError):
            return -1
        return (
            int.from_bytes(told[_BYTES_ACKED], "little") if len(told) >= _BYTES_ACKED.stop else -1
        )


def tell[T](told: "asyncio.Future[T]", value: T) -> None:
    """Have a future end with a value, unless whoever waited for it has given up."""
    if not told.done():
        told.set_result(value)


class UpstreamPool:
    """Opens connections to workers and keeps the idle ones, shared by all clients."""

    def __init__(
        self,
        timeouts: Timeouts,
        deadlines: Deadlines,
        tls: Callable[[], ssl.SSLContext],
        outbox: Outbox | None = None,
    ) -> None:
        """A pool without connections.

        Args:
            timeouts: How long to wait.
            deadlines: Who watches over the waits.
            tls: Makes the context for workers that speak TLS; called once, when first needed.
            outbox: Sends what is written to workers; its own if it shares none.
        """
        self.outbox = outbox or Outbox()
        self.timeouts = timeouts
        self.deadlines = deadlines
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[Worker, list[UpstreamConnection]] = {}
        self.memory = http1.Memory()

    @property
    def idle(self) -> int:
        """How many idle connections are kept now."""
        return sum(map(len, self._idle.values()))

    def take(self, worker: Worker) -> UpstreamConnection | None:
        """An idle connection to a worker, the one used last."""
        idle = self._idle.get(worker)
        while idle:
            connection = idle.pop()
            if not connection.closed and not connection.transport.is_closing():
                return connection
        return None

    async def open(self, worker: Worker) -> UpstreamConnection:
        """A new connection to a worker.

        Raises:
            UpstreamError: If its name is not found, or there is none within the connect timeout.
        """
        try:
            addresses = await addresses_of(worker.host, worker.port, LOOKUP_SECONDS)
        except (OSError, UnicodeError):
            # The latter is a name that cannot even be looked up.
            raise UpstreamError(Fault.REFUSED) from None
        try:
            async with fair_timeout(self.timeouts.connect):
                connection = await first_of(addresses, partial(self._connect, worker))
        except TimeoutError:
            raise UpstreamError(Fault.CONNECT_TIMEOUT) from None
        except OSError as exc:
            raise UpstreamError(Fault.LOCAL if is_our_own(exc) else Fault.REFUSED) from None
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next exchange."""
        connection.rest(time.monotonic())
        self._idle.setdefault(connection.worker, []).append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection has closed."""
        idle = self._idle.get(connection.worker)
        if idle:
            with contextlib.suppress(ValueError):
                idle.remove(connection)

    def close_idle(self, now: float) -> None:
        """Close the connections that have been idle for too long."""
        for idle in self._idle.values():
            # They lie in the order of use: those that are over come first.
            while idle and now - idle[0].idle_since > self.timeouts.keepalive:
                idle.pop(0).abort()

    def keep_only(self, workers: Iterable[Worker]) -> None:
        """Close the idle connections to all other workers."""
        for worker in self._idle.keys() - set(workers):
            self.forget(worker)

    def forget(self, worker: Worker) -> None:
        """Close the idle connections to a worker."""
        for connection in self._idle.pop(worker, ()):
            connection.abort()

    def close(self) -> None:
        """Close all idle connections."""
        self.keep_only(())

    async def _connect(self, worker: Worker, address: str) -> UpstreamConnection:
        tls = self._context() if worker.scheme == "https" else None
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: UpstreamConnection(worker, self),
            address,
            worker.port,
            ssl=tls,
            server_hostname=worker.host if tls else None,
        )
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls
