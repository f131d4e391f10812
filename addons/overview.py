"""The one control port of many processes: asks each on its own, and answers for all.

What a process does not answer in time is not waited for: its metrics are those it told last, and
its part of other answers is left out.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route as HttpRoute

from addons.changes import Changes, handed_on, one_answer
from addons.children import Child
from addons.control import DEFAULT_DECISIONS, MAX_LIMIT_DIGITS, event_stream
from addons.feed import SUBSCRIBER_BACKLOG, DecisionEvent, TooManySubscribersError
from addons.following import Following
from addons.merging import Merger, merge_decisions, merge_pools

logger = logging.getLogger(__name__)

WORKER = "/v1/pools/{pool}/workers/{worker}"


class Overview:
    """Answers for all processes.

    Attributes:
        changes: Makes changes in all.
        restarts: How many processes were started in the place of one that had ended by itself.
        closing: Set when the port closes.
    """

    def __init__(self, serving: Callable[[], Sequence[Child]], count: int) -> None:
        """An overview of the processes that `serving` returns; there ought to be `count`."""
        self._serving = serving
        self._count = count
        self._merger = Merger()
        self._looking: asyncio.Task[int] | None = None
        self._following = Following(serving)
        self.changes = Changes(serving)
        self.restarts = 0
        self.closing = asyncio.Event()

    def asgi(self) -> Starlette:
        """The application to serve."""
        read: dict[str, Callable[[Request], Any]] = {
            "/metrics": self._metrics,
            "/livez": self._alive,
            "/readyz": self._ready,
            "/events": self._events,
            "/v1/decisions": self._decisions,
            "/v1/pools": self._pools,
        }
        write: dict[str, Callable[[Request], Any]] = {
            f"{WORKER}/drain": self._change,
            f"{WORKER}/undrain": self._change,
            "/v1/cache/clear": self._clear_cache,
            "/v1/reload": self._reload,
        }
        return Starlette(
            routes=[
                *(HttpRoute(path, answer) for path, answer in read.items()),
                *(HttpRoute(path, answer, methods=["POST"]) for path, answer in write.items()),
            ]
        )

    async def look(self) -> int:
        """Ask all for their metrics; the answer is how many gave them. Askers share one look."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return await asyncio.shield(self._looking)

    async def bury(self, child: Child) -> None:
        """A process is gone: take its last words, and keep what it has counted."""
        with contextlib.suppress(OSError, ValueError):
            self._merger.take(child.name, child.place.last_words.read_text("utf-8"))
        self._merger.depart(child.name)

    # What is read

    async def _look(self) -> int:
        children = self._serving()
        answers = await asyncio.gather(*(child.get("/metrics") for child in children))
        told = 0
        for child, answer in zip(children, answers, strict=True):
            # It may have been buried in the meantime: its last words are newer.
            if answer is None or not answer.is_success or child.code is not None:
                continue
            try:
                self._merger.take(child.name, answer.text)
                told += 1
            except ValueError:
                logger.warning("process %s tells metrics that cannot be read", child.name)
        return told

    async def _metrics(self, _: Request) -> Response:
        told = await self.look()
        text = self._merger.render(*self.own_metrics(told))
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    def own_metrics(self, told: int) -> list[Metric]:
        """What only a supervisor knows; `told` is how many gave their metrics just now."""
        return [
            GaugeMetricFamily("slb_processes", "Proxy processes that ought to run.", self._count),
            GaugeMetricFamily(
                "slb_processes_up", "Proxy processes that have told their metrics just now.", told
            ),
            CounterMetricFamily(
                "slb_process_restarts",
                "Proxy processes started in the place of one that had ended by itself.",
                self.restarts,
            ),
        ]

    async def _alive(self, _: Request) -> Response:
        answers = await self._ask_all("/livez")
        if any(answers) or not answers:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "no process answers"}, status_code=503)

    async def _ready(self, _: Request) -> Response:
        answers = await self._ask_all("/readyz")
        ready = sum(answer is not None and answer.is_success for answer in answers)
        processes = {"ready": ready, "of": self._count}
        if ready:
            return JSONResponse({"status": "ready", "processes": processes})
        said = [answer.json() for answer in answers if answer is not None]
        reason = said[0].get("reason") if said else "no process is ready"
        return JSONResponse(
            {"status": "not ready", "reason": reason, "processes": processes}, status_code=503
        )

    async def _pools(self, _: Request) -> Response:
        bodies = _bodies(await self._ask_all("/v1/pools"))
        return JSONResponse({"pools": merge_pools([body["pools"] for body in bodies])})

    async def _decisions(self, request: Request) -> Response:
        limit = request.query_params.get("limit", str(DEFAULT_DECISIONS))
        if not (limit.isascii() and limit.isdigit()):
            return PlainTextResponse("limit must be a whole number\n", status_code=400)
        number = int(limit) if len(limit) <= MAX_LIMIT_DIGITS else sys.maxsize
        return JSONResponse({"decisions": await self._recent(number)})

    async def _recent(self, limit: int) -> list[dict[str, Any]]:
        bodies = _bodies(await self._ask_all(f"/v1/decisions?limit={limit}"))
        return merge_decisions([body["decisions"] for body in bodies], limit)

    async def _events(self, request: Request) -> Response:
        subscription = contextlib.ExitStack()
        try:
            queue = subscription.enter_context(self._following.subscribe())
        except TooManySubscribersError:
            return PlainTextResponse("too many readers; close one\n", status_code=503)
        try:
            await self._following.begun()
            recent = [DecisionEvent(**one) for one in await self._recent(SUBSCRIBER_BACKLOG)]
        except BaseException:
            subscription.close()
            raise
        return StreamingResponse(
            event_stream(
                subscription,
                queue,
                _after(recent, request.headers.get("last-event-id")),
                self.closing,
            ),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    async def _ask_all(self, path: str) -> list[httpx.Response | None]:
        return await asyncio.gather(*(child.get(path) for child in self._serving()))

    # What is changed

    async def _change(self, request: Request) -> Response:
        return one_answer(*await self.changes.order_all(request))

    async def _clear_cache(self, request: Request) -> Response:
        children, answers = await self.changes.order_all(request)
        merged = one_answer(children, answers)
        if merged.status_code != httpx.codes.OK:
            return merged
        return JSONResponse({"forgotten": sum(body["forgotten"] for body in _bodies(answers))})

    async def _reload(self, request: Request) -> Response:
        return await self.changes.reload(handed_on(request))


def _after(events: list[DecisionEvent], last_id: str | None) -> list[DecisionEvent]:
    for index in range(len(events) - 1, -1, -1):
        if events[index].id == last_id:
            return events[index + 1 :]
    return events


def _bodies(answers: Sequence[httpx.Response | None]) -> list[dict[str, Any]]:
    return [answer.json() for answer in answers if answer is not None and answer.is_success]
