"""All that the dashboard knows, with one owner. Takes in answers, gives out snapshots; no I/O."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from classifier.contracts import LABELS
from dashboard.decisions import DecisionLog, parse_decision
from dashboard.figures import (
    RECENT_SECONDS,
    ClassifierFigures,
    ProxyFigures,
    classifier_figures,
    proxy_figures,
)
from dashboard.health import Endpoint, Health, State
from dashboard.journal import Journal
from dashboard.scrape import parse_metrics
from dashboard.window import Window
from dashboard.workers import WorkerFigures, parse_pools, worker_figures

logger = logging.getLogger(__name__)

CHART_POINTS = 300


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """One moment of the charts; None is a gap, which is not the same as zero.

    Attributes:
        time: Seconds since the epoch.
        rates: Requests per second, by label.
        latencies: p50 and p99 seconds, by pool.
    """

    time: float
    rates: Mapping[str, float | None]
    latencies: Mapping[str, tuple[float | None, float | None]]

    def rates_of(self, labels: Iterable[str]) -> tuple[float | None, ...]:
        """Time and rates, in the order of these labels."""
        return (self.time, *(self.rates.get(label) for label in labels))

    def latencies_of(self, pools: Iterable[str]) -> tuple[float | None, ...]:
        """Time, then p50 and p99 of each of these pools in turn."""
        both = (self.latencies.get(pool, (None, None)) for pool in pools)
        return (self.time, *chain.from_iterable(both))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a page shows but chart points and decisions.

    Figures are the last known ones: `health` says whether they still stand.

    Attributes:
        llm: What the classifier says of its LLM: "none", "available" or "absent".
    """

    health: Mapping[Endpoint, Health]
    proxy: ProxyFigures | None = None
    classifier: ClassifierFigures | None = None
    workers: tuple[WorkerFigures, ...] | None = None
    llm: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the proxy gives; while it has not told, the built-in ones."""
        return self.proxy.labels if self.proxy else LABELS

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that it serves from; likewise."""
        return self.proxy.pools if self.proxy else LABELS


class Monitor:
    """Keeps the last answers of every endpoint and what follows from them."""

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """Know nothing yet.

        Args:
            clock: Monotonic seconds, for lengths of time.
            wall_clock: Seconds since the epoch, for what is shown.
        """
        self._clock = clock
        self._wall_clock = wall_clock
        self._health = dict.fromkeys(Endpoint, Health())
        self._proxy: ProxyFigures | None = None
        self._classifier: ClassifierFigures | None = None
        self._workers: tuple[WorkerFigures, ...] | None = None
        self._llm: str | None = None
        self._windows = {
            endpoint: Window(RECENT_SECONDS)
            for endpoint in (Endpoint.PROXY_METRICS, Endpoint.POOLS, Endpoint.CLASSIFIER_METRICS)
        }
        self.points: Journal[ChartPoint] = Journal(CHART_POINTS)
        self.decisions = DecisionLog()

    def snapshot(self) -> Snapshot:
        """What is known now."""
        health = dict(self._health)
        return Snapshot(health, self._proxy, self._classifier, self._workers, self._llm)

    def answered(self, endpoint: Endpoint, body: bytes) -> None:
        """Take in the answer of a polled endpoint.

        Raises:
            EndpointError: If it is unreadable; nothing has changed then.
        """
        match endpoint:
            case Endpoint.PROXY_METRICS:
                self._take_proxy(body)
            case Endpoint.CLASSIFIER_METRICS:
                self._take_classifier(body)
            case Endpoint.POOLS:
                self._take_pools(body)
            case Endpoint.CLASSIFIER:
                self._llm = _llm_state(body)
            case Endpoint.DECISIONS:
                pass  # Read as a stream, by `decided`.
        self.well(endpoint)

    def well(self, endpoint: Endpoint) -> None:
        """An endpoint is as it should be."""
        if self._health[endpoint].state is State.FAILED:
            logger.info("%s is back", endpoint)
        self._health[endpoint] = self._health[endpoint].succeeded(self._wall_clock())

    def failed(self, endpoint: Endpoint, fault: str) -> None:
        """An endpoint gave no usable answer; what it said before stays, marked as old."""
        if self._health[endpoint].state is not State.FAILED:
            logger.warning("%s %s", endpoint, fault)
        now = self._wall_clock()
        self._health[endpoint] = self._health[endpoint].failed(now, fault)
        if endpoint in self._windows:
            self._windows[endpoint].clear()
        if endpoint is Endpoint.PROXY_METRICS:
            self.points.append(_point(now, None))

    def decided(self, data: str) -> None:
        """Take in an event of the decision feed."""
        self.well(Endpoint.DECISIONS)
        decision = parse_decision(data)
        if decision is None:
            logger.warning("skipped an event of the decision feed that is no decision")
            return
        self.decisions.add(decision)

    def _take_proxy(self, body: bytes) -> None:
        scrape = parse_metrics(body.decode("utf-8", "replace"))
        window = self._windows[Endpoint.PROXY_METRICS]
        window.add(self._clock(), scrape)
        self._proxy = proxy_figures(scrape, window)
        self.points.append(_point(self._wall_clock(), self._proxy))

    def _take_classifier(self, body: bytes) -> None:
        scrape = parse_metrics(body.decode("utf-8", "replace"))
        window = self._windows[Endpoint.CLASSIFIER_METRICS]
        window.add(self._clock(), scrape)
        self._classifier = classifier_figures(scrape, window)

    def _take_pools(self, body: bytes) -> None:
        answer = parse_pools(body)
        window = self._windows[Endpoint.POOLS]
        window.add(self._clock(), answer.as_scrape())
        self._workers = worker_figures(answer, window.increase(RECENT_SECONDS))


def _llm_state(body: bytes) -> str | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    state = answer.get("llm") if isinstance(answer, dict) else None
    return state if isinstance(state, str) else None


def _point(time: float, proxy: ProxyFigures | None) -> ChartPoint:
    if proxy is None:
        return ChartPoint(time, {}, {})
    rates = proxy.per_second
    return ChartPoint(
        time,
        {} if rates is None else {label: rates.get(label, 0.0) for label in proxy.labels},
        {pool: (seen.p50.seconds, seen.p99.seconds) for pool, seen in proxy.latency.items()},
    )
