"""The worker's web application: `/health`, and an echo that takes its time for all the rest."""

import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import override

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from workers.cpu import Work, cpu_burner
from workers.settings import WorkerConfig

logger = logging.getLogger(__name__)

SNIPPET_BYTES = 200
MAX_EVENTS = 1_000
DEFAULT_EVENTS = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker says about a request; see `echo_headers` of the settings for the last one.

    Attributes:
        path: The request target as received, query string included.
        body_snippet: The first `SNIPPET_BYTES` bytes, as text.
        route_label: Value of X-Route-Label as received; likewise the next two.
    """

    worker: str
    type: str
    method: str
    path: str
    body_bytes: int
    body_sha256: str
    body_snippet: str
    route_label: str | None
    route_confidence: str | None
    route_source: str | None
    elapsed_ms: float = 0.0
    headers: list[tuple[str, str]] = field(default_factory=list)


class Echo:
    """Answers any request of any method, after the work that the worker's type stands for.

    Attributes:
        work: What a request costs.
        in_flight: How many requests are being served now.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._delay_s = config.delay_ms / 1_000
        self.headers = {"x-worker-type": config.type.value, "x-worker-name": config.name}
        self.work: Work = asyncio.sleep
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a client that leaves while it sends is not answered."""
        self.in_flight += 1
        try:
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)
        except ClientDisconnect:
            return
        finally:
            self.in_flight -= 1

    async def _answer(self, request: Request) -> Response:
        started = time.perf_counter()
        answer = await self._read(request)
        events = _event_count(request)
        if events:
            return StreamingResponse(
                self._stream(answer, events), media_type="text/event-stream", headers=self.headers
            )
        await self.work(self._delay_s)
        return JSONResponse(_content(answer, started), headers=self.headers)

    async def _read(self, request: Request) -> Answer:
        digest = hashlib.sha256()
        snippet = b""
        length = 0
        async for chunk in request.stream():
            digest.update(chunk)
            length += len(chunk)
            if len(snippet) < SNIPPET_BYTES:
                snippet = (snippet + chunk)[:SNIPPET_BYTES]
        return Answer(
            worker=self._config.name,
            type=self._config.type,
            method=request.method,
            path=_target(request.scope),
            body_bytes=length,
            body_sha256=digest.hexdigest(),
            body_snippet=snippet.decode("utf-8", "replace"),
            route_label=request.headers.get("x-route-label"),
            route_confidence=request.headers.get("x-route-confidence"),
            route_source=request.headers.get("x-route-source"),
            headers=request.headers.items() if self._config.echo_headers else [],
        )

    async def _stream(self, answer: Answer, events: int) -> AsyncIterator[str]:
        started = time.perf_counter()
        for event in range(1, events + 1):
            await self.work(self._delay_s / events)
            content = {"event": event, "events": events, **_content(answer, started)}
            yield f"id: {event}\ndata: {json.dumps(content)}\n\n"


def _content(answer: Answer, started: float) -> dict[str, object]:
    elapsed_ms = (time.perf_counter() - started) * 1_000
    return {**asdict(answer), "elapsed_ms": round(elapsed_ms, 3)}


def _target(scope: Scope) -> str:
    target: bytes = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    return target.decode("latin-1")


def _event_count(request: Request) -> int:
    """How many server-sent events the client asks for; 0 asks for an ordinary answer."""
    if request.method not in {"GET", "POST"}:
        return 0
    asked = request.query_params.get("stream", "")
    if re.fullmatch("[0-9]{1,4}", asked) and 1 <= int(asked) <= MAX_EVENTS:
        return int(asked)
    if "text/event-stream" in request.headers.get("accept", ""):
        return DEFAULT_EVENTS
    return 0


class _AnyRequest(BaseRoute):
    """A route for every target and method, `OPTIONS *` and unknown verbs included."""

    def __init__(self, app: Echo) -> None:
        self._app = app

    @override
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["type"] == "http" else Match.NONE), {}

    @override
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def create_app(config: WorkerConfig) -> FastAPI:
    """The application of one worker; it has no page of its own that would shadow a request."""
    echo = Echo(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            verb = "waits"
            if config.burn_cpu:
                verb = "burns"
                echo.work = await stack.enter_async_context(cpu_burner(config.cpu_processes))
            address = f"{config.host}:{config.port}"
            kind = f"{config.type}, {verb} {config.delay_ms} ms"
            logger.info("worker %s (%s) listens on %s", config.name, kind, address)
            yield

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.api_route("/health", methods=["GET", "HEAD"], response_model=None)
    async def health() -> JSONResponse:
        state = {
            "status": "ok",
            "worker": config.name,
            "type": config.type,
            "delay_ms": config.delay_ms,
            "burn_cpu": config.burn_cpu,
            "in_flight": echo.in_flight,
        }
        return JSONResponse(state, headers=echo.headers)

    app.router.routes.append(_AnyRequest(echo))
    return app
