"""The data path of one addon: its parts, put together, started, changed and drained."""

import asyncio
import contextlib
import functools
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
from addons.looplag import LoopLag, Told
from addons.outbox import Outbox
from addons.overload import Overload
from addons.routing import Rejection, error_response
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
        lagged: Told,
        addon: object,
    ) -> None:
        """A data path without connections; `use` says what serves requests.

        Args:
            settings: Bounds and timeouts.
            tls: Makes the context for workers that speak TLS.
            refused: Told of each request that is refused unread.
            lagged: Told how late the event loop is.
            addon: Whose data path it is.
        """
        self.overload = Overload()
        self._lag = LoopLag(self.overload.lagged, lagged)
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
        self.overload.limit_seconds = settings.max_loop_lag_ms / 1000
        self.upstreams.timeouts = settings.timeouts()
        self.upstreams.keep_only(workers)
        self._choose(settings)
        self._max_buffered_bytes = settings.stream_body_bytes
        self._trusted = parse_networks(settings.trusted_proxies)

    def start(self) -> None:
        """Start to accept connections, and to watch over deadlines and the event loop."""
        self._listeners.follow()
        loop = asyncio.get_running_loop()
        self._lag.start()
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
        self._lag.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return cut

    def _serve(
        self, client: ClientConnection, head: http1.RequestHead, body: RequestBody
    ) -> Coroutine[Any, Any, bool] | None:
        if (rejection := self.overload.admit()) is not None:
            self.clients.refused(rejection)
            turn_away(client, head, body, rejection)
            return None
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


def turn_away(
    client: ClientConnection, head: http1.RequestHead, body: RequestBody, rejection: Rejection
) -> None:
    """Answer a request that nobody has looked into."""
    # A body that is still on its way would have to be read; HTTP/1.0 waits for the end.
    keep_alive = head.keep_alive and head.minor == 1 and body.done and not client.draining
    head_only = head.method == b"HEAD"
    client.write(_answer(rejection, keep_alive, head_only))
    client.ended(keep_alive=keep_alive)


@functools.cache
def _answer(rejection: Rejection, keep_alive: bool, head_only: bool) -> bytes:
    """The same again and again: to turn away has to be much cheaper than to serve."""
    return error_response(rejection, keep_alive=keep_alive, head_only=head_only)
