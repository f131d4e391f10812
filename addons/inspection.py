"""Exchanges that mitmproxy can look into: each is a flow, and its hooks fire.

The bytes go the same way as without inspection. What an addon changes in a request or an answer is
taken over, but never the worker: that comes from a lease.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import override

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.flow import Error

from addons import flowmaking, flowview, http1
from addons.accounting import Failure
from addons.classification import failure_text
from addons.dispatch import Dispatcher
from addons.downstream import ClientConnection, RequestBody
from addons.exchange import Backend, Exchange, RejectedError
from addons.forwarding import passing_trailers
from addons.pool import Lease
from addons.routing import INTERNAL_ERROR, Rejection
from addons.upstream import UpstreamConnection
from classifier.contracts import Classification, RequestView

logger = logging.getLogger(__name__)


class KilledError(Exception):
    """Somebody killed the flow: its connection is closed without an answer."""


class InspectedExchange(Exchange):
    """One request and its answer, shown as a flow."""

    def __init__(
        self,
        backend: Backend,
        client: ClientConnection,
        head: http1.RequestHead,
        body: RequestBody,
        *,
        max_buffered_bytes: int,
        inspected: dict[str, "InspectedExchange"],
        dispatcher: Dispatcher,
    ) -> None:
        """An exchange that `run` runs.

        Args:
            backend: What serves requests.
            client: Who asked.
            head: What was asked.
            body: The rest of it.
            max_buffered_bytes: Longer bodies are not shown, and pass as they come.
            inspected: All inspected exchanges by flow id, for the addon's own hooks.
            dispatcher: Fires hooks.
        """
        super().__init__(backend, client, head, body)
        self._max_buffered_bytes = max_buffered_bytes
        self._inspected = inspected
        self._dispatcher = dispatcher
        self._content: bytes | None = None
        self._transform: Callable[[bytes], bytes] | None = None
        self._arrived = 0.0
        self._addon_failed = False
        self._told_end = False
        self.rejection: Rejection | None = None
        self.flow = self._make_flow()

    def _make_flow(self) -> http.HTTPFlow:
        client = self.client.introduce()
        if not isinstance(client, Client):
            raise TypeError(client)
        return flowmaking.flow_of(client, self.head, self.client.peer.scheme)

    # For the addon's own hook

    async def label(self) -> None:
        """Label the request as it stands in the flow, and take a worker for it.

        Called from the `request` hook, so that hooks of later addons see the decision.
        """
        if self.active is not None or self.rejection is not None:
            return
        try:
            classification = self._label_known() or await self._label(self.view(), self._arrived)
            lease = self._backend.admission.lease_now(classification.label)
            if lease is None:
                await self._lease(classification)
            else:
                self._backend.budget.on_request()
                self._hold(lease)
        except RejectedError as exc:
            self.rejection = exc.rejection
            flowview.reject(self.flow, exc.rejection)

    def _label_known(self) -> Classification | None:
        """The label, if it can be told at once: nobody has changed the request."""
        backend = self._backend
        if backend.orders.given or not self.body.done or not self._is_untouched():
            return None
        known = backend.orders.blanket or backend.labels.known(self.key())
        if known is not None:
            head = self.head
            self.active = backend.ledger.open(head.method, head.target, known, self._arrived)
        return known

    @override
    def view(self) -> RequestView:
        if not self.body.done or self._is_untouched():
            return super().view()
        return flowview.view_of(self.flow.request, self._backend.bounds.classify_body_bytes)

    def _is_untouched(self) -> bool:
        """Whether the flow's request still is what the client has sent."""
        request = self.flow.request
        return request.data.content is self._content and flowview.shows(request, self.head)

    @override
    def fields(self) -> http1.Fields:
        return list(self.flow.request.headers.fields)

    # Phases

    @override
    async def run(self) -> bool:
        self._inspected[self.flow.id] = self
        try:
            keep_alive = await super().run()
        finally:
            del self._inspected[self.flow.id]
            await self._tell_of_failure()
            self.flow.live = False
        return keep_alive

    @override
    async def _serve(self) -> None:
        try:
            await self._serve_flow()
        except KilledError:
            self._failure = Failure.CLIENT_DISCONNECTED
            self._can_keep_alive = False
            self._begun = True
            self.client.abort()

    async def _serve_flow(self) -> None:
        await self._fire("requestheaders")
        if self.flow.response is None:
            await self._read_flow()
            await self._fire("request")
        if self.rejection is not None:
            raise RejectedError(self.rejection)
        if self.flow.response is not None:
            await self._answer_from_flow()
            return
        if self.active is None:
            # Our hook was not reached, or failed: the request is served all the same.
            await self.label()
        if self.rejection is not None:
            raise RejectedError(self.rejection)
        self._take_changes()
        await self._ask()

    async def _read_flow(self) -> None:
        length = self.head.content_length or 0
        streams = bool(self.flow.request.stream) or length > self._max_buffered_bytes
        bounds = self._backend.bounds
        limit = bounds.classify_body_bytes if streams else self._max_buffered_bytes
        self._arrived = await self._read(limit)
        request = self.flow.request
        request.timestamp_end = time.time()
        if self.body.done:
            request.data.content = self._content = self.body.kept()
            if self.body.trailers:
                request.data.trailers = http.Headers(self.body.trailers)
        else:
            request.stream = True

    def _take_changes(self) -> None:
        """Take over what addons have made of the request.

        Raises:
            RejectedError: If it is no valid request any more.
        """
        if not self.head.chunked and self._is_untouched():
            return
        request = self.flow.request
        try:
            head = flowview.head_of(request, self.head)
        except http1.ProtocolError:
            raise RejectedError(INTERNAL_ERROR) from None
        self.head = head
        if self.body.done and (content := request.raw_content) is not None:
            if content != self.body.kept():
                self.body.replace(content)
            if not self.body.trailers:
                head.chunked = False
                head.content_length = (
                    len(content) if content or head.content_length is not None else None
                )

    @override
    def _hold(self, lease: Lease) -> None:
        super()._hold(lease)
        if self.active is not None:
            flowview.show_decision(self.flow, self.active.classification, lease.worker)

    # The answer

    @override
    async def _relay(
        self,
        connection: UpstreamConnection,
        head: http1.ResponseHead,
        shown: http1.ResponseHead | None = None,
    ) -> None:
        response = await self._show_head(connection, head)
        if response.stream:
            await self._relay_stream(connection, head, response)
            return
        collected: list[bytes] = []
        end = connection.relay(head, collected.append)
        if (error := await end) is not None:
            raise error
        response.data.content = b"".join(collected)
        if connection.trailers:
            response.data.trailers = http.Headers(connection.trailers)
        response.timestamp_end = time.time()
        await self._fire_response()
        self._answer_whole(self._response_now())

    async def _relay_stream(
        self, connection: UpstreamConnection, head: http1.ResponseHead, response: http.Response
    ) -> None:
        shown = flowview.response_head_of(response, head)
        if callable(response.stream):
            self._transform = flowview.joined(response.stream)
            shown.content_length = None
        if self._client_method != b"HEAD" and http1.response_body(head, self.head.method).done:
            # Whatever status an addon gave it, nothing will come.
            shown.content_length, shown.chunked = 0, False
        await super()._relay(connection, head, shown)
        response.timestamp_end = time.time()
        await self._fire_response()

    @override
    def _write(self, payload: bytes) -> None:
        if self._transform is not None and not self._addon_failed:
            try:
                payload = self._transform(payload)
            except Exception as exc:
                # Supervisor of an addon's function: the worker is not to blame.
                logger.error("a stream function failed: %s", failure_text(exc))
                self._addon_failed = True
        if self._addon_failed:
            if self._connection is not None:
                self._connection.stop()
        elif payload:
            super()._write(payload)

    @override
    def _end_body(self) -> None:
        if self._transform is not None:
            self._write(b"")
        if self._addon_failed:
            raise RejectedError(INTERNAL_ERROR)

    def _answer_whole(self, response: http.Response) -> None:
        """Send an answer that is whole in the flow."""
        content = response.raw_content or b""
        head = flowview.response_head_of(response, None)
        trailers = passing_trailers(list(response.trailers.fields) if response.trailers else [])
        if self._client_method == b"HEAD" or head.status in http1.NO_CONTENT:
            head.content_length = flowview.announced_body_bytes(response)
        else:
            head.content_length = None if trailers and self.head.minor else len(content)
        self._status = head.status
        self._pending = [self._start_answer(head)]
        if content:
            self._corked = True
            super()._write(content)
            self._corked = False
        if self._chunked:
            self._pending.append(http1.last_chunk(trailers))
        self._flush()

    async def _answer_from_flow(self) -> None:
        """Send the answer that an addon gave in place of a worker's."""
        await self._fire_response()
        self._answer_whole(self._response_now())

    @override
    async def _tunnel(self, connection: UpstreamConnection, head: http1.ResponseHead) -> None:
        await self._show_head(connection, head)
        await self._fire_response()
        await super()._tunnel(connection, head)

    async def _show_head(
        self, connection: UpstreamConnection, head: http1.ResponseHead
    ) -> http.Response:
        """Put the head of an answer into the flow; the answer is what addons made of it."""
        self.flow.server_conn = flowmaking.server_of(connection.worker, connection.transport)
        self.flow.response = response = flowmaking.response_of(head, self._client_fields())
        response.stream = flowview.is_stream(head, self._max_buffered_bytes)
        await self._fire("responseheaders")
        return self._response_now()

    def _client_fields(self) -> tuple[tuple[str, str], ...]:
        if not self._backend.bounds.client_headers or self.active is None:
            return ()
        return self.active.client_headers()

    def _response_now(self) -> http.Response:
        """The flow's response: an addon may have put another in its place.

        Raises:
            RejectedError: If it has taken it away.
        """
        response: http.Response | None = self.flow.response
        if response is None:
            raise RejectedError(INTERNAL_ERROR)
        return response

    # Hooks

    async def _fire_response(self) -> None:
        self._told_end = True
        await self._fire("response")

    async def _fire(self, name: str) -> None:
        """Fire a hook and wait for it, also if the client leaves meanwhile.

        Raises:
            KilledError: If somebody has killed the flow.
        """
        pending = self._dispatcher.fire(name, self.flow)
        if pending is not None:
            firing = asyncio.ensure_future(pending)
            try:
                # mitmproxy's loop starts tasks eagerly, so it may be done already.
                await (firing if firing.done() else asyncio.shield(firing))
            except asyncio.CancelledError:
                await firing
                raise
        if self.flow.error is not None and self.flow.error.msg == Error.KILLED_MESSAGE:
            raise KilledError

    async def _tell_of_failure(self) -> None:
        """Fire the `error` hook: each flow has one end, a response or an error."""
        if self._failure is None or self._told_end:
            return
        if self.flow.error is None:
            left = self._failure is Failure.CLIENT_DISCONNECTED
            self.flow.error = Error(flowview.CLIENT_LEFT if left else self._failure.value)
        pending = self._dispatcher.fire("error", self.flow)
        if pending is not None:
            await pending
