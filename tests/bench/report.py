"""Results as text, in Markdown tables, and as JSON."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.figures import Stat
from tests.bench.micro import Part
from tests.bench.summary import Summary
from tests.bench.targets import FLOOR, STOCK
from tests.bench.wrk import Cell

NOTHING = "-"
ERRORS = "**errors**"


def number(value: float | None) -> str:
    """With three digits that count."""
    if value is None:
        return NOTHING
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(value: Stat | None) -> str:
    """A median with the least and the most."""
    if value is None:
        return NOTHING
    return f"{number(value.median)} ({number(value.low)}-{number(value.high)})"


def median(value: Stat | None) -> str:
    return NOTHING if value is None else number(value.median)


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    every = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in every)


def text(summary: Summary, names: Mapping[str, str], parts: Sequence[Part], facts: str) -> str:
    """The whole report."""
    main = summary.main_cell
    sections = [
        facts,
        f"## Summary: {main.name}",
        overview(summary, names),
        f"## Capacity to that of stock mitmdump ({names.get(STOCK, STOCK)})",
        capacities(summary, names, STOCK),
        f"## Capacity to that of the floor ({names.get(FLOOR, FLOOR)})",
        capacities(summary, names, FLOOR),
        "## The addon's own parts, microseconds",
        table(["part", "median (least-most)"], [[part.name, spread(part.us)] for part in parts]),
        "## All loads",
    ]
    for cell in summary.cells:
        sections += [f"### {cell.name}", details(summary, names, cell)]
    if summary.results.skipped:
        sections += ["## Left out", _skipped(summary)]
    return "\n\n".join(sections)


def overview(summary: Summary, names: Mapping[str, str]) -> str:
    """One line for each target: the load that speaks for all, and what is not measured by load."""
    main = summary.main_cell
    most = max(cell.clients for cell in summary.cells)
    head = [
        main.name, "CPU us/request", "x mitmdump", "x floor", "requests/s", "p50 ms", "p99 ms",
        "RSS MB", "MB / 1,000 idle", "idle x floor",
        f"requests/s {most} to 16", f"p99 {most} to 16",
        "upstream connections", "labels from cache",
    ]  # fmt: skip
    return table(head, [_overview_line(summary, names, key) for key in summary.keys])


def _overview_line(summary: Summary, names: Mapping[str, str], key: str) -> list[str]:
    main, scaling = summary.main_cell, summary.scaling(key)
    opened, carried = summary.connections(key, main)
    hits = summary.hit_ratio(key)
    resident, idle = (
        summary.results.resident_bytes.get(key), summary.results.idle_bytes.get(key)
    )  # fmt: skip
    return [
        names[key],
        *_load_figures(summary, key, main, median),
        number(None if resident is None else resident / 1e6),
        number(None if idle is None else idle * 1000 / 1e6),
        number(summary.idle_ratio(key, FLOOR)),
        number(None if scaling is None else scaling.throughput),
        number(None if scaling is None else scaling.p99),
        f"{opened:,} for {carried:,}",
        NOTHING if hits is None else f"{hits:.4%}",
    ]


def _load_figures(summary: Summary, key: str, cell: Cell, show: Any) -> list[str]:
    """CPU time, its ratios, requests a second and percentiles; errors take the ratios' place."""
    failed = bool(summary.errors(key, cell))
    ratios = [show(summary.capacity(key, base, cell)) for base in (STOCK, FLOOR)]
    return [
        show(summary.figure(key, cell, lambda each: each.cpu_us)),
        *([ERRORS, ERRORS] if failed else ratios),
        show(summary.figure(key, cell, lambda each: each.rps)),
        show(summary.figure(key, cell, lambda each: each.p50_ms)),
        show(summary.figure(key, cell, lambda each: each.p99_ms)),
    ]


def capacities(summary: Summary, names: Mapping[str, str], base: str) -> str:
    """Every load's ratio to one target."""
    lines = [
        [
            names[key],
            *(
                ERRORS if summary.errors(key, cell) else median(summary.capacity(key, base, cell))
                for cell in summary.cells
            ),
        ]
        for key in summary.keys
    ]
    return table(["", *(cell.name for cell in summary.cells)], lines)


def details(summary: Summary, names: Mapping[str, str], cell: Cell) -> str:
    """All figures of one load, with their spread."""
    head = ["", "CPU us/request", "x mitmdump", "x floor", "requests/s", "p50 ms", "p99 ms"]
    lines = []
    for key in summary.keys:
        errors = summary.errors(key, cell)
        told = ", ".join(f"{count} {kind}" for kind, count in errors.items())
        name = f"{names[key]} ({ERRORS}: {told})" if errors else names[key]
        lines.append([name, *_load_figures(summary, key, cell, spread)])
    return table(head, lines)


def _skipped(summary: Summary) -> str:
    return "\n".join(f"* {key}: {reason}" for key, reason in summary.results.skipped.items())


def as_json(
    summary: Summary, names: Mapping[str, str], parts: Sequence[Part], facts: Mapping[str, object]
) -> str:
    """All figures of all rounds, and what they come to."""
    targets = {
        key: {
            "name": names[key],
            "idle_bytes_per_connection": summary.results.idle_bytes.get(key),
            "resident_bytes": summary.results.resident_bytes.get(key),
            "cache_hit_ratio": summary.hit_ratio(key),
            "scaling": _plain(summary.scaling(key)),
            "loads": {cell.name: _load(summary, key, cell) for cell in summary.cells},
        }
        for key in summary.keys
    }
    return json.dumps(
        {
            "facts": facts,
            "targets": targets,
            "skipped": summary.results.skipped,
            "parts_us": {part.name: _plain(part.us) for part in parts},
        },
        indent=1,
    )


def _load(summary: Summary, key: str, cell: Cell) -> dict[str, object]:
    return {
        "cpu_us": _plain(summary.figure(key, cell, lambda each: each.cpu_us)),
        "rps": _plain(summary.figure(key, cell, lambda each: each.rps)),
        "p50_ms": _plain(summary.figure(key, cell, lambda each: each.p50_ms)),
        "p99_ms": _plain(summary.figure(key, cell, lambda each: each.p99_ms)),
        "capacity_to_mitmdump": _plain(summary.capacity(key, STOCK, cell)),
        "capacity_to_floor": _plain(summary.capacity(key, FLOOR, cell)),
        "errors": summary.errors(key, cell),
        "rounds": [_plain(each) for each in summary.rounds(key, cell)],
    }


def _plain(value: Any) -> dict[str, Any] | None:
    return None if value is None else dataclasses.asdict(value)
