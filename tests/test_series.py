"""Plain numbers as Prometheus sees them: just what its own client would have made of them."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from addons.series import Counters, Histograms
from addons.telemetry import Telemetry

BOUNDS = (0.005, 0.25, 1, 2.5)


def text_of(*collectors) -> list[str]:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_counters_look_like_those_of_the_client() -> None:
    theirs = Counter("slb_x_total", "How\nmany.", ["label", "code"], registry=None)
    ours = Counters("slb_x_total", "How\nmany.", ["label", "code"])
    for values, count in ((("a", "2xx"), 3), (("b", 'q"\\'), 1), (("c", ""), 0)):
        theirs.labels(*values).inc(count)
        ours.begin(*values)
        ours.by[values] += count

    assert text_of(ours) == text_of(theirs)


@pytest.mark.parametrize("labels", [(), ("pool",)])
def test_histograms_look_like_those_of_the_client(labels) -> None:
    theirs = Histogram("slb_x_seconds", "How long.", labels, buckets=BOUNDS, registry=None)
    ours = Histograms("slb_x_seconds", "How long.", BOUNDS, labels)
    values = tuple("a" for _ in labels)
    series = theirs.labels(*values) if labels else theirs
    for seconds in (0, 0.005, 0.00500001, 0.1, 1, 2.4, 2.5, 7, 7):
        series.observe(seconds)
        ours.begin(*values).observe(seconds)

    assert text_of(ours) == text_of(theirs)


def test_what_has_begun_stays_when_it_begins_again() -> None:
    counters, histograms = Counters("x_total", "x", ["a"]), Histograms("y", "y", BOUNDS, ["a"])
    counters.by["1",] += 5
    histograms.begin("1").observe(0.1)

    counters.begin("1")

    assert 'x_total{a="1"} 5.0' in text_of(counters)
    assert histograms.begin("1").total == 0.1


FAMILIES = {
    "slb_requests_total": ("counter", {"label", "pool", "status_class"}),
    "slb_decisions_total": ("counter", {"label", "source"}),
    "slb_fallbacks_total": ("counter", {"reason"}),
    "slb_classify_duration_seconds": ("histogram", {"le"}),
    "slb_request_duration_seconds": ("histogram", {"le", "pool"}),
    "slb_rejections_total": ("counter", {"code"}),
    "slb_retries_total": ("counter", {"reason"}),
    "slb_ejections_total": ("counter", {"pool", "reason"}),
    "slb_spills_total": ("counter", {"from", "to"}),
    "slb_classifier_coverage_ratio": ("gauge", set()),
}
"""What dashboards and alerts of operators are written for."""


def test_what_is_counted_keeps_its_names_types_and_labels() -> None:
    telemetry = Telemetry()

    text = telemetry.render().decode()
    found = {}
    for family in telemetry.registry.collect():
        labels = {name for one in family.samples for name in one.labels}
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, labels)

    assert {name: found.get(name) for name in FAMILIES} == FAMILIES
    assert all(f"\n# HELP {name} " in text for name in FAMILIES)
    assert 'slb_request_duration_seconds_bucket{le="0.005",pool="general"} 0.0' in text
    assert 'slb_request_duration_seconds_bucket{le="+Inf",pool="general"} 0.0' in text
    assert "slb_classify_duration_seconds_sum 0.0" in text
