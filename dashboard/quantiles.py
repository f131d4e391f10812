"""Quantiles out of histogram buckets, the way Prometheus' `histogram_quantile` has them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantile:
    """An estimate in seconds; `beyond` says that the true value lies above the last bucket."""

    seconds: float
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Latency:
    """Median and 99th percentile of the same observations."""

    p50: Quantile
    p99: Quantile


def quantile(buckets: Mapping[str, float], q: float) -> Quantile | None:
    """The q-quantile of cumulative buckets (`le` -> count); None without observations.

    Inside a bucket observations are taken to be spread evenly.
    """
    bounds = sorted((float(le), count) for le, count in buckets.items())
    if not bounds or bounds[-1][1] <= 0:
        return None
    rank = q * bounds[-1][1]
    lower, below = 0.0, 0.0
    for upper, count in bounds:
        if math.isinf(upper):
            break
        if count >= rank and count > below:
            share = (rank - below) / (count - below)
            return Quantile(lower + (upper - lower) * share)
        lower, below = upper, max(below, count)
    return Quantile(lower, beyond=True)


def latency(buckets: Mapping[str, float]) -> Latency | None:
    """p50 and p99 of cumulative buckets; None without observations."""
    p50, p99 = quantile(buckets, 0.50), quantile(buckets, 0.99)
    return Latency(p50, p99) if p50 is not None and p99 is not None else None
