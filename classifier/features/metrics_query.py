"""PromQL, LogQL and Graphite targets, read into the channel that all query languages share."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final

from classifier.features.magnitudes import seconds, span
from classifier.features.verdicts import choose, flag

_PROM: Final = re.compile(
    r"^[\w:]{1,200}(\{.*\})?(\[\w+(:\w*)?\])?(\s+offset\s+\w+)?$|\b[\w:]{1,60}+\s{0,3}+\([^()]|\{[^{}]{0,300}=~?[\"']",
    re.DOTALL,
)


_PROM_SUM: Final = re.compile(
    r"\b(sum|avg|min|max|count|topk|bottomk|quantile|stddev|count_values|group|histogram_quantile)\s*+(?:(?:by|without)\s*+)?\("
)


_PROM_RATE: Final = re.compile(
    r"\b(rate|irate|increase|delta|\w+_over_time|deriv|predict_linear|changes|resets|holt_winters)\s*\("
)


_WINDOW: Final = re.compile(r"\[(\d+(?:ms|[smhdwy])[\dsmhdwy]*)(:\w*)?\]")


def looks_like_metrics(text: str) -> bool:
    """Whether a text can be PromQL, LogQL or a Graphite target."""
    return len(text) < 2_000 and _PROM.search(text) is not None


def read_metrics_query(text: str, bag: dict[str, float]) -> None:
    """Add the features of a PromQL-like expression."""
    bag["ql=metrics"] = 1.0
    sums, rates = len(_PROM_SUM.findall(text)), len(_PROM_RATE.findall(text))
    windows = [long for found, _ in _WINDOW.findall(text) if (long := seconds(found))]
    selected = "}" in text.partition("{")[2]
    regex = "=~" in text or "!~" in text
    by = re.search(r"\b(by|without|on|group_left|group_right)\b", text) is not None
    subquery = re.search(r"\[\w+:\w*\]", text) is not None
    flag(
        bag,
        agg=sums,
        rate=rates,
        regex=regex,
        group=by,
        where=selected,
        join=re.search(r"\)\s*[-+/*]\s*", text),
    )
    if subquery:
        bag["q.subquery"] = 1.0
    if windows:
        bag[f"prom.window={span(max(windows))}"] = 1.0
    bag["prom.functions"] = min(6, sums + rates) / 2
    constant = (
        re.match(
            r"\s*(vector\(|scalar\(|constantLine|time\(\)\s*$|[\d.]++\s*+(?:[-+*/]\s*+[\d.]++)*+\s*+$|1\b)",
            text,
        )
        is not None
    )
    sole = (
        re.match(
            r"\s*[\w:]*\{[^}]*(instance|pod|host|id|path|__name__)\s*=\s*[\"'][^\"']*[\"'][^}]*\}\s*$",
            text,
        )
        is not None
    )
    everything = (
        re.search(r"\{\s*(__name__\s*=~|\w+=~\s*[\"']\.[*+][\"']\s*\}|\})", text) is not None
    )
    long = max(windows, default=0.0)
    choose(
        bag,
        (constant, "const"),
        (sole, "prom-one"),
        (everything, "prom-all"),
        (long >= 86_400 * 2, "prom-long"),
        (subquery, "prom-subquery"),
        (sums and rates, "prom-sumrate"),
        (rates, "prom-rate"),
        (sums, "prom-sum"),
        otherwise="prom-plain",
    )
