"""Flow filters about heads: they say what mitmproxy says, without a flow."""

from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import flowfilter
from mitmproxy.connection import Client

from addons.filters import MAX_NESTING
from addons.flowmaking import flow_of
from addons.forwarding import Peer
from addons.headfilters import compile_head_filter
from addons.http1 import ProtocolError, RequestHead, parse_request_head

parsed = lru_cache(flowfilter.parse)
"""mitmproxy's parser takes milliseconds."""


def head(
    line: str = "POST /v1/export?x=1 HTTP/1.1", *lines: str, host: str = "api.example:81"
) -> RequestHead:
    text = "\r\n".join([line, f"Host: {host}", *lines])
    return parse_request_head(text.encode("latin-1"), 100)


def mitmproxy_says(text: str, asked: RequestHead, peer: Peer) -> bool:
    client = Client(peername=(peer.address, 0), sockname=("", 0), timestamp_start=0.0)
    return bool(parsed(text)(flow_of(client, asked, peer.scheme)))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("~m POST", True),
        ("~m post & ~u /export", True),
        ("!~m POST", False),
        ("~m GET | ~d API.example", True),
        ("~d 'api.example$'", True),
        ("~d :81", False),
        ("~u 'http://api.example:81/v1/[a-z]+'", True),
        ("export", True),
        ("~hq '^x-tenant: big-'", True),
        ("~h x-missing", False),
        ("~t csv & ~tq csv", True),
        ("~t html", False),
        ("~src 10.0.0.7", True),
        ("~src 10.0.0.8", False),
        ("~all & ~http & ~q", True),
        ("(~m GET | (~u export & ~m POST))", True),
    ],
)
def test_a_filter_says_what_mitmproxy_says(text, fits) -> None:
    asked = head("POST /v1/export?x=1 HTTP/1.1", "Content-Type: text/csv", "X-Tenant: big-one")
    peer = Peer("10.0.0.7", "http")

    assert compile_head_filter(text)(asked, peer) is fits
    assert mitmproxy_says(text, asked, peer) is fits


ATOMS = st.sampled_from([
    "~m GET", "~u a", "~u '^https?://a.b/'", "~u :8", "~hq 'x: a'", "~h '^host: a'", "~t a",
    "~d a.b", "~all", "~q", "a+", "~src 10",
])  # fmt: skip
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.builds("!{}".format, inner) | st.builds("{} & {}".format, inner, inner)
    | st.builds("{} | {}".format, inner, inner),
    max_leaves=4,
)  # fmt: skip
HOSTS = st.sampled_from(["a.b", "a.b:80", "a.b:8080", "a.b:", "[::1]", "[::1]:81", "xn--a", "10.1"])


@given(
    text=FILTERS,
    line=st.sampled_from(["GET /a", "PUT /", "GET /b?a=1", "PUT http://c.d:82/a", "OPTIONS *"]),
    host=HOSTS,
    words=st.text("ab\xe9"),
    scheme=st.sampled_from(["http", "https"]),
)
def test_any_filter_says_what_mitmproxy_says(text, line, host, words, scheme) -> None:
    try:
        asked = head(f"{line} HTTP/1.1", f"x: {words}", f"content-type: {words}", host=host)
    except ProtocolError:
        return
    peer = Peer("10.0.0.7", scheme)

    assert compile_head_filter(text)(asked, peer) is mitmproxy_says(text, asked, peer)


def test_a_request_without_a_host_can_be_asked_about() -> None:
    asked = parse_request_head(b"GET /x HTTP/1.0", 100)

    assert compile_head_filter("~u /x & !~d a")(asked, Peer("10.0.0.7", "http"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("~b x", "~b is about what is not known yet"),
        ("~m GET & ~bq x", "~bq is about what is not known yet"),
        ("~c 200", "~c is about what is not known yet"),
        ("~nonsense x", "no flow filter"),
        ("~u '(?=a)'", "look-ahead"),
        ("(" * (MAX_NESTING + 1) + "~all" + ")" * (MAX_NESTING + 1), "nests parentheses"),
    ],
)
def test_a_filter_that_needs_more_than_a_head_is_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        compile_head_filter(text)
    assert "\n" not in str(refused.value)
