"""The dashboard's poller against endpoints that misbehave."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from dashboard import poller
from dashboard.health import Endpoint, State
from dashboard.monitor import Monitor
from dashboard.poller import Poller
from dashboard.settings import DashboardSettings

METRICS = b"# TYPE slb_up gauge\nslb_up 1\n"
POOLS = json.dumps({"pools": []}).encode()
GOOD = {"/metrics": METRICS, "/v1/pools": POOLS, "/ready": b'{"llm": "none"}'}


def pools_with(**counts: int) -> httpx.Response:
    worker = {"name": "a", "url": "http://a", "inflight": 0, "requests": 0, "errors": 0, **counts}
    return httpx.Response(200, json={"pools": [{"label": "general", "workers": [worker]}]})


type Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Stream(httpx.AsyncByteStream):
    """A body that comes in pieces; ends, or stays open."""

    def __init__(self, *pieces: bytes, stay_open: bool = False) -> None:
        self.pieces, self.stay_open = pieces, stay_open

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.stay_open:
            await asyncio.Event().wait()


async def good(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/events":
        return httpx.Response(200, stream=Stream(b": hello\n\n", stay_open=True))
    return httpx.Response(200, content=GOOD[request.url.path])


def but(path: str, answer: Answer) -> Answer:
    """Good endpoints, but for one."""

    async def mixed(request: httpx.Request) -> httpx.Response:
        return await (answer if request.url.path == path else good)(request)

    return mixed


@asynccontextmanager
async def polling(answer: Answer) -> AsyncIterator[Monitor]:
    monitor = Monitor(time.monotonic, time.time)
    settings = DashboardSettings.model_construct(
        proxy_metrics_url="http://proxy",
        classifier_url="http://classifier",
        dashboard_refresh_seconds=0.2,
    )
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        task = asyncio.ensure_future(Poller(monitor, settings, client).run())
        try:
            yield monitor
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the code under test tells nobody
            await asyncio.sleep(0.01)


async def until_state(monitor: Monitor, endpoint: Endpoint, state: State) -> str:
    await eventually(lambda: monitor.snapshot().health[endpoint].state is state)
    return monitor.snapshot().health[endpoint].fault


async def test_all_is_well_when_all_answer() -> None:
    async with polling(good) as monitor:
        for endpoint in Endpoint:
            assert await until_state(monitor, endpoint, State.OK) == ""


async def test_an_endpoint_that_hangs_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poller, "SCRAPE_TIMEOUT_SECONDS", 0.3)

    async def hang(_: httpx.Request) -> httpx.Response:
        return await asyncio.Event().wait()

    async with polling(but("/v1/pools", hang)) as monitor:
        await until_state(monitor, Endpoint.PROXY_METRICS, State.OK)
        assert monitor.snapshot().health[Endpoint.POOLS].state is State.WAITING
        assert await until_state(monitor, Endpoint.POOLS, State.FAILED) == "not answering"


@pytest.mark.parametrize(
    ("path", "endpoint", "response", "fault"),
    [
        ("/v1/pools", Endpoint.POOLS, httpx.Response(500), "answering 500"),
        ("/v1/pools", Endpoint.POOLS, httpx.Response(302), "answering 302"),
        ("/v1/pools", Endpoint.POOLS, httpx.Response(200, text="<html>"), "unreadable"),
        ("/v1/pools", Endpoint.POOLS, pools_with(requests=10**30), "unreadable"),
        ("/v1/pools", Endpoint.POOLS, pools_with(inflight=-1), "unreadable"),
        ("/v1/pools", Endpoint.POOLS, pools_with(errors=2**53 + 1), "unreadable"),
        ("/ready", Endpoint.CLASSIFIER, httpx.Response(503), "not ready"),
        ("/events", Endpoint.DECISIONS, httpx.Response(503), "answering 503"),
        ("/events", Endpoint.DECISIONS, httpx.Response(200, text=""), "closed"),
    ],
    ids=[
        *("error", "redirect", "nonsense", "too great", "negative", "inexact"),
        *("not ready", "too many readers", "stream ends"),
    ],
)
async def test_a_bad_answer_is_told_in_plain_words(
    path: str, endpoint: Endpoint, response: httpx.Response, fault: str
) -> None:
    async def answer(_: httpx.Request) -> httpx.Response:
        return response

    async with polling(but(path, answer)) as monitor:
        assert await until_state(monitor, endpoint, State.FAILED) == fault


async def test_an_endpoint_that_is_gone_comes_back() -> None:
    gone = True

    async def flaky(request: httpx.Request) -> httpx.Response:
        if gone:
            msg = "refused"
            raise httpx.ConnectError(msg, request=request)
        return await good(request)

    async with polling(flaky) as monitor:
        for endpoint in Endpoint:
            assert await until_state(monitor, endpoint, State.FAILED) == "unreachable"
        gone = False
        for endpoint in Endpoint:
            await until_state(monitor, endpoint, State.OK)


async def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "MAX_ANSWER_BYTES", 1_000)

    async def endless(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Stream(*[b"x" * 600] * 3))

    async with polling(but("/v1/pools", endless)) as monitor:
        assert await until_state(monitor, Endpoint.POOLS, State.FAILED) == "answering too much"


async def test_a_fault_of_our_own_is_shown_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dashboard.monitor.parse_pools", lambda _: 1 / 0)

    async with polling(good) as monitor:
        fault = await until_state(monitor, Endpoint.POOLS, State.FAILED)
        monkeypatch.undo()
        await until_state(monitor, Endpoint.POOLS, State.OK)

    assert fault == "misread by the dashboard"
    assert "ZeroDivisionError" in caplog.text


async def test_the_feed_goes_on_where_it_broke_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "FEED_RETRY_SECONDS", (0.01,))
    asked: list[str | None] = []
    event = {
        "time": 1.0, "method": "GET", "path": "/", "label": "general", "source": "local",
        "cached": False, "confidence": 1, "reason": "", "pool": None, "worker": None,
        "status": 200, "classify_ms": 1, "total_ms": 1,
    }  # fmt: skip

    async def feed(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        number = len(asked)
        data = json.dumps({**event, "id": f"d{number}"})
        text = f"id: {number}\nevent: decision\ndata: {data}\n\n"
        return httpx.Response(200, stream=Stream(text.encode(), stay_open=number == 3))

    async with polling(but("/events", feed)) as monitor:
        await eventually(lambda: monitor.decisions.last == 3)

    assert asked == [None, "1", "2"]


async def test_an_event_that_is_no_decision_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    async def feed(_: httpx.Request) -> httpx.Response:
        junk = b"event: decision\ndata: {}\n\nevent: other\ndata: {}\n\n"
        return httpx.Response(200, stream=Stream(junk, stay_open=True))

    async with polling(but("/events", feed)) as monitor:
        await eventually(lambda: "no decision" in caplog.text)
        assert monitor.decisions.last == 0
        assert monitor.snapshot().health[Endpoint.DECISIONS].state is State.OK
