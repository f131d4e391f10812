"""Semantic load balancer for mitmproxy: each request goes to the pool that its meaning asks for.

Run it as `slb`, with nothing of mitmproxy that it does not need (`addons/launcher.py`), or:

    mitmdump --mode reverse:http://unrouted.invalid:9 --listen-port 8080 -s addons/router.py

The reverse target is never contacted: should routing ever fail, the request ends there and not at
a worker that nobody chose. Without a `--mode` the addon switches to this one by itself.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

# mitmproxy loads this file by its path, under another name, and puts `addons/` on sys.path:
# from a checkout that is not installed, the packages are found only through its parent.
if (_root := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, _root)

from mitmproxy import command, ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.flow import Flow
from mitmproxy.proxy.layer import NextLayer

from addons import flowview, options
from addons.accounting import Failure, Ledger
from addons.admin import Operations
from addons.classification import failure_text
from addons.control import ControlApp, ControlServer
from addons.exchange import Backend
from addons.explaining import Explainer
from addons.failover import RetryBudget
from addons.feed import DecisionFeed
from addons.fleet import Fleet
from addons.labels import CurrentLabels, LabelsInForce, ServiceLabels
from addons.orders import StandingOrders
from addons.reload import Reloaded, Reloader, read_sources
from addons.replays import Replays
from addons.routing import INTERNAL_ERROR
from addons.settings import OPTION_PREFIX, RouterSettings
from addons.telemetry import Gauges, telemetry
from addons.transport import Transport
from classifier.configuration import SettingsError, exit_with, listen
from classifier.labels_file import LabelsFile

logger = logging.getLogger(__name__)

# A little longer than the control port takes to let its readers go.
CLOSE_SECONDS = 3.0
START_ONLY = ("proxy_port", "metrics_host", "metrics_port", "decision_history")


class SemanticRouter:
    """The addon: hooks in, decisions of the core out. Lives in one event loop, needs no lock."""

    name = "router"

    def __init__(self) -> None:
        """An addon without settings; `load` and `configure` bring them."""
        self.settings = RouterSettings.model_construct()
        self.labels_file = LabelsInForce(options.read_labels)
        self.draining = False
        self._configured = False
        self._reloader: Reloader
        self._ledger: Ledger
        self._labels: ServiceLabels
        self._orders = StandingOrders()
        self._transport: Transport
        self._fleet: Fleet
        self._budget: RetryBudget
        self._control: ControlServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._replays: Replays
        self._explainer = Explainer()

    # Life of the addon

    def load(self, loader: Loader) -> None:
        """Declare the options. Bad settings end the program: it must not serve without us."""
        try:
            sources = read_sources()
            options.add_options(loader, sources.settings)
            self._reloader = Reloader(
                sources, options.take_given(), options.change, self.labels_file
            )
        except SettingsError as exc:
            exit_with(str(exc))
        options.set_proxy_options()

    def configure(self, updated: set[str]) -> None:
        """Take over changed settings as a whole, or refuse them and keep the old ones."""
        if not any(name.startswith(OPTION_PREFIX) for name in updated):
            return
        try:
            settings = options.settings_from_options()
            labels = self.labels_file.next_for(settings.labels_file)
        except SettingsError as exc:
            if not self._configured:
                exit_with(str(exc))
            raise exceptions.OptionsError(str(exc)) from exc
        if self._configured and (fixed := changed_at_start_only(self.settings, settings)):
            msg = f"{fixed} can only be set at the start; restart to change it"
            raise exceptions.OptionsError(msg)
        # A refused change comes again as its reversal.
        unchanged = settings == self.settings and labels == self.labels_file.in_force
        if not self._configured or not unchanged:
            self._take_over_or_refuse(settings, labels)

    def running(self) -> None:
        """Open the control port. A plain function, for on a hot reload nobody would await it."""
        try:
            if options.ensure_reverse_mode(self.settings.proxy_port):
                self._keep(options.exit_unless_listening(self.settings.proxy_port))
            options.widen_limits()
            sock = listen(self.settings.metrics_host, self.settings.metrics_port, "METRICS")
        except SettingsError as exc:
            exit_with(str(exc))
        app = ControlApp(
            feed=self._ledger.feed,
            telemetry=telemetry,
            pools=lambda: self._fleet.pools,
            not_ready=self._not_ready,
            operations=self._operations(),
        )
        self._control = ControlServer(app, sock)
        self._serving = self._keep(self._control.serve())
        self._transport.start()
        self._fleet.start()
        with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        options.shorten_collections()
        logger.info("Routing. Metrics: http://%s:%d/metrics", *sock.getsockname()[:2])

    def done(self) -> asyncio.Task[None] | None:
        """End: at exit after the requests under way, which mitmproxy awaits."""
        if not self._configured:
            return None
        if not ctx.master.should_exit.is_set():
            # Hot reload: the next router wants the control port now; old connections end by and by.
            self._close_control()
            self._transport.give_back()
        return self._keep(self._end(leaving=ctx.master.should_exit.is_set()))

    # Life of a connection, and of a flow

    def client_connected(self, client: Client) -> None:
        """Take the connection over, before a byte of it is read."""
        self._transport.doorman.client_connected(client)

    def client_disconnected(self, client: Client) -> None:
        """Forget the connection."""
        self._transport.doorman.client_disconnected(client)

    def next_layer(self, nextlayer: NextLayer) -> None:
        """Serve what comes through TLS."""
        self._transport.doorman.next_layer(nextlayer)

    async def request(self, flow: http.HTTPFlow) -> None:
        """Label a request, in turn with the hooks of other addons."""
        if flow.response or flow.error or not flow.live:
            return
        exchange = self._transport.inspected.get(flow.id)
        try:
            if exchange is not None:
                await exchange.label()
            elif flow.is_replay:
                bytes_read = self.settings.classify_body_bytes
                await self._replays.route(flow, self._labels, self._fleet.admission, bytes_read)
            else:
                # Not ours: it must not reach the mode's own target.
                flowview.reject(flow, INTERNAL_ERROR)
        except Exception as exc:
            # Supervisor: mitmproxy would log the message, which may repeat a payload, and go on.
            logger.error("routing failed: %s", failure_text(exc))
            if exchange is None:
                flowview.reject(flow, INTERNAL_ERROR)

    def response(self, flow: http.HTTPFlow) -> None:
        """Account for a replay that was answered."""
        self._replays.end(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Account for a replay that failed."""
        self._replays.end(flow, Failure.WORKER_FAILED)

    # Commands

    @command.command("router.pools")
    def show_pools(self) -> str:
        """Show the pools, their workers, and how many requests each worker serves now."""
        return "; ".join(repr(pool) for pool in self._fleet.pools.values())

    @command.command("router.reload")
    def reload(self) -> str:
        """Take over what environment and .env say now, all of it or nothing."""
        try:
            reloaded = self._reload()
        except SettingsError as exc:
            raise exceptions.CommandError(str(exc)) from exc
        return reloaded.text()

    @command.command("router.drain")
    def drain(self, pool: str, worker: str) -> str:
        """Give a worker of a pool, named by host:port, no new requests."""
        _obey(self._fleet.drain, pool, worker)
        return f"{worker} of {pool} is draining"

    @command.command("router.undrain")
    def undrain(self, pool: str, worker: str) -> str:
        """Give a worker of a pool requests again."""
        _obey(self._fleet.undrain, pool, worker)
        return f"{worker} of {pool} drains no more"

    @command.command("router.cache.clear")
    def clear_cache(self) -> str:
        """Forget all labels that the proxy remembers."""
        return f"{self._labels.clear()} labels forgotten"

    @command.command("router.explain")
    def explain(self, flows: Sequence[Flow]) -> str:
        """Ask the classifier why flows have their labels: log and comments tell the answers."""
        try:
            chosen = self._explainer.take(flows)
        except ValueError as exc:
            raise exceptions.CommandError(str(exc)) from exc
        self._keep(self._explainer.explain(chosen, self.settings))
        return f"asking the classifier about {len(chosen)}; see the log, or the comment of the flow"

    # Parts

    def _take_over_or_refuse(self, settings: RouterSettings, file: LabelsFile) -> None:
        try:
            self._take_over(settings, file)
        except Exception as exc:
            # mitmproxy would only log any other exception, and tell that all went well.
            logger.error("settings not taken over: %s", failure_text(exc))
            msg = f"the settings cannot be taken over: {type(exc).__name__}"
            if not self._configured:
                exit_with(msg)
            raise exceptions.OptionsError(msg) from exc

    def _take_over(self, settings: RouterSettings, file: LabelsFile) -> None:
        """Build what the settings ask for, then swap it in; workers that stay keep their state."""
        if not self._configured:
            self._build(settings, file)
        before = self._labels
        labels = before if before.serves(settings, file) else ServiceLabels(settings, before, file)
        self._fleet.take_over(settings, file)
        # First, for requests count from now on.
        telemetry.expect(self._fleet.admission.routes())
        sources = settings.override_header_sources
        self._orders.take_over(file.labels, file.rules, sources, routing=settings.routing)
        self._transport.use(
            settings,
            Backend(
                bounds=settings.bounds(),
                # An upload may end, and ask, after the next change of settings.
                labels=CurrentLabels(lambda: self._labels),
                orders=self._orders,
                admission=self._fleet.admission,
                upstreams=self._transport.upstreams,
                budget=self._budget,
                ledger=self._ledger,
                observer=telemetry,
                deadlines=self._transport.deadlines,
            ),
            self._fleet.workers,
        )
        self.settings, self._labels = settings, labels
        self.labels_file.take_over(settings.labels_file, file)
        self._configured = True
        telemetry.watch(self._gauges())
        if labels is not before:
            self._keep(before.retire())

    def _reload(self) -> Reloaded:
        if self.draining:
            msg = "the proxy is shutting down"
            raise SettingsError(msg)
        return self._reloader.reload(self.settings)

    def _on_hangup(self) -> None:
        with contextlib.suppress(SettingsError):  # the log tells it
            self._reload()

    def _operations(self) -> Operations:
        """What the control port can have done."""
        return Operations(
            drain=self._fleet.drain,
            undrain=self._fleet.undrain,
            reload=self._reload,
            clear_cache=lambda: self._labels.clear(),  # noqa: PLW0108 - they are replaced
            token=lambda: self._reloader.token,
        )

    def _build(self, settings: RouterSettings, file: LabelsFile) -> None:
        """Make the parts that live as long as the addon."""
        feed = DecisionFeed(settings.decision_history)
        self._ledger = Ledger(feed, telemetry, clock=time.monotonic, wall_clock=time.time)
        self._replays = Replays(self._ledger, self._orders)
        self._labels = ServiceLabels(settings, None, file)
        self._budget = RetryBudget(clock=time.monotonic)
        self._fleet = Fleet(telemetry, tls=options.upstream_tls)
        self._transport = Transport(
            settings, options.upstream_tls, telemetry.refused, telemetry.lagged, self
        )

    def _not_ready(self) -> str | None:
        """Why the proxy must not get traffic now; None if it may."""
        if self.draining:
            return "the proxy is shutting down"
        server = ctx.master.addons.get("proxyserver")
        if server is None or not server.listen_addrs():
            return "the proxy does not listen"
        return None

    async def _end(self, *, leaving: bool) -> None:
        """Let the requests under way end, then close everything."""
        self.draining = True
        hurried = asyncio.Event()
        if leaving:
            await self._stop_listening(hurried)
        patience = 0 if hurried.is_set() else self.settings.drain_timeout_seconds
        cut = await self._transport.drain(patience)
        if cut:
            logger.warning("%d connections were cut: their time to end was over", cut)
        await self._fleet.aclose()
        self._close_control()
        await self._labels.close()
        if self._serving is not None:
            await asyncio.wait({self._serving}, timeout=CLOSE_SECONDS)

    async def _stop_listening(self, hurried: asyncio.Event) -> None:
        """Give load balancers in front the time to look away, then close the port.

        Args:
            hurried: Set by a second signal, which ends this wait and that for requests under way.
        """
        loop = asyncio.get_running_loop()

        def hurry() -> None:
            hurried.set()
            self._transport.clients.cut()

        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError, RuntimeError):
                loop.add_signal_handler(number, hurry)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_delay_seconds):
                await hurried.wait()
        server = ctx.master.addons.get("proxyserver")
        if server is not None:
            await server.servers.update([])

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _gauges(self) -> Gauges:
        return Gauges(
            pools=lambda: self._fleet.pools.values(),  # noqa: PLW0108 - the dict is replaced
            cache_hits=lambda: self._labels.cache_hits,
            cache_misses=lambda: self._labels.cache_misses,
            cache_entries=lambda: self._labels.cache_entries,
            shape_hits=lambda: self._labels.shape_hits,
            shape_misses=lambda: self._labels.shape_misses,
            shape_entries=lambda: self._labels.shape_entries,
            classify_inflight=lambda: self._labels.inflight,
            requests_inflight=lambda: len(self._ledger),
            queue_waiting=self._fleet.admission.waiting,
            classify_queue=lambda: self._labels.queued,
            classifier_breaker=lambda: self._labels.breaker_state,
        )

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background, and hold on: the loop alone would let the task be collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _obey(order: Callable[[str, str], None], pool: str, worker: str) -> None:
    try:
        order(pool, worker)
    except LookupError as exc:
        raise exceptions.CommandError(str(exc)) from exc


def changed_at_start_only(before: RouterSettings, after: RouterSettings) -> str | None:
    """The first changed setting that a running proxy cannot take over."""
    for name in START_ONLY:
        if getattr(before, name) != getattr(after, name):
            return name.upper()
    return None


addons = [SemanticRouter()]
