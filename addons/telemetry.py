"""Prometheus metrics of the proxy, as an observer: the core does not know of them.

This module survives a hot reload of `router.py`, so its series are created once a process.
Label sets are closed: the series of the built-in labels begin with the process, those of an
operator's own labels when settings bring them. Nothing a client sends becomes a label.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import override

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Gauge,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from addons.breaker import BreakerState
from addons.classification import FALLBACK_REASONS
from addons.health import Reason, State
from addons.pool import Pool
from addons.routing import REJECTION_CODES, Rejection
from addons.series import Counters, Histograms
from addons.upstream import Fault
from classifier.contracts import LABELS, Classification, Label, Source

COVERAGE_WINDOW = 1_024
ORDERED = frozenset({Source.RULE, Source.OVERRIDE})
"""Who decides without the classifier: however many do, its failure must show."""
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "none")
_STATUS_CLASS: dict[int | None, str] = {code: f"{code // 100}xx" for code in range(100, 600)}
_FALLBACK = Source.FALLBACK
OTHER_CODE = "other"
CLASSIFY_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


@dataclass(frozen=True, slots=True)
class Gauges:
    """State that is read when Prometheus asks, not pushed on each request."""

    pools: Callable[[], Iterable[Pool]]
    cache_hits: Callable[[], int]
    cache_misses: Callable[[], int]
    cache_entries: Callable[[], int]
    classify_inflight: Callable[[], int]
    requests_inflight: Callable[[], int]
    queue_waiting: Callable[[Label], int] = lambda _: 0
    classify_queue: Callable[[], int] = lambda: 0
    classifier_breaker: Callable[[], BreakerState] = lambda: BreakerState.CLOSED
    shape_hits: Callable[[], int] = int
    shape_misses: Callable[[], int] = int
    shape_entries: Callable[[], int] = int


class _StateCollector(Collector):
    """Turns the router's present state into series, one scrape at a time."""

    def __init__(self) -> None:
        self.gauges: Gauges | None = None

    def describe(self) -> Iterable[Metric]:
        return ()

    @override
    def collect(self) -> Iterable[Metric]:
        if (gauges := self.gauges) is None:
            return
        yield from self._cache(gauges)
        for name, help_text, read in (
            (
                "slb_classify_inflight",
                "Open questions to classifier.",
                gauges.classify_inflight,
            ),
            ("slb_classify_queue", "Questions that wait for their turn.", gauges.classify_queue),
            (
                "slb_classifier_breaker_state",
                "0: the classifier is asked; 1: one trial is under way; 2: it is left alone.",
                gauges.classifier_breaker,
            ),
            ("slb_requests_inflight", "Requests being served.", gauges.requests_inflight),
        ):
            yield GaugeMetricFamily(name, help_text, value=read())
        pools = tuple(gauges.pools())
        yield from self._pools(pools, gauges.queue_waiting)
        yield from self._workers(pools)

    @staticmethod
    def _cache(gauges: Gauges) -> Iterable[Metric]:
        """What the layer of exact requests does not know, that of their shapes is asked for."""
        hits = CounterMetricFamily(
            "slb_cache_hits", "Labels found in the proxy's cache.", labels=["layer"]
        )
        misses = CounterMetricFamily(
            "slb_cache_misses", "Labels not found in the proxy's cache.", labels=["layer"]
        )
        entries = GaugeMetricFamily(
            "slb_cache_entries", "Labels in the proxy's cache.", labels=["layer"]
        )
        for family, exact, shape in (
            (hits, gauges.cache_hits, gauges.shape_hits),
            (misses, gauges.cache_misses, gauges.shape_misses),
            (entries, gauges.cache_entries, gauges.shape_entries),
        ):
            family.add_metric(["exact"], exact())
            family.add_metric(["shape"], shape())
            yield family

    @staticmethod
    def _pools(pools: Iterable[Pool], queue_waiting: Callable[[Label], int]) -> Iterable[Metric]:
        panic = GaugeMetricFamily(
            "slb_pool_panic",
            "1 while too few workers of the pool are healthy and all that can be reached are used.",
            labels=["pool"],
        )
        waiting = GaugeMetricFamily(
            "slb_queue_waiting", "Requests that wait for a worker.", labels=["pool"]
        )
        for pool in pools:
            panic.add_metric([pool.label], pool.in_panic)
            waiting.add_metric([pool.label], queue_waiting(pool.label))
        yield from (panic, waiting)

    @staticmethod
    def _workers(pools: Iterable[Pool]) -> Iterable[Metric]:
        names = ["pool", "worker"]
        up = GaugeMetricFamily(
            "slb_worker_up", "1 if the worker's health lets it serve, else 0.", labels=names
        )
        inflight = GaugeMetricFamily("slb_worker_inflight", "Requests at a worker.", labels=names)
        requests = CounterMetricFamily(
            "slb_worker_requests", "Requests sent to a worker.", labels=names
        )
        errors = CounterMetricFamily(
            "slb_worker_errors",
            "Requests that a worker failed: no whole answer.",
            labels=names,
        )
        for pool in pools:
            for worker in pool.views():
                key = [pool.label, worker.name]
                up.add_metric(key, worker.health is State.UP)
                inflight.add_metric(key, worker.inflight)
                requests.add_metric(key, worker.requests)
                errors.add_metric(key, worker.errors)
        yield from (up, inflight, requests, errors)


class Telemetry:
    """All metrics of one proxy process."""

    def __init__(self) -> None:
        """Create every series, at zero."""
        self.registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collector)
        self._state = _StateCollector()
        self.registry.register(self._state)
        self._requests = Counters(
            "slb_requests_total",
            "Finished requests; status_class none: the client got no whole answer.",
            ["label", "pool", "status_class"],
        )
        self._decisions = Counters("slb_decisions_total", "Labels given.", ["label", "source"])
        self._fallbacks = Counters(
            "slb_fallbacks_total",
            "Requests sent to general for want of a decision.",
            ["reason"],
        )
        classify_seconds = Histograms(
            "slb_classify_duration_seconds",
            "Time a request waits for its label, from whichever source.",
            CLASSIFY_BUCKETS,
        )
        self._classify_seconds = classify_seconds.begin()
        self._request_seconds = Histograms(
            "slb_request_duration_seconds",
            "Time from the end of a request to the end of its response.",
            REQUEST_BUCKETS,
            ["pool"],
        )
        self._rejections = Counters(
            "slb_rejections_total",
            "Requests that the proxy answered itself, by the code of its answer.",
            ["code"],
        )
        self._retries = Counters(
            "slb_retries_total",
            "Requests that were tried again, by what went wrong before.",
            ["reason"],
        )
        self._ejections = Counters(
            "slb_ejections_total", "Workers taken out of turn, by why.", ["pool", "reason"]
        )
        self._spills = Counters(
            "slb_spills_total",
            "Requests that another pool took over, for their own had no worker.",
            ["from", "to"],
        )
        for series in (
            self._requests,
            self._decisions,
            self._fallbacks,
            classify_seconds,
            self._request_seconds,
            self._rejections,
            self._retries,
            self._ejections,
            self._spills,
        ):
            self.registry.register(series)
        for counters, values in (
            (self._fallbacks, FALLBACK_REASONS),
            (self._rejections, (*REJECTION_CODES, OTHER_CODE)),
            (self._retries, Fault),
        ):
            for value in values:
                counters.begin(value)
        self._covered: deque[bool] = deque(maxlen=COVERAGE_WINDOW)
        Gauge(
            "slb_classifier_coverage_ratio",
            f"Share of the last {COVERAGE_WINDOW} labels that were decided, not fallen back to.",
            registry=self.registry,
        ).set_function(self._coverage)
        # Of the built-in labels each may come to serve another: which do is a setting.
        self.expect({label: (label, *LABELS) for label in LABELS})

    def expect(self, routes: Mapping[Label, tuple[Label, ...]]) -> None:
        """Begin at zero with what may be counted of these labels.

        What is there stays: requests may still be under way whose label is gone.

        Args:
            routes: The pools that may serve each label, the first choice first.
        """
        for label, pools in routes.items():
            # A label that is taken out while its requests wait leaves them to general.
            for pool in (*pools, Label.GENERAL):
                for status_class in STATUS_CLASSES:
                    self._requests.begin(label, pool, status_class)
                self._request_seconds.begin(pool)
                for reason in Reason:
                    self._ejections.begin(pool, reason)
                if pool in pools[1:] and pool != pools[0]:
                    self._spills.begin(pools[0], pool)
            for source in Source:
                if source is not Source.FALLBACK or label == Label.GENERAL:
                    self._decisions.begin(label, source)

    def watch(self, gauges: Gauges | None) -> None:
        """Read the state of this router from now on (a hot reload brings a new one)."""
        self._state.gauges = gauges

    def decided(self, classification: Classification, seconds: float) -> None:
        """A request got its label."""
        source = classification.source
        self._decisions.by[classification.label, source] += 1
        self._classify_seconds.observe(seconds)
        fell_back = source is _FALLBACK
        if source not in ORDERED:
            self._covered.append(not fell_back)
        if fell_back:
            self._fallbacks.by[classification.reason,] += 1

    def finished(self, label: Label, pool: Label, status: int | None, seconds: float) -> None:
        """A routed request ended; `status` is None if it did not get a whole answer."""
        self._requests.by[label, pool, status_class(status)] += 1
        self._request_seconds.by[pool,].observe(seconds)

    def rejected(self, code: str) -> None:
        """A request was answered here, with this code of `addons.routing`."""
        known = (code,) in self._rejections.by
        self._rejections.by[code if known else OTHER_CODE,] += 1

    def refused(self, rejection: Rejection) -> None:
        """A request was refused before it was read."""
        self.rejected(rejection.code)

    def retried(self, fault: Fault) -> None:
        """A request is tried again, after this fault."""
        self._retries.by[fault,] += 1

    def ejected(self, pool: Label, reason: Reason) -> None:
        """A worker of the pool was taken out of turn."""
        self._ejections.by[pool, reason] += 1

    def spilled(self, origin: Label, target: Label) -> None:
        """A request of one pool was given to a worker of another."""
        self._spills.by[origin, target] += 1

    def render(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)

    def _coverage(self) -> float:
        return sum(self._covered) / len(self._covered) if self._covered else 1.0


def status_class(status: int | None) -> str:
    """`2xx` and so on; `none` for what is no HTTP status."""
    return _STATUS_CLASS.get(status, "none")


telemetry = Telemetry()
