"""The metrics of many proxy processes as those of one. Pure: text in, text out.

Invariants:
* A counter never falls: what a process that is gone has counted stays in the sum, and one that
  begins anew inside a process (its cache was replaced) goes on from where it was.
* Histograms are counters: they are summed bucket by bucket.
* Each gauge has a rule, for what makes sense differs: two queues add up, two opinions do not. One
  without a rule is not merged: it is told for each process, under the label `process`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

type Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample: its name, and its labels in their order."""
type Rule = Callable[[Iterable[float]], float]

COUNTED = frozenset({"counter", "histogram", "summary"})

RULES: Mapping[str, Rule] = {
    "slb_cache_entries": sum,
    "slb_classify_inflight": sum,
    "slb_classify_queue": sum,
    "slb_classifier_breaker_state": max,
    "slb_classifier_coverage_labels": sum,
    "slb_requests_inflight": sum,
    "slb_pool_panic": max,
    "slb_queue_waiting": sum,
    "slb_worker_inflight": sum,
    "slb_worker_up": min,
    "process_virtual_memory_bytes": sum,
    "process_resident_memory_bytes": sum,
    "process_open_fds": sum,
    "process_max_fds": max,
    "process_start_time_seconds": min,
    "python_info": max,
}
"""How values of a gauge become one."""

WEIGHTS: Mapping[str, str] = {"slb_classifier_coverage_ratio": "slb_classifier_coverage_labels"}
"""Ratios, and the gauge that says of how many things each process tells its ratio."""
OF_NOTHING = 1.0
"""Such a ratio where no process has seen anything yet."""


@dataclass(slots=True)
class _Family:
    """What is known of one metric, whichever process told it."""

    name: str
    kind: str
    text: str


@dataclass(slots=True)
class _Account:
    """What one process, or all that are gone, have told.

    Attributes:
        counted: Counters as they stood at last.
        lost: What they had counted before they began anew.
        gauges: Gauges as they stand, by the name of the metric.
    """

    counted: dict[Key, float] = field(default_factory=dict)
    lost: dict[Key, float] = field(default_factory=dict)
    gauges: dict[str, dict[Key, float]] = field(default_factory=dict)

    def count(self, key: Key, value: float) -> None:
        before = self.counted.get(key, 0.0)
        if value < before:
            self.lost[key] = self.lost.get(key, 0.0) + before
        self.counted[key] = value

    def totals(self) -> Iterable[tuple[Key, float]]:
        return ((key, value + self.lost.get(key, 0.0)) for key, value in self.counted.items())


class Merger:
    """Takes what processes tell, and tells it as one."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._families: dict[str, _Family] = {}
        self._keys: dict[str, dict[Key, None]] = {}
        self._accounts: dict[str, _Account] = {}
        self._gone: dict[Key, float] = {}

    def take(self, process: str, text: str) -> None:
        """Take what a process tells now, in Prometheus' text format.

        Raises:
            ValueError: If it is no such text; then nothing of it counts.
        """
        families = list(text_string_to_metric_families(text))
        account = self._accounts.setdefault(process, _Account())
        account.gauges = {}
        for family in families:
            self._families.setdefault(
                family.name, _Family(family.name, family.type, family.documentation)
            )
            keys = self._keys.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sample.labels.items()))
                if family.type in COUNTED:
                    keys[key] = None
                    account.count(key, sample.value)
                else:
                    account.gauges.setdefault(family.name, {})[key] = sample.value

    def depart(self, process: str) -> None:
        """A process is gone: what it has counted stays, its gauges do not."""
        account = self._accounts.pop(process, None)
        if account is not None:
            for key, total in account.totals():
                self._gone[key] = self._gone.get(key, 0.0) + total

    def render(self, *own: Metric) -> bytes:
        """All of it in Prometheus' text format, with metrics of the caller's own in front."""
        merged = (self._merged(family) for family in self._families.values())
        registry = SimpleNamespace(collect=lambda: [*own, *merged])
        return generate_latest(registry)  # all it asks for is `collect`

    # Parts

    def _merged(self, family: _Family) -> Metric:
        metric = Metric(family.name, family.text, family.kind)
        if family.kind in COUNTED:
            samples = self._summed(self._keys[family.name])
        elif family.name in WEIGHTS:
            samples = self._weighted(family.name, WEIGHTS[family.name])
        elif (rule := RULES.get(family.name)) is not None:
            samples = self._by_rule(family.name, rule)
        else:
            samples = self._told_apart(family.name)
        for (name, labels), value in samples:
            metric.add_sample(name, dict(labels), value)
        return metric

    def _summed(self, keys: Iterable[Key]) -> Iterable[tuple[Key, float]]:
        accounts = tuple(self._accounts.values())
        for key in keys:
            total = self._gone.get(key, 0.0)
            for account in accounts:
                total += account.counted.get(key, 0.0) + account.lost.get(key, 0.0)
            yield key, total

    def _by_rule(self, name: str, rule: Rule) -> Iterable[tuple[Key, float]]:
        values: dict[Key, list[float]] = {}
        for gauges in self._gauges(name):
            for key, value in gauges.items():
                values.setdefault(key, []).append(value)
        return ((key, rule(several)) for key, several in values.items())

    def _weighted(self, name: str, by: str) -> Iterable[tuple[Key, float]]:
        parts: list[tuple[float, float]] = []
        for account in self._accounts.values():
            weight = sum(account.gauges.get(by, {}).values())
            parts += [(value, weight) for value in account.gauges.get(name, {}).values()]
        if parts:
            yield (name, ()), _mean(parts)

    def _told_apart(self, name: str) -> Iterable[tuple[Key, float]]:
        for process, account in self._accounts.items():
            for (sample, labels), value in account.gauges.get(name, {}).items():
                yield (sample, (*labels, ("process", process))), value

    def _gauges(self, name: str) -> Iterable[dict[Key, float]]:
        return (account.gauges.get(name, {}) for account in self._accounts.values())


def _mean(parts: Sequence[tuple[float, float]]) -> float:
    total = sum(weight for _, weight in parts)
    return sum(value * weight for value, weight in parts) / total if total else OF_NOTHING


def is_merged(name: str) -> bool:
    """Whether there is a rule for a gauge of this name."""
    return name in RULES or name in WEIGHTS


def merge_pools(told: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """The pools as processes tell them, as one list.

    What adds up is summed. Of opinions that differ the worst is told: processes share what they
    find out about workers, so one that differs is ahead of the others or behind them.
    """
    pools: dict[str, list[Mapping[str, Any]]] = {}
    for several in told:
        for pool in several:
            pools.setdefault(pool["label"], []).append(pool)
    return [
        {
            "label": label,
            "panic": any(pool["panic"] for pool in several),
            "workers": _merged_workers([pool["workers"] for pool in several]),
        }
        for label, several in pools.items()
    ]


HEALTH_FROM_WORST = ("down", "ejected", "up")


def _worst_health(values: Iterable[str]) -> str:
    return min(values, key=HEALTH_FROM_WORST.index)


WORKER_RULES: Mapping[str, Callable[[list[Any]], Any]] = {
    "inflight": sum,
    "requests": sum,
    "errors": sum,
    "health": _worst_health,
    "reachable": all,
    "draining": any,
    "slow_start": any,
    "share": min,
    "ejected_seconds": max,
    "ejections": max,
}
"""How parts of a worker's picture become one; the others are the same in all processes."""


def _merged_workers(told: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    workers: dict[str, list[Mapping[str, Any]]] = {}
    for several in told:
        for worker in several:
            workers.setdefault(worker["name"], []).append(worker)
    return [
        {
            part: WORKER_RULES[part]([one[part] for one in several])
            if part in WORKER_RULES
            else value
            for part, value in several[0].items()
        }
        for several in workers.values()
    ]


def merge_decisions(
    told: Sequence[Sequence[Mapping[str, Any]]], limit: int
) -> list[dict[str, Any]]:
    """The last `limit` decisions of all processes, the oldest first."""
    merged = sorted(
        (dict(event) for events in told for event in events), key=lambda event: event["time"]
    )
    return merged[-limit:] if limit > 0 else []
