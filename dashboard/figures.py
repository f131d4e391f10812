"""What the scrapes say, in the terms of an operator."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from classifier.contracts import LABELS, Label
from dashboard.quantiles import Latency, latency
from dashboard.scrape import Scrape, by_label, total
from dashboard.window import Increase, Window

RATE_SECONDS = 5.0
"""Rates are over this time: long enough to be steady, short enough to be live."""

RECENT_SECONDS = 30.0
"""Latencies, ratios and shares are over this time."""

MAX_OWN_LABELS = 29
"""As many as a labels file may add."""

REQUESTS = "slb_requests_total"
DECISIONS = "slb_decisions_total"
CLASSIFY = "slb_classify_duration_seconds_bucket"
DURATION = "slb_request_duration_seconds_bucket"


@dataclass(frozen=True, slots=True)
class HitRatio:
    """Cache look-ups of late."""

    hits: float
    misses: float

    @property
    def value(self) -> float | None:
        """0 to 1; None if nothing was looked up."""
        looked_up = self.hits + self.misses
        return self.hits / looked_up if looked_up else None


@dataclass(frozen=True, slots=True)
class ProxyFigures:
    """The proxy now. What needs two scrapes is empty or None after the first.

    Attributes:
        labels: All that the proxy gives, the built-in ones first.
        pools: All that serve, in the same order.
        per_second: Finished requests by label.
        answers: Finished requests of late by status class.
        refused: Requests of late that the proxy answered itself; None while that is not known.
        latency: Time to serve a request, by pool.
        latency_overall: The same over all pools.
        classify: Time to decide on a label.
        hits: The proxy's cache, by layer.
        coverage: Share of the last decisions that were really made; None if there were none.
        sources: Decisions of late by who made them.
        fallbacks: Requests without a decision since the proxy began, by reason.
        recent_fallbacks: The same of late.
    """

    labels: tuple[str, ...]
    pools: tuple[str, ...]
    per_second: Mapping[str, float] | None
    answers: Mapping[str, float]
    refused: float | None
    latency: Mapping[str, Latency]
    latency_overall: Latency | None
    classify: Latency | None
    hits: Mapping[str, HitRatio]
    coverage: float | None
    sources: Mapping[str, float]
    fallbacks: Mapping[str, float]
    recent_fallbacks: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ClassifierFigures:
    """The classifier service now.

    Attributes:
        p50_seconds: Median time of its last answers, as it measures itself.
        hit_ratio: Of its cache, of late; None if nothing was looked up.
        llm_calls: Since it began.
        llm_failures: Since it began, by reason.
    """

    per_second: float | None
    p50_seconds: float | None
    p99_seconds: float | None
    hit_ratio: float | None
    cache_entries: float | None
    llm_calls: float
    llm_calls_per_second: float | None
    llm_failures: Mapping[str, float]
    llm_inflight: float


def proxy_figures(scrape: Scrape, window: Window) -> ProxyFigures:
    """Read a scrape of the proxy that `window` has already taken in."""
    rates = window.increase(RATE_SECONDS)
    recent = window.increase(RECENT_SECONDS)
    grown = recent.samples if recent else {}
    pools = by_label(grown, DURATION, "pool")
    by_pool = {pool: latency(by_label(grown, DURATION, "le", pool=pool)) for pool in pools}
    decided = total(scrape.counters, DECISIONS)
    return ProxyFigures(
        labels=_named(by_label(scrape.counters, DECISIONS, "label")),
        pools=_named(by_label(scrape.counters, DURATION, "pool")),
        per_second=_rates(rates, REQUESTS, "label"),
        answers=by_label(grown, REQUESTS, "status_class"),
        refused=total(grown, "slb_rejections_total"),
        latency={pool: seen for pool, seen in by_pool.items() if seen is not None},
        latency_overall=latency(by_label(grown, DURATION, "le")),
        classify=latency(by_label(grown, CLASSIFY, "le")),
        hits=_hits(recent),
        # The proxy says 1 before the first decision: nothing was missed, but nothing made either.
        coverage=total(scrape.gauges, "slb_classifier_coverage_ratio") if decided else None,
        sources=by_label(grown, DECISIONS, "source"),
        fallbacks=by_label(scrape.counters, "slb_fallbacks_total", "reason"),
        recent_fallbacks=by_label(grown, "slb_fallbacks_total", "reason"),
    )


def classifier_figures(scrape: Scrape, window: Window) -> ClassifierFigures:
    """Read a scrape of the classifier that `window` has already taken in."""
    rates = window.increase(RATE_SECONDS)
    recent = window.increase(RECENT_SECONDS)
    grown = recent.samples if recent else {}
    hits = HitRatio(
        total(grown, "slb_classifier_cache_hits_total") or 0.0,
        total(grown, "slb_classifier_cache_misses_total") or 0.0,
    )
    return ClassifierFigures(
        per_second=_rate(rates, "slb_classifier_requests_total"),
        p50_seconds=total(scrape.gauges, "slb_classifier_latency_p50_seconds"),
        p99_seconds=total(scrape.gauges, "slb_classifier_latency_p99_seconds"),
        hit_ratio=hits.value,
        cache_entries=total(scrape.gauges, "slb_classifier_cache_entries"),
        llm_calls=total(scrape.counters, "slb_classifier_llm_calls_total") or 0.0,
        llm_calls_per_second=_rate(rates, "slb_classifier_llm_calls_total"),
        llm_failures=by_label(scrape.counters, "slb_classifier_llm_failures_total", "reason"),
        llm_inflight=total(scrape.gauges, "slb_classifier_llm_inflight") or 0.0,
    )


def _named(reported: Iterable[str]) -> tuple[str, ...]:
    """The built-in labels, then others in the order in which the proxy tells of them."""
    own = (name for name in reported if name not in LABELS and _is_label(name))
    return (*LABELS, *islice(own, MAX_OWN_LABELS))


def _is_label(name: str) -> bool:
    """Whether a label can be called so: what can not comes from no proxy of ours."""
    try:
        Label(name)
    except ValueError:
        return False
    return True


def _rates(increase: Increase | None, name: str, key: str) -> Mapping[str, float] | None:
    if increase is None:
        return None
    grown = by_label(increase.samples, name, key)
    return {group: count / increase.seconds for group, count in grown.items()}


def _rate(increase: Increase | None, name: str) -> float | None:
    if increase is None:
        return None
    return (total(increase.samples, name) or 0.0) / increase.seconds


def _hits(recent: Increase | None) -> Mapping[str, HitRatio]:
    if recent is None:
        return {}
    hits = by_label(recent.samples, "slb_cache_hits_total", "layer")
    misses = by_label(recent.samples, "slb_cache_misses_total", "layer")
    return {
        layer: HitRatio(hits.get(layer, 0.0), misses.get(layer, 0.0))
        for layer in sorted(hits.keys() | misses.keys())
    }
