"""Figures as text. What is not known is a dash, never a zero."""

from datetime import UTC, datetime, tzinfo

from dashboard.quantiles import Latency, Quantile

UNKNOWN = "–"


def rate(per_second: float | None) -> str:
    """A number of things per second, without the unit."""
    if per_second is None:
        return UNKNOWN
    if 0 < per_second < 0.05:  # noqa: PLR2004 - would round to a false zero
        return "<0.1"
    return f"{per_second:.1f}" if per_second < 100 else f"{per_second:,.0f}"  # noqa: PLR2004


def count(value: float | None) -> str:
    """A whole number."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A length of time with its unit, three digits at most."""
    if seconds is None:
        return UNKNOWN
    for limit, factor, unit in ((0.001, 1e6, "µs"), (1.0, 1e3, "ms"), (float("inf"), 1.0, "s")):
        value = seconds * factor
        # 0.9999 ms is shown as 1.00 ms and not as 1000 µs.
        if seconds < limit and round(value) < 1000:  # noqa: PLR2004
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"  # noqa: PLR2004
    return f"{seconds:.0f} s"


def quantile(value: Quantile | None) -> str:
    """A quantile; with ">" if all that is known is that it lies above the last bucket."""
    if value is None:
        return UNKNOWN
    return f"> {duration(value.seconds)}" if value.beyond else duration(value.seconds)


def both(latency: Latency | None) -> str:
    """p50 and p99 side by side."""
    if latency is None:
        return UNKNOWN
    return f"{quantile(latency.p50)} · {quantile(latency.p99)}"


def percent(ratio: float | None) -> str:
    """A ratio from 0 to 1; 100 % means all, and 0 % none, not nearly."""
    if ratio is None:
        return UNKNOWN
    if 0 < ratio < 0.001:  # noqa: PLR2004
        return "< 0.1 %"
    if 0.999 < ratio < 1:  # noqa: PLR2004
        return "> 99.9 %"
    return f"{ratio:.0%}".replace("%", " %") if ratio in {0, 1} else f"{ratio * 100:.1f} %"


def clock(time: float | None, zone: tzinfo = UTC) -> str:
    """Time of day of seconds since the epoch."""
    if time is None:
        return UNKNOWN
    return f"{datetime.fromtimestamp(time, zone):%H:%M:%S}"
