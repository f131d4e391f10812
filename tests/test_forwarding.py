"""What passes between clients and workers: which fields, in which order, and what is added."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons import http1
from addons.forwarding import (
    FORWARDED,
    HOP_BY_HOP,
    Peer,
    client_head,
    interim_head,
    is_trusted,
    parse_networks,
    passing_trailers,
    switching_head,
    upstream_head,
)

CLIENT = Peer("192.0.2.7", "http")
TRUSTED = Peer("10.0.0.1", "https", trusted=True)
ROUTE = b"X-Route-Label: general\r\n"

OURS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"}


def request(*lines: str, line: str = "GET /x HTTP/1.1", host: str = "Host: a.test") -> bytes:
    fields = [line, *([host] if host else []), *lines]
    return "\r\n".join(fields).encode("latin-1")


def parsed(*lines: str, **parts: str) -> http1.RequestHead:
    return http1.parse_request_head(request(*lines, **parts), 100)


def forwarded(
    head: http1.RequestHead, peer: Peer = CLIENT, content_length: int | None = None
) -> tuple[str, list[tuple[str, str]]]:
    """The request line and the fields that a worker gets."""
    raw = upstream_head(
        head, peer, ROUTE, content_length=content_length, default_host="worker.test:9001"
    )
    return split(raw)


def split(raw: bytes) -> tuple[str, list[tuple[str, str]]]:
    assert raw.endswith(b"\r\n\r\n")
    line, *fields = raw[:-4].decode("latin-1").split("\r\n")
    pairs = [field.partition(": ") for field in fields]
    return line, [(name, value) for name, _, value in pairs]


def passed(head: http1.RequestHead, peer: Peer = CLIENT) -> list[tuple[str, str]]:
    """Those of the fields that are not ours."""
    fields = forwarded(head, peer)[1]
    return [field for field in fields if field[0].lower() not in OURS | {"x-route-label"}]


def values(fields: list[tuple[str, str]], name: str) -> list[str]:
    return [value for known, value in fields if known.lower() == name.lower()]


# Requests


def test_end_to_end_fields_pass_in_their_order_and_as_they_were_written() -> None:
    lines = ["aCCept: */*", "Cookie: a=1", "X-A: 1", "x-a:  2 ", "Cookie: b=2", "X-Empty:"]

    fields = passed(parsed(*lines))

    assert fields == [
        ("Host", "a.test"),
        ("aCCept", "*/*"),
        ("Cookie", "a=1"),
        ("X-A", "1"),
        ("x-a", "2"),
        ("Cookie", "b=2"),
        ("X-Empty", ""),
    ]


def test_bytes_beyond_ascii_pass_unchanged() -> None:
    assert ("X-Name", "Zo\xeb") in passed(parsed("X-Name: Zo\xeb"))


def test_host_and_content_length_stay_where_they_were() -> None:
    head = parsed("X-A: 1", "hOST: a.test", "X-B: 2", "content-LENGTH: 5", "X-C: 3", host="")

    names = [name for name, _ in passed(head)]

    assert names == ["X-A", "hOST", "X-B", "content-LENGTH", "X-C"]


def test_a_host_that_is_missing_is_the_workers() -> None:
    head = parsed(line="GET /x HTTP/1.0", host="")

    line, fields = forwarded(head)

    assert line == "GET /x HTTP/1.1"
    assert values(fields, "host") == ["worker.test:9001"]


def test_the_authority_of_an_absolute_target_is_the_host() -> None:
    line, fields = forwarded(parsed(line="GET http://b.test:81/y?z HTTP/1.1"))

    assert line == "GET /y?z HTTP/1.1"
    assert values(fields, "host") == ["b.test:81"]
    assert values(fields, "x-forwarded-host") == ["b.test:81"]


@pytest.mark.parametrize(
    "name", sorted(name.decode() for name in HOP_BY_HOP - {b"transfer-encoding"})
)
def test_hop_by_hop_fields_end_here(name) -> None:
    head = parsed(f"{name.title()}: keep-alive")

    assert passed(head) == [("Host", "a.test")]


@pytest.mark.parametrize("connection", ["X-Secret", "close, x-SECRET", " x-secret ,keep-alive"])
def test_fields_that_connection_names_end_here(connection) -> None:
    head = parsed("X-Secret: 1", f"Connection: {connection}", "X-Kept: 2", "x-secret: 3")

    assert passed(head) == [("Host", "a.test"), ("X-Kept", "2")]


@pytest.mark.parametrize("name", ["Host", "Content-Length", "X-Route-Label", "Via", "Forwarded"])
def test_connection_cannot_take_away_what_we_vouch_for(name) -> None:
    head = parsed(f"Connection: {name}", "Content-Length: 3", line="POST /x HTTP/1.1")

    fields = forwarded(head)[1]

    for needed in ("Host", "Content-Length", "X-Route-Label", "Via", "Forwarded"):
        assert len(values(fields, needed)) == 1


def test_expect_is_answered_here() -> None:
    assert passed(parsed("Expect: 100-continue")) == [("Host", "a.test")]


@pytest.mark.parametrize(
    "line", ["x-route-label: fast-path", "X-ROUTE-Source: me", "X-Slb-Anything: 1", "x-slb-: 1"]
)
def test_fields_under_our_names_are_dropped(line) -> None:
    head = parsed(line, line)

    fields = forwarded(head)[1]

    assert values(fields, "x-route-label") == ["general"]
    assert passed(head) == [("Host", "a.test")]


@pytest.mark.parametrize("peer", [CLIENT, TRUSTED])
@pytest.mark.parametrize(
    "name",
    [
        "X_Route_Label", "x_route-label", "X_Forwarded_For", "X-Forwarded_Proto", "X_Real_IP",
        "X_Slb_Foo", "Content_Length", "Transfer_Encoding",
    ],
)  # fmt: skip
def test_names_that_a_worker_could_take_for_ours_are_dropped(name, peer) -> None:
    head = parsed(f"{name}: 1", "X_Own: 2", f"{name}: 3")

    assert passed(head, peer) == [("Host", "a.test"), ("X_Own", "2")]


@pytest.mark.parametrize("name", sorted(name.decode() for name in FORWARDED))
def test_what_a_client_says_of_forwarding_is_dropped(name) -> None:
    fields = forwarded(parsed(f"{name}: spoofed", f"{name}: spoofed"))[1]

    assert "spoofed" not in str(fields)


def test_the_worker_is_told_who_the_client_is() -> None:
    fields = forwarded(parsed(host="Host: a.test:8080"))[1]

    assert fields[1:] == [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "a.test:8080"),
        ("Forwarded", 'for=192.0.2.7;proto=http;host="a.test:8080"'),
        ("Via", "1.1 slb"),
        ("X-Route-Label", "general"),
    ]


def test_an_ipv6_client_is_quoted() -> None:
    fields = forwarded(parsed(), Peer("2001:db8::1", "https"))[1]

    assert values(fields, "forwarded") == ['for="[2001:db8::1]";proto=https;host="a.test"']
    assert values(fields, "x-forwarded-for") == ["2001:db8::1"]


def test_the_chain_of_a_trusted_proxy_is_extended() -> None:
    head = parsed(
        "X-Forwarded-For: 198.51.100.1",
        "Forwarded: for=198.51.100.1",
        "x-forwarded-for: 203.0.113.9",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: public.test",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 198.51.100.1",
    )

    fields = forwarded(head, TRUSTED)[1]

    assert values(fields, "x-forwarded-for") == ["198.51.100.1, 203.0.113.9, 10.0.0.1"]
    assert values(fields, "forwarded") == [
        'for=198.51.100.1, for=10.0.0.1;proto=https;host="a.test"'
    ]
    assert values(fields, "x-forwarded-proto") == ["https"]
    assert values(fields, "x-forwarded-host") == ["public.test"]
    assert values(fields, "x-forwarded-port") == ["443"]
    assert values(fields, "x-real-ip") == ["198.51.100.1"]


def test_a_trusted_proxy_that_says_nothing_is_itself_the_client() -> None:
    fields = forwarded(parsed(), TRUSTED)[1]

    assert values(fields, "x-forwarded-for") == ["10.0.0.1"]
    assert values(fields, "x-forwarded-proto") == ["https"]
    assert values(fields, "x-forwarded-port") == []


@pytest.mark.parametrize("peer", [CLIENT, TRUSTED])
def test_via_is_appended_to_the_chain(peer) -> None:
    fields = forwarded(parsed("Via: 1.0 fred", "X-A: 1", "via: 1.1 p.example.net"), peer)[1]

    assert values(fields, "via") == ["1.0 fred, 1.1 p.example.net, 1.1 slb"]


def test_a_chunked_body_stays_chunked() -> None:
    fields = forwarded(parsed("Transfer-Encoding: Chunked", line="POST /x HTTP/1.1"))[1]

    assert values(fields, "transfer-encoding") == ["chunked"]
    assert values(fields, "content-length") == []


def test_a_chunked_body_that_is_whole_gets_a_length() -> None:
    head = parsed("Transfer-Encoding: chunked", line="POST /x HTTP/1.1")

    fields = forwarded(head, content_length=5)[1]

    assert values(fields, "transfer-encoding") == []
    assert values(fields, "content-length") == ["5"]


def test_a_length_that_has_changed_is_told() -> None:
    head = parsed("Content-Length: 7", "X-A: 1", line="POST /x HTTP/1.1")

    fields = forwarded(head, content_length=5)[1]

    assert fields[1:3] == [("Content-Length", "5"), ("X-A", "1")]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_length_is_invented_where_there_is_none(method) -> None:
    fields = forwarded(parsed(line=f"{method} /x HTTP/1.1"))[1]

    assert values(fields, "content-length") + values(fields, "transfer-encoding") == []


WEBSOCKET = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: WebSocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


def test_a_websocket_handshake_passes() -> None:
    fields = passed(parsed(*WEBSOCKET))

    assert fields == [
        ("Host", "a.test"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("Connection: Upgrade", "Upgrade: h2c"),
        ("Connection: Upgrade", "Upgrade: websocket, h2c"),
        ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: keep-alive", "Upgrade: websocket"),
        ("Upgrade: websocket",),
        ("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 5"),
    ],
)
def test_no_other_upgrade_passes(lines) -> None:
    fields = forwarded(parsed(*lines))[1]

    assert values(fields, "upgrade") + values(fields, "connection") == []


def test_an_upgrade_of_anything_but_a_get_does_not_pass() -> None:
    for line in ("POST /x HTTP/1.1", "GET /x HTTP/1.0"):
        fields = forwarded(parsed(*WEBSOCKET, line=line))[1]
        assert values(fields, "upgrade") + values(fields, "connection") == []


# Answers


def answer(*lines: str, line: str = "HTTP/1.1 200 OK") -> http1.ResponseHead:
    return http1.parse_response_head("\r\n".join([line, *lines]).encode("latin-1"), 100)


def told(head: http1.ResponseHead, *, keep_alive: bool = True, framing=()) -> list[tuple[str, str]]:
    raw = client_head(
        head, b"x-slb-label: general\r\n", framing=list(framing), keep_alive=keep_alive
    )
    return split(raw)[1]


def test_an_answer_passes_in_its_order_and_with_its_reason() -> None:
    head = answer("Set-Cookie: a=1", "eTag: x", "Set-Cookie: b=2", line="HTTP/1.0 299 Odd \xe9")

    line, fields = split(
        client_head(head, b"", framing=[(b"Content-Length", b"2")], keep_alive=True)
    )

    assert line == "HTTP/1.1 299 Odd \xe9"
    assert fields == [
        ("Set-Cookie", "a=1"),
        ("eTag", "x"),
        ("Set-Cookie", "b=2"),
        ("Via", "1.1 slb"),
        ("Content-Length", "2"),
    ]


def test_hop_by_hop_fields_of_an_answer_end_here() -> None:
    head = answer(
        "Connection: close, X-Private",
        "Keep-Alive: timeout=5",
        "X-Private: 10.0.0.1",
        "Upgrade: h2c",
        "Proxy-Authenticate: Basic",
        "Trailer: X-Checksum",
    )

    assert told(head) == [
        ("Trailer", "X-Checksum"),
        ("Via", "1.1 slb"),
        ("x-slb-label", "general"),
    ]


def test_framing_is_written_anew() -> None:
    head = answer("Transfer-Encoding: chunked", "X-A: 1")

    fields = told(head, framing=[(b"Content-Length", b"3")])

    assert values(fields, "transfer-encoding") == []
    assert values(fields, "content-length") == ["3"]


def test_a_workers_values_of_our_fields_are_dropped() -> None:
    fields = told(answer("X-SLB-Label: fast-path", "x-slb-internal: 10.0.0.1"))

    assert values(fields, "x-slb-label") == ["general"]
    assert values(fields, "x-slb-internal") == []


def test_via_of_a_worker_is_kept_and_ours_comes_after_it() -> None:
    assert values(told(answer("Via: 1.1 inner")), "via") == ["1.1 inner", "1.1 slb"]


def test_the_client_is_told_when_its_connection_ends() -> None:
    assert values(told(answer(), keep_alive=False), "connection") == ["close"]
    assert values(told(answer()), "connection") == []


def test_an_interim_answer_passes_without_hop_by_hop_fields() -> None:
    head = answer(
        "Link: </a.css>", "Connection: X-A", "X-A: 1", "X-Slb-B: 2", line="HTTP/1.1 103 Early"
    )

    assert split(interim_head(head)) == ("HTTP/1.1 103 Early", [("Link", "</a.css>")])


def test_a_101_turns_the_connection_into_a_websocket() -> None:
    accept = base64.b64encode(b"x" * 20).decode()
    head = answer(
        "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}",
        line="HTTP/1.1 101 Switching Protocols",
    )  # fmt: skip

    line, fields = split(switching_head(head, b"x-slb-label: general\r\n"))

    assert line == "HTTP/1.1 101 Switching Protocols"
    assert fields == [
        ("Sec-WebSocket-Accept", accept),
        ("Via", "1.1 slb"),
        ("x-slb-label", "general"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
    ]


# Trailers


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length", "transfer-encoding", "Host", "Authorization", "Set-Cookie", "Cookie",
        "X-Route-Label", "X-Slb-Label", "X-Forwarded-For", "Forwarded", "Connection", "Trailer",
        "Content-Type", "Content-Encoding", "Content-Range", "Via", "Expect", "Upgrade", "TE",
    ],
)  # fmt: skip
def test_trailers_that_would_change_how_a_message_is_read_are_dropped(name) -> None:
    trailers = [(b"X-Checksum", b"1"), (name.encode(), b"2"), (b"Server-Timing", b"x")]

    assert passing_trailers(trailers) == [(b"X-Checksum", b"1"), (b"Server-Timing", b"x")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"X-Sum", b"1\r\nX-B: 2"),
        (b"X-Sum", b"1\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        (b"X-Sum", b"1\n"),
        (b"X Sum", b"1"),
        (b"X_Route_Label", b"general"),
    ],
)
def test_trailers_that_would_be_more_than_one_field_or_pass_for_ours_are_dropped(
    name, value
) -> None:
    trailers = [(b"X-Checksum", b"1"), (name, value), (b"X_Own", b"2")]

    assert passing_trailers(trailers) == [(b"X-Checksum", b"1"), (b"X_Own", b"2")]


# Whom to trust


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("a.test", False),
    ],
)
def test_only_addresses_of_the_networks_are_trusted(address, trusted) -> None:
    networks = parse_networks("10.0.0.0/8, 2001:db8::/32,192.0.2.7,, fe80::/10")

    assert is_trusted(address, networks) is trusted


@pytest.mark.parametrize("text", ["10.0.0.0/33", "localhost", "10.0.0.1-5", "10.0.0.0/8 ::1"])
def test_what_is_no_network_is_refused(text) -> None:
    with pytest.raises(ValueError, match="is no address or network"):
        parse_networks(text)


# Whatever comes

NAMES = st.sampled_from(
    [
        "Accept", "Connection", "Content-Length", "Cookie", "Expect", "Forwarded", "Host",
        "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Via",
        "X-A", "X-Forwarded-For", "X-Route-Label", "X-Slb-A",
    ]
)  # fmt: skip
VALUES = st.sampled_from(["", "1", "a, b", "chunked", "close", "host", "x-a", "websocket", "\xe9"])


@given(
    lines=st.lists(st.builds(lambda name, value: f"{name}: {value}", NAMES, VALUES), max_size=8),
    trusted=st.booleans(),
)
def test_whatever_is_accepted_is_forwarded_as_one_plain_request(lines, trusted) -> None:
    try:
        head = parsed(*lines, line="POST /x HTTP/1.1")
    except http1.ProtocolError:
        return
    raw = upstream_head(
        head,
        Peer("192.0.2.7", "http", trusted=trusted),
        ROUTE,
        content_length=None,
        default_host="w",
    )

    again = http1.parse_request_head(raw[:-4], 200)

    assert (again.method, again.target, again.host) == (head.method, head.target, head.host)
    assert (again.content_length, again.chunked) == (head.content_length, head.chunked)
    assert again.connection <= {b"upgrade"}
    names = [name.lower() for name, _ in again.fields]
    for name in (b"host", b"via", b"x-forwarded-for", b"forwarded", b"x-route-label"):
        assert names.count(name) == 1
    assert not {b"te", b"expect", b"keep-alive", b"x-slb-a"} & set(names)
