"""Rules: what fits, and that nothing a client sends makes them slow or makes them fail."""

import fnmatch
import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from classifier.contracts import Label
from classifier.rules import (
    BodyFits,
    FilterFits,
    Glob,
    HeaderFits,
    JsonFits,
    LinearRegex,
    MethodIs,
    PathFits,
    PathMatches,
    RequestFacts,
    Rule,
    as_body_text,
    first_match,
    json_test,
)

SLOWEST_SECONDS = 0.25  # a shared machine; an engine that backtracks would need years


def facts_of(**parts: object) -> RequestFacts:
    return RequestFacts(**({"method": "GET", "path": "/"} | parts))


def rule(name: str, *conditions: object) -> Rule:
    return Rule(name, Label.GENERAL, conditions)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("/v1/*/export", "/v1/orders/export", True),
        ("/v1/*/export", "/v1/orders/7/export", True),
        ("/v1/*/export", "/v1/export", False),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
        ("a**b", "ab", True),
        ("[a]?", "[a]?", True),
        ("[a]?", "ab", False),
    ],
)
def test_a_glob_has_one_sign_only_and_that_is_the_star(pattern, text, fits):
    assert Glob(pattern).fits(text) is fits


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_a_glob_agrees_with_the_shell(pattern, text):
    assert Glob(pattern).fits(text) is fnmatch.fnmatchcase(text, pattern)


def test_a_regular_expression_is_found_anywhere_unless_it_says_otherwise():
    assert LinearRegex("export").found_in("/v1/export/all")
    assert not LinearRegex("^export$").found_in("/v1/export/all")
    assert LinearRegex("^/x", "i").found_in("/X")


@pytest.mark.parametrize(
    "pattern", ["(", "(?=a)b", r"(a)\1", "a" * 501, "(a{100}){100}", "a{2000}"]
)
def test_a_regular_expression_that_is_none_or_cannot_be_linear_is_refused(pattern):
    with pytest.raises(ValueError, match=r"regular expression|too large"):
        LinearRegex(pattern)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*b", r"(.*)*x", r"a.*a.*a.*b"])
def test_no_text_makes_a_regular_expression_slow(pattern):
    regex, text = LinearRegex(pattern), "a" * 65_536 + "c"
    begun = time.perf_counter()
    assert not regex.found_in(text)
    assert time.perf_counter() - begun < SLOWEST_SECONDS


@given(st.from_regex("[abc]{0,20}", fullmatch=True))
def test_a_regular_expression_agrees_with_python(text):
    pattern = "^a(b|c)*a?$"
    assert LinearRegex(pattern).found_in(text) is bool(re.search(pattern, text))


def test_bytes_that_are_no_text_are_no_error_to_a_regular_expression():
    assert LinearRegex("^/a").found_in("/a\udcff")


def test_a_method_is_one_of_several():
    condition = MethodIs(frozenset({"GET", "HEAD"}))
    assert condition.fits(facts_of(method="HEAD"))
    assert not condition.fits(facts_of(method="POST"))


def test_a_path_is_compared_without_its_query():
    assert PathFits(Glob("/export")).fits(facts_of(path="/export?page=1"))
    assert not PathMatches(LinearRegex("page")).fits(facts_of(path="/export?page=1"))


def test_any_header_of_that_name_may_fit():
    facts = facts_of(headers=(("x-tenant", "small"), ("x-tenant", "big-one"), ("via", "big-two")))
    assert HeaderFits("x-tenant", Glob("big-*")).fits(facts)
    assert not HeaderFits("x-other", Glob("*")).fits(facts)


def test_a_body_is_compared_as_it_came():
    assert BodyFits(Glob('*"dryRun":false*')).fits(facts_of(body=b'{"dryRun":false}'))
    assert BodyFits(Glob(as_body_text("*ü*"))).fits(facts_of(body="für".encode()))
    assert not BodyFits(Glob(as_body_text("*ü*"))).fits(facts_of(body=b"\xff\x00"))


@pytest.mark.parametrize(
    ("expected", "document", "fits"),
    [
        (">=1000", 1000, True),
        (">=1000", 999.5, False),
        (">=1000", "2000", False),
        (">=1000", True, False),
        (">1e3", 1001, True),
        ("< 5", 4, True),
        ("<=5", 5, True),
        ("<5", None, False),
        ("=5", 5.0, True),
        ("=5", "5", True),
        ("!=5", 5, False),
        ("!=5", "x", True),
        ("!=x", [1], True),
        ("=x", "x", True),
        ("= x ", "x", True),
        ("big-*", "big-one", True),
        ("*", {"a": 1}, False),
        ("*", None, True),
        ("1*", 100, True),
        (True, True, True),
        (True, 1, False),
        (False, None, False),
        (7, 7, True),
        (7, 8, False),
        ("null", None, True),
    ],
)
def test_a_json_value_is_compared_as_what_it_is(expected, document, fits):
    assert json_test(expected)(document) is fits


def test_what_compares_with_no_number_is_refused():
    with pytest.raises(ValueError, match="no number"):
        json_test(">=many")


def json_facts(document: object) -> RequestFacts:
    return facts_of(body=json.dumps(document).encode())


def test_a_json_path_goes_through_objects_and_arrays():
    condition = JsonFits(("query", "0", "size"), json_test(">=1000"))
    assert condition.fits(json_facts({"query": [{"size": 1000}]}))
    assert not condition.fits(json_facts({"query": [{"size": 1}]}))
    assert not condition.fits(json_facts({"query": []}))
    assert not condition.fits(json_facts({"query": {"0": 5}}))


def test_what_is_not_there_differs_from_everything():
    assert JsonFits(("a",), json_test("!=x")).fits(json_facts({}))
    assert not JsonFits(("a",), json_test("*")).fits(json_facts({}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 65_536,
        b'{"a":' * 9_000,
        b"9" * 65_536,
        b"NaN",
        b'{"a": 1}{"a": 1}',
    ],
)
def test_a_body_that_is_no_json_meets_no_condition_about_json(body):
    facts = facts_of(body=body)
    assert not JsonFits(("a",), json_test("!=x")).fits(facts)


def test_a_filter_without_mitmproxy_at_hand_fits_nothing():
    assert not FilterFits("~all", None).fits(facts_of())
    assert FilterFits("~all", lambda facts: True).fits(facts_of())


def test_the_first_rule_that_fits_decides():
    get = MethodIs(frozenset({"GET"}))
    rules = (
        rule("none", get, PathFits(Glob("/x"))),
        rule("one", get),
        rule("two", get),
    )
    assert first_match(rules, facts_of()) is rules[1]
    assert first_match(rules, facts_of(method="PUT")) is None
    assert first_match((), facts_of()) is None


EVERY_CONDITION = (
    PathMatches(LinearRegex("(a+)+$")),
    PathFits(Glob("*a*a*a*b")),
    HeaderFits("x", Glob("*a*b")),
    BodyFits(Glob("*a*b*c")),
    JsonFits(("a", "0"), json_test(">=1")),
    JsonFits(("a",), json_test("x*")),
)


@settings(max_examples=200)
@given(
    method=st.text(max_size=5),
    path=st.text(max_size=50),
    header=st.text(max_size=20),
    body=st.binary(max_size=200) | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner),
    ).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip
@example(method="", path="\udcff?", header="\udcff", body=b'{"a": [1e999]}')
def test_no_request_makes_a_rule_fail(method, path, header, body):
    facts = facts_of(method=method, path=path, headers=(("x", header),), body=body)
    for condition in EVERY_CONDITION:
        assert condition.fits(facts) in {True, False}


@pytest.mark.parametrize(
    "body",
    [b"a" * 65_536, b'{"a": [' + b"1," * 30_000 + b"1]}", b"[" * 65_536, b'{"a":' * 13_000],
)
def test_no_body_makes_the_rules_slow(body):
    facts = facts_of(path="/" + "a" * 32_768, headers=(("x", "a" * 32_768),), body=body)
    rules = tuple(rule(f"r{at}", one) for at, one in enumerate(EVERY_CONDITION))
    begun = time.perf_counter()
    first_match(rules, facts)
    assert time.perf_counter() - begun < SLOWEST_SECONDS
