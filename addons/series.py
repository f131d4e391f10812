"""Counters and histograms of what happens to every request, as plain numbers.

They are counted and read in one event loop, so there is no lock, and counting is a step in a dict.
Prometheus' families are made of them when it asks. Label values come from settings and closed sets,
never from a client.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import override

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Counters(Collector):
    """A counter for each set of label values.

    Attributes:
        by: The counts, for those who count: `by[values] += 1`.
    """

    def __init__(self, name: str, help_text: str, labels: Sequence[str]) -> None:
        """No series yet; the name ends in `_total`."""
        self.by: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._name, self._help, self._labels = name, help_text, tuple(labels)

    def begin(self, *values: str) -> None:
        """Export the series from zero, if it is new."""
        self.by.setdefault(values, 0)

    @override
    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in self.by.items():
            family.add_metric(values, count)
        yield family


class Histogram:
    """How values are spread.

    Attributes:
        counts: How many lie up to each bound and above the one before; the last: above all.
        total: Their sum.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """No value yet; bounds in ascending order."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Histograms(Collector):
    """A histogram for each set of label values.

    Attributes:
        by: The histograms, for those who count: `by[values].observe(value)`.
    """

    def __init__(
        self, name: str, help_text: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        """No series yet; bounds in ascending order, without infinity."""
        self.by: defaultdict[tuple[str, ...], Histogram] = defaultdict(lambda: Histogram(bounds))
        self._name, self._help, self._labels = name, help_text, tuple(labels)
        self._ends = [*map(floatToGoString, bounds), "+Inf"]

    def begin(self, *values: str) -> Histogram:
        """Export the series, from zero if it is new."""
        return self.by[values]

    @override
    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for values, histogram in self.by.items():
            below = zip(self._ends, accumulate(histogram.counts), strict=True)
            family.add_metric(values, list(below), sum_value=histogram.total)
        yield family
