"""Flows to our types and back: what people see of a request, and what the classifier sees."""

import json
import uuid
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow, tutils
from mitmproxy.utils import emoji

from addons import flowmaking, flowview, http1
from addons.exchange import Exchange
from addons.pool import Worker
from addons.routing import NO_WORKER
from classifier.contracts import LABELS, SEMANTIC_HEADERS, Classification, Label, Source

HEAVY = Classification(Label.HIGH_COMPUTE, 0.913, Source.LOCAL, "aggregation over a table")
WORKER = Worker("http", "localhost", 9002)


def head(*lines: str, line: str = "POST /x HTTP/1.1", host: str = "a.test") -> http1.RequestHead:
    text = "\r\n".join([line, f"Host: {host}", *lines])
    return http1.parse_request_head(text.encode("latin-1"), 100)


# Requests


@pytest.mark.parametrize(
    ("host", "scheme", "expected"),
    [
        ("a.test", "http", ("a.test", 80)),
        ("a.test", "https", ("a.test", 443)),
        ("a.test:8080", "https", ("a.test", 8080)),
        ("a.test:", "http", ("a.test:", 80)),
        ("[::1]", "http", ("[::1]", 80)),
        ("[::1]:81", "http", ("[::1]", 81)),
    ],
)
def test_a_flow_shows_where_the_client_wanted_to_go(host, scheme, expected) -> None:
    request = flowmaking.request_of(head(host=host), scheme)

    assert (request.host, request.port) == expected
    assert request.scheme == scheme


def test_the_authority_of_an_absolute_target_is_the_flows_host() -> None:
    original = head(line="GET http://b.test:81/y HTTP/1.1")

    request = flowmaking.request_of(original, "http")

    assert request.headers["Host"] == "b.test:81"
    assert flowview.head_of(request, original).host == b"b.test:81"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Content-Length: 5", "X-A: 1", "x-a: 2", "Cookie: \xe9"),
        ("Transfer-Encoding: chunked", "Trailer: X-Sum"),
        ("Connection: Upgrade", "Upgrade: websocket"),
        ("X-Empty:",),
    ],
)
@pytest.mark.parametrize("line", ["GET /x?y=%20 HTTP/1.1", "FROB * HTTP/1.0", "OPTIONS * HTTP/1.1"])
def test_a_request_that_nobody_changes_stays_what_it_was(lines, line) -> None:
    try:
        original = head(*lines, line=line)
    except http1.ProtocolError:
        return

    assert flowview.head_of(flowmaking.request_of(original, "http"), original) == original


@pytest.mark.parametrize("length", ["2", None])
@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_body_is_framed_as_the_client_said_whatever_addons_say(framing, length) -> None:
    original = head(framing)
    request = flowmaking.request_of(original, "http")
    del request.headers[framing.partition(":")[0]]
    if length is not None:
        request.headers["Content-Length"] = length

    changed = flowview.head_of(request, original)

    told = (original.content_length, original.chunked)
    assert (changed.content_length, changed.chunked) == told


@pytest.mark.parametrize(
    "field",
    [("X-A", "a\r\nX-B: b"), ("X-A", "a\r\n\r\nGET / HTTP/1.1"), ("X A", "1"), ("X-A", "\x00")],
)
def test_a_field_that_would_be_two_makes_a_request_invalid(field) -> None:
    original = head()
    request = flowmaking.request_of(original, "http")
    request.headers.fields = (*request.headers.fields, tuple(part.encode() for part in field))

    with pytest.raises(http1.ProtocolError):
        flowview.head_of(request, original)


TEXT = st.text(st.characters(codec="latin-1", min_codepoint=33, max_codepoint=126), max_size=8)
FIELDS = st.lists(
    st.tuples(st.sampled_from([*SEMANTIC_HEADERS, "content-type", "authorization", "x-a"]), TEXT),
    max_size=5,
)


@given(fields=FIELDS, body=st.binary(max_size=40), path=TEXT)
def test_the_classifier_sees_the_same_with_and_without_inspection(fields, body, path) -> None:
    try:
        lines = [f"{name}: {value}" for name, value in fields]
        parsed = head(*lines, line=f"POST /{path} HTTP/1.1")
    except http1.ProtocolError:
        return
    request = flowmaking.request_of(parsed, "http")
    request.data.content = body
    exchange = Exchange.__new__(Exchange)
    exchange.head = parsed
    exchange.body = SimpleNamespace(kept=lambda: body, done=True)
    exchange._backend = SimpleNamespace(bounds=SimpleNamespace(classify_body_bytes=20))

    assert exchange.view() == flowview.view_of(request, 20)


def test_the_classifier_sees_a_prefix_and_only_meaningful_headers() -> None:
    request = tutils.treq(method=b"post", content=b"z" * 100_000, path=b"/x?y=1")
    request.headers["Authorization"] = "Bearer secret"
    request.headers["X-Amz-Target"] = "DynamoDB_20120810.Scan"

    view = flowview.view_of(request, 65_536)

    assert (len(view.body), view.body_bytes) == (65_536, 100_000)
    assert (view.method, view.path) == ("POST", "/x?y=1")
    assert view.headers == (("x-amz-target", "DynamoDB_20120810.Scan"),)


# Decisions


def test_comment_marker_and_metadata_tell_the_decision(tmp_path) -> None:
    flow = tflow.tflow()

    flowview.show_decision(flow, HEAVY, WORKER)

    assert flow.comment == "high-compute -> localhost:9002 (local 0.91) aggregation over a table"
    assert flow.marked == ":snail:"
    assert flow.metadata["router"] == {
        "label": "high-compute",
        "source": "local",
        "confidence": 0.913,
        "reason": "aggregation over a table",
        "code": "unclear",
        "cached": False,
        "worker": "localhost:9002",
    }
    with (tmp_path / "flows").open("wb") as file:
        FlowWriter(file).add(flow)


def test_a_label_from_the_cache_is_told_as_one() -> None:
    flow = tflow.tflow()

    flowview.show_decision(flow, replace(HEAVY, cached=True), WORKER)

    assert "(local cached 0.91)" in flow.comment
    assert flow.metadata["router"]["cached"] is True


def test_markers_are_emoji_that_mitmproxy_knows() -> None:
    assert set(flowview.MARKERS) == set(LABELS)
    assert set(flowview.MARKERS.values()) <= set(emoji.emoji)


def test_a_rejected_flow_is_answered_as_any_other_request() -> None:
    flow = tflow.tflow()

    flowview.reject(flow, NO_WORKER)

    assert (flow.response.status_code, flow.response.headers["retry-after"]) == (503, "1")
    assert flow.response.headers["content-type"] == "application/json"
    assert json.loads(flow.response.content)["error"]["code"] == "no_worker"


# Answers


@pytest.mark.parametrize(
    ("status", "lines", "streams"),
    [
        ("200 OK", ["content-type: text/event-stream"], True),
        ("200 OK", ["transfer-encoding: chunked"], True),
        ("200 OK", ["content-length: 10"], False),
        ("200 OK", ["content-length: 100"], False),
        ("200 OK", ["content-length: 101"], True),
        ("204 No Content", [], False),
        ("304 Not Modified", [], False),
    ],
)
def test_answers_without_an_announced_end_and_long_ones_stream(status, lines, streams) -> None:
    assert flowview.is_stream(answer_head(*lines, status=status), 100) is streams


def answer_head(*lines: str, status: str = "200 OK") -> http1.ResponseHead:
    return http1.parse_response_head("\r\n".join([f"HTTP/1.1 {status}", *lines]).encode(), 100)


def test_a_workers_values_of_our_fields_are_dropped() -> None:
    answer = answer_head("X-SLB-Internal: 10.0.0.1", "x-slb-label: fast-path", "X-A: 1")

    shown = flowmaking.response_of(answer, [("x-slb-label", "high-compute")])

    assert "x-slb-internal" not in shown.headers
    assert shown.headers.get_all("x-slb-label") == ["high-compute"]
    assert shown.headers["x-a"] == "1"


def test_a_malformed_field_of_an_answer_is_left_out() -> None:
    answer = http.Response.make(200, b"", {"x-a": "1"})
    answer.headers["x-b"] = "1\r\nx-c: 2"
    answer.reason = "a\r\nb"

    told = flowview.response_head_of(answer, None)

    assert [name for name, _ in told.fields if name.startswith(b"x-")] == [b"x-a"]
    assert told.reason == b""


@pytest.mark.parametrize(
    ("result", "expected"), [(b"ab", b"ab"), ([b"a", b"b"], b"ab"), (iter([b"a"]), b"a"), ([], b"")]
)
def test_what_a_stream_function_returns_is_joined(result, expected) -> None:
    assert flowview.joined(lambda _: result)(b"x") == expected


# New flows are what mitmproxy's constructors make


def without_chance(state: dict) -> dict:
    """A flow's state without ids and times, which no two flows share."""
    return {
        name: without_chance(value) if isinstance(value, dict) else value
        for name, value in state.items()
        if name != "id" and not name.startswith("timestamp")
    }


def test_a_new_flow_is_what_mitmproxys_constructors_make() -> None:
    client = Client(peername=("10.0.0.7", 5), sockname=("10.0.0.1", 8080))
    asked, answered = head("X-A: 1", host="a.test:81"), answer_head("Content-Length: 1")
    made = flowmaking.flow_of(client, asked, "https")
    made.response = flowmaking.response_of(answered, [("x-slb-label", "general")])
    stock = http.HTTPFlow(client, Server(address=None), live=True)
    stock.request = http.Request(
        "a.test", 81, b"POST", b"https", b"", b"/x", b"HTTP/1.1", http.Headers(asked.fields),
        None, None, 0.0, None,
    )  # fmt: skip
    stock.response = http.Response(
        b"HTTP/1.1", 200, b"OK",
        http.Headers([(b"Content-Length", b"1"), (b"x-slb-label", b"general")]),
        None, None, 0.0, None,
    )  # fmt: skip

    for one, other in (
        (made, stock),
        (made.request, stock.request),
        (made.request.data, stock.request.data),
        (made.response.data, stock.response.data),
        (made.server_conn, stock.server_conn),
    ):
        assert type(one) is type(other)
        assert vars(one).keys() == vars(other).keys()
    assert without_chance(made.get_state()) == without_chance(stock.get_state())
    assert made.get_state().keys() == stock.get_state().keys()
    assert made.live


def test_a_new_flow_can_be_saved_and_its_ids_are_its_own(tmp_path) -> None:
    client = Client(peername=("10.0.0.7", 5), sockname=("10.0.0.1", 8080))
    flows = [flowmaking.flow_of(client, head(), "http") for _ in range(2)]
    with (tmp_path / "flows").open("wb") as file:
        for flow in flows:
            FlowWriter(file).add(flow)

    ids = {flow.id for flow in flows} | {flow.server_conn.id for flow in flows}
    assert len(ids) == 4
    for one in ids:
        assert (uuid.UUID(one).version, str(uuid.UUID(one))) == (4, one)


def test_the_upstream_side_is_what_mitmproxys_constructor_makes() -> None:
    transport = SimpleNamespace(get_extra_info=lambda name: (name, 1))
    made, stock = flowmaking.server_of(WORKER, transport), Server(address=("localhost", 9002))
    stock.state = ConnectionState.OPEN
    stock.peername, stock.sockname = ("peername", 1), ("sockname", 1)

    assert without_chance(vars(made)) == without_chance(vars(stock))
    assert made.timestamp_start == made.timestamp_tcp_setup
    with pytest.raises(RuntimeError, match=r"Cannot change server\.address"):
        made.address = ("elsewhere", 1)
