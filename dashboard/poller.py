"""Asks every endpoint by itself, each within its own deadline, once for all viewers."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx

from dashboard.health import Endpoint, EndpointError
from dashboard.monitor import Monitor
from dashboard.settings import DashboardSettings
from dashboard.sse import EventParser

logger = logging.getLogger(__name__)

SCRAPE_TIMEOUT_SECONDS = 2.0
MAX_ANSWER_BYTES = 4_194_304
FEED_SILENCE_SECONDS = 40.0  # The proxy says something every 15 s, if only that it is still there.
FEED_RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)
MIN_PAUSE_SECONDS = 0.1


def wall_clock() -> float:
    """Seconds since the epoch."""
    return datetime.now(UTC).timestamp()


def new_monitor() -> Monitor:
    """A monitor on real time."""
    return Monitor(time.monotonic, wall_clock)


def new_client() -> httpx.AsyncClient:
    """A client for the poller.

    No proxy out of the environment: the endpoints are ours. No kept-alive connections: a server
    that closes an idle one just as it is used would look like one that is down.
    """
    return httpx.AsyncClient(
        trust_env=False,
        timeout=httpx.Timeout(SCRAPE_TIMEOUT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=0),
        headers={"user-agent": "slb-dashboard", "accept-encoding": "identity"},
    )


class Poller:
    """Feeds a monitor until it is cancelled."""

    def __init__(
        self, monitor: Monitor, settings: DashboardSettings, client: httpx.AsyncClient
    ) -> None:
        """Feed `monitor` from the endpoints that `settings` name."""
        self._monitor = monitor
        self._client = client
        self._period = settings.dashboard_refresh_seconds
        proxy, classifier = settings.proxy_metrics_url, settings.classifier_url
        self._polled = {
            Endpoint.PROXY_METRICS: f"{proxy}/metrics",
            Endpoint.POOLS: f"{proxy}/v1/pools",
            Endpoint.CLASSIFIER: f"{classifier}/ready",
            Endpoint.CLASSIFIER_METRICS: f"{classifier}/metrics",
        }
        self._events_url = f"{proxy}/events"
        self._last_event_id = ""

    async def run(self) -> None:
        """Poll for ever."""
        async with asyncio.TaskGroup() as group:
            for endpoint, url in self._polled.items():
                group.create_task(self._poll(endpoint, url), name=f"poll {endpoint}")
            group.create_task(self._follow_feed(), name="decision feed")

    async def _poll(self, endpoint: Endpoint, url: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            await self._supervised(endpoint, lambda: self._scrape(endpoint, url))
            spent = loop.time() - started
            await asyncio.sleep(max(MIN_PAUSE_SECONDS, self._period - spent))

    async def _follow_feed(self) -> None:
        failures = 0
        while True:
            before = self._last_event_id
            await self._supervised(Endpoint.DECISIONS, self._read_feed)
            failures = 0 if self._last_event_id != before else failures + 1
            await asyncio.sleep(FEED_RETRY_SECONDS[min(failures, len(FEED_RETRY_SECONDS) - 1)])

    async def _supervised(self, endpoint: Endpoint, ask: Callable[[], Awaitable[None]]) -> None:
        try:
            await ask()
        except EndpointError as exc:
            self._monitor.failed(endpoint, str(exc))
        except Exception:
            # The one place that outlives a fault of our own: the page must say that it is blind.
            logger.exception("could not read %s", endpoint)
            self._monitor.failed(endpoint, "misread by the dashboard")

    async def _scrape(self, endpoint: Endpoint, url: str) -> None:
        try:
            async with asyncio.timeout(SCRAPE_TIMEOUT_SECONDS):
                body = await self._get(endpoint, url)
        except (TimeoutError, httpx.TimeoutException) as exc:
            msg = "not answering"
            raise EndpointError(msg) from exc
        except httpx.HTTPError as exc:
            msg = "unreachable"
            raise EndpointError(msg) from exc
        self._monitor.answered(endpoint, body)

    async def _get(self, endpoint: Endpoint, url: str) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", url) as response:
            _check_status(endpoint, response)
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    msg = "answering too much"
                    raise EndpointError(msg)
        return bytes(body)

    async def _read_feed(self) -> None:
        headers = {"accept": "text/event-stream", "last-event-id": self._last_event_id}
        if not self._last_event_id:
            del headers["last-event-id"]
        timeout = httpx.Timeout(SCRAPE_TIMEOUT_SECONDS, read=FEED_SILENCE_SECONDS)
        try:
            async with (
                asyncio.timeout(SCRAPE_TIMEOUT_SECONDS) as opening,
                self._client.stream(
                    "GET", self._events_url, headers=headers, timeout=timeout
                ) as response,
            ):
                _check_status(Endpoint.DECISIONS, response)
                opening.reschedule(None)  # Open: from here on only silence is a fault.
                await self._take_events(response)
        except (TimeoutError, httpx.TimeoutException) as exc:
            msg = "not answering"
            raise EndpointError(msg) from exc
        except httpx.HTTPError as exc:
            msg = "unreachable"
            raise EndpointError(msg) from exc
        msg = "closed"
        raise EndpointError(msg)

    async def _take_events(self, response: httpx.Response) -> None:
        parser = EventParser()
        self._monitor.well(Endpoint.DECISIONS)
        async for chunk in response.aiter_bytes():
            self._monitor.well(Endpoint.DECISIONS)
            for event in parser.push(chunk):
                if event.name == "decision":
                    self._monitor.decided(event.data)
                self._last_event_id = event.id


def _check_status(endpoint: Endpoint, response: httpx.Response) -> None:
    if response.is_success:
        return
    status = response.status_code
    not_ready = endpoint is Endpoint.CLASSIFIER and status == httpx.codes.SERVICE_UNAVAILABLE
    msg = "not ready" if not_ready else f"answering {status}"
    raise EndpointError(msg)
