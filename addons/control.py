"""The control port: metrics, health, pools, the decision feed, and what operators have done."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol, override

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route as HttpRoute

from addons.admin import Admin, Caller, Operations
from addons.feed import DecisionEvent, DecisionFeed, TooManySubscribersError
from addons.pool import Pool
from addons.telemetry import Telemetry
from classifier.contracts import Label

KEEPALIVE_SECONDS = 15.0
DEFAULT_DECISIONS = 100
MAX_LIMIT_DIGITS = 18


class ControlApp:
    """Answers about one router. Reads its parts; what changes them is the admin's alone."""

    def __init__(
        self,
        *,
        feed: DecisionFeed,
        telemetry: Telemetry,
        pools: Callable[[], Mapping[Label, Pool]],
        not_ready: Callable[[], str | None],
        operations: Operations,
        caller: Caller | None = None,
    ) -> None:
        """Answers from the given parts.

        Args:
            feed: Source of decisions.
            telemetry: Source of metrics.
            pools: The pools in use now.
            not_ready: Why the proxy must not get traffic now; None if it may.
            operations: What operators can have done.
            caller: Who asks for it; without it, whoever has connected.
        """
        self._admin = Admin(operations, caller)
        self._feed = feed
        self._telemetry = telemetry
        self._pools = pools
        self._not_ready = not_ready
        self.closing = asyncio.Event()

    def asgi(self) -> Starlette:
        """The application to serve."""
        routes: dict[str, Callable[[Request], Any]] = {
            "/metrics": self._metrics,
            "/livez": self._alive,
            "/readyz": self._ready,
            "/events": self._events,
            "/v1/decisions": self._decisions,
            "/v1/pools": self._pool_states,
        }
        reading = [HttpRoute(path, answer) for path, answer in routes.items()]
        return Starlette(routes=[*reading, *self._admin.routes()])

    async def _metrics(self, _: Request) -> Response:
        return Response(self._telemetry.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _alive(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        reason = self._not_ready()
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)

    async def _pool_states(self, _: Request) -> Response:
        return JSONResponse({"pools": [_pool_state(pool) for pool in self._pools().values()]})

    async def _decisions(self, request: Request) -> Response:
        limit = request.query_params.get("limit", str(DEFAULT_DECISIONS))
        if not (limit.isascii() and limit.isdigit()):
            return PlainTextResponse("limit must be a whole number\n", status_code=400)
        events = self._feed.recent(int(limit) if len(limit) <= MAX_LIMIT_DIGITS else sys.maxsize)
        return JSONResponse({"decisions": [event.as_json() for event in events]})

    async def _events(self, request: Request) -> Response:
        subscription = contextlib.ExitStack()
        try:
            queue = subscription.enter_context(self._feed.subscribe())
        except TooManySubscribersError:
            return PlainTextResponse("too many readers; close one\n", status_code=503)
        # In one step with subscribing, so that no event comes twice and none is missed.
        only_live = request.query_params.get("history") == "0"
        limit = 0 if only_live else queue.maxsize
        recent = self._feed.recent(limit, request.headers.get("last-event-id"))
        return StreamingResponse(
            event_stream(subscription, queue, recent, self.closing),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )


async def event_stream(
    subscription: contextlib.ExitStack,
    queue: asyncio.Queue[DecisionEvent],
    recent: list[DecisionEvent],
    closing: asyncio.Event,
) -> AsyncIterator[str]:
    """Decisions as server-sent events, until it is closing.

    Args:
        subscription: Ends with the stream.
        queue: Where new ones come in; one that is in `recent` as well is told once.
        recent: What is told first.
        closing: Ends the stream.
    """
    told = {event.id for event in recent}
    ending = asyncio.ensure_future(closing.wait())
    with subscription, _cancelled(ending):
        yield ": the last decisions first, then live ones\n\n"
        for event in recent:
            yield _sse(event)
        while not closing.is_set():
            waiting = asyncio.ensure_future(queue.get())
            with _cancelled(waiting):
                await asyncio.wait(
                    {waiting, ending},
                    timeout=KEEPALIVE_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if not waiting.done():
                    yield ": still here\n\n"
                elif waiting.result().id not in told:
                    yield _sse(waiting.result())


@contextlib.contextmanager
def _cancelled(future: asyncio.Future[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        future.cancel()


def _sse(event: DecisionEvent) -> str:
    return f"id: {event.id}\nevent: decision\ndata: {json.dumps(event.as_json())}\n\n"


def _pool_state(pool: Pool) -> dict[str, Any]:
    workers = [dataclasses.asdict(worker) for worker in pool.views()]
    return {"label": str(pool.label), "panic": pool.in_panic, "workers": workers}


class _EmbeddedServer(uvicorn.Server):
    """uvicorn as a guest in a loop that is not its own: signals stay with mitmproxy."""

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Served(Protocol):
    """What a `ControlServer` serves."""

    closing: asyncio.Event

    def asgi(self) -> Starlette:
        """The application."""
        ...


class ControlServer:
    """Serves a control port on a bound socket until it is closed."""

    def __init__(self, app: Served, sock: socket.socket) -> None:
        """Prepare; `serve` serves."""
        config = uvicorn.Config(
            app.asgi(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            # A peer is who it is, not who it says it is.
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self._app = app
        self._sock = sock
        self._server = _EmbeddedServer(config)

    async def serve(self) -> None:
        """Serve until `close`."""
        await self._server.serve(sockets=[self._sock])

    def close(self) -> None:
        """Stop listening now; requests under way end within two seconds."""
        self._app.closing.set()
        self._server.should_exit = True
        if not self._server.started:
            self._sock.close()
            return
        # uvicorn would close them at its next tick: a reloaded addon wants the port now.
        for server in self._server.servers:
            server.close()
