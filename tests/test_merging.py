"""The metrics of many processes become those of one."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from addons.merging import COUNTED, Merger, is_merged, merge_decisions, merge_pools
from addons.telemetry import Gauges, Telemetry
from classifier.contracts import Classification, Label, Source

REQUESTS = """\
# HELP slb_requests_total Finished requests.
# TYPE slb_requests_total counter
slb_requests_total{{label="general"}} {general}
slb_requests_total{{label="fast-path"}} {fast}
"""
SECONDS = """\
# HELP slb_seconds Time.
# TYPE slb_seconds histogram
slb_seconds_bucket{{le="0.1"}} {first}
slb_seconds_bucket{{le="+Inf"}} {all}
slb_seconds_count {all}
slb_seconds_sum {sum}
"""


def gauge(name: str, value: float, labels: str = "") -> str:
    return f"# HELP {name} Text.\n# TYPE {name} gauge\n{name}{labels} {value}\n"


def samples(merger: Merger) -> dict[str, float]:
    text = merger.render().decode()
    return {
        f"{one.name}{''.join(f'{{{k}={v}}}' for k, v in one.labels.items())}": one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def merged(*texts: str) -> dict[str, float]:
    merger = Merger()
    for number, text in enumerate(texts):
        merger.take(str(number), text)
    return samples(merger)


def test_counters_are_summed_label_by_label() -> None:
    told = merged(REQUESTS.format(general=3, fast=1), REQUESTS.format(general=4, fast=0))

    assert told == {
        "slb_requests_total{label=general}": 7,
        "slb_requests_total{label=fast-path}": 1,
    }


def test_histograms_are_summed_bucket_by_bucket() -> None:
    told = merged(SECONDS.format(first=2, all=5, sum=1.5), SECONDS.format(first=1, all=1, sum=0.05))

    assert told == {
        "slb_seconds_bucket{le=0.1}": 3,
        "slb_seconds_bucket{le=+Inf}": 6,
        "slb_seconds_count": 6,
        "slb_seconds_sum": 1.55,
    }


def test_what_a_dead_process_has_counted_stays() -> None:
    merger = Merger()
    merger.take("1", REQUESTS.format(general=3, fast=1))
    merger.take("2", REQUESTS.format(general=4, fast=0))

    merger.depart("1")
    assert samples(merger)["slb_requests_total{label=general}"] == 7

    merger.take("3", REQUESTS.format(general=0, fast=0))
    merger.take("3", REQUESTS.format(general=2, fast=0))
    assert samples(merger)["slb_requests_total{label=general}"] == 9
    assert samples(merger)["slb_requests_total{label=fast-path}"] == 1


def test_a_counter_that_begins_anew_inside_a_process_goes_on() -> None:
    merger = Merger()
    for general in (5, 2, 3, 0):
        merger.take("1", REQUESTS.format(general=general, fast=0))
    assert samples(merger)["slb_requests_total{label=general}"] == 8

    merger.depart("1")
    assert samples(merger)["slb_requests_total{label=general}"] == 8


def test_a_process_that_was_never_heard_may_depart() -> None:
    merger = Merger()
    merger.depart("1")

    assert samples(merger) == {}


def test_gauges_of_the_dead_do_not_count() -> None:
    merger = Merger()
    merger.take("1", gauge("slb_requests_inflight", 3))
    merger.take("2", gauge("slb_requests_inflight", 4))
    merger.depart("1")

    assert samples(merger) == {"slb_requests_inflight": 4}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("slb_requests_inflight", (3, 4), 7),
        ("slb_cache_entries", (10, 20), 30),
        ("slb_worker_up", (1, 0), 0),
        ("slb_pool_panic", (0, 1), 1),
        ("slb_classifier_breaker_state", (0, 2), 2),
        ("process_start_time_seconds", (100, 90), 90),
        ("process_resident_memory_bytes", (100, 90), 190),
        ("process_max_fds", (1024, 1024), 1024),
    ],
)
def test_each_gauge_is_merged_by_its_kind(name, values, expected) -> None:
    assert merged(*(gauge(name, value) for value in values)) == {name: expected}


def test_a_ratio_counts_by_what_it_is_of() -> None:
    def told(ratio: float, of: int) -> str:
        return gauge("slb_classifier_coverage_ratio", ratio) + gauge(
            "slb_classifier_coverage_labels", of
        )

    assert merged(told(1.0, 900), told(0.0, 100))["slb_classifier_coverage_ratio"] == 0.9
    assert merged(told(1.0, 0), told(0.5, 10))["slb_classifier_coverage_ratio"] == 0.5
    assert merged(told(1.0, 0), told(1.0, 0))["slb_classifier_coverage_ratio"] == 1.0


def test_a_gauge_without_a_rule_is_told_for_each_process() -> None:
    labels = '{pool="general"}'

    assert merged(gauge("slb_new", 1, labels), gauge("slb_new", 2, labels)) == {
        "slb_new{pool=general}{process=0}": 1,
        "slb_new{pool=general}{process=1}": 2,
    }


def test_what_is_no_metrics_text_changes_nothing() -> None:
    merger = Merger()
    merger.take("1", REQUESTS.format(general=3, fast=1))

    with pytest.raises(ValueError, match="could not convert"):
        merger.take("1", REQUESTS.format(general=9, fast=1) + "slb_requests_total{ 7")

    assert samples(merger)["slb_requests_total{label=general}"] == 3


def test_every_gauge_that_the_proxy_exports_has_a_rule() -> None:
    telemetry = Telemetry()
    telemetry.watch(
        Gauges(
            pools=tuple,
            cache_hits=int,
            cache_misses=int,
            cache_entries=int,
            classify_inflight=int,
            requests_inflight=int,
        )
    )
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", telemetry.render().decode(), re.MULTILINE))

    without = [name for name, kind in kinds.items() if kind not in COUNTED and not is_merged(name)]
    assert without == []


def test_what_the_proxy_exports_comes_through_as_it_is() -> None:
    telemetry = Telemetry()
    telemetry.decided(Classification(Label.GENERAL, 1.0, Source.LOCAL, "x"), 0.02)
    telemetry.finished(Label.GENERAL, Label.GENERAL, 200, 0.3)
    text = telemetry.render().decode()
    merger = Merger()
    merger.take("1", text)

    def plain(metrics: str) -> set[str]:
        return {line for line in metrics.splitlines() if line.startswith("slb_")}

    assert plain(merger.render().decode()) == plain(text)


# Pools and decisions


def worker(name: str, **parts: object) -> dict[str, object]:
    return {
        "name": name, "url": f"http://{name}", "weight": 1, "inflight": 0, "requests": 0,
        "errors": 0, "health": "up", "reachable": True, "draining": False, "slow_start": False,
        "share": 1.0, "ejected_seconds": 0.0, "ejections": 0, **parts,
    }  # fmt: skip


def pool(*workers: dict[str, object], panic: bool = False) -> dict[str, object]:
    return {"label": "general", "panic": panic, "workers": list(workers)}


def test_pools_add_up_and_tell_the_worst_opinion() -> None:
    first = [pool(worker("a:1", inflight=2, requests=5), worker("b:1", health="ejected"))]
    second = [pool(worker("a:1", inflight=1, requests=7, draining=True), worker("b:1"), panic=True)]

    (told,) = merge_pools([first, second])

    assert told["panic"] is True
    assert told["workers"] == [
        worker("a:1", inflight=3, requests=12, draining=True),
        worker("b:1", health="ejected"),
    ]


def test_every_part_of_a_workers_picture_is_merged() -> None:
    """A new one would be told as the first process sees it: decide."""
    from dataclasses import fields

    from addons.merging import WORKER_RULES
    from addons.worker import WorkerView

    same_everywhere = {"name", "url", "weight"}
    assert {one.name for one in fields(WorkerView)} == WORKER_RULES.keys() | same_everywhere


def test_decisions_come_in_the_order_of_time() -> None:
    told = merge_decisions([[{"time": 1.0}, {"time": 4.0}], [{"time": 2.0}, {"time": 3.0}]], 3)

    assert [event["time"] for event in told] == [2.0, 3.0, 4.0]
    assert merge_decisions([[{"time": 1.0}]], 0) == []
