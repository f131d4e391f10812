"""Prometheus text, read into plain numbers. No clock, no network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from dashboard.health import EndpointError

type Labels = frozenset[tuple[str, str]]
type Samples = Mapping[str, Mapping[Labels, float]]

PREFIX = "slb_"
START_TIME = "process_start_time_seconds"
_CUMULATIVE = frozenset({"counter", "histogram", "summary"})


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of a `/metrics` endpoint: sample name -> labels -> value.

    Attributes:
        gauges: Values that go up and down.
        counters: Values that only grow while the process lives, histogram parts among them.
        started: When the process began, in seconds since the epoch; None if it does not say.
    """

    gauges: Samples
    counters: Samples
    started: float | None = None


def parse_metrics(text: str) -> Scrape:
    """Read the product's own series out of Prometheus text; others are dropped.

    Raises:
        EndpointError: If it is not Prometheus text, or nothing of ours is in it.
    """
    gauges: dict[str, dict[Labels, float]] = {}
    counters: dict[str, dict[Labels, float]] = {}
    started = None
    try:
        for family in text_string_to_metric_families(text):
            kept = counters if family.type in _CUMULATIVE else gauges
            for sample in family.samples:
                if math.isnan(sample.value):
                    continue  # Says that there is no value yet.
                if sample.name == START_TIME:
                    started = sample.value
                elif sample.name.startswith(PREFIX):
                    series = kept.setdefault(sample.name, {})
                    series[frozenset(sample.labels.items())] = sample.value
    except (ValueError, KeyError, IndexError) as exc:
        msg = "unreadable"
        raise EndpointError(msg) from exc
    if not gauges and not counters:
        # Another program answers there, perhaps Prometheus itself, whose port the proxy's is too.
        msg = "answered by another program"
        raise EndpointError(msg)
    return Scrape(gauges, counters, started)


def total(samples: Samples, name: str, **where: str) -> float | None:
    """Sum of the series of that name which carry these labels; None if there is none."""
    wanted = where.items()
    values = [
        value for labels, value in samples.get(name, {}).items() if all(w in labels for w in wanted)
    ]
    return sum(values) if values else None


def by_label(samples: Samples, name: str, key: str, **where: str) -> dict[str, float]:
    """Label value -> sum of the series that carry it."""
    sums: dict[str, float] = {}
    wanted = where.items()
    for labels, value in samples.get(name, {}).items():
        if all(w in labels for w in wanted):
            group = dict(labels).get(key, "")
            sums[group] = sums.get(group, 0.0) + value
    return sums
