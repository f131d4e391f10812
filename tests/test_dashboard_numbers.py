"""How the dashboard reads Prometheus text, growth between scrapes, and quantiles."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.health import EndpointError
from dashboard.quantiles import latency, quantile
from dashboard.scrape import Scrape, by_label, parse_metrics, total
from dashboard.window import Window

REQUESTS = """\
# TYPE slb_requests_total counter
slb_requests_total{label="fast-path",status_class="2xx"} 7
slb_requests_total{label="fast-path",status_class="5xx"} 1
slb_requests_total{label="general",status_class="5xx"} 2
"""


def counters(value: float, started: float | None = None) -> Scrape:
    return Scrape({}, {"slb_x_total": {frozenset({("a", "b")}): value}}, started)


def grown(window: Window, over: float) -> float | None:
    increase = window.increase(over)
    return None if increase is None else total(increase.samples, "slb_x_total")


def test_only_our_own_series_are_kept() -> None:
    text = (
        "# TYPE python_gc counter\npython_gc_total 3\n# TYPE slb_up gauge\nslb_up 1\nslb_nan NaN\n"
    )

    scrape = parse_metrics(text)

    assert scrape == Scrape({"slb_up": {frozenset(): 1.0}}, {})


@pytest.mark.parametrize("text", ["<html>", "slb_x{ 1", 'slb_x{a="b"} one'])
def test_what_is_not_prometheus_text_is_a_fault_of_the_endpoint(text: str) -> None:
    with pytest.raises(EndpointError, match="unreadable"):
        parse_metrics(text)


@given(st.text(alphabet='slb_x {}="\\\n#TYPE1.,+', max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(EndpointError):
        parse_metrics(text)


def test_the_metrics_of_another_program_are_not_taken_for_ours() -> None:
    with pytest.raises(EndpointError, match="another program"):
        parse_metrics("# TYPE prometheus_ready gauge\nprometheus_ready 1\n")


def test_series_add_up_by_label() -> None:
    counters = parse_metrics(REQUESTS).counters

    assert by_label(counters, "slb_requests_total", "label") == {"fast-path": 8, "general": 2}
    assert total(counters, "slb_requests_total", status_class="5xx") == 3
    assert total(counters, "slb_requests_total", status_class="4xx") is None


def test_one_scrape_tells_no_growth() -> None:
    window = Window(30)
    window.add(0, counters(5))

    assert window.increase(5) is None


def test_growth_is_over_the_time_that_was_asked_for() -> None:
    window = Window(30)
    for second in range(40):
        window.add(second, counters(second * 10))

    assert grown(window, 5) == 50
    assert grown(window, 30) == 300


def test_a_restart_counts_on_and_never_back() -> None:
    window = Window(30)
    for second, value in enumerate([100, 110, 3, 5]):
        window.add(second, counters(value))

    assert grown(window, 30) == 15


def test_a_restart_is_seen_even_if_the_counters_have_overtaken_the_old_ones() -> None:
    window = Window(30)
    window.add(0, counters(10, started=1))
    window.add(1, counters(50, started=2))

    assert grown(window, 30) == 50


def test_a_restart_of_one_metric_leaves_the_others_alone() -> None:
    window = Window(30)
    for at, mine, other in ((0, 7, 100), (1, 2, 110)):
        series = {"slb_x_total": {frozenset(): mine}, "slb_y_total": {frozenset(): other}}
        window.add(at, Scrape({}, series, started=1))

    increase = window.increase(30)

    assert increase is not None
    assert total(increase.samples, "slb_x_total") == 2
    assert total(increase.samples, "slb_y_total") == 10


def test_a_new_series_counts_from_zero() -> None:
    window = Window(30)
    window.add(0, Scrape({}, {}))
    window.add(1, counters(4))

    assert grown(window, 30) == 4


@given(
    st.lists(
        st.tuples(st.floats(0.1, 9), st.integers(0, 1000), st.sampled_from([None, 1.0, 2.0])),
        min_size=2,
        max_size=40,
    ),
    st.floats(0.1, 60),
)
def test_growth_is_never_negative(steps: list, over: float) -> None:
    window, now = Window(30), 0.0
    for pause, value, started in steps:
        now += pause
        window.add(now, counters(value, started))

        increase = window.increase(over)
        assert increase is None or (increase.seconds > 0 and (grown(window, over) or 0) >= 0)


def test_quantiles_are_interpolated_like_prometheus_does() -> None:
    buckets = {"0.1": 50.0, "0.2": 90.0, "1.0": 100.0, "+Inf": 100.0}

    assert quantile(buckets, 0.5).seconds == pytest.approx(0.1)
    assert quantile(buckets, 0.7).seconds == pytest.approx(0.15)
    assert quantile(buckets, 0.99).seconds == pytest.approx(0.92)


def test_a_quantile_above_the_last_bucket_says_so() -> None:
    found = quantile({"0.1": 1.0, "+Inf": 100.0}, 0.99)

    assert (found.seconds, found.beyond) == (0.1, True)


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile({}, 0.5) is None
    assert latency({"0.1": 0.0, "+Inf": 0.0}) is None


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.floats(0.01, 0.999))
def test_a_quantile_lies_within_the_buckets(counts: list[int], q: float) -> None:
    buckets, seen = {}, 0
    for index, count in enumerate(counts, start=1):
        seen += count
        buckets[str(float(index))] = float(seen)
    buckets["+Inf"] = float(seen)

    found = quantile(buckets, q)

    assert (found is None) == (seen == 0)
    assert found is None or (0 <= found.seconds <= len(counts) and math.isfinite(found.seconds))
