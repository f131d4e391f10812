"""What the tiles say. The page only puts it on the screen."""

from collections.abc import Iterable, Mapping

from classifier.contracts import LABELS, Source
from dashboard import display
from dashboard.figures import RECENT_SECONDS, ClassifierFigures, ProxyFigures
from dashboard.health import Endpoint
from dashboard.monitor import Snapshot
from dashboard.tile import Fact, Tile, Tone
from dashboard.workers import WorkerFigures

ERRORS_WARN_RATIO = 0.01
ERRORS_BAD_RATIO = 0.05
COVERAGE_WARN_RATIO = 0.99
COVERAGE_BAD_RATIO = 0.90

BY_OPERATORS = (Source.RULE, Source.EXAMPLE, Source.OVERRIDE)
"""Who decides only where somebody has written so: shown once they do."""
FAULTS = ("5xx", "none")
ANSWERS = {"2xx, 3xx": ("1xx", "2xx", "3xx"), "4xx": ("4xx",), "5xx or none": FAULTS}
RECENT = f"{RECENT_SECONDS:.0f} s"
LLM_WORDS = {
    "available": ("up", "asked when the local model is unsure"),
    "absent": ("down", "the local model decides alone"),
    "none": ("off", "none is configured"),
}


def tiles(snapshot: Snapshot) -> tuple[Tile, ...]:
    """All tiles in their order; always the same ones."""
    proxy, classifier = snapshot.proxy, snapshot.classifier
    return (
        _requests(proxy),
        _errors(proxy),
        _latency(proxy),
        _deciding(proxy, classifier),
        _coverage(proxy),
        _cache(proxy, classifier),
        _llm(snapshot.llm, classifier),
        _in_flight(snapshot.workers),
    )


def _requests(proxy: ProxyFigures | None) -> Tile:
    rates = proxy.per_second if proxy else None
    whole = sum(rates.values()) if rates is not None else None
    facts = []
    for label in (*LABELS, *_others(rates)):
        value = None if rates is None else rates.get(label, 0.0)
        share = f" · {value / whole:.0%}" if value is not None and whole else ""
        facts.append(Fact(label, display.rate(value) + share, mark=label))
    return Tile("Requests", display.rate(whole), "req/s", tuple(facts), Endpoint.PROXY_METRICS)


def _errors(proxy: ProxyFigures | None) -> Tile:
    answers = proxy.answers if proxy else {}
    whole = sum(answers.values())
    ratio = _share(sum(answers.get(name, 0.0) for name in FAULTS), whole)
    tone = _tone(ratio, ERRORS_WARN_RATIO, ERRORS_BAD_RATIO)
    facts = [
        Fact(name, display.count(sum(answers.get(c, 0.0) for c in classes) if whole else None))
        for name, classes in ANSWERS.items()
    ]
    facts.append(Fact("refused unrouted", display.count(proxy.refused if proxy else None)))
    return Tile(
        "Errors",
        display.percent(ratio),
        f"of answers, {RECENT}",
        tuple(facts),
        Endpoint.PROXY_METRICS,
        tone,
        "" if tone is Tone.PLAIN else "requests fail",
    )


def _latency(proxy: ProxyFigures | None) -> Tile:
    seen = proxy.latency if proxy else {}
    facts = [
        Fact(pool, display.both(seen.get(pool)), mark=pool) for pool in (*LABELS, *_others(seen))
    ]
    overall = proxy.latency_overall if proxy else None
    facts.append(Fact("all pools", display.both(overall)))
    return Tile(
        "Latency p50 · p99",
        display.quantile(overall.p99 if overall else None),
        f"p99, {RECENT}",
        tuple(facts),
        Endpoint.PROXY_METRICS,
    )


def _deciding(proxy: ProxyFigures | None, classifier: ClassifierFigures | None) -> Tile:
    seen = proxy.classify if proxy else None
    sources = proxy.sources if proxy else {}
    whole = sum(sources.values())
    service = display.UNKNOWN
    if classifier and classifier.p50_seconds is not None:
        p50, p99 = classifier.p50_seconds, classifier.p99_seconds
        service = f"{display.duration(p50)} · {display.duration(p99)}"
    facts = [
        Fact("in the proxy", display.both(seen)),
        Fact("in the classifier", service, source=Endpoint.CLASSIFIER_METRICS),
    ]
    facts += [
        Fact(f"by {source}", display.percent(_share(sources.get(source, 0.0), whole)))
        for source in (
            Source.LOCAL,
            Source.LLM,
            *(source for source in BY_OPERATORS if sources.get(source)),
            *_others(sources, tuple(Source)),
        )
    ]
    return Tile(
        "Deciding p50 · p99",
        display.quantile(seen.p99 if seen else None),
        f"p99, {RECENT}",
        tuple(facts),
        Endpoint.PROXY_METRICS,
    )


def _coverage(proxy: ProxyFigures | None) -> Tile:
    ratio = proxy.coverage if proxy else None
    tone = _tone(
        None if ratio is None else 1 - ratio, 1 - COVERAGE_WARN_RATIO, 1 - COVERAGE_BAD_RATIO
    )
    fallbacks = proxy.fallbacks if proxy else {}
    recent = proxy.recent_fallbacks if proxy else {}
    happened = {reason: number for reason, number in fallbacks.items() if number}
    facts = [Fact("fallbacks", _since_start(fallbacks, recent))]
    facts += [
        Fact(f"· {reason.replace('_', ' ')}", _since_start({reason: number}, recent))
        for reason, number in sorted(happened.items(), key=lambda item: -item[1])
    ]
    return Tile(
        "Classifier coverage",
        display.percent(ratio),
        "of recent decisions",
        tuple(facts),
        Endpoint.PROXY_METRICS,
        tone,
        "" if tone is Tone.PLAIN else "requests fall back to general",
    )


def _cache(proxy: ProxyFigures | None, classifier: ClassifierFigures | None) -> Tile:
    layers = proxy.hits if proxy else {}
    hits = sum(layer.hits for layer in layers.values())
    # The later layers are asked for what the first one does not know.
    first = layers.get("exact")
    looked_up = first.hits + first.misses if first else 0.0
    there = display.percent(classifier.hit_ratio if classifier else None)
    entries = display.count(classifier.cache_entries if classifier else None)
    return Tile(
        "Cache hits",
        display.percent(_share(hits, looked_up)),
        f"in the proxy, {RECENT}",
        (
            *(Fact(f"proxy, {name}", display.percent(at.value)) for name, at in layers.items()),
            Fact("classifier", there, source=Endpoint.CLASSIFIER_METRICS),
            Fact("classifier entries", entries, source=Endpoint.CLASSIFIER_METRICS),
        ),
        Endpoint.PROXY_METRICS,
    )


def _llm(state: str | None, classifier: ClassifierFigures | None) -> Tile:
    figure, unit = LLM_WORDS.get(state or "", (display.UNKNOWN, ""))
    numbers = {
        "calls/s": display.rate(classifier.llm_calls_per_second if classifier else None),
        "calls": display.count(classifier.llm_calls if classifier else None),
        "in flight": display.count(classifier.llm_inflight if classifier else None),
    }
    failures = classifier.llm_failures if classifier else {}
    for reason, number in failures.items():
        if number:
            numbers[f"failed: {reason.replace('_', ' ')}"] = display.count(number)
    facts = tuple(
        Fact(name, value, source=Endpoint.CLASSIFIER_METRICS) for name, value in numbers.items()
    )
    return Tile("LLM", figure, unit, facts, Endpoint.CLASSIFIER)


def _in_flight(workers: tuple[WorkerFigures, ...] | None) -> Tile:
    by_pool: dict[str, int] = {}
    for worker in workers or ():
        by_pool[worker.pool] = by_pool.get(worker.pool, 0) + worker.inflight
    facts = [
        Fact(pool, display.count(by_pool.get(pool)), mark=pool)
        for pool in (*LABELS, *_others(by_pool))
    ]
    busy = [worker for worker in workers or () if worker.inflight]
    busiest = max(busy, key=lambda worker: worker.inflight, default=None)
    facts.append(
        Fact("busiest", f"{busiest.name} · {busiest.inflight}" if busiest else display.UNKNOWN)
    )
    whole = None if workers is None else sum(by_pool.values())
    return Tile("In flight", display.count(whole), "at the workers", tuple(facts), Endpoint.POOLS)


def _tone(ratio: float | None, warn: float, bad: float) -> Tone:
    if ratio is None or ratio <= warn:
        return Tone.PLAIN
    return Tone.BAD if ratio > bad else Tone.WARN


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _others(known: Mapping[str, object] | None, named: Iterable[str] = LABELS) -> tuple[str, ...]:
    return tuple(sorted(set(known or ()) - set(named)))


def _since_start(numbers: Mapping[str, float], recent: Mapping[str, float]) -> str:
    """Counts since the proxy began, and of late."""
    new = sum(recent.get(name, 0.0) for name in numbers)
    number = display.count(sum(numbers.values()) if numbers else None)
    return f"{number} (+{display.count(new)} in {RECENT})" if new else number
