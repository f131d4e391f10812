"""The data path of one addon: its parts, put together, started, changed and drained."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from mitmproxy import ctx

from addons import http1, options
from addons.choosing import Choice
from addons.deadlines import Deadlines
from addons.dispatch import Dispatcher
from addons.downstream import ClientConnection, Clients, RequestBody
from addons.exchange import Backend, Exchange
from addons.forwarding import Network, Peer, is_trusted, parse_networks
from addons.inspection import InspectedExchange
from addons.listeners import Listeners
from addons.outbox import Outbox
from addons.routing import Rejection
from addons.settings import RouterSettings
from addons.takeover import Doorman
from addons.upstream import UpstreamPool
from addons.worker import Worker

logger = logging.getLogger(__name__)

IDLE_SWEEP_SECONDS = 1.0


class Transport:
    """From a client's connection to a worker's and back.

    Attributes:
        inspected: Exchanges that are shown as flows, by flow id.
    """

    def __init__(
        self,
        settings: RouterSettings,
        tls: Callable[[], ssl.SSLContext],
        refused: Callable[[Rejection], None],
        addon: object,
    ) -> None:
        """A data path without connections; `use` says what serves requests.

        Args:
            settings: Bounds and timeouts.
            tls: Makes the context for workers that speak TLS.
            refused: Told of each request that is refused unread.
            addon: Whose data path it is.
        """
        self.deadlines = Deadlines()
        outbox = Outbox()
        self.upstreams = UpstreamPool(settings.timeouts(), self.deadlines, tls, outbox)
        self.clients = Clients(settings.limits(), self.deadlines, self._serve, refused, outbox)
        self.doorman = Doorman(self.clients, self._peer)
        self._listeners = Listeners(self.doorman, addon)
        self.inspected: dict[str, InspectedExchange] = {}
        self._dispatcher = Dispatcher(ctx.master.addons, addon)
        self._backend: Backend
        self._choice = Choice()
        self._max_buffered_bytes = settings.stream_body_bytes
        self._trusted: tuple[Network, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    def use(self, settings: RouterSettings, backend: Backend, workers: Iterable[Worker]) -> None:
        """Serve requests by these parts and bounds from now on, and with these workers alone."""
        self._backend = backend
        self.clients.limits = settings.limits()
        self.upstreams.timeouts = settings.timeouts()
        self.upstreams.keep_only(workers)
        self._choose(settings)
        self._max_buffered_bytes = settings.stream_body_bytes
        self._trusted = parse_networks(settings.trusted_proxies)

    def start(self) -> None:
        """Start to accept connections, and to watch over deadlines."""
        self._listeners.follow()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self.deadlines.run(), name="deadlines"),
            loop.create_task(self._close_idle(), name="idle upstream connections"),
        ]

    def give_back(self) -> None:
        """Leave the listening sockets to mitmproxy; connections that are ours stay."""
        self._listeners.give_back()

    async def drain(self, timeout_seconds: float) -> int:
        """Let the requests under way end, then close all connections.

        Returns:
            How many connections had to be cut.
        """
        cut = await self.clients.drain(timeout_seconds)
        self.upstreams.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return cut

    def _serve(
        self, client: ClientConnection, head: http1.RequestHead, body: RequestBody
    ) -> Coroutine[Any, Any, bool] | None:
        if not self._choice.wanted(head, client.peer) or not self._dispatcher.is_heard():
            return Exchange(self._backend, client, head, body).begin()
        exchange = InspectedExchange(
            self._backend,
            client,
            head,
            body,
            max_buffered_bytes=self._max_buffered_bytes,
            inspected=self.inspected,
            dispatcher=self._dispatcher,
        )
        return exchange.run()

    def _choose(self, settings: RouterSettings) -> None:
        self._choice.take_over(
            settings.inspect,
            options.head_filter(settings),
            settings.inspect_sample_percent,
            parse_networks(settings.inspect_header_sources),
        )
        if self._choice.chooses_nothing:
            logger.warning(
                "INSPECT=matching chooses no request; set INSPECT_FILTER, INSPECT_SAMPLE_PERCENT"
                " or INSPECT_HEADER_SOURCES"
            )

    async def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(IDLE_SWEEP_SECONDS)
            with contextlib.suppress(OSError):
                self.upstreams.close_idle(loop.time())

    def _peer(self, address: str, scheme: str) -> Peer:
        trusted = bool(self._trusted) and is_trusted(address, self._trusted)
        return Peer(address, scheme, trusted=trusted)
