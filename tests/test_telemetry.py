"""Metrics of the proxy, the decision feed and the book of requests under way."""

import asyncio
import itertools
import re
from dataclasses import replace

import pytest

from addons.accounting import Active, Failure, Ledger, decision_ids
from addons.breaker import BreakerState
from addons.classification import FALLBACK_REASONS, fallback
from addons.feed import (
    MAX_SUBSCRIBERS,
    SUBSCRIBER_BACKLOG,
    DecisionEvent,
    DecisionFeed,
    TooManySubscribersError,
)
from addons.health import Check, Outcome, Reason
from addons.pool import Pool, Worker
from addons.routing import route_block, route_headers
from addons.telemetry import Gauges, Telemetry, status_class
from classifier.contracts import LABELS, Classification, Label, Source

SURE = Classification(Label.FAST_PATH, 0.95, Source.LOCAL, "point lookup")
TARGET = b"/users/1?token=canary"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def book():
    clock, telemetry = Clock(), Telemetry()
    pools = {label: Pool(label, [Worker("http", "w", 80)]) for label in LABELS}
    ledger = Ledger(DecisionFeed(3), telemetry, clock=clock, wall_clock=lambda: 5_000.0)
    return ledger, telemetry, pools, clock


def sample(telemetry, name, **labels):
    return telemetry.registry.get_sample_value(name, labels)


def opened(book, arrived=100.0):
    """A request that was labelled and has a worker."""
    ledger, _, pools, _ = book
    active = ledger.open(b"GET", TARGET, SURE, arrived)
    active.lease = pools[SURE.label].lease()
    return active


def test_a_request_is_counted_when_it_ends(book) -> None:
    ledger, telemetry, _, clock = book
    active = opened(book, arrived=99.9)
    clock.now = 100.4

    ledger.close(active, 200)

    labels = {"label": "fast-path", "pool": "fast-path", "status_class": "2xx"}
    assert sample(telemetry, "slb_requests_total", **labels) == 1
    assert sample(telemetry, "slb_decisions_total", label="fast-path", source="local") == 1
    event = ledger.feed.recent(1)[0]
    assert (event.classify_ms, event.total_ms, event.time) == (100.0, 500.0, 4_999.9)
    assert event.path == "/users/1?token=***"
    assert event.worker == "w:80"
    assert len(ledger) == 0


def test_a_request_ends_once(book) -> None:
    ledger, telemetry, *_ = book
    active = opened(book)

    ledger.close(active, 200)
    ledger.close(active, None, Failure.WORKER_FAILED)

    assert len(ledger.feed.recent(9)) == 1
    labels = {"label": "fast-path", "pool": "fast-path"}
    assert sample(telemetry, "slb_requests_total", **labels, status_class="none") == 0


def test_a_request_whose_client_left_has_no_status(book) -> None:
    ledger, telemetry, *_ = book

    ledger.close(opened(book), 200, Failure.CLIENT_DISCONNECTED)

    labels = {"label": "fast-path", "pool": "fast-path", "status_class": "none"}
    assert sample(telemetry, "slb_requests_total", **labels) == 1


def test_a_request_that_spilled_is_counted_for_the_pool_that_served_it(book) -> None:
    ledger, telemetry, pools, _ = book
    active = ledger.open(b"GET", TARGET, SURE, 100)
    active.lease = pools[Label.GENERAL].lease()

    ledger.close(active, 200)

    labels = {"label": "fast-path", "pool": "general", "status_class": "2xx"}
    assert sample(telemetry, "slb_requests_total", **labels) == 1


def test_what_pools_tell_is_counted(book) -> None:
    telemetry = book[1]
    assert sample(telemetry, "slb_ejections_total", pool="general", reason="health_check") == 0

    telemetry.ejected(Label.GENERAL, Reason.HEALTH_CHECK)
    telemetry.spilled(Label.FAST_PATH, Label.GENERAL)

    assert sample(telemetry, "slb_ejections_total", pool="general", reason="health_check") == 1
    assert sample(telemetry, "slb_spills_total", **{"from": "fast-path", "to": "general"}) == 1


def test_the_state_of_pools_is_read_when_asked_for(book) -> None:
    _, telemetry, pools, _ = book
    pool = pools[Label.GENERAL]
    pool.lease().release(Outcome.RESPONSE_FAILED)
    pool.lease()
    pool.take_check(pool.workers[0], Check.FAILED, Reason.RESPONSE_FAILED)
    telemetry.watch(
        Gauges(
            pools=pools.values,
            cache_hits=int,
            cache_misses=int,
            cache_entries=int,
            classify_inflight=int,
            requests_inflight=int,
            queue_waiting=lambda label: 3 if label is Label.GENERAL else 0,
        )
    )

    worker = {"pool": "general", "worker": "w:80"}
    assert sample(telemetry, "slb_worker_up", **worker) == 0
    assert sample(telemetry, "slb_worker_inflight", **worker) == 1
    assert sample(telemetry, "slb_worker_requests_total", **worker) == 2
    assert sample(telemetry, "slb_worker_errors_total", **worker) == 1
    assert sample(telemetry, "slb_pool_panic", pool="general") == 1
    assert sample(telemetry, "slb_pool_panic", pool="fast-path") == 0
    assert sample(telemetry, "slb_queue_waiting", pool="general") == 3


def test_the_state_of_the_classifier_is_read_when_asked_for(book) -> None:
    telemetry = book[1]
    telemetry.watch(
        Gauges(
            pools=tuple,
            cache_hits=int,
            cache_misses=int,
            cache_entries=int,
            classify_inflight=lambda: 32,
            requests_inflight=int,
            classify_queue=lambda: 7,
            classifier_breaker=lambda: BreakerState.OPEN,
        )
    )

    assert sample(telemetry, "slb_classify_inflight") == 32
    assert sample(telemetry, "slb_classify_queue") == 7
    assert sample(telemetry, "slb_classifier_breaker_state") == 2


def test_coverage_is_the_share_of_labels_that_were_decided(book) -> None:
    _, telemetry, *_ = book
    assert sample(telemetry, "slb_classifier_coverage_ratio") == 1

    for decided in (SURE, SURE, SURE, fallback("timeout")):
        telemetry.decided(decided, 0.001)

    assert sample(telemetry, "slb_classifier_coverage_ratio") == 0.75
    assert sample(telemetry, "slb_fallbacks_total", reason="timeout") == 1


def test_every_reason_of_a_fallback_is_exported_from_the_start(book) -> None:
    telemetry = book[1]

    assert {"breaker_open", "queue", "saturated"} <= set(FALLBACK_REASONS)
    for reason in FALLBACK_REASONS:
        assert sample(telemetry, "slb_fallbacks_total", reason=reason) == 0


@pytest.mark.parametrize(
    ("status", "name"), [(200, "2xx"), (599, "5xx"), (None, "none"), (0, "none"), (999, "none")]
)
def test_status_classes_are_a_closed_set(status, name) -> None:
    assert status_class(status) == name


def events_of(book, count):
    ledger = book[0]
    for _ in range(count):
        ledger.close(opened(book), 200)
    return ledger.feed


def test_the_feed_remembers_the_last_decisions(book) -> None:
    feed = events_of(book, 5)

    recent = feed.recent(10)

    assert len(recent) == 3
    assert feed.recent(2) == recent[1:]
    assert feed.recent(10, after_id=recent[1].id) == recent[2:]
    assert feed.recent(10, after_id="forgotten") == recent
    assert feed.recent(0) == []


class Entry:
    """A request that has ended, and knows how often it was looked at."""

    def __init__(self) -> None:
        self.decision_id = "1"
        self.read = 0

    def event(self) -> DecisionEvent:
        self.read += 1
        return Active("1", b"GET", TARGET, SURE, 5_000.0, 99.0, 99.5).event()


async def test_an_event_is_made_only_when_somebody_reads_it() -> None:
    feed, entry = DecisionFeed(3), Entry()

    for _ in range(5):
        feed.publish(entry)
    assert entry.read == 0

    assert len(feed.recent(2)) == entry.read == 2
    with feed.subscribe() as one, feed.subscribe() as other:
        feed.publish(entry)
    assert one.get_nowait() is other.get_nowait()
    assert entry.read == 3


def test_what_has_ended_holds_no_worker_and_no_long_target(book) -> None:
    ledger, _, pools, _ = book
    target = b"/users/1?limit=5&token=" + b"x" * 60_000
    active = ledger.open(b"get", target, SURE, 100)
    active.lease = pools[Label.GENERAL].lease()

    ledger.close(active, None, Failure.WORKER_FAILED)

    assert (active.lease, active.target) == (None, b"")
    event = ledger.feed.recent(1)[0]
    assert (event.method, event.path) == ("GET", "/users/1?limit=5&token=***")
    assert (event.pool, event.worker, event.error) == ("general", "w:80", "worker_failed")
    assert ledger.feed.recent(1) == [event]


@pytest.mark.parametrize("method", [b"s3cr3t", b"x" * 17, b"\xff", b"A--B"])
def test_a_method_that_may_be_anything_is_not_shown(book, method) -> None:
    ledger = book[0]

    ledger.close(ledger.open(method, b"*", SURE, 100), 200)

    assert ledger.feed.recent(1)[0].method == "OTHER"


def test_ids_of_decisions_are_random_and_do_not_repeat() -> None:
    ids = list(itertools.islice(decision_ids(), 1_000))

    assert len({*ids, *itertools.islice(decision_ids(), 1_000)}) == 2_000
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize("confidence", [0.95, 0.2, 1.0])
def test_worker_and_client_are_told_the_same_as_lines_and_as_fields(book, confidence) -> None:
    decided = replace(SURE, confidence=confidence)
    active = book[0].open(b"GET", TARGET, decided, 100)

    def lines(fields) -> bytes:
        return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()

    assert route_block(decided) == lines(route_headers(decided))
    assert active.client_block() == lines(active.client_headers())
    assert b"x-slb-decision-id: %b\r\n" % active.decision_id.encode() in active.client_block()


async def test_a_subscriber_gets_new_decisions_and_a_slow_one_loses_the_oldest(book) -> None:
    feed = book[0].feed
    with feed.subscribe() as queue:
        events_of(book, SUBSCRIBER_BACKLOG + 10)

        assert queue.qsize() == SUBSCRIBER_BACKLOG
        await asyncio.sleep(0)
    events_of(book, 1)
    assert queue.qsize() == SUBSCRIBER_BACKLOG


async def test_subscribers_are_bounded(book) -> None:
    import contextlib

    feed = book[0].feed
    with contextlib.ExitStack() as held:
        for _ in range(MAX_SUBSCRIBERS):
            held.enter_context(feed.subscribe())

        with pytest.raises(TooManySubscribersError), feed.subscribe():
            pass


# Labels of an operator's own

REPORTS, BATCH = Label("reports"), Label("batch")


def series(telemetry) -> set[str]:
    return {line.rpartition(" ")[0] for line in telemetry.render().decode().splitlines()}


def test_the_built_in_labels_have_their_series_without_being_asked_for() -> None:
    telemetry = Telemetry()
    before = series(telemetry)
    for label, pool in itertools.product(LABELS, LABELS):
        labels = {"label": label, "pool": pool, "status_class": "2xx"}
        assert sample(telemetry, "slb_requests_total", **labels) == 0

    telemetry.expect({label: (label, Label.GENERAL) for label in LABELS})

    assert {name for name in series(telemetry) - before if "process_" not in name} == set()


def test_an_own_label_has_those_series_that_can_come_to_count() -> None:
    telemetry = Telemetry()

    telemetry.expect({REPORTS: (REPORTS, Label.HIGH_COMPUTE), BATCH: (REPORTS,)})

    def count(label, pool):
        return sample(telemetry, "slb_requests_total", label=label, pool=pool, status_class="5xx")

    assert count(REPORTS, REPORTS) == count(REPORTS, Label.HIGH_COMPUTE) == 0
    # The latter should the label be taken out while its requests wait.
    assert count(BATCH, REPORTS) == count(BATCH, Label.GENERAL) == 0
    assert count(BATCH, BATCH) is count(Label.GENERAL, REPORTS) is None
    assert sample(telemetry, "slb_decisions_total", label=BATCH, source="override") == 0
    assert sample(telemetry, "slb_decisions_total", label=BATCH, source="fallback") is None
    assert sample(telemetry, "slb_ejections_total", pool=REPORTS, reason="health_check") == 0
    assert sample(telemetry, "slb_spills_total", **{"from": REPORTS, "to": "high-compute"}) == 0
    assert sample(telemetry, "slb_spills_total", **{"from": BATCH, "to": "reports"}) is None
    assert sample(telemetry, "slb_request_duration_seconds_count", pool=REPORTS) == 0


def test_a_request_whose_label_is_gone_when_it_ends_is_still_counted() -> None:
    telemetry = Telemetry()

    telemetry.finished(REPORTS, Label.FAST_PATH, 200, 0.1)

    labels = {"label": "reports", "pool": "fast-path", "status_class": "2xx"}
    assert sample(telemetry, "slb_requests_total", **labels) == 1


@pytest.mark.parametrize("source", [Source.RULE, Source.OVERRIDE])
def test_what_the_operator_decides_says_nothing_of_the_classifier(source) -> None:
    telemetry = Telemetry()
    telemetry.decided(fallback("timeout"), 0.1)

    telemetry.decided(Classification(Label.GENERAL, 1.0, source, "rule x"), 0.0)

    assert sample(telemetry, "slb_classifier_coverage_ratio") == 0
    assert sample(telemetry, "slb_decisions_total", label="general", source=source) == 1
