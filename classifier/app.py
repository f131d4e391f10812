"""The HTTP face of the classifier."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from classifier.cache import DecisionCache
from classifier.contracts import (
    MAX_PAYLOAD_BYTES,
    ClassifyRequest,
    ClassifyResponse,
    ExplainResponse,
    RequestView,
)
from classifier.engine import Engine, SecondOpinion
from classifier.labels_file import read_labels_file
from classifier.labels_watch import LabelsWatch
from classifier.llm import Llm
from classifier.local_model import LocalModel
from classifier.metrics import Metrics
from classifier.policy import Policy
from classifier.rules import RequestFacts
from classifier.settings import ClassifierSettings, LlmMode
from classifier.shape import shared_key, shown_key

logger = logging.getLogger(__name__)

# A payload of the largest size with every byte of it escaped, and the rest of the question.
MAX_QUESTION_BYTES = 6 * MAX_PAYLOAD_BYTES + 262_144
READY_WAIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one running classifier."""

    settings: ClassifierSettings
    engine: Engine
    metrics: Metrics
    llm: Llm | None
    model: LocalModel
    watch: LabelsWatch


def build(settings: ClassifierSettings) -> Service:
    """Put a classifier together; nothing runs yet.

    Raises:
        SettingsError: If the labels file cannot be used.
        OSError, ValueError: If the packaged model cannot be read.
    """
    policy = Policy.of(read_labels_file(settings.labels_file))
    metrics = Metrics()
    llm = Llm(settings) if Llm.configured(settings) else None
    model = LocalModel.load()
    engine = _engine(settings, metrics, llm, policy, model)

    def adopt(policy: Policy) -> None:
        if policy.examples.left_out:
            logger.warning(
                "labels file: %d examples beyond the bounds are not used", policy.examples.left_out
            )
        if llm is not None:
            llm.prompt = policy.prompt
        engine.adopt(policy)

    adopt(policy)
    metrics.gauge("llm_inflight", "Questions at the LLM.", lambda: engine.llm_inflight)
    metrics.gauge("llm_queued", "Questions that wait for the LLM.", lambda: engine.llm_queued)
    metrics.gauge("llm_up", "1 if the LLM can be asked.", lambda: bool(llm and llm.available))
    watch = LabelsWatch(settings.labels_file, policy.file, adopt, metrics.labels_file_read)
    return Service(settings, engine, metrics, llm, model, watch)


def _engine(
    settings: ClassifierSettings,
    metrics: Metrics,
    llm: Llm | None,
    policy: Policy,
    model: LocalModel,
) -> Engine:
    cache = DecisionCache(
        settings.classifier_cache_entries,
        settings.classifier_cache_bytes,
        settings.classifier_cache_ttl_seconds,
        time.monotonic,
    )
    metrics.gauge("cache_entries", "Labels in the cache.", lambda: len(cache))
    metrics.gauge("cache_bytes", "Memory that labels in the cache take.", lambda: cache.used_bytes)
    min_confidence = settings.local_min_confidence
    return Engine(
        model,
        min_confidence=model.min_confidence if min_confidence is None else min_confidence,
        cache=cache,
        metrics=metrics,
        clock=time.monotonic,
        key=shared_key if settings.cache_shapes else RequestView.fingerprint,
        second_opinion=None if llm is None else _second_opinion(settings, llm),
        policy=policy,
    )


def _second_opinion(settings: ClassifierSettings, llm: Llm) -> SecondOpinion:
    return SecondOpinion(
        llm.ask,
        lambda: llm.available,
        max_inflight=settings.llm_max_inflight,
        max_queue=settings.llm_queue,
        waits=settings.llm_mode is LlmMode.WAIT,
        min_local_probability=settings.llm_min_local_probability,
    )


def create_app(service: Service) -> FastAPI:
    """The application that serves a classifier."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.watch.run())]
        if service.llm is not None:
            tasks.append(asyncio.create_task(service.llm.watch()))
        yield
        for task in tasks:
            task.cancel()
        await service.engine.aclose()

    app = FastAPI(
        title="Classifier",
        summary="Labels HTTP requests by what they cost to serve.",
        lifespan=lifespan,
        exception_handlers={RequestValidationError: _refuse},
        # A missing content type is read as JSON: nothing else can be meant here.
        strict_content_type=False,
    )
    app.add_middleware(BoundedBody, max_bytes=MAX_QUESTION_BYTES)
    _add_routes(app, service)
    _add_explain(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    started = time.monotonic()

    @app.post("/classify", summary="Label a request")
    async def classify(question: ClassifyRequest) -> ClassifyResponse:
        began = time.perf_counter()
        deadline_ms = question.deadline_ms
        with service.metrics.inflight.track_inprogress():
            decided = await service.engine.classify(
                question.view(),
                None if deadline_ms is None else deadline_ms / 1000,
                _facts(question),
            )
        seconds = time.perf_counter() - began
        service.metrics.answered(decided, seconds)
        return ClassifyResponse.from_classification(decided, round(seconds * 1000, 3))

    @app.get("/health", summary="Whether the process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Whether it can answer", response_model=None)
    async def ready() -> JSONResponse:
        # An LLM that is there shall be loaded before the first request comes; an absent or a
        # slow one does not keep the local model from answering.
        llm = service.llm
        waited = time.monotonic() - started > READY_WAIT_SECONDS
        if llm is not None and not llm.looked_for.is_set() and not waited:
            return JSONResponse({"status": "looking for the LLM"}, status_code=503)
        state = "none" if llm is None else "available" if llm.available else "absent"
        return JSONResponse({"status": "ready", "llm": state})

    @app.get("/metrics", summary="Prometheus metrics", response_model=None)
    async def metrics() -> Response:
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})


def _add_explain(app: FastAPI, service: Service) -> None:
    @app.post("/explain", summary="Label a request and say why, at length")
    async def explain(question: ClassifyRequest) -> ExplainResponse:
        began = time.perf_counter()
        deadline_ms = question.deadline_ms
        view = question.view()
        decided = await service.engine.classify(
            view, None if deadline_ms is None else deadline_ms / 1000, _facts(question)
        )
        opinion = service.model.explain(view)
        return ExplainResponse.from_decisions(
            decided,
            opinion,
            min_confidence=service.engine.min_confidence(opinion.local.label),
            shape=shown_key(view),
            latency_ms=round((time.perf_counter() - began) * 1000, 3),
        )


def _facts(question: ClassifyRequest) -> RequestFacts:
    """What rules may know: more headers than the model sees, but only of a direct question."""
    headers = [(name.lower(), value) for name, value in question.headers.items()]
    if question.content_type is not None:
        headers.append(("content-type", question.content_type))
    return RequestFacts(
        method=question.method.upper(),
        path=question.path,
        headers=tuple(headers),
        body=question.body,
    )


async def _refuse(request: Request, exc: Exception) -> JSONResponse:
    """One clear line about a bad question, without repeating the payload."""
    content_type = request.headers.get("content-type", "application/json")
    if "json" not in content_type:
        text = "the question is JSON; send it with content-type: application/json"
        return JSONResponse({"error": {"code": "not_json", "message": text}}, status_code=415)
    faults = exc.errors() if isinstance(exc, RequestValidationError) else []
    # One fault, by the field's own name: what stands below it comes from the payload.
    name, fault = "body", "cannot be read"
    if faults:
        place = faults[0]["loc"]
        name = str(place[1]) if len(place) > 1 and isinstance(place[1], str) else name
        fault = str(faults[0]["msg"]).removeprefix("Value error, ")
    text = f"{name}: {fault}"
    return JSONResponse({"error": {"code": "bad_request", "message": text}}, status_code=422)


class BoundedBody:
    """Refuses request bodies over a size with 413, however they are framed."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        """Wrap an application."""
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request: its body is read here and handed on whole."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await self._read(receive)
        if body is None:
            await self._too_large()(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body, or None if it is too large."""
        body = bytearray()
        while len(body) <= self._max_bytes:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                return bytes(body) if len(body) <= self._max_bytes else None
        return None

    def _too_large(self) -> JSONResponse:
        message = f"the question has over {self._max_bytes} bytes; send a prefix of the payload"
        return JSONResponse({"error": {"code": "too_large", "message": message}}, status_code=413)
