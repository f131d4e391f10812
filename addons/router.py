"""Semantic load balancer for mitmproxy: each request goes to the pool that its meaning asks for.

Run it:

    mitmdump --mode reverse:http://unrouted.invalid:9 --listen-port 8080 -s addons/router.py

The reverse target is never contacted: should routing ever fail, the request ends there and not at
a worker that nobody chose. Without a `--mode` the addon switches to this one by itself.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

# mitmproxy loads this file by its path, under another name, and puts `addons/` on sys.path:
# from a checkout that is not installed, the packages are found only through its parent.
if (_root := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, _root)

from mitmproxy import command, ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.layer import NextLayer

from addons import flowview, options, routing, transport
from addons.accounting import BAD_GATEWAY, Active, Failure, Ledger
from addons.classification import failure_text
from addons.control import ControlApp, ControlServer
from addons.feed import DecisionFeed
from addons.labels import ServiceLabels
from addons.pool import Pool
from addons.settings import OPTION_PREFIX, RouterSettings
from addons.telemetry import Gauges, telemetry
from classifier.configuration import SettingsError, exit_with, listen
from classifier.contracts import Label, RequestView

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
        self.pools: dict[Label, Pool] = {}
        self._configured = False
        self._ledger: Ledger
        self._labels: ServiceLabels
        self._control: ControlServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # Life of the addon

    def load(self, loader: Loader) -> None:
        """Declare the options. Bad settings end the program: it must not serve without us."""
        try:
            options.add_options(loader)
            options.refuse_bad_options()
        except SettingsError as exc:
            exit_with(str(exc))
        options.set_proxy_options()

    def configure(self, updated: set[str]) -> None:
        """Take over changed settings as a whole, or refuse them and keep the old ones."""
        if not any(name.startswith(OPTION_PREFIX) for name in updated):
            return
        try:
            settings = options.settings_from_options()
        except SettingsError as exc:
            if not self._configured:
                exit_with(str(exc))
            raise exceptions.OptionsError(str(exc)) from exc
        if self._configured and (fixed := changed_at_start_only(self.settings, settings)):
            msg = f"{fixed} can only be set at the start; restart to change it"
            raise exceptions.OptionsError(msg)
        self._take_over(settings)

    def running(self) -> None:
        """Open the control port. A plain function, for on a hot reload nobody would await it."""
        try:
            if options.ensure_reverse_mode(self.settings.proxy_port):
                self._keep(options.exit_unless_listening(self.settings.proxy_port))
            sock = listen(self.settings.metrics_host, self.settings.metrics_port, "METRICS")
        except SettingsError as exc:
            exit_with(str(exc))
        app = ControlApp(
            feed=self._ledger.feed,
            telemetry=telemetry,
            pools=lambda: self.pools,
            not_ready=not_ready,
        )
        self._control = ControlServer(app, sock)
        self._serving = self._keep(self._control.serve())
        logger.info("Routing. Metrics: http://%s:%d/metrics", *sock.getsockname()[:2])

    def done(self) -> asyncio.Task[None] | None:
        """Close the control port and the classifier's connections; mitmproxy awaits it at exit."""
        if self._control is not None:
            self._control.close()
        if not self._configured:
            return None
        return self._keep(self._end())

    # Life of a flow

    def next_layer(self, nextlayer: NextLayer) -> None:
        """Put our error answers in place of mitmproxy's."""
        # Scripts are asked before mitmproxy's own choice: have it choose now.
        ctx.master.addons.get("nextlayer").next_layer(nextlayer)
        transport.harden(nextlayer)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """Refuse tunnels: this is no forward proxy, whatever mode mitmproxy runs in."""
        flowview.reject(flow, routing.NO_TUNNELS)

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Route requests whose body is too long to be held, from their headers alone."""
        length = flowview.announced_body_bytes(flow.request)
        if flow.response or flow.error or not length or length <= self.settings.stream_body_bytes:
            return
        await self._route(flow, flowview.head_view_of(flow.request))
        flow.request.stream = flow.response is None

    async def request(self, flow: http.HTTPFlow) -> None:
        """Route a whole request."""
        if flow.response or flow.error or not flow.live or self._ledger.get(flow.id):
            return
        await self._route(flow, flowview.view_of(flow.request, self.settings.classify_body_bytes))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let streaming answers stream; tell the client what was decided."""
        active = self._ledger.get(flow.id)
        if flow.response is None or active is None:
            return
        if flowview.is_stream(flow.response, self.settings.stream_body_bytes):
            flow.response.stream = True
        told = client_headers(active) if self.settings.client_headers else {}
        flowview.tell_client(flow.response, told)

    def response(self, flow: http.HTTPFlow) -> None:
        """Account for a request that was answered."""
        self._ledger.close(flow.id, flow.response.status_code if flow.response else None)

    def error(self, flow: http.HTTPFlow) -> None:
        """Account for a request that failed: by the worker's fault, unless the client left."""
        if flowview.is_clients_fault(flow):
            self._ledger.close(flow.id, None, Failure.CLIENT_DISCONNECTED)
            return
        status = BAD_GATEWAY if flow.response is None else flow.response.status_code
        self._ledger.close(flow.id, status, Failure.WORKER_FAILED)

    # Commands

    @command.command("router.pools")
    def show_pools(self) -> str:
        """Show the pools, their workers, and how many requests each worker serves now."""
        return "; ".join(repr(pool) for pool in self.pools.values())

    @command.command("router.cache.clear")
    def clear_cache(self) -> str:
        """Forget all labels that the proxy remembers."""
        return f"{self._labels.clear()} labels forgotten"

    # Parts

    async def _route(self, flow: http.HTTPFlow, view: RequestView) -> None:
        arrived = time.monotonic()
        try:
            classification = await self._labels.classify(view)
            route = routing.decide(classification, self.pools)
            self._ledger.open(flow.id, view, route, arrived)
            flowview.apply(flow, route)
            flowview.annotate(flow, route)
        except Exception as exc:
            # Supervisor: mitmproxy would log the error and send the flow to the mode's own target.
            logger.error("routing failed: %s", failure_text(exc))
            self._ledger.drop(flow.id)
            telemetry.rejected()
            flowview.reject(flow, routing.INTERNAL_ERROR)

    def _take_over(self, settings: RouterSettings) -> None:
        """Build what the settings ask for, then swap it in; keep pools whose workers stay."""
        workers = settings.workers()
        self.pools = {
            label: known
            if (known := self.pools.get(label)) and known.workers == workers[label]
            else Pool(label, workers[label], self.pools.get(label))
            for label in workers
        }
        if not self._configured:
            feed = DecisionFeed(settings.decision_history)
            self._ledger = Ledger(feed, telemetry, clock=time.monotonic, wall_clock=time.time)
        if not self._configured or not self._labels.serves(settings):
            if self._configured:
                self._keep(self._labels.retire())
            self._labels = ServiceLabels(settings)
        self.settings = settings
        self._configured = True
        telemetry.watch(self._gauges())

    async def _end(self) -> None:
        await self._labels.close()
        if self._serving is not None:
            await asyncio.wait({self._serving}, timeout=CLOSE_SECONDS)

    def _gauges(self) -> Gauges:
        return Gauges(
            pools=lambda: self.pools.values(),  # noqa: PLW0108 - the dict is replaced as a whole
            cache_hits=lambda: self._labels.cache_hits,
            cache_misses=lambda: self._labels.cache_misses,
            cache_entries=lambda: self._labels.cache_entries,
            classify_inflight=lambda: self._labels.inflight,
            requests_inflight=lambda: len(self._ledger),
        )

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background, and hold on: the loop alone would let the task be collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def changed_at_start_only(before: RouterSettings, after: RouterSettings) -> str | None:
    """The first changed setting that a running proxy cannot take over."""
    for name in START_ONLY:
        if getattr(before, name) != getattr(after, name):
            return name.upper()
    return None


def client_headers(active: Active) -> dict[str, str]:
    """What the client is told about the decision."""
    decided = active.route.classification
    return {
        "x-slb-label": str(decided.label),
        "x-slb-source": str(decided.source),
        "x-slb-decision-id": active.decision_id,
    }


def not_ready() -> str | None:
    """Why the proxy must not get traffic now; None if it may."""
    server = ctx.master.addons.get("proxyserver")
    if server is None or not server.listen_addrs():
        return "the proxy does not listen"
    return None


addons = [SemanticRouter()]
