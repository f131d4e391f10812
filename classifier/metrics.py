"""Prometheus metrics of the classifier service, as an observer of the engine."""

import math
from collections import deque
from collections.abc import Callable
from functools import partial

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from classifier.contracts import Classification, Source
from classifier.llm import FAILURE_REASONS
from classifier.plausibility import Overruled

QUANTILE_WINDOW = 2_048
LATENCY_BUCKETS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    5,
    20,
)
LLM_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 60)
SOURCES = (Source.LOCAL, Source.LLM, Source.RULE, Source.EXAMPLE)
RELOADS = ("adopted", "refused")

# They double the series, and Prometheus reads counters without them.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types


class RecentLatencies:
    """Quantiles over the last `QUANTILE_WINDOW` answers.

    prometheus_client's Summary has none, and a histogram's are as coarse as its buckets.
    """

    def __init__(self) -> None:
        """No answers yet."""
        self._seconds: deque[float] = deque(maxlen=QUANTILE_WINDOW)

    def add(self, seconds: float) -> None:
        """Remember one answer's latency."""
        self._seconds.append(seconds)

    def quantile(self, share: float) -> float:
        """The nearest-rank quantile in seconds; NaN before the first answer."""
        if not self._seconds:
            return float("nan")
        ordered = sorted(self._seconds)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Metrics:
    """All metrics of one service."""

    def __init__(self) -> None:
        """Create every series, at zero."""
        self.registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collector)
        answers = Counter(
            "slb_classifier_requests_total",
            "Answers given, by who decided; cached answers count for their first source.",
            ["source"],
            registry=self.registry,
        )
        self._answers = {source: answers.labels(source) for source in SOURCES}
        self._latency = Histogram(
            "slb_classifier_latency_seconds",
            "Time from a question to its answer inside the service.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self._recent = RecentLatencies()
        self.cache_hits = self._counter("cache_hits_total", "Answers found in the cache.")
        self.cache_misses = self._counter("cache_misses_total", "Answers not found in the cache.")
        self.llm_calls = self._counter("llm_calls_total", "Questions sent to the LLM.")
        self.llm_skipped = self._counter(
            "llm_skipped_total", "Questions dropped before they were put to the LLM: it was busy."
        )
        self.llm_seconds = Histogram(
            "slb_classifier_llm_seconds",
            "Time of one question at the LLM, answered or not.",
            buckets=LLM_BUCKETS,
            registry=self.registry,
        )
        failures = Counter(
            "slb_classifier_llm_failures_total",
            "Questions to the LLM without a usable answer.",
            ["reason"],
            registry=self.registry,
        )
        self._failures = {reason: failures.labels(reason) for reason in FAILURE_REASONS}
        overruled = Counter(
            "slb_classifier_llm_overruled_total",
            "Answers of the LLM that were not taken: the request does not allow for them.",
            ["reason"],
            registry=self.registry,
        )
        self._overruled = {reason: overruled.labels(reason) for reason in Overruled}
        reloads = Counter(
            "slb_classifier_labels_file_reloads_total",
            "Changes of the labels file, put in force or refused.",
            ["outcome"],
            registry=self.registry,
        )
        self._reloads = {outcome: reloads.labels(outcome) for outcome in RELOADS}
        self.inflight = Gauge(
            "slb_classifier_inflight", "Questions being answered.", registry=self.registry
        )
        self.gauge("cache_hit_ratio", "Share of answers out of the cache.", self._hit_ratio)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            self.gauge(
                f"latency_{name}_seconds",
                f"{name} latency of the last {QUANTILE_WINDOW} answers.",
                partial(self._recent.quantile, share),
            )

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read on each scrape."""
        Gauge(f"slb_classifier_{name}", help_text, registry=self.registry).set_function(read)

    def answered(self, decided: Classification, seconds: float) -> None:
        """An answer was given."""
        self._answers[decided.source].inc()
        self._latency.observe(seconds)
        self._recent.add(seconds)

    def llm_failed(self, reason: str) -> None:
        """The LLM gave no usable answer; `reason` is one of `FAILURE_REASONS`."""
        self._failures[reason].inc()

    def llm_overruled(self, reason: Overruled) -> None:
        """An answer of the LLM was not taken."""
        self._overruled[reason].inc()

    def labels_file_read(self, outcome: str) -> None:
        """The labels file has changed; `outcome` is one of `RELOADS`."""
        self._reloads[outcome].inc()

    def render(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(f"slb_classifier_{name}", help_text, registry=self.registry)

    def _hit_ratio(self) -> float:
        hits, misses = self._count(self.cache_hits), self._count(self.cache_misses)
        return hits / (hits + misses) if hits + misses else 0.0

    @staticmethod
    def _count(counter: Counter) -> float:
        return next(iter(counter.collect())).samples[0].value
