"""What a request costs in the addon itself: parts of the way, alone, in this process.

As pyperf does it: loops long enough for the clock, samples thrown away first, the median of many,
no garbage collection in between.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

from addons.accounting import Ledger
from addons.classification import LabelSource
from addons.feed import DecisionFeed
from addons.labels import limits_of
from addons.settings import RouterSettings
from addons.telemetry import Telemetry, telemetry
from classifier.contracts import Classification, Label, RequestView, Source
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
        Part(
            f"fingerprint, {wrk.body_name(size)}", microseconds(_fingerprints(view(size)), samples)
        )
        for size in (0, 200, 10_000, 1_000_000)
    ]
    with asyncio.Runner() as runner:
        for size in (0, 10_000):
            name = f"decision on a cache hit, {wrk.body_name(size)}"
            measured.append(Part(name, microseconds(_decisions(runner, view(size)), samples)))
    measured.append(Part("metrics of one request", microseconds(_metrics(telemetry), samples)))
    measured.append(
        Part("book and feed, one request", microseconds(_books(wrk.GET_PATH.encode()), samples))
    )
    return measured


def _fingerprints(seen: RequestView) -> Callable[[int], None]:
    def repeat(turns: int) -> None:
        fingerprint = seen.fingerprint
        for _ in range(turns):
            fingerprint()

    return repeat


def _decisions(runner: asyncio.Runner, seen: RequestView) -> Callable[[int], None]:
    """The label of a request that is in the cache, its fingerprint included."""

    async def ask(view: RequestView, seconds: float) -> Classification:
        return DECIDED

    async def start() -> LabelSource:
        labels = LabelSource(ask, limits_of(RouterSettings.model_construct()), time.monotonic)
        await labels.classify(seen)
        return labels

    labels = runner.run(start())

    async def decide(turns: int) -> None:
        for _ in range(turns):
            await labels.classify(seen)

    def repeat(turns: int) -> None:
        before = labels.cache_hits
        runner.run(decide(turns))
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
