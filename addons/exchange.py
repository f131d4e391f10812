"""One request on its way: read, label, worker, answer. See docs/exchange.md for the phases.

Invariants:
* The worker is always one of the configured ones: it comes out of a lease, never out of a request.
* A lease is given back exactly once, with how the try ended.
* Nothing is tried again once a byte of a final answer has gone to the client.
* Whatever goes wrong, the client gets an answer of ours or sees that its answer broke off.
"""

import asyncio
import base64
import hashlib
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from addons import http1
from addons.accounting import Active, Failure, Ledger
from addons.admission import Admission
from addons.bounds import Bounds
from addons.classification import failure_text
from addons.deadlines import NEVER, Deadlines
from addons.downstream import CONTINUE, ClientConnection, RequestBody, refusal_of
from addons.failover import RetryBudget
from addons.forwarding import (
    client_head,
    counted_head,
    interim_head,
    passing_trailers,
    switching_head,
    upstream_head,
)
from addons.health import Outcome
from addons.orders import StandingOrders
from addons.pool import Lease
from addons.routing import (
    BAD_GATEWAY,
    GATEWAY_TIMEOUT,
    INTERNAL_ERROR,
    NO_WORKER,
    Rejection,
    error_response,
    route_block,
)
from addons.upstream import (
    Answer,
    Fault,
    TakeEnd,
    UpstreamConnection,
    UpstreamError,
    UpstreamPool,
    tell,
)
from classifier.contracts import SEMANTIC_HEADERS, Classification, RequestView
from classifier.keys import head_key, with_body

logger = logging.getLogger(__name__)

IDEMPOTENT = frozenset({
    b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PROPFIND", b"PUT", b"REPORT", b"SEARCH",
})  # fmt: skip
"""Methods of which two executions are as good as one (RFC 9110, section 9.2.2)."""

MAX_STALE_TRIES = 2
JOINED_BYTES = 65_536
"""A body up to this long is copied behind its head: cheaper than another call of the system."""
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_SEMANTIC = frozenset(name.encode() for name in SEMANTIC_HEADERS)


class Labels(Protocol):
    """Where labels come from."""

    def known(self, key: bytes) -> Classification | None:
        """What can be told at once of a request with this fingerprint."""
        ...

    async def classify(self, view: RequestView) -> Classification:
        """The label of a request; always answers, never raises."""
        ...


class Observer(Protocol):
    """Who is told of what happens between the proxy and its workers."""

    def retried(self, fault: Fault) -> None:
        """A request is tried again, after this fault."""
        ...

    def rejected(self, code: str) -> None:
        """A request was answered by the proxy itself."""
        ...


@dataclass(frozen=True, slots=True)
class Backend:
    """What serves requests; one set of parts, replaced as a whole when settings change."""

    bounds: Bounds
    labels: Labels
    orders: StandingOrders
    admission: Admission
    upstreams: UpstreamPool
    budget: RetryBudget
    ledger: Ledger
    observer: Observer
    deadlines: Deadlines


class RejectedError(Exception):
    """The request cannot be served; it carries the answer."""

    def __init__(self, rejection: Rejection) -> None:
        """A request that ends with this answer."""
        super().__init__(rejection.code)
        self.rejection = rejection


FAULT_ANSWERS = {
    Fault.REFUSED: NO_WORKER,
    Fault.CONNECT_TIMEOUT: NO_WORKER,
    Fault.LOCAL: INTERNAL_ERROR,
    Fault.STALE: BAD_GATEWAY,
    Fault.CLOSED: BAD_GATEWAY,
    Fault.BAD_ANSWER: BAD_GATEWAY,
    Fault.TIMEOUT: GATEWAY_TIMEOUT,
}


class Exchange:
    """One request and its answer.

    Served at once and by callbacks where nothing but the worker has to be waited for: its label is
    known, a worker is free, and a connection to it is idle. Anything else, and whatever goes wrong
    on that way, is a coroutine's, which goes the same steps.
    """

    # Most stay as they are, and cost nothing here.
    active: Active | None = None
    lease: Lease | None = None
    _connection: UpstreamConnection | None = None
    _reusable: UpstreamConnection | None = None
    _outcome = Outcome.ABANDONED
    _failure: Failure | None = None
    _status: int | None = None
    _stale_tries = 0
    _fresh = False
    _tries = 0
    _over = False
    # Of the answer
    _answer_head: http1.ResponseHead | None = None
    _corked = False
    _begun = False
    _chunked = False
    _bodiless = False
    _relayed = False
    _relay_error: UpstreamError | None = None
    _on_relayed: TakeEnd

    def __init__(
        self,
        backend: Backend,
        client: ClientConnection,
        head: http1.RequestHead,
        body: RequestBody,
    ) -> None:
        """An exchange that `begin` or `run` serves."""
        self.head = head
        self.body = body
        self.client = client
        self._backend = backend
        self._pending: list[bytes] = []
        self._client_method = head.method
        self._can_keep_alive = head.keep_alive
        self.deadline = NEVER

    def begin(self) -> Coroutine[Any, Any, bool] | None:
        """Serve the request at once, or else by the coroutine that is returned."""
        self._watch()
        try:
            if not self._ask_now():
                return self._run(self._serve())
        except Exception as exc:
            self._fail(exc)
            self._end()
        return None

    async def run(self) -> bool:
        """Serve the request; the answer is whether its connection may bring another."""
        self._watch()
        return await self._run(self._serve())

    def _watch(self) -> None:
        self.deadline = time.monotonic() + self._backend.bounds.total_seconds
        self._backend.deadlines.add(self)

    async def _run(self, work: Coroutine[Any, Any, None]) -> bool:
        try:
            await work
        except asyncio.CancelledError:
            self._failure = Failure.CLIENT_DISCONNECTED
            raise
        except Exception as exc:
            self._fail(exc)
        finally:
            self._close()
        return self._can_keep_alive and self.body.done

    def _fail(self, error: Exception) -> None:
        """Answer for what went wrong."""
        match error:
            case RejectedError():
                self._reject(error.rejection, Failure.REJECTED)
            case http1.ProtocolError():
                self._reject(refusal_of(error), Failure.CLIENT_FAULT)
            case UpstreamError():
                self._reject(FAULT_ANSWERS[error.fault], Failure.WORKER_FAILED)
            case _:
                # Supervisor: an error of ours must neither hang the client nor send the request
                # astray.
                logger.error("serving a request failed: %s", failure_text(error))
                self._reject(INTERNAL_ERROR, Failure.INTERNAL)

    def expire(self, now: float) -> None:
        """The time for the whole exchange is over."""
        del now
        self.deadline = NEVER
        self._over = True
        if not self.client.writable:
            # It is the client who does not take what the worker has sent.
            self.client.abort()
        elif not self.body.done:
            late = http1.ProtocolError(408, "request_timeout", "the request took too long")
            self.body.fail(late)
        elif self._connection is not None:
            self._connection.fail(Fault.TIMEOUT)

    # At once, and by callbacks

    def _ask_now(self) -> bool:
        """Send the request to a worker if nothing has to be waited for.

        Raises:
            RejectedError: If it is not to be served.
        """
        backend, head = self._backend, self.head
        orders = backend.orders
        if not self.body.done or orders.given or head.upgrade:
            return False
        arrived = time.monotonic()
        known = orders.blanket or backend.labels.known(self.key())
        if known is None:
            return False
        self.active = active = backend.ledger.open(head.method, head.target, known, arrived)
        lease = backend.admission.lease_now(known.label)
        if lease is None:
            return False
        backend.budget.on_request()
        self._hold(lease)
        connection = backend.upstreams.take(lease.worker)
        if connection is None:
            return False
        self._connection = connection
        self.client.on_left = self._client_left
        connection.begin(head, self._interim, self._answered)
        if head.has_body:
            self._send(connection)
        else:
            connection.write(self._upstream_head(None))
            connection.expect_head(active.decided)
        return True

    def _answered(self, answer: Answer) -> None:
        """The head of the answer has come, or never will."""
        connection = self._connection
        if isinstance(answer, UpstreamError):
            self._go_on(self._ask(answer))
        elif connection is None or answer.status == 101:  # noqa: PLR2004 - nobody asked for it
            self._go_on(self._ask(UpstreamError(Fault.BAD_ANSWER)))
        else:
            try:
                payload = connection.take_whole(answer)
                if payload is None:
                    self._start_relay(connection, answer, answer, self._ended)
                    return
                self._answer_at_once(connection, answer, payload)
            except Exception as exc:
                self._fail(exc)
            self._end()

    def _answer_at_once(
        self, connection: UpstreamConnection, head: http1.ResponseHead, payload: bytes
    ) -> None:
        """Hand on an answer that is there as a whole."""
        block = self._start_answer(head)
        self._status = head.status
        self._begun = True
        self.client.write(block + payload if payload else block)
        self._judge(connection, head)

    def _ended(self, error: UpstreamError | None) -> None:
        """The body of the answer has ended, or broken off."""
        if error is not None:
            self._go_on(self._ask(error))
            return
        try:
            if (connection := self._connection) is not None and self._answer_head is not None:
                self._finish_answer(connection)
                self._judge(connection, self._answer_head)
        except Exception as exc:
            self._fail(exc)
        self._end()

    def _client_left(self) -> None:
        self._failure = Failure.CLIENT_DISCONNECTED
        self._close()

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Leave the rest to a coroutine."""
        self.client.on_left = None
        self.client.run(self._run(work))

    def _end(self) -> None:
        """Close, and have the connection go on."""
        self._close()
        self.client.ended(keep_alive=self._can_keep_alive and self.body.done)

    # Phases

    async def _serve(self) -> None:
        arrived = await self._read(self._backend.bounds.classify_body_bytes)
        # Some of it may have been done at once.
        if self.active is None:
            await self._label(self.view(), arrived)
        if self.lease is None and self.active is not None:
            await self._lease(self.active.classification)
        await self._ask()

    async def _read(self, max_bytes: int) -> float:
        """Read the body, or as much of it as is looked at; return when it was there."""
        if not self.body.done:
            if self.head.expects_continue and self.body.failure is None and not self.body.size:
                self.client.write(CONTINUE)
            await self.body.collect(max_bytes)
        return time.monotonic()

    def key(self) -> bytes:
        """The request's key: what the classifier may see of it, without taking it apart."""
        head = self.head
        content_type, semantic = self._facts()
        key = head_key(head.method, head.target, content_type, semantic)
        if not head.has_body:
            return key
        kept, limit = self.body.kept(), self._backend.bounds.classify_body_bytes
        seen = kept if len(kept) <= limit else memoryview(kept)[:limit]
        return with_body(key, seen, self._body_bytes())

    def view(self) -> RequestView:
        """What the classifier may see of the request."""
        head = self.head
        content_type, semantic = self._facts()
        return RequestView(
            method=head.method.decode("ascii").upper(),
            path=_text(head.target),
            content_type=_text(content_type),
            headers=tuple(sorted((name.decode(), _text(value)) for name, value in semantic)),
            body=self.body.kept()[: self._backend.bounds.classify_body_bytes],
            body_bytes=self._body_bytes(),
        )

    def _body_bytes(self) -> int:
        """Length of the whole body; -1 if it is not known yet."""
        length = len(self.body.kept()) if self.body.done else self.head.content_length
        return -1 if length is None else length

    def _facts(self) -> tuple[bytes, http1.Fields]:
        """What the classifier sees of the fields: content type, and those that carry meaning."""
        known = self.head.known
        if known is not None and known.facts is not None:
            return known.facts
        content_type, semantic = b"", []
        for name, value in self.head.fields:
            lower = name.lower()
            if lower == b"content-type":
                content_type = content_type or value
            elif lower in _SEMANTIC:
                semantic.append((lower, value))
        if known is not None:
            known.facts = content_type, semantic
        return content_type, semantic

    def fields(self) -> http1.Fields:
        """The header fields of the request, for rules."""
        return self.head.fields

    async def _label(self, view: RequestView, arrived: float) -> Classification:
        """Label the request: by what the operator has ordered, else by what it means.

        Raises:
            RejectedError: If whoever may force a label forces one that does not exist.
        """
        orders = self._backend.orders
        ordered = orders.decide(view, self.fields(), self.client.peer) if orders.given else None
        if isinstance(ordered, Rejection):
            raise RejectedError(ordered)
        classification = ordered or orders.blanket or await self._backend.labels.classify(view)
        self.active = self._backend.ledger.open(
            view.method.encode("utf-8", "surrogateescape"),
            view.path.encode("utf-8", "surrogateescape"),
            classification,
            arrived,
        )
        return classification

    async def _lease(self, classification: Classification) -> None:
        """Take a worker of the label's pool.

        Raises:
            RejectedError: If there is none.
        """
        lease = await self._backend.admission.lease(classification.label)
        if isinstance(lease, Rejection):
            raise RejectedError(lease)
        self._backend.budget.on_request()
        self._hold(lease)

    def _hold(self, lease: Lease) -> None:
        self.lease = lease
        if self.active is not None:
            self.active.lease = lease

    async def _ask(self, failed: UpstreamError | None = None) -> None:
        """Try workers until one has answered, or none is left that may be tried.

        Args:
            failed: How a first try has ended that was made without this.

        Raises:
            UpstreamError: If there is no whole answer.
        """
        while True:
            try:
                error, failed = failed, None
                if error is not None:
                    raise error
                connection = await self._connect()
                self._send(connection)
                head = await connection.head()
                await self._answer(connection, head)
            except UpstreamError as exc:
                if self.body.failure is not None:
                    raise self.body.failure from None
                reused = self._connection is not None and self._connection.reused
                self._drop_connection()
                if not await self._try_again(exc, reused=reused):
                    raise
                # An idle connection that was closed has brothers that were closed as well.
                self._fresh = True
            else:
                return

    async def _connect(self) -> UpstreamConnection:
        if self.lease is None:
            raise RejectedError(INTERNAL_ERROR)
        self._check_time()
        upstreams, worker = self._backend.upstreams, self.lease.worker
        connection = None if self._fresh else upstreams.take(worker)
        if connection is None:
            connection = await upstreams.open(worker)
        self._connection = connection
        self._check_time()
        connection.begin(self.head, self._interim)
        return connection

    def _check_time(self) -> None:
        """Ask nobody for an answer that is not waited for any more."""
        if self.body.failure is not None:
            raise self.body.failure
        if self._over:
            # Nobody was asked, so nobody is to blame.
            raise RejectedError(GATEWAY_TIMEOUT)

    def _send(self, connection: UpstreamConnection) -> None:
        """Send the request as far as it has come; the rest follows as it comes."""
        body, kept = self.body, self.body.kept()
        # A chunked body that is whole already gets a length: workers like it better.
        chunked = self.head.chunked and not (body.done and not body.trailers)
        length = len(kept) if self.head.chunked and not chunked else None
        # Before the first byte: asyncio tells only once that its buffer is full.
        connection.on_writable = body.want_more
        head = self._upstream_head(length)
        if not kept:
            connection.write(head)
        elif len(kept) <= JOINED_BYTES and not chunked:
            connection.write(head + kept)
        else:
            connection.write_parts((head, *(http1.chunk_parts(kept) if chunked else (kept,))))
        if body.done:
            self._sent(connection, chunked=chunked)
            return
        body.stream(
            (lambda part: connection.write(http1.chunk(part))) if chunked else connection.write,
            lambda: self._sent(connection, chunked=chunked),
        )
        body.want_more(connection.writable)

    def _upstream_head(self, content_length: int | None) -> bytes:
        if self.lease is None or self.active is None:
            raise RejectedError(INTERNAL_ERROR)
        return upstream_head(
            self.head,
            self.client.peer,
            route_block(self.active.classification),
            content_length=content_length,
            default_host=self.lease.worker.name,
        )

    def _sent(self, connection: UpstreamConnection, *, chunked: bool) -> None:
        """The request has gone out, or the client has broken it off."""
        if self.body.failure is not None:
            connection.abort()
            return
        if chunked:
            connection.write(http1.last_chunk(passing_trailers(self.body.trailers)))
        connection.on_writable = None
        connection.expect_head()

    async def _try_again(self, error: UpstreamError, *, reused: bool) -> bool:
        """Decide whether the request is tried again, and take the worker for it.

        Args:
            error: How it failed.
            reused: It failed on a connection that had been idle before.
        """
        if self._begun or self._over or self.lease is None or not self.body.replayable:
            self._outcome = outcome_of(error)
            return False
        if error.fault is Fault.STALE and self._stale_tries < MAX_STALE_TRIES:
            # The worker only closed an idle connection: it has not failed.
            self._stale_tries += 1
            self._backend.observer.retried(error.fault)
            return True
        self._outcome = outcome_of(error)
        if self._tries or not (error.nothing_sent or self._may_repeat(error, reused=reused)):
            return False
        # First: who waits for the second worker holds none.
        self.lease.release(self._outcome)
        second = await self._backend.admission.second(self.lease, (self.lease.worker,))
        if second is None and reused and error.fault is Fault.CLOSED:
            # There is no other, but a new connection to the same one may do.
            again = await self._backend.admission.lease(self.lease.pool.label)
            second = again if isinstance(again, Lease) else None
        if second is None:
            return False
        self._tries += 1
        self._outcome = Outcome.ABANDONED
        self._hold(second)
        self._backend.observer.retried(error.fault)
        return True

    def _may_repeat(self, error: UpstreamError, *, reused: bool) -> bool:
        """Whether a request that a worker may have executed can be sent to another."""
        safe = self.head.method in IDEMPOTENT or self.head.get(b"idempotency-key") is not None
        # An idle connection that turns out to be closed says little about the worker, and a new
        # one will not fail in the same way: that costs nothing of the budget.
        free = reused and error.fault is Fault.CLOSED
        return safe and (free or self._backend.budget.try_spend())

    # The answer

    async def _answer(self, connection: UpstreamConnection, head: http1.ResponseHead) -> None:
        if head.status == 101:  # noqa: PLR2004 - Switching Protocols
            if not self.head.is_websocket or not accepts_websocket(self.head, head):
                raise UpstreamError(Fault.BAD_ANSWER)
            await self._tunnel(connection, head)
            return
        await self._relay(connection, head)
        self._judge(connection, head)

    def _judge(self, connection: UpstreamConnection, head: http1.ResponseHead) -> None:
        """Note how a whole answer speaks of its worker, and whether its connection can be kept."""
        self._outcome = Outcome.SERVER_ERROR if head.status >= 500 else Outcome.OK  # noqa: PLR2004
        if self.body.done and connection.reusable(head):
            self._reusable, self._connection = connection, None

    async def _relay(
        self,
        connection: UpstreamConnection,
        head: http1.ResponseHead,
        shown: http1.ResponseHead | None = None,
    ) -> None:
        """Hand the answer on as it comes.

        Args:
            connection: Where it comes from.
            head: Its head, which says how it is read.
            shown: The head that the client gets, if it is another.

        Raises:
            UpstreamError: If it broke off.
        """
        told: asyncio.Future[UpstreamError | None] = asyncio.get_running_loop().create_future()
        self._start_relay(connection, head, shown or head, partial(tell, told))
        if (error := await told) is not None:
            raise error
        self._finish_answer(connection)

    def _start_relay(
        self,
        connection: UpstreamConnection,
        head: http1.ResponseHead,
        shown: http1.ResponseHead,
        on_relayed: TakeEnd,
    ) -> None:
        """Begin to hand the answer on; `on_relayed` is called at its end, perhaps at once."""
        self._pending = [self._start_answer(shown)]
        self._status = shown.status
        self._answer_head, self._on_relayed = head, on_relayed
        self._relayed, self._corked = False, True
        connection.relay_to(head, self._write, self._relay_ended)
        self._corked = False
        if self._relayed:
            on_relayed(self._relay_error)
            return
        # Where the end is not announced, the head alone may be news (server-sent events).
        if self._chunked or shown.content_length is None or len(self._pending) > 1:
            self._flush()
        self.client.on_writable = self._pace
        if not self.client.writable:
            self._pace(False)

    def _relay_ended(self, error: UpstreamError | None) -> None:
        if self._corked:
            self._relayed, self._relay_error = True, error
        else:
            self._on_relayed(error)

    def _finish_answer(self, connection: UpstreamConnection) -> None:
        """Send what is left of the answer."""
        self.client.on_writable = None
        self._end_body()
        if self._chunked:
            self._pending.append(http1.last_chunk(passing_trailers(connection.trailers)))
        self._flush()

    def _start_answer(self, head: http1.ResponseHead) -> bytes:
        """The head that the client gets; sets how the body goes out."""
        keep_alive = self._may_keep_alive()
        counted = head.content_length is not None and head.status not in http1.NO_CONTENT
        if counted and keep_alive and self.head.minor:
            self._bodiless = self._client_method == b"HEAD"
            self._chunked = False
            return counted_head(head, self._told())
        self._bodiless = self._client_method == b"HEAD" or head.status in http1.NO_CONTENT
        framing = self._framing(head)
        self._chunked = not self._bodiless and (b"Transfer-Encoding", b"chunked") in framing
        if not framing and not self._bodiless:
            # HTTP/1.0 knows no other end than that of the connection.
            keep_alive = False
        self._can_keep_alive = keep_alive
        if keep_alive and not self.head.minor:
            framing.append((b"Connection", b"keep-alive"))
        return client_head(head, self._told(), framing=framing, keep_alive=keep_alive)

    def _may_keep_alive(self) -> bool:
        """Whether the client may send another request, as far as is known now."""
        return self._can_keep_alive and self.body.done and not self.client.draining

    def _framing(self, head: http1.ResponseHead) -> http1.Fields:
        if head.status == 204:  # noqa: PLR2004 - of which nothing may be told (RFC 9110, 8.6)
            return []
        if head.content_length is not None:
            return [(b"Content-Length", b"%d" % head.content_length)]
        told = head.chunked if self._bodiless else True
        return [(b"Transfer-Encoding", b"chunked")] if told and self.head.minor else []

    def _told(self) -> bytes:
        """What the client is told about the decision: header lines."""
        if not self._backend.bounds.client_headers or self.active is None:
            return b""
        return self.active.client_block()

    def _write(self, payload: bytes) -> None:
        if self._bodiless:
            return
        self._pending.append(http1.chunk(payload) if self._chunked else payload)
        if not self._corked:
            self._flush()

    def _end_body(self) -> None:
        """The answer's body has come: a last chance to add to it."""

    def _flush(self) -> None:
        if self._pending:
            self._begun = True
            pending, self._pending = self._pending, []
            self.client.write(pending[0] if len(pending) == 1 else b"".join(pending))

    def _pace(self, writable: bool) -> None:
        if self._connection is not None:
            self._connection.pause(paused=not writable)

    def _interim(self, head: http1.ResponseHead) -> None:
        """Hand on an interim answer; HTTP/1.0 has none."""
        if self.head.minor:
            self.client.write(interim_head(head))

    async def _tunnel(self, connection: UpstreamConnection, head: http1.ResponseHead) -> None:
        """Join both connections: they are a WebSocket now, and last as long as they are used."""
        self.deadline = NEVER
        self._can_keep_alive = False
        self._begun = True
        self._status = head.status
        self.client.write(switching_head(head, self._told()))
        self.client.on_writable = self._pace
        if not self.client.writable:
            self._pace(False)
        connection.on_writable = self.client.read_more
        end = connection.tunnel(self.client.write)
        self.client.tunnel(connection.forward)
        # Either side may close at any time: there is no broken answer to tell of.
        await end
        self._outcome = Outcome.OK

    # The end

    def _reject(self, rejection: Rejection, failure: Failure) -> None:
        self._failure = failure
        if self._begun:
            self.client.abort()
            self._can_keep_alive = False
            self._status = None
            return
        self._status = rejection.status
        # HTTP/1.0 would wait for the connection's end.
        self._can_keep_alive = keep_alive = self._may_keep_alive() and self.head.minor == 1
        self._backend.observer.rejected(rejection.code)
        head_only = self._client_method == b"HEAD"
        self.client.write(error_response(rejection, keep_alive=keep_alive, head_only=head_only))

    def _drop_connection(self) -> None:
        self.client.on_writable = None
        if not self.body.done:
            self.body.stop_streaming()
        if self._connection is not None:
            self._connection.drop()
            self._connection = None
        if self._pending:
            self._pending = []

    def _close(self) -> None:
        """Give everything back; the exchange is over."""
        try:
            self._backend.deadlines.discard(self)
            self._drop_connection()
            if self.lease is not None:
                self.lease.release(self._outcome)
            if self.active is not None:
                self._backend.ledger.close(self.active, self._status, self._failure)
            if self._reusable is not None:
                self._backend.upstreams.give_back(self._reusable)
        except Exception as exc:
            # Supervisor: the client has its answer, and shall keep it.
            logger.error("closing an exchange failed: %s", failure_text(exc))
            if self._reusable is not None:
                self._reusable.abort()


def _text(octets: bytes) -> str:
    """HTTP's own text, which may be any bytes."""
    return octets.decode("utf-8", "surrogateescape")


def outcome_of(error: UpstreamError) -> Outcome:
    """What a failed try says about its worker."""
    if error.fault is Fault.LOCAL:
        return Outcome.ABANDONED
    if error.fault is Fault.STALE:
        return Outcome.RESPONSE_FAILED
    return Outcome.CONNECT_FAILED if error.nothing_sent else Outcome.RESPONSE_FAILED


def accepts_websocket(request: http1.RequestHead, response: http1.ResponseHead) -> bool:
    """Whether a 101 is the answer to this very handshake (RFC 6455, section 4.2.2)."""
    key = request.get(b"sec-websocket-key") or b""
    digest = hashlib.sha1(key + WEBSOCKET_GUID, usedforsecurity=False).digest()
    expected = base64.b64encode(digest)
    return response.get(b"sec-websocket-accept") == expected and (
        response.upgrade.lower() == b"websocket"
    )
