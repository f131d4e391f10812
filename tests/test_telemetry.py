"""Metrics of the proxy, the decision feed and the book of requests under way."""

import asyncio

import pytest

from addons.accounting import Failure, Ledger
from addons.classification import fallback
from addons.feed import MAX_SUBSCRIBERS, SUBSCRIBER_BACKLOG, DecisionFeed, TooManySubscribersError
from addons.pool import Pool, Worker
from addons.routing import decide
from addons.telemetry import Telemetry, status_class
from classifier.contracts import Classification, Label, RequestView, Source

SURE = Classification(Label.FAST_PATH, 0.95, Source.LOCAL, "point lookup")
VIEW = RequestView("GET", "/users/1?token=canary")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def book():
    clock, telemetry = Clock(), Telemetry()
    pools = {label: Pool(label, [Worker("http", "w", 80)]) for label in Label}
    ledger = Ledger(DecisionFeed(3), telemetry, clock=clock, wall_clock=lambda: 5_000.0)
    return ledger, telemetry, pools, clock


def sample(telemetry, name, **labels):
    return telemetry.registry.get_sample_value(name, labels)


def test_a_request_is_counted_when_it_ends(book) -> None:
    ledger, telemetry, pools, clock = book
    ledger.open("f", VIEW, decide(SURE, pools), arrived=99.9)
    clock.now = 100.4

    ledger.close("f", 200)

    labels = {"label": "fast-path", "pool": "fast-path", "status_class": "2xx"}
    assert sample(telemetry, "slb_requests_total", **labels) == 1
    assert sample(telemetry, "slb_decisions_total", label="fast-path", source="local") == 1
    event = ledger.feed.recent(1)[0]
    assert (event.classify_ms, event.total_ms, event.time) == (100.0, 500.0, 4_999.9)
    assert event.path == "/users/1?token=***"
    assert len(ledger) == 0


def test_a_request_ends_once(book) -> None:
    ledger, _, pools, _ = book
    ledger.open("f", VIEW, decide(SURE, pools), arrived=100)

    ledger.close("f", 200)
    ledger.close("f", None, Failure.WORKER_FAILED)

    assert len(ledger.feed.recent(9)) == 1
    assert pools[Label.FAST_PATH].states[0].errors == 0


def test_a_dropped_request_is_given_back_and_not_counted(book) -> None:
    ledger, _, pools, _ = book
    ledger.open("f", VIEW, decide(SURE, pools), arrived=100)

    ledger.drop("f")

    assert pools[Label.FAST_PATH].states[0].inflight == 0
    assert ledger.feed.recent(9) == []


def test_coverage_is_the_share_of_labels_that_were_decided(book) -> None:
    _, telemetry, *_ = book
    assert sample(telemetry, "slb_classifier_coverage_ratio") == 1

    for decided in (SURE, SURE, SURE, fallback("timeout")):
        telemetry.decided(decided, 0.001)

    assert sample(telemetry, "slb_classifier_coverage_ratio") == 0.75
    assert sample(telemetry, "slb_fallbacks_total", reason="timeout") == 1


@pytest.mark.parametrize(
    ("status", "name"), [(200, "2xx"), (599, "5xx"), (None, "none"), (0, "none"), (999, "none")]
)
def test_status_classes_are_a_closed_set(status, name) -> None:
    assert status_class(status) == name


def events_of(book, count):
    ledger, _, pools, _ = book
    for number in range(count):
        ledger.open(str(number), VIEW, decide(SURE, pools), arrived=100)
        ledger.close(str(number), 200)
    return ledger.feed


def test_the_feed_remembers_the_last_decisions(book) -> None:
    feed = events_of(book, 5)

    recent = feed.recent(10)

    assert len(recent) == 3
    assert feed.recent(2) == recent[1:]
    assert feed.recent(10, after_id=recent[1].id) == recent[2:]
    assert feed.recent(10, after_id="forgotten") == recent
    assert feed.recent(0) == []


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
