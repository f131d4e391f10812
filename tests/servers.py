"""Small real HTTP servers on loopback for tests: run in a thread, misbehave on request."""

import asyncio
import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from classifier.configuration import listen

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]


@contextlib.contextmanager
def serving(app: Starlette, port: int = 0) -> Iterator[str]:
    """Serve an application on loopback while the context lasts; yields its base URL."""
    sock = listen("127.0.0.1", port, "TEST")
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    address = "http://{}:{}".format(*sock.getsockname()[:2])
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(10)


@dataclass
class Ollama:
    """Speaks as much of Ollama's API as is used; what it says is set by the test."""

    answer: str = '{"label": "high-compute", "confidence": 0.88, "reasoning": "scans a table"}'
    delay_seconds: float = 0.0
    status: int = 200
    has_model: bool = True
    judge: Callable[[str], str] | None = None
    """Makes the answer of what it is asked, instead of `answer`."""
    chats: list[dict[str, Any]] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/generate", self._generate, methods=["POST"]),
                Route("/api/chat", self._chat, methods=["POST"]),
                Route("/{rest:path}", self._other, methods=METHODS),
            ]
        )

    async def _generate(self, request: Request) -> Response:
        model = (await request.json())["model"]
        if not self.has_model:
            return JSONResponse({"error": f"model '{model}' not found"}, status_code=404)
        return JSONResponse({"model": model, "response": "", "done": True})

    async def _chat(self, request: Request) -> Response:
        question = await request.json()
        self.chats.append(question)
        answer = self.judge(question["messages"][-1]["content"]) if self.judge else self.answer
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.delay_seconds)
        finally:
            self._now -= 1
        if self.status != 200:
            return JSONResponse({"error": "broken"}, status_code=self.status)
        return JSONResponse(
            {
                "model": "mistral",
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": answer},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 1,
                "eval_count": 1,
            }
        )

    async def _other(self, _: Request) -> Response:
        return PlainTextResponse("404 page not found", status_code=404)


@dataclass
class OpenAi:
    """Speaks as much of OpenAI's chat API as is used.

    `tokens` are those of its answer, each with the log-probabilities of what could stand there.
    """

    tokens: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    tells_logprobs: bool = True
    refuses_logprobs: bool = False
    chats: list[dict[str, Any]] = field(default_factory=list)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        question = await request.json()
        self.chats.append(question)
        if self.refuses_logprobs and question.get("logprobs"):
            error = {"message": "logprobs are not supported", "type": "invalid_request_error"}
            return JSONResponse({"error": error}, status_code=400)
        text = "".join(token for token, _ in self.tokens)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        if self.tells_logprobs and question.get("logprobs"):
            choice["logprobs"] = {"content": [self._told(*token) for token in self.tokens]}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        return JSONResponse(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "tiny",
                "choices": [choice],
                "usage": usage,
            }
        )

    @staticmethod
    def _told(token: str, choices: dict[str, float]) -> dict[str, Any]:
        top = [
            {"token": text, "logprob": logprob, "bytes": None} for text, logprob in choices.items()
        ]
        return {
            "token": token,
            "logprob": choices.get(token, 0.0),
            "bytes": None,
            "top_logprobs": top,
        }


@dataclass
class Classifier:
    """A classifier service with a fault: `mode` says which."""

    mode: str = "ok"
    questions: int = 0
    most_at_once: int = 0
    _now: int = 0

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/classify", self._classify, methods=["POST"])])

    async def _classify(self, request: Request) -> Response:
        await request.body()
        self.questions += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._answer()
        finally:
            self._now -= 1

    async def _answer(self) -> Response:
        answer = {"label": "fast-path", "confidence": 0.9, "source": "local", "latency_ms": 0.1}
        answer["reasoning"] = "point lookup"
        if self.mode == "hang":
            await asyncio.sleep(30)
        if self.mode == "slow":
            await asyncio.sleep(0.2)
        if self.mode == "trickle":
            return StreamingResponse(self._trickle(json.dumps(answer)))
        if self.mode == "huge":
            answer["padding"] = "x" * 10_000_000
        return {
            "500": PlainTextResponse("Traceback: secret", status_code=500),
            "unknown label": JSONResponse({**answer, "label": "free-lunch"}),
            "not json": PlainTextResponse("<html>"),
            "fallback": JSONResponse({**answer, "source": "fallback"}),
            "empty": Response(),
            "gzip": Response(
                gzip.compress(json.dumps(answer).encode()), headers={"content-encoding": "gzip"}
            ),
        }.get(self.mode) or JSONResponse(answer)

    async def _trickle(self, text: str):
        for char in text:
            yield char
            await asyncio.sleep(1)


def decision_feed(events: list[dict[str, Any]]) -> Starlette:
    """A control port that tells these decisions and then keeps the line open."""

    async def tell():
        for event in events:
            yield f"id: {event['id']}\nevent: decision\ndata: {json.dumps(event)}\n\n"
        while True:
            await asyncio.sleep(0.2)
            yield ": still here\n\n"

    async def answer(_: Request) -> Response:
        return StreamingResponse(tell(), media_type="text/event-stream")

    return Starlette(routes=[Route("/events", answer)])
