"""Flow filters in rules: they say what mitmproxy itself says, and nothing makes them slow."""

import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import flowfilter, http
from mitmproxy.connection import Client, Server

from addons.filters import compile_filter
from classifier.rules import RequestFacts

FACTS = RequestFacts(
    method="POST",
    path="/v1/export?x=1",
    headers=(("host", "api.example:81"), ("content-type", "text/csv"), ("x-tenant", "big-one")),
    body=b'{"dryRun":false}',
    peer="10.0.0.7",
)


def flow_of(facts: RequestFacts) -> http.HTTPFlow:
    """The same request, as mitmproxy would make a flow of it."""
    client = Client(peername=(facts.peer, 0), sockname=("", 0), timestamp_start=0.0)
    flow = http.HTTPFlow(client, Server(address=None))
    flow.request = http.Request.make(
        facts.method,
        "http://api.example:81" + facts.path,
        content=facts.body,
        headers=[(name.encode(), value.encode()) for name, value in facts.headers],
    )
    return flow


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("~m POST", True),
        ("~m post & ~u /export", True),
        ("!~m POST", False),
        ("~m GET | ~d API.example", True),
        ("~u 'api.example:81/v1/[a-z]+'", True),
        ("export", True),
        ("~hq '^x-tenant: big-'", True),
        ("~h x-missing", False),
        ("~t csv & ~tq csv", True),
        ("~bq dryrun & ~b false", True),
        ("~bq nothing", False),
        ("~src 10.0.0.7", True),
        ("~all & ~http & ~q", True),
        ("(~m GET | (~u export & ~m POST))", True),
    ],
)
def test_a_filter_says_what_mitmproxy_says(text, fits) -> None:
    assert compile_filter(text)(FACTS) is fits
    assert bool(flowfilter.parse(text)(flow_of(FACTS))) is fits


ATOMS = st.sampled_from(
    ["~m GET", "~u a", "~hq 'x: a'", "~bq a", "~t a", "~d api", "~all", "~q", "a+", "~src 10"]
)
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.builds("!{}".format, inner) | st.builds("{} & {}".format, inner, inner)
    | st.builds("{} | {}".format, inner, inner),
    max_leaves=4,
)  # fmt: skip


@given(FILTERS, st.sampled_from(["GET", "PUT"]), st.text("/ab", max_size=4), st.text("ab"))
def test_any_filter_says_what_mitmproxy_says(text, method, path, words) -> None:
    facts = RequestFacts(
        method,
        f"/{path}",
        (("host", "api.example:81"), ("x", words), ("content-type", words)),
        words.encode(),
        peer="10.0.0.7",
    )
    assert compile_filter(text)(facts) is bool(flowfilter.parse(text)(flow_of(facts)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no flow filter"),
        ("~", "no flow filter"),
        ("~m", "no flow filter"),
        ("~nonsense x", "no flow filter"),
        ("~u '('", "no flow filter"),
        ("~c 200", "~c is about what is not known yet"),
        ("~m GET & !~s", "~s is about"),
        ("~m GET | (~u x & ~bs y)", "~bs is about"),
        ("~marked", "~marked is about"),
        ("~u '(?=a)'", "look-ahead"),
        ("((((~all))))", "nests parentheses over 3 deep"),
        ("(" * 400, "nests parentheses"),
    ],
)
def test_a_filter_that_cannot_be_asked_is_refused(text, message) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        compile_filter(text)
    assert "\n" not in str(refused.value)


def test_parentheses_in_quotes_nest_nothing() -> None:
    assert compile_filter("~bq '((((d))))'")(FACTS)


@pytest.mark.parametrize("body", [b"a" * 65_536, gzip.compress(b"a" * 200_000_000)])
def test_no_body_makes_a_filter_slow_nor_is_unpacked(body) -> None:
    facts = RequestFacts("POST", "/", (("host", "x"), ("content-encoding", "gzip")), body)
    fits = compile_filter("~bq '(a+)+$' & ~bq '(a|a)*b'")
    begun = time.perf_counter()

    assert not fits(facts)
    assert time.perf_counter() - begun < 0.25


WIRE = st.binary(max_size=30).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
"""Text as it comes off the wire: any bytes."""


@given(
    method=st.text(max_size=5),
    path=WIRE,
    host=WIRE | st.text("ab.:0123[]", max_size=12) | st.just("x:99999999999999999999"),
    header=WIRE,
    body=st.binary(max_size=50),
)
def test_no_request_makes_a_filter_fail(method, path, host, header, body) -> None:
    fits = compile_filter("~m x | ~u x | ~d x | ~hq x | ~bq x | ~t x | ~src x")
    facts = RequestFacts(method, path, (("host", host), ("x", header)), body)

    assert fits(facts) in {True, False}
