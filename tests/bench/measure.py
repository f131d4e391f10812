"""One measurement: a target under one load, for one short while.

The CPU time of the target and the requests that reach the upstream are both read twice while the
load is on. What wrk counts would not do: it leaves out the requests that are in flight at its end,
and with 256 clients that is a third of what a slow proxy has worked on.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench import cpu, wrk
from tests.bench.cores import Cores
from tests.bench.targets import Started
from tests.bench.upstream import Upstream

WARM_SECONDS = 0.15
LEAD_SECONDS = 0.15
LEAD_REQUESTS = 3
"""For each client, on average, before a look: opening a connection costs some targets more than
ten requests do."""
MOST_LEAD_SECONDS = 5.0
WINDOW_REQUESTS = 6
"""For each client, on average, between two looks: slow targets take all clients' requests by turns
in the same phase, and may be in the midst of one at a look."""
MOST_WINDOW_SECONDS = 4.0
QUIET_SHARE, QUIET_SECONDS, MOST_QUIET_SECONDS = 0.2, 0.04, 1.0
"""A target that uses less of a core for so long is done with what the load has left behind."""
HITS = re.compile(r'^slb_cache_(hits|misses)_total\{layer="exact"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Site:
    """Where measuring is done: what all targets share."""

    upstream: Upstream
    cores: Cores
    folder: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came of it.

    Attributes:
        cpu_us: CPU time for one request; None if there was none in time.
        rps: Requests a second.
        busy: Share of one core that the target used.
        requests: How many there were in the time that was measured.
        clients_requests: How many wrk counted, from its start to its end.
        errors: Of each kind, as wrk counted them.
        connections: Opened to the upstream, warm-up included.
        connection_requests: Requests that they carried, warm-up included.
        hits: Labels found in this product's cache while wrk ran; None for other targets.
        misses: And those not found.
    """

    cpu_us: float | None
    rps: float
    busy: float
    p50_ms: float
    p99_ms: float
    requests: int
    clients_requests: int
    errors: dict[str, int]
    connections: int
    connection_requests: int
    hits: float | None = None
    misses: float | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """What has been spent and done so far."""

    at: float
    cpu: float
    requests: int


def _look(site: Site, pid: int) -> _Look:
    """The upstream counts at some moment while it is asked: clocks are read around that."""
    at, spent = time.monotonic(), cpu.cpu_seconds(pid)
    requests = site.upstream.counts().requests
    return _Look((at + time.monotonic()) / 2, (spent + cpu.cpu_seconds(pid)) / 2, requests)


def lead(site: Site, cell: wrk.Cell) -> None:
    """Wait until a load that has just begun runs evenly."""
    before = site.upstream.counts().requests
    _wait(site, LEAD_SECONDS, before + LEAD_REQUESTS * cell.clients, MOST_LEAD_SECONDS)


def _wait(site: Site, seconds: float, requests: int, most_seconds: float) -> None:
    """Wait for so long, then until the upstream has counted so many requests, within limits."""
    until = time.monotonic() + max(seconds, most_seconds)
    time.sleep(seconds)
    while site.upstream.counts().requests < requests and time.monotonic() < until:
        time.sleep(0.02)


def _wait_until_quiet(pid: int) -> None:
    """Let a target clear away its connections: the next one shall have the core to itself."""
    until = time.monotonic() + MOST_QUIET_SECONDS
    while time.monotonic() < until:
        before = cpu.cpu_seconds(pid)
        time.sleep(QUIET_SECONDS)
        if cpu.cpu_seconds(pid) - before < QUIET_SHARE * QUIET_SECONDS:
            return


def cache_counts(target: Started) -> tuple[float, float] | None:
    """Hits and misses of this product's cache so far; None for other targets."""
    if not target.control:
        return None
    text = httpx.get(f"{target.control}/metrics", trust_env=False).text
    found = {kind: float(value) for kind, value in HITS.findall(text)}
    return found.get("hits", 0), found.get("misses", 0)


def measure(site: Site, target: Started, cell: wrk.Cell) -> Measurement:
    """Put one load on a target and see what it costs."""
    opened = site.upstream.counts()
    wrk.run(target.port, cell, WARM_SECONDS, site.cores.load, site.folder)
    cached = cache_counts(target)
    with wrk.load(target.port, cell, site.cores.load, site.folder) as load:
        lead(site, cell)
        before = _look(site, target.pid)
        enough = before.requests + WINDOW_REQUESTS * cell.clients
        _wait(site, site.seconds, enough, MOST_WINDOW_SECONDS)
        after = _look(site, target.pid)
    _wait_until_quiet(target.pid)
    closed = site.upstream.counts()
    hits, misses = _difference(cached, cache_counts(target))
    spent, took = after.cpu - before.cpu, after.at - before.at
    requests = after.requests - before.requests
    return Measurement(
        cpu_us=spent / requests * 1e6 if requests else None,
        rps=requests / took,
        busy=spent / took,
        p50_ms=load.figures.p50_ms,
        p99_ms=load.figures.p99_ms,
        requests=requests,
        clients_requests=load.figures.requests,
        errors=load.figures.errors,
        connections=closed.connections - opened.connections,
        connection_requests=closed.requests - opened.requests,
        hits=hits,
        misses=misses,
    )


def _difference(
    before: tuple[float, float] | None, after: tuple[float, float] | None
) -> tuple[float | None, float | None]:
    if before is None or after is None:
        return None, None
    return after[0] - before[0], after[1] - before[1]
