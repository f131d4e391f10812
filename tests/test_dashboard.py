"""The dashboard's core: from scrapes to figures, with time in the test's hands."""

import json

import pytest

from classifier.contracts import LABELS
from dashboard.figures import RATE_SECONDS, RECENT_SECONDS
from dashboard.health import Endpoint, EndpointError, State
from dashboard.monitor import CHART_POINTS, Monitor
from dashboard.page import OWN_COLORS, chip_style, colors_of
from dashboard.tile import Tone
from dashboard.tiles import tiles

NOON = 1_700_000_000.0


class Time:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monitor(self) -> Monitor:
        return Monitor(lambda: 50_000.0 + self.now, lambda: NOON + self.now)


def requests_text(fast: float, failed: float = 0) -> bytes:
    return f"""\
# TYPE slb_requests_total counter
slb_requests_total{{label="fast-path",pool="fast-path",status_class="2xx"}} {fast}
slb_requests_total{{label="general",pool="general",status_class="5xx"}} {failed}
# TYPE slb_decisions_total counter
slb_decisions_total{{label="fast-path",source="local"}} {fast}
# TYPE slb_classifier_coverage_ratio gauge
slb_classifier_coverage_ratio 0.5
# TYPE slb_request_duration_seconds histogram
slb_request_duration_seconds_bucket{{pool="fast-path",le="0.01"}} 0
slb_request_duration_seconds_bucket{{pool="fast-path",le="0.1"}} {fast}
slb_request_duration_seconds_bucket{{pool="fast-path",le="+Inf"}} {fast}
slb_request_duration_seconds_count{{pool="fast-path"}} {fast}
slb_request_duration_seconds_sum{{pool="fast-path"}} 1
""".encode()


def classifier_text(hits: int, misses: int) -> bytes:
    return f"""\
# TYPE slb_classifier_cache_hits_total counter
slb_classifier_cache_hits_total {hits}
# TYPE slb_classifier_cache_misses_total counter
slb_classifier_cache_misses_total {misses}
# TYPE slb_classifier_latency_p50_seconds gauge
slb_classifier_latency_p50_seconds NaN
# TYPE slb_classifier_llm_failures_total counter
slb_classifier_llm_failures_total{{reason="bad_answer"}} 2
slb_classifier_llm_failures_total{{reason="timeout"}} 0
""".encode()


def pools_body(*requests: int) -> bytes:
    workers = [
        {"name": f"w{i}", "url": f"http://w{i}", "inflight": i, "requests": n, "errors": 0}
        for i, n in enumerate(requests)
    ]
    return json.dumps({"pools": [{"label": "general", "workers": workers}]}).encode()


def test_figures_come_from_two_scrapes() -> None:
    time = Time()
    monitor = time.monitor()
    monitor.answered(Endpoint.PROXY_METRICS, requests_text(100))
    assert monitor.snapshot().proxy.per_second is None

    time.now += 1
    monitor.answered(Endpoint.PROXY_METRICS, requests_text(112, failed=3))

    proxy = monitor.snapshot().proxy
    assert proxy.per_second == {"fast-path": 12, "general": 3}
    assert proxy.answers == {"2xx": 12, "5xx": 3}
    assert proxy.coverage == 0.5
    assert proxy.latency["fast-path"].p50.seconds == pytest.approx(0.055)
    assert RATE_SECONDS < RECENT_SECONDS


def test_coverage_is_unknown_before_the_first_decision() -> None:
    monitor = Time().monitor()
    monitor.answered(Endpoint.PROXY_METRICS, requests_text(0))

    assert monitor.snapshot().proxy.coverage is None


def test_a_failed_scrape_is_a_gap_and_not_a_zero() -> None:
    time = Time()
    monitor = time.monitor()
    for fast in (0, 10):
        monitor.answered(Endpoint.PROXY_METRICS, requests_text(fast))
        time.now += 1

    monitor.failed(Endpoint.PROXY_METRICS, "unreachable")
    time.now += 60
    monitor.answered(Endpoint.PROXY_METRICS, requests_text(4000))

    rates = [point.rates_of(["fast-path"])[1] for _, point in monitor.points.since(0)]
    assert rates == [None, 10.0, None, None]  # The first after a gap has nothing to compare with.
    gap = monitor.points.since(0)[2][1]
    assert gap.latencies_of(LABELS) == (gap.time, *(None,) * 2 * len(LABELS))


def test_labels_and_pools_are_those_that_the_proxy_tells_of() -> None:
    monitor = Time().monitor()
    assert monitor.snapshot().labels == monitor.snapshot().pools == LABELS

    text = (
        "# TYPE slb_decisions_total counter\n"
        + "".join(
            f'slb_decisions_total{{label="{label}",source="rule"}} 0\n'
            for label in ("general", "reports", "batch", "no label", "x] { } [y=")
        )
        + "# TYPE slb_request_duration_seconds histogram\n"
        + 'slb_request_duration_seconds_bucket{le="+Inf",pool="reports"} 0\n'
    )
    monitor.answered(Endpoint.PROXY_METRICS, text.encode())

    assert monitor.snapshot().labels == (*LABELS, "reports", "batch")
    assert monitor.snapshot().pools == (*LABELS, "reports")


def test_own_labels_take_turns_at_the_colours() -> None:
    labels = (*LABELS, *(f"own-{number}" for number in range(OWN_COLORS + 1)))

    colors = colors_of(labels)

    assert colors["general"] == "--slb-general"
    assert colors["own-0"] == colors[f"own-{OWN_COLORS}"] == "--slb-own-1"
    assert len(set(colors.values())) == len(LABELS) + OWN_COLORS
    assert chip_style(colors_of(LABELS)) == ""
    assert '[data-label="own-1"] { --slb-own: var(--slb-own-2); }' in chip_style(colors)


def test_a_failure_keeps_the_last_figures_and_says_since_when() -> None:
    time = Time()
    monitor = time.monitor()
    monitor.answered(Endpoint.POOLS, pools_body(3))
    for _ in range(3):
        time.now += 1
        monitor.failed(Endpoint.POOLS, "unreachable")

    snapshot = monitor.snapshot()

    health = snapshot.health[Endpoint.POOLS]
    assert (health.state, health.fault) == (State.FAILED, "unreachable")
    assert (health.last_ok, health.failing_since) == (NOON, NOON + 1)
    assert snapshot.workers[0].requests == 3
    assert snapshot.health[Endpoint.PROXY_METRICS].state is State.WAITING


def test_an_unreadable_answer_changes_nothing() -> None:
    monitor = Time().monitor()
    monitor.answered(Endpoint.POOLS, pools_body(3))

    for endpoint, body in ((Endpoint.POOLS, b"[]"), (Endpoint.PROXY_METRICS, b"\xff{")):
        with pytest.raises(EndpointError):
            monitor.answered(endpoint, body)

    assert monitor.snapshot().workers[0].requests == 3
    assert monitor.snapshot().proxy is None


def test_a_workers_share_is_of_its_pool_and_of_late() -> None:
    time = Time()
    monitor = time.monitor()
    monitor.answered(Endpoint.POOLS, pools_body(1000, 0))
    assert [worker.share for worker in monitor.snapshot().workers] == [None, None]

    time.now += 2
    monitor.answered(Endpoint.POOLS, pools_body(1003, 9))

    assert [worker.share for worker in monitor.snapshot().workers] == [0.25, 0.75]
    assert [worker.per_second for worker in monitor.snapshot().workers] == [1.5, 4.5]


def test_the_charts_are_bounded() -> None:
    monitor = Time().monitor()
    for _ in range(CHART_POINTS + 50):
        monitor.failed(Endpoint.PROXY_METRICS, "unreachable")

    assert len(monitor.points.since(0)) == CHART_POINTS
    assert monitor.points.since(CHART_POINTS + 49)[0][0] == CHART_POINTS + 50


def test_before_the_first_answer_every_figure_is_a_dash() -> None:
    assert {tile.figure for tile in tiles(Time().monitor().snapshot())} == {"–"}


def test_failing_requests_and_missing_decisions_are_said_in_words() -> None:
    time = Time()
    monitor = time.monitor()
    for fast, failed in ((0, 0), (90, 10)):
        monitor.answered(Endpoint.PROXY_METRICS, requests_text(fast, failed))
        time.now += 1

    shown = {tile.title: tile for tile in tiles(monitor.snapshot())}

    assert (shown["Errors"].figure, shown["Errors"].tone) == ("10.0 %", Tone.BAD)
    assert shown["Errors"].verdict
    assert (shown["Classifier coverage"].figure, shown["Classifier coverage"].tone) == (
        "50.0 %",
        Tone.BAD,
    )
    assert shown["Requests"].facts[0].value == "90.0 · 90%"


def test_the_classifiers_figures_join_the_proxys() -> None:
    time = Time()
    monitor = time.monitor()
    for hits, misses in ((0, 0), (3, 1)):
        monitor.answered(Endpoint.CLASSIFIER_METRICS, classifier_text(hits, misses))
        time.now += 1

    facts = {(t.title, f.name): f for t in tiles(monitor.snapshot()) for f in t.facts}

    assert facts["Cache hits", "classifier"].value == "75.0 %"
    assert facts["Cache hits", "classifier"].source is Endpoint.CLASSIFIER_METRICS
    assert facts["Deciding p50 · p99", "in the classifier"].value == "–"  # NaN: no answer yet.
    assert facts["LLM", "failed: bad answer"].value == "2"
    assert ("LLM", "failed: timeout") not in facts


def cache_text(exact: tuple[int, int], shape: tuple[int, int]) -> bytes:
    lines = []
    for name, at in (("hits", 0), ("misses", 1)):
        lines.append(f"# TYPE slb_cache_{name}_total counter")
        lines.append(f'slb_cache_{name}_total{{layer="exact"}} {exact[at]}')
        lines.append(f'slb_cache_{name}_total{{layer="shape"}} {shape[at]}')
    return "\n".join([*lines, ""]).encode()


def test_a_request_that_its_shape_tells_of_is_one_hit_and_no_miss() -> None:
    time = Time()
    monitor = time.monitor()
    for exact, shape in (((0, 0), (0, 0)), ((60, 40), (30, 10))):
        monitor.answered(Endpoint.PROXY_METRICS, cache_text(exact, shape))
        time.now += 1

    shown = next(tile for tile in tiles(monitor.snapshot()) if tile.title == "Cache hits")

    assert shown.figure == "90.0 %"
    assert [(fact.name, fact.value) for fact in shown.facts[:2]] == [
        ("proxy, exact", "60.0 %"),
        ("proxy, shape", "75.0 %"),
    ]


def test_the_busiest_worker_is_named() -> None:
    monitor = Time().monitor()
    monitor.answered(Endpoint.POOLS, pools_body(1, 1, 1))

    shown = next(tile for tile in tiles(monitor.snapshot()) if tile.title == "In flight")

    assert shown.figure == "3"
    assert shown.facts[-1].value == "w2 · 2"


def test_a_fallback_is_told_with_its_reason() -> None:
    time = Time()
    monitor = time.monitor()
    for number in (4, 6):
        text = f'slb_fallbacks_total{{reason="timeout"}} {number}\n'
        typed = f"# TYPE slb_fallbacks_total counter\n{text}"
        monitor.answered(Endpoint.PROXY_METRICS, typed.encode())
        time.now += 1

    shown = next(tile for tile in tiles(monitor.snapshot()) if "coverage" in tile.title)

    assert [(fact.name, fact.value) for fact in shown.facts] == [
        ("fallbacks", "6 (+2 in 30 s)"),
        ("· timeout", "6 (+2 in 30 s)"),
    ]


@pytest.mark.parametrize(
    ("body", "figure"),
    [
        (b'{"llm": "available"}', "up"),
        (b'{"llm": "none"}', "off"),
        (b'{"llm": "absent"}', "down"),
        (b"[1]", "–"),
        (b"ready", "–"),
    ],
)
def test_the_llm_is_what_the_classifier_says_of_it(body: bytes, figure: str) -> None:
    monitor = Time().monitor()
    monitor.answered(Endpoint.CLASSIFIER, body)

    assert next(t for t in tiles(monitor.snapshot()) if t.title == "LLM").figure == figure
