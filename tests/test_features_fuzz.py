"""Any request of any protocol: features come, always the same, for a bounded number of steps.

Steps are counted as calls, never timed; `python -m classifier.training.latency` measures. What a
pattern does inside one call is not counted: one that goes back for ever meets the time limit.
"""

import json
import math
import sys
from collections.abc import Iterator
from itertools import islice
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.contracts import RequestView, semantic_headers
from classifier.features import extract
from classifier.features.graphql_shape import read_shape
from classifier.features.json_text import parse, read_json, salvage
from classifier.features.request import take_apart
from classifier.features.sql import parse as parse_sql
from classifier.training.hurtful import hurtful

MANY = 65_536
MOST_CALLS = 20_000
FUZZ = settings(max_examples=120, deadline=None, derandomize=True)

WORDS = st.sampled_from(
    ["user", "orders", "id", "get", "exportAll", "list_items", "é", "x" * 90, "_", "A1", "limit"]
)
NUMBERS = st.integers(-(10**400), 10**400) | st.floats() | st.integers(-3, 2000)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=30) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(WORDS | st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=25,
)


def from_parts(*parts: str, most: int = 40) -> st.SearchStrategy[str]:
    """Texts out of the pieces of a language, in any order: seldom right, often nearly."""
    pieces = st.sampled_from(parts) | WORDS | st.integers(0, 10**6).map(str)
    return st.lists(pieces, max_size=most).map(" ".join) | st.lists(pieces, max_size=most).map(
        "".join
    )


GRAPHQL = from_parts(
    "query", "mutation", "fragment F on T", "{", "}", "(", ")", "first:", "$n", ":", "@include",
    "...", "...on", '"""', '"a\\"', "# note\n", "edges", "__schema", "where: {}", "[", "]",
    "=", "!",
)  # fmt: skip
SQL = from_parts(
    "SELECT", "FROM", "WHERE", "IN (", "VALUES", "(", ")", ",", "=", "'it''s", "'%x'", '"', "`",
    "-- note\n", "/*", "*/", "INTERVAL '7' DAY", "LIMIT", ";", "JOIN", "count(*)", "[a]", "OVER",
    "INSERT INTO", "SET a = 1;", "BEGIN;", "EXPLAIN", "date_add(day, ", "\\",
)  # fmt: skip
METRICS = from_parts(
    "sum(", "rate(", "by (", ")", "{", "}", '=~"', '"', "[5m]", "[30d:1h]", "offset", "+", "/",
    "vector(", "__name__",
)  # fmt: skip
PIPES = from_parts(
    "|", "|>", "where", "summarize", "ago(", "7d", "MATCH (", ")-[", "]->", "RETURN", "g.V(",
    ".has('", "FOR", "PREFIX a:", "<http://a>", "{", "}", "?x", "limit", "=", "'",
)  # fmt: skip
XML = from_parts(
    "<", ">", "</", "/>", "<Envelope>", "<Body>", "<methodCall>", "<methodName>", "<name>", "<a:b",
    '="', "<!--", "<![CDATA[", "<value>", "&amp;",
)  # fmt: skip
MULTIPART = from_parts(
    "--b\r\n", "Content-Disposition: form-data; ", 'name="file"', '; filename="a.mp3"', "\r\n",
    "Content-Type: audio/mpeg", "\r\n\r\n", '"',
)  # fmt: skip
FORM = from_parts("=", "&", "%20", "%", "+", "[a]", "[]", ";", "%F0%9F", "Action")
BROKEN_JSON = from_parts(
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"a"',
    '"',
    "\\",
    "1e999",
    "NaN",
    "true",
    '"query":',
    '"data:image',
)
PATHS = from_parts(
    "/", "?", "=", "&", "%2F", "%", ".", ":", ";", ",", "v1", "{id}", "(1)", "~", "trpc", "@", "#"
)
RPC = st.fixed_dictionaries(
    {"method": WORDS | st.text(max_size=20)},
    optional={"jsonrpc": st.just("2.0"), "id": SCALARS, "params": TREES, "args": TREES},
)

BODIES: dict[str, st.SearchStrategy[str]] = {
    "application/graphql": GRAPHQL,
    "application/json": st.one_of(
        TREES.map(json.dumps),
        RPC.map(json.dumps),
        st.lists(RPC, max_size=4).map(json.dumps),
        BROKEN_JSON,
        st.builds(lambda key, text: json.dumps({key: text}), WORDS, GRAPHQL | SQL | PIPES | XML),
        st.builds(
            lambda text, given: json.dumps({"query": text, "variables": given}), GRAPHQL, TREES
        ),
        st.builds(
            lambda key, text: json.dumps([{key: text}, {key: text}]),
            st.sampled_from(["query", "sql", "statement", "expr"]),
            GRAPHQL | SQL | METRICS | PIPES,
        ),
    ),
    "application/x-ndjson": st.lists(TREES.map(json.dumps) | BROKEN_JSON, max_size=6).map(
        "\n".join
    ),
    "text/plain": SQL | PIPES | METRICS | GRAPHQL,
    "text/xml": XML,
    "multipart/form-data; boundary=b": MULTIPART,
    "application/x-www-form-urlencoded": FORM,
    "": st.one_of(FORM, SQL, XML, BROKEN_JSON, st.text(max_size=200)),
}
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["X-Amz-Target", "SOAPAction", "Depth", "Prefer", "Accept"]),
        st.text(max_size=20) | WORDS | st.just("infinity"),
    ),
    max_size=2,
)


def view(
    method: str, path: str, media: str, body: str | bytes, headers: object = ()
) -> RequestView:
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "replace")
    return RequestView(method, path, media, semantic_headers(headers), raw, len(raw))


def check(asked: RequestView) -> dict[str, float]:
    """Features come, they are numbers, and the same for the same request."""
    found = extract(asked)
    assert all(math.isfinite(value) for value in found.values())
    assert list(found.items()) == list(extract(asked).items())
    return found


def calls_of(asked: RequestView) -> int:
    """How many functions are called, of Python or of C, to read a request."""
    counted = 0

    def note(_frame: object, event: str, _arg: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        extract(asked)
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize("media", BODIES)
def test_a_body_of_any_kind_gives_features(media: str) -> None:
    @FUZZ
    @given(body=BODIES[media], path=st.sampled_from(["/", "/graphql", "/api/v1/query", "/a/1/b"]))
    def holds(body: str, path: str) -> None:
        check(view("POST", path, media, body))

    holds()


@FUZZ
@given(
    method=st.sampled_from(["GET", "POST", "DELETE", "PROPFIND", ""]),
    path=PATHS | st.text(max_size=60),
    headers=HEADERS,
)
def test_a_target_of_any_kind_gives_features(
    method: str, path: str, headers: list[tuple[str, str]]
) -> None:
    check(view(method, f"/{path}", "", "", headers))


@FUZZ
@given(
    key=st.sampled_from(["query", "q", "expr", "sql", "action", "filter", "match[]", "variables"]),
    text=METRICS | SQL | GRAPHQL | PIPES | TREES.map(json.dumps),
    path=st.sampled_from(["/api/v1/query", "/render", "/graphql", "/x"]),
)
def test_a_query_of_any_kind_in_the_target_gives_features(key: str, text: str, path: str) -> None:
    check(view("GET", f"{path}?{key}={quote(text)}", "", ""))


@FUZZ
@given(body=st.binary(max_size=400), media=st.sampled_from([*BODIES, "application/vnd.a+json"]))
def test_bytes_of_any_kind_give_features(body: bytes, media: str) -> None:
    check(view("POST", "/", media, body))


@FUZZ
@given(text=BROKEN_JSON | TREES.map(json.dumps))
def test_a_json_text_is_read_as_the_standard_library_reads_it(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        assert parse(text) is None
        salvage(text)
        return
    # As text, because NaN is not equal to itself.
    assert json.dumps(read_json(text)) == json.dumps(expected)


def rows(count: int) -> list[dict[str, object]]:
    return [
        {"id": n, "name": f"name {n}", "tags": ["a", "b"], "price": n / 2} for n in range(count)
    ]


class TestLongJson:
    """Beyond its bounds a JSON text is read in outline: what tells its cost has to be in it."""

    @pytest.mark.parametrize("count", [400, 900])
    @pytest.mark.parametrize("more", [{}, {"address": {"street": "a street", "no": [1, 2, 3]}}])
    @pytest.mark.parametrize("key", ["", "rows"])
    def test_a_list_that_is_cut_keeps_about_its_length(
        self, count: int, more: dict[str, object], key: str
    ) -> None:
        items = [{**row, **more} for row in rows(count)]
        found = read_json(json.dumps({key: items} if key else items))
        if key:
            assert isinstance(found, dict)
            found = found[key]
        assert isinstance(found, list)
        assert found[:10] == items[:10]
        assert 0.8 * count < len(found) < 1.25 * count

    def test_a_long_item_behind_a_short_one_is_read_in_part(self) -> None:
        document = {"messages": [{"role": "system"}, {"role": "user", "content": rows(800)}]}
        found = read_json(json.dumps(document))
        assert isinstance(found, dict)
        assert [turn["role"] for turn in found["messages"]] == ["system", "user"]
        assert found["messages"][1]["content"][:5] == rows(5)

    def test_fields_before_and_behind_the_long_one_are_read(self) -> None:
        document = {"model": "m", "data": rows(800), "options": {"a": 1}, "limit": 50}
        found = read_json(json.dumps(document))
        assert isinstance(found, dict)
        assert list(found) == ["model", "data", "options", "limit"]
        assert found["limit"] == 50

    def test_a_long_text_does_not_hide_what_follows(self) -> None:
        document = {"system": "word " * 4_000, "rows": rows(500), "stream": True}
        found = read_json(json.dumps(document))
        assert isinstance(found, dict)
        assert found["system"] == document["system"]
        assert found["stream"] is True

    def test_one_that_ends_in_the_middle_gives_its_beginning(self) -> None:
        found = read_json(json.dumps({"action": "import", "rows": rows(900)})[:60_000])
        assert isinstance(found, dict)
        assert found["action"] == "import"
        assert found["rows"][:5] == rows(5)

    @FUZZ
    @given(head=TREES, tail=TREES, cut=st.integers(17_000, 70_000))
    def test_any_long_one_is_read_without_an_error(
        self, head: object, tail: object, cut: int
    ) -> None:
        text = json.dumps({"head": head, "rows": [*rows(400), tail], "more": rows(400)})
        check(view("POST", "/", "application/json", text[:cut]))


def doubled(body: str) -> Iterator[int]:
    for size in (MANY // 2, MANY):
        yield calls_of(view("POST", "/", "", (body * (size // len(body) + 1))[:size]))


class TestBoundedWork:
    @pytest.mark.parametrize(
        "unit",
        ["a", " ", '"', "\\", "{", "[", "(", "<a>", '{"a":', '{"a":1},', "1,", "a=b&", "SELECT ",
         "{a(b:1)", "IN (1,", "%41", "a | b ", '{"a":1}\n', "Content-Disposition: "],
    )  # fmt: skip
    def test_twice_the_bytes_take_no_more_steps_beyond_the_bounds(self, unit: str) -> None:
        half, whole = doubled(unit)
        assert whole <= 1.1 * half + 50

    def test_no_hurtful_request_takes_more_steps_than_allowed(self) -> None:
        # Every eighth: the others differ in the place alone, mostly.
        for name, asked in islice(hurtful(), 0, None, 8):
            assert calls_of(asked) < MOST_CALLS, name

    def test_lexemes_are_bounded(self) -> None:
        assert read_shape("{" + "a " * MANY, None).fields <= 600
        assert parse_sql("SELECT " + "a," * MANY).tokens <= 1_200

    def test_lists_of_parts_are_bounded(self) -> None:
        parts = take_apart(view("POST", "/a" * MANY + "?" + "a=b&" * MANY, "", "a=b&" * MANY))
        assert len(parts.segments) <= 24
        assert len(parts.params) <= 120
        assert len(parts.text) <= MANY

    def test_lines_are_counted_and_few_of_them_read(self) -> None:
        parts = take_apart(view("POST", "/", "application/x-ndjson", '{"a": 1}\n' * 5_000))
        assert parts.lines == 5_001
        assert isinstance(parts.document, list)
        assert len(parts.document) <= 40


class TestPatternsThatWentBackForEver:
    """Each of these took seconds or did not end."""

    @pytest.mark.parametrize(
        ("media", "body"),
        [
            ("", "a=" + "&a=" * 400 + " b"),
            ("text/plain", "/**/" * 190 + "1"),
            ("application/json", json.dumps({"x": "ab" + "A" * 200 + "!"})),
            ("application/json", json.dumps({"x": "ab" + "_Ab" * 400 + "1"})),
            ("text/xml", "<" + "a" * 8_000),
            ("text/plain", "MATCH (a) {" + "id" * 2_900),
            ("text/plain", "a | limit" + " " * 5_000),
            ("text/plain", "ASK { " + "{<a" * 1_900),
            ("multipart/form-data", "Content-Disposition: " * 800),
        ],
    )
    def test_it_is_answered(self, media: str, body: str) -> None:
        check(view("POST", "/", media, body))

    def test_a_key_of_letters_and_digits_in_a_path_is_answered(self) -> None:
        check(view("GET", "/" + "/".join(["1" * 40 + "a" * 40] * 24), "", ""))

    def test_a_dotted_name_of_a_thousand_parts_is_answered(self) -> None:
        check(view("POST", "/" + "me." * 1_300 + "me", "", ""))

    @pytest.mark.parametrize(("number", "size"), [(10**390, "huge"), (-(10**390), "zero")])
    def test_a_number_beyond_floats_as_a_limit_is_answered(self, number: int, size: str) -> None:
        query = "query Q($n: Int!) { users(first: $n) { id } }"
        body = json.dumps({"query": query, "variables": {"n": number}})
        assert f"gql.limit={size}" in check(view("POST", "/graphql", "application/json", body))
        body = json.dumps({"limit": number, "k": number})
        assert f"limit={size}" in check(view("POST", "/find", "application/json", body))
