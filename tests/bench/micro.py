"""What a request costs in the addon itself: parts of the way, alone, in this process.

As pyperf does it: loops long enough for the clock, samples thrown away first, the median of many,
no garbage collection in between.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

from addons.accounting import Active, Ledger
from addons.classification import LabelSource
from addons.feed import DecisionFeed
from addons.labels import limits_of
from addons.pool import Pool, parse_workers
from addons.routing import route_block
from addons.settings import RouterSettings
from addons.telemetry import Telemetry, telemetry
from classifier.contracts import Classification, Label, RequestView, Source
from classifier.keys import head_key, with_body
from tests.bench import wrk
from tests.bench.figures import Stat, stat

SAMPLE_SECONDS = 0.01
WARM_SAMPLES = 3
DECIDED = Classification(Label.FAST_PATH, 0.9, Source.LOCAL, "point lookup", cached=True)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the way and what it takes, in microseconds."""

    name: str
    us: Stat


class NoObserver:
    """Is told, and does nothing."""

    def decided(self, classification: Classification, seconds: float) -> None:
        pass

    def finished(self, label: Label, pool: Label, status: int | None, seconds: float) -> None:
        pass


def view(body_bytes: int) -> RequestView:
    body = wrk.body(body_bytes)
    kept = body[: RouterSettings.model_construct().classify_body_bytes]
    if not body:
        return RequestView("GET", wrk.GET_PATH)
    return RequestView("POST", wrk.POST_PATH, "application/json", (), kept, len(body))


def microseconds(repeat: Callable[[int], None], samples: int) -> Stat:
    """What one turn takes of something that does as many as it is told."""
    turns = 1
    while (took := _seconds(repeat, turns)) < SAMPLE_SECONDS:
        turns = max(turns * 2, int(turns * SAMPLE_SECONDS / max(took, 1e-9)))
    gc.collect()
    gc.disable()
    try:
        taken = [_seconds(repeat, turns) for _ in range(samples + WARM_SAMPLES)][WARM_SAMPLES:]
    finally:
        gc.enable()
    result = stat([seconds / turns * 1e6 for seconds in taken])
    assert result is not None
    return result


def _seconds(repeat: Callable[[int], None], turns: int) -> float:
    began = time.perf_counter()
    repeat(turns)
    return time.perf_counter() - began


def parts(samples: int = 25) -> list[Part]:
    """All parts that are measured."""
    measured = [
        Part(f"key, {wrk.body_name(size)}", microseconds(_keys(size), samples))
        for size in (0, 200, 10_000, 1_000_000)
    ]
    with asyncio.Runner() as runner:
        known = _known(runner, view(0))
        measured.append(Part("label that is in the cache", microseconds(known, samples)))
    measured.append(Part("metrics of one request", microseconds(_metrics(telemetry), samples)))
    measured.append(
        Part("book and feed, one request", microseconds(_books(wrk.GET_PATH.encode()), samples))
    )
    measured.append(Part("header blocks", microseconds(_blocks, samples)))
    measured += [
        Part(f"lease and release, {count} up", microseconds(_leases(count), samples))
        for count in (1, 3)
    ]
    return measured


def _keys(body_bytes: int) -> Callable[[int], None]:
    """From the bytes of a request, as most clients send it."""
    kept = view(body_bytes).body
    method, target, content_type = (
        (b"POST", wrk.POST_PATH.encode(), b"application/json")
        if body_bytes
        else (b"GET", wrk.GET_PATH.encode(), b"")
    )
    semantic = ((b"accept", b"*/*"),)

    def repeat(turns: int) -> None:
        for _ in range(turns):
            with_body(head_key(method, target, content_type, semantic), kept, body_bytes)

    return repeat


def _known(runner: asyncio.Runner, seen: RequestView) -> Callable[[int], None]:
    """The label of a request whose key has been worked out."""

    async def ask(view: RequestView, seconds: float) -> Classification:
        return DECIDED

    async def start() -> LabelSource:
        labels = LabelSource(ask, limits_of(RouterSettings.model_construct()), time.monotonic)
        await labels.classify(seen)
        return labels

    labels = runner.run(start())
    key = seen.fingerprint()

    def repeat(turns: int) -> None:
        before = labels.cache_hits
        for _ in range(turns):
            labels.known(key)
        assert labels.cache_hits - before == turns, "not all were in the cache"

    return repeat


def _metrics(observer: Telemetry) -> Callable[[int], None]:
    def repeat(turns: int) -> None:
        for _ in range(turns):
            observer.decided(DECIDED, 0.00001)
            observer.finished(Label.FAST_PATH, Label.FAST_PATH, 200, 0.001)

    return repeat


def _books(target: bytes) -> Callable[[int], None]:
    ledger = Ledger(
        DecisionFeed(RouterSettings.model_construct().decision_history),
        NoObserver(),
        clock=time.monotonic,
        wall_clock=time.time,
    )

    def repeat(turns: int) -> None:
        for _ in range(turns):
            ledger.close(ledger.open(b"GET", target, DECIDED, time.monotonic()), 200)

    return repeat


def _blocks(turns: int) -> None:
    """What worker and client are told."""
    entry = Active("0" * 32, b"GET", b"/", DECIDED, 0.0, 0.0, 0.0)
    for _ in range(turns):
        route_block(DECIDED)
        entry.client_block()


def _leases(workers: int) -> Callable[[int], None]:
    upstreams = ",".join(f"http://127.0.0.1:{9001 + number}" for number in range(workers))
    pool = Pool(Label.GENERAL, parse_workers(upstreams))

    def repeat(turns: int) -> None:
        for _ in range(turns):
            lease = pool.lease()
            assert lease is not None
            lease.release()

    return repeat
