"""Decisions on the dashboard: hostile text, replays, filters, pauses, and how figures read."""

import json
from collections.abc import Callable

import pytest

from dashboard import display
from dashboard.decisions import MAX_TEXT_CHARS, Decision, DecisionLog, parse_decision
from dashboard.follow import Filter, Follower
from dashboard.health import EndpointError
from dashboard.quantiles import Quantile
from dashboard.rows import decision_row, worker_row
from dashboard.sse import MAX_EVENT_BYTES, EventParser, ServerEvent
from dashboard.workers import WorkerFigures

EVENT = {
    "id": "d1",
    "time": 1_700_000_000.0,
    "method": "GET",
    "path": "/users/1",
    "label": "fast-path",
    "source": "local",
    "cached": False,
    "confidence": 0.98,
    "reason": "reads one item",
    "pool": "fast-path",
    "worker": "localhost:9003",
    "status": 200,
    "classify_ms": 0.4,
    "total_ms": 5.5,
}


def decision(**changes: object) -> Decision:
    found = parse_decision(json.dumps({**EVENT, **changes}))
    assert found is not None
    return found


def log_of(count: int, limit: int = 10) -> DecisionLog:
    log = DecisionLog(limit)
    for number in range(count):
        log.add(decision(id=f"d{number}"))
    return log


def ids(follower: Follower) -> list[str] | None:
    update = follower.pull()
    return None if update is None else [row.id for _, row in update.rows]


def test_an_event_becomes_a_decision() -> None:
    found = decision(unknown_field=1)

    assert (found.label, found.status, found.error) == ("fast-path", 200, None)


def test_a_request_without_an_answer_has_no_status() -> None:
    row = decision_row(1, decision(status=None, total_ms=None, error="client_disconnected"))

    assert (row["status"], row["fault"], row["total"]) == (
        "none client_disconnected",
        "server",
        "–",
    )


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        "[]",
        "nonsense",
        json.dumps({**EVENT, "time": -1}),
        json.dumps({**EVENT, "time": 1e300}),
        json.dumps({**EVENT, "status": 100_000}),
        json.dumps({**EVENT, "confidence": float("nan")}),
        json.dumps({**EVENT, "path": {"html": "x"}}),
    ],
)
def test_what_is_no_decision_is_dropped(data: str) -> None:
    assert parse_decision(data) is None


def test_text_from_strangers_is_bounded_and_printable() -> None:
    found = decision(path="/" + "a" * 100_000, reason="\u202egnp.exe\x00\n")

    assert len(found.path) == MAX_TEXT_CHARS
    assert found.reason == "\\u202egnp.exe\\x00\\n"


def test_markup_stays_the_text_that_it_is() -> None:
    path = "/<img src=x onerror=alert(1)>"

    assert decision_row(1, decision(path=path))["path"] == path


def test_a_replayed_decision_is_kept_once() -> None:
    log = log_of(3)
    log.add(decision(id="d1"))

    assert [found.id for _, found in log.since(0)] == ["d0", "d1", "d2"]


def test_an_id_that_comes_again_at_another_time_is_another_decision() -> None:
    log = log_of(2)
    log.add(decision(id="d0", time=1_700_000_999.0))

    assert len(log.since(0)) == 3


def test_the_log_is_bounded() -> None:
    log = log_of(25)

    assert [number for number, _ in log.since(0)] == list(range(16, 26))
    assert log.since(24)[0][1].id == "d24"


def test_a_viewer_gets_each_decision_once_and_the_newest_first() -> None:
    log = log_of(3)
    follower = Follower(log)

    assert ids(follower) == ["d2", "d1", "d0"]
    assert ids(follower) is None
    log.add(decision(id="d3"))
    assert ids(follower) == ["d3"]


def test_a_page_gets_no_more_rows_than_it_shows() -> None:
    assert ids(Follower(log_of(9), rows=2)) == ["d8", "d7"]


def test_a_new_filter_looks_through_everything_that_is_kept() -> None:
    log = log_of(2)
    log.add(decision(id="heavy", label="high-compute"))
    follower = Follower(log, rows=1)
    assert ids(follower) == ["heavy"]

    follower.choose(Filter.parse("fast-path", ""))
    update = follower.pull()

    assert update is not None
    assert update.replace
    assert [row.id for _, row in update.rows] == ["d1"]


def test_a_filter_without_a_match_empties_the_page() -> None:
    follower = Follower(log_of(2))
    follower.pull()

    follower.choose(Filter.parse("", "no-such-thing"))

    assert ids(follower) == []


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("USERS", True),
        ("users one", True),
        ("users two", False),
        ("-users", False),
        ("-orders local:9003", False),
        ("200 localhost:9003", True),
        ("cached", False),
        ("-", True),
    ],
)
def test_every_word_of_a_filter_counts(text: str, fits: bool) -> None:
    assert Filter.parse("", text).lets_through(decision()) is fits


def test_a_paused_page_stands_still_and_counts_what_it_misses() -> None:
    log = log_of(2)
    follower = Follower(log)
    follower.pull()

    follower.paused = True
    log.add(decision(id="new"))
    log.add(decision(id="other", label="general"))

    assert ids(follower) is None
    assert follower.waiting() == 2
    follower.choose(Filter.parse("fast-path", ""))
    assert ids(follower) == ["d1", "d0"]
    assert follower.waiting() == 1
    follower.paused = False
    assert ids(follower) == ["new"]


def test_events_are_read_however_the_stream_is_cut() -> None:
    stream = (
        b': hello\n\nid: 7\nevent: decision\ndata: {"a":\r\ndata: "\xe2\x82\xac"}\r\n\n'
        b"event: noise\n\ndata: x\n\n"
    )
    whole = EventParser().push(stream)
    parser = EventParser()
    cut = [event for byte in stream for event in parser.push(bytes([byte]))]

    assert whole == cut
    assert whole[0] == ServerEvent("7", "decision", '{"a":\n"€"}')
    assert whole[1:] == [ServerEvent("7", "message", "x")]


def test_an_event_without_end_does_not_fill_the_memory() -> None:
    parser = EventParser()

    half = b"data: " + b"x" * (MAX_EVENT_BYTES // 2) + b"\n"
    parser.push(half)

    with pytest.raises(EndpointError):
        parser.push(half)


def test_an_idle_worker_has_no_share() -> None:
    row = worker_row(WorkerFigures("general", "w", "http://w", 0, 0, 0, None, None))

    assert (row["share_text"], row["per_second"], row["requests"]) == ("–", "–", 0)


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (display.rate, None, "–"),
        (display.rate, 0, "0.0"),
        (display.rate, 0.01, "<0.1"),
        (display.rate, 1234.5, "1,234"),
        (display.duration, 0.0000421, "42.1 µs"),
        (display.duration, 0.0009999, "1.00 ms"),
        (display.duration, 0.0123, "12.3 ms"),
        (display.duration, 0.9999, "1.00 s"),
        (display.duration, 754, "754 s"),
        (display.duration, 4000, "4000 s"),
        (display.quantile, Quantile(120, beyond=True), "> 120 s"),
        (display.percent, 0, "0 %"),
        (display.percent, 1, "100 %"),
        (display.percent, 0.9996, "> 99.9 %"),
        (display.percent, 0.0004, "< 0.1 %"),
        (display.percent, 0.5, "50.0 %"),
        (display.clock, None, "–"),
        (display.clock, 1_700_000_000, "22:13:20"),
    ],
)
def test_figures_read_well(form: Callable[[object], str], value: object, text: str) -> None:
    assert form(value) == text
