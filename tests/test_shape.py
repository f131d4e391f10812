"""What requests have in common that share a label, and what a shape never holds."""

# A request reads best on one line.
# ruff: noqa: E501

import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from classifier.contracts import RequestView, semantic_headers
from classifier.features import argument_values, arguments, calls, modifiers, queries
from classifier.features.magnitudes import bucket
from classifier.features.words import split_name
from classifier.local_model import LocalModel
from classifier.shape import shape_key, shape_of, shared_key
from classifier.shape.names import Numbers, Texts, is_plain, name_of
from classifier.shape.scales import decade, fine
from classifier.training.drills import drills
from classifier.training.rows import Row, read_rows
from classifier.training.variants import Variation


def get(path: str, **headers: str) -> RequestView:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return RequestView("GET", path, headers=semantic_headers(named))


def post(body: object, path: str = "/api", media: str = "application/json") -> RequestView:
    text = body if isinstance(body, str) else json.dumps(body)
    raw = text.encode()
    return RequestView("POST", path, media, (), raw, len(raw))


def graphql(query: str, **variables: object) -> RequestView:
    return post({"query": query, "variables": variables}, "/graphql")


def sql(text: str) -> RequestView:
    return post({"sql": text}, "/query")


def form(text: str) -> RequestView:
    return post(text, "/form", "application/x-www-form-urlencoded")


def xml(text: str) -> RequestView:
    return post(f"<Envelope><Body>{text}</Body></Envelope>", "/soap", "text/xml")


def rpc(method: str, *params: object) -> RequestView:
    return post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, "/rpc")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [*read_rows(), *drills()]


class TestOneShape:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (get("/users/7"), get("/users/1042")),
            (get("/users/octocat"), get("/users/zzyzx")),
            (get("/v1/charges/ch_1Nx82"), get("/v1/charges/ch_9Kd0p")),
            (get("/a?id=7&q=red+shoes"), get("/a?id=123456&q=blue+socks")),
            (get("/items?page=2&limit=20"), get("/items?page=7&limit=20")),
            (post({"userId": 7, "note": "x"}), post({"userId": 91234, "note": "y"})),
            (graphql('{ user(id: "7") { name } }'), graphql('{ user(id: "4321") { name } }')),
            (graphql("{ user(id: 7) { name } }"), graphql("{ user(id: 4321) { name } }")),
            (
                graphql("query Q($id: ID!) { user(id: $id) { name } }", id="7"),
                graphql("# a comment\nquery Q($id: ID!) {\n user(id: $id) { name } }", id="1042"),
            ),
            (
                sql("SELECT * FROM users WHERE id = 7"),
                sql("SELECT *\nFROM users -- by key\nWHERE id = 981"),
            ),
            (
                sql("SELECT a FROM t WHERE name = 'bob' AND note LIKE '%x'"),
                sql("SELECT a FROM t WHERE name = 'eve' AND note LIKE '%yz'"),
            ),
            (
                sql("SELECT a FROM t WHERE id IN (1, 2, 3, 4, 5)"),
                sql("SELECT a FROM t WHERE id IN (91, 82, 73, 64, 55)"),
            ),
            (rpc("eth_getBalance", "0xabc1", "latest"), rpc("eth_getBalance", "0xdef9", "latest")),
            (
                rpc("eth_getLogs", {"fromBlock": "0x10", "toBlock": "0x20"}),
                rpc("eth_getLogs", {"fromBlock": "0xa10", "toBlock": "0xa20"}),
            ),
            (form("user=bob&age=31"), form("user=eve&age=47")),
            (xml("<GetUser><id>7</id></GetUser>"), xml("<GetUser><id>9</id></GetUser>")),
            (
                get("/report?from=2024-01-01&to=2024-02-01"),
                get("/report?from=2021-03-05&to=2021-04-05"),
            ),
            (get("/report?desde=2024-01-01&hasta=2024-02-01"),
             get("/report?desde=2021-03-05&hasta=2021-04-05")),
            (
                post({"start": 1700000000, "end": 1700003600}),
                post({"start": 1600000000, "end": 1600003600}),
            ),
        ],
    )  # fmt: skip
    def test_what_is_asked_for_another_object_has_the_same_shape(self, one, other) -> None:
        assert shape_of(one) == shape_of(other)
        assert shape_key(one) == shape_key(other) is not None

    def test_of_what_people_write_only_the_length_is_told(self) -> None:
        def chat(text: str) -> RequestView:
            messages = [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": text},
            ]
            return post({"model": "small", "messages": messages}, "/v1/chat/completions")

        one, other = "Where is the best pizza in town?", "Who has written all these poems?"

        assert shape_of(chat(one)) == shape_of(chat(other))
        assert shape_of(chat(one)) != shape_of(chat(one * 40))

    def test_of_a_picture_only_the_size_is_told(self) -> None:
        def picture(size: int) -> RequestView:
            return RequestView("PUT", "/avatars/7", "image/png", (), b"\x89PNG\0\0\0" * 9, size)

        assert shape_of(picture(40_000)) == shape_of(picture(50_000)) is not None
        assert shape_of(picture(40_000)) != shape_of(picture(4_000_000))

    def test_a_graphql_request_with_files_is_known_by_its_query(self) -> None:
        def upload(field: str) -> RequestView:
            operations = json.dumps({"query": f"mutation {{ {field}(file: $f) {{ id }} }}"})
            part = f'Content-Disposition: form-data; name="operations"\r\n\r\n{operations}\r\n'
            return post(f"--x\r\n{part}--x--", "/graphql", "multipart/form-data; boundary=x")

        assert shape_of(upload("addFile")) != shape_of(upload("transcode"))

    def test_ids_as_names_of_members_are_counted(self) -> None:
        assert shape_of(post({"items": {"1001": 1, "1002": 1}})) == shape_of(
            post({"items": {"7123": 1, "8123": 1}})
        )
        assert shape_of(post({"items": {"1001": 1}})) != shape_of(
            post({"items": {str(number): 1 for number in range(50)}})
        )

    def test_a_shape_is_no_request(self) -> None:
        view = get("/users/7")

        assert len(shape_key(view) or b"") == 16
        assert shape_key(view) != view.fingerprint()
        assert shared_key(view) == shape_key(view)


SCALING: list[Callable[[int], RequestView]] = [
    lambda number: get(f"/items?limit={number}"),
    lambda number: get(f"/items?page[size]={number}"),
    lambda number: get(f"/items?$top={number}"),
    lambda number: get(f"/items?$expand=Orders($top={number})"),
    lambda number: post({"size": number, "query": {"match_all": {}}}),
    lambda number: post({"options": {"maxResults": number}}),
    lambda number: post({"model": "m", "max_tokens": number}),
    lambda number: post({"depth": str(number)}),
    lambda number: form(f"batch_size={number}"),
    lambda number: xml(f"<List><maxCount>{number}</maxCount></List>"),
    lambda number: graphql(f"{{ users(first: {number}) {{ name }} }}"),
    lambda number: graphql("query($n: Int) { users(first: $n) { name } }", n=number),
    lambda number: sql(f"SELECT a FROM t LIMIT {number}"),
    lambda number: sql(f"SELECT TOP {number} a FROM t"),
    lambda number: post({"query": f"T | where a > 1 | take {number}"}),
    lambda number: post({"query": f"MATCH (a)-[*1..{number}]->(b) RETURN b"}),
    lambda number: get("/query?q=" + quote(f"FOR u IN users LIMIT {number} RETURN u")),
    lambda number: rpc("getLogs", {"fromBlock": hex(5), "toBlock": hex(5 + number)}),
    lambda number: post([{"id": at} for at in range(min(number, 5_000))]),
    lambda number: post({"ids": list(range(min(number, 5_000)))}),
    lambda number: sql(f"SELECT a FROM t WHERE id IN ({','.join(['1'] * min(number, 5000))})"),
]  # fmt: skip
RANGES: list[Callable[[str], RequestView]] = [
    lambda end: get(f"/report?from=2020-01-01&to={end}"),
    lambda end: get(f"/report/2020-01-01/{end}"),
    lambda end: get(f"/rates?range=2020-01-01..{end}"),
    lambda end: post({"range": {"created": {"gte": "2020-01-01", "lt": end}}}),
    lambda end: graphql(f'{{ sales(from: "2020-01-01", to: "{end}") {{ total }} }}'),
    lambda end: sql(f"SELECT a FROM t WHERE d BETWEEN '2020-01-01' AND '{end}'"),
]  # fmt: skip


class TestOtherShapes:
    @pytest.mark.parametrize(
        "views",
        [
            [get("/users/7"), get("/users"), get("/users/7/export"), get("/orders/7")],
            [get("/users/7"), RequestView("DELETE", "/users/7"), RequestView("PUT", "/users/7")],
            [get("/a?q=x"), get("/a?q=*"), get("/a?q="), get("/a"), get("/a?q=%25x"), get("/a?q=all")],
            [post({"filter": {}}), post({"filter": {"a": 1}}), post({"filter": None})],
            [post({"deep": True}), post({"deep": False}), post({"deep": "true"})],
            [post({"action": "getUser"}), post({"action": "exportUsers"}), post({"action": "ping"})],
            [post({"model": "small-1b"}), post({"model": "large-70b"})],
            [get("/v1/models/small-1b"), get("/v1/models/large-70b")],
            [rpc("getUser", 1), rpc("getUsers", 1), rpc("getUser", 1, True), rpc("getUser", 1, False)],
            [graphql("{ user(id: 1) { name } }"), graphql("{ users { name } }"),
             graphql("{ user(id: 1) { name orders { id } } }"), graphql("{ users(filter: {}) { name } }")],
            [sql("SELECT a FROM t"), sql("SELECT a FROM t WHERE id = 1"), sql("SELECT COUNT(a) FROM t"),
             sql("SELECT a FROM u"), sql("SELECT a FROM t WHERE b LIKE 'x%'"),
             sql("SELECT a FROM t WHERE b LIKE '%x'")],
            [post("x", media="text/plain"), post("x", media="text/csv")],
            [get("/a"), get("/a", accept="text/csv"), get("/a", prefer="count=exact")],
            [post([{"a": 1}]), post([{"a": 1}] * 50), post([{"a": 1}, {"b": 1}]), post({"a": 1})],
            [get("/log?earliest=-1h"), get("/log?earliest=-365d"), get("/log?earliest=now")],
            [post({"url": "s3://a/b.csv"}), post({"url": "https://a/b.mp4"}), post({"url": "https://a/b"})],
            [get("/a?limit=999"), get("/a?limit=1000"), get("/a?limit=1001"), get("/a?limit=0"), get("/a?limit=all")],
            [get("/a?async=1"), get("/a?async=0"), get("/a?async=2"), get("/a?async=yes")],
            [get("/orders/json"), get("/orders/acme"), get("/orders/2024-01-31")],
            [post({"query": f'import "{name}"\na.from(rows: [{{b: 1}}])'}) for name in ("array", "sql")],
            [post({"size": "256x256"}), post({"size": "1024x1024"})],
            [get("/f?id=eq.5"), get("/f?id=gt.5"), get("/f?select=count()"), get("/f?select=id,name")],
        ],
    )  # fmt: skip
    def test_what_may_cost_something_else_has_another_shape(self, views) -> None:
        for one, other in combinations(views, 2):
            assert shape_of(one) != shape_of(other), (one, other)

    @pytest.mark.parametrize("request_for", SCALING, ids=range(len(SCALING)))
    def test_magnitudes_of_what_scales_the_work_never_share_a_key(self, request_for) -> None:
        numbers = (1, 10, 60, 500, 3_000, 50_000)
        assert len({bucket(number) for number in numbers}) == len(numbers)
        found = [shape_of(request_for(number)) for number in numbers]

        told = [shape for shape in found if shape is not None]
        assert len(told) >= 4
        assert len(set(told)) == len(told)

    @given(st.floats(0, 1e9), st.floats(0, 1e9))
    @example(20, 21)
    @example(999, 1000)
    def test_no_magnitude_reaches_over_a_bound_of_the_features(self, one, other) -> None:
        if bucket(one) != bucket(other):
            assert fine(one) != fine(other)

    @pytest.mark.parametrize("request_for", RANGES, ids=range(len(RANGES)))
    def test_ranges_of_time_are_told_apart_by_their_length(self, request_for) -> None:
        ends = ("2020-01-02", "2020-01-08", "2020-02-01", "2020-06-01", "2023-12-31")

        assert len({shape_of(request_for(end)) for end in ends}) == len(ends)


class TestNoShape:
    @pytest.mark.parametrize(
        "view",
        [
            RequestView("BREW", "/pot"),
            RequestView("POST", "/a", "application/json", (), b'{"a": 1', 4_000),
            post("[" * 150 + "]" * 150),
            post({"rows": [{f"field{at}": at for at in range(40)} for _ in range(40)]}),
            post({"a": "b" * 70_000}),
            sql("SELECT " + "a, " * 9_000),
            get("/" + "a/" * 2_000),
            get("/a?" + "&".join(f"k{at}=1" for at in range(100))),
            get("/a", accept="x" * 400),
            post("a: b\nc: [d, e]\n" * 2_000, media="application/yaml"),
            RequestView("POST", "/print", "application/ipp", (), b"\x02\0\0\x0b\0\0", 6),
        ],
    )  # fmt: skip
    def test_what_is_too_large_or_not_understood_has_none(self, view) -> None:
        assert shape_key(view) is None
        assert shared_key(view) == view.fingerprint()


PLACES: list[Callable[[str], RequestView]] = [
    lambda text: get(f"/users/{quote(text, safe='')}/orders"),
    lambda text: get(f"/a?token={quote(text)}"),
    lambda text: get(f"/a?{quote(text, safe='')}=1"),
    lambda text: get("/a", accept=f"application/{text}"),
    lambda text: get("/a", soapaction=text),
    lambda text: post({"password": text}),
    lambda text: post({"a": {"b": {"c": [{"d": text}]}}}),
    lambda text: post({"list": [text, text]}),
    lambda text: post({text: 1}),
    lambda text: post({"action": text}),
    lambda text: post({"model": text}),
    lambda text: post({"query": text}),
    lambda text: post({"filter": f"name:{text} AND (a = '{text}')"}),
    lambda text: post({"nested": json.dumps({"a": text})}),
    lambda text: post({"messages": [{"role": "user", "content": f"my secret is {text}, mind"}]}),
    lambda text: graphql(f'mutation {{ login(password: "{text}") {{ token }} }}'),
    lambda text: graphql("query($p: String) { a(p: $p) { b } }", p=text),
    lambda text: sql(f"SELECT a FROM t WHERE b = '{text}' -- {text}"),
    lambda text: sql(f"INSERT INTO t VALUES (1, '{text}'), (2, '{text}')"),
    lambda text: post({"query": f'MATCH (n {{name: "{text}"}}) RETURN n'}),
    lambda text: post({"expr": f'rate(up{{job="{text}"}}[5m])'}),
    lambda text: rpc("login", text),
    lambda text: form(f"user={quote(text)}"),
    lambda text: xml(f"<Login><password>{text}</password></Login>"),
    lambda text: post(f"--{text}\r\nContent-Disposition: form-data; name=\"a\"; filename=\"{text}.png\"",
                      "/up", f"multipart/form-data; boundary={text}"),
    lambda text: post(f"please keep {text} to yourself", media="text/plain"),
    lambda text: post("\n".join(json.dumps({"k": text}) for _ in range(3)), "/_bulk", "application/x-ndjson"),
]  # fmt: skip
SECRETS = st.one_of(
    st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789", min_size=8, max_size=40),
    st.integers(10**7, 10**16).map(str),
    st.uuids().map(str),
    st.from_regex(r"[a-z]{5,9}\.[a-z]{5,9}@[a-z]{5,9}\.org", fullmatch=True),
    st.from_regex(r"sk-[A-Za-z0-9]{20,30}", fullmatch=True),
    st.text(st.characters(min_codepoint=0xE0, max_codepoint=0x17F, categories=("Ll",)), min_size=6),
)


class TestSecrets:
    @pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
    @settings(max_examples=40, deadline=None)
    @given(secret=SECRETS)
    def test_no_literal_stands_in_a_shape(self, place, secret: str) -> None:
        # A text of nothing but words of the lexicon is nobody's.
        assume(not all(is_plain(word) for word in split_name(secret)) or not secret.isascii())
        shape = shape_of(place(secret))

        assert shape is None or secret.lower() not in shape.lower()

    def test_a_shape_reads_like_this(self) -> None:
        assert shape_of(get("/v1/users/7/orders?limit=50&status=open")) == (
            "GET /v1/users/{int}/orders?limit='p0.40&status==open\n\n\n3 3 0 ;"
        )
        assert "gql<{ user ( id : 'i ) { name } }>" in str(shape_of(graphql("{user(id:7){name}}")))
        assert "sql<SELECT id FROM ~" in str(shape_of(sql("SELECT id FROM secret_things")))


class TestTheData:
    def test_rows_of_one_shape_have_one_label(self, rows) -> None:
        by_shape: dict[bytes, list[Row]] = defaultdict(list)
        for row in rows:
            if key := shape_key(row.view):
                by_shape[key].append(row)

        # Equal requests with two labels are two opinions, and nothing that a shape could tell apart.
        mixed = [
            (one.api, one.view.path, other.api, other.view.path)
            for group in by_shape.values()
            for one, other in combinations(group, 2)
            if one.label != other.label and one.view != other.view
        ]
        assert len(by_shape) > len(rows) / 2
        assert mixed == []

    def test_nearly_every_row_has_a_shape(self, rows) -> None:
        shapeless = [row for row in rows if shape_key(row.view) is None]

        assert len(shapeless) < len(rows) / 50

    @pytest.mark.slow
    def test_the_model_sees_nothing_that_a_shape_does_not_hold(self, rows) -> None:
        model, rng = LocalModel.load(), random.Random(20)
        kept, flipped, moved = 0, [], []
        for row in rows:
            other = Variation(rng).view(row.view)
            if other == row.view or shape_of(other) != shape_of(row.view):
                continue
            kept += 1
            here, there = model.probabilities(row.view), model.probabilities(other)
            if max(here, key=here.__getitem__) != max(there, key=there.__getitem__):
                flipped.append((row.view, other))
            elif max(abs(here[label] - there[label]) for label in here) >= 0.1:
                moved.append((row.view, other))

        assert kept > 2_500
        assert len(flipped) <= kept / 1_000, flipped
        assert len(moved) <= kept / 1_000, moved


# Names that the features know shall mean as much to the shape.
@pytest.mark.parametrize(
    ("names", "holds"),
    [
        (arguments._LIMITS, lambda name: name.numbers is Numbers.FINE),
        (argument_values._AMOUNTS, lambda name: name.numbers is Numbers.FINE),
        (modifiers._LIMITS, lambda name: name.numbers is Numbers.FINE),
        (arguments._STARTS, lambda name: name.bounds),
        (arguments._ENDS, lambda name: name.bounds),
        (arguments._BACKS, lambda name: name.bounds),
        (queries._QUERY_KEYS, lambda name: name.texts is not Texts.PLAIN),
        (calls._STRONG, lambda name: name.texts is not Texts.PLAIN),
        (calls._ACTION_PARAMS, lambda name: name.texts is not Texts.PLAIN),
    ],
)  # fmt: skip
def test_names_that_mean_something_to_the_features_do_so_to_the_shape(names, holds) -> None:
    assert [name for name in sorted(names) if not holds(name_of(name))] == []


HOSTILE = [
    post("[" * 65_000),
    post("{" * 65_000),
    post('{"a":' * 13_000),
    post('"' * 65_000, media="text/plain"),
    post("SELECT '" + "'" * 65_000, media="text/plain"),
    post("<a " * 5_000, media="text/xml"),
    post('<a b="' * 2_700, media="text/xml"),
    post("<a>" + "<b><c>1</c></b>" * 900 + "</a>", media="text/xml"),
    post("Content-Disposition:" * 3_000, media="multipart/form-data"),
    post('Content-Disposition: name="' * 2_400, media="multipart/form-data"),
    post({f"k{at}": at for at in range(4_000)}),
    post({str(at): {"a": 1} for at in range(3_000)}),
    post({"query": "# \n" * 15_000}),
    post({"query": "{a" + "{a" * 5_000}),
    post({"query": "PREFIX a: <b> " * 800}),
    post({"query": "FOR a" + ", a" * 3_900}),
    post({"query": "a" + " | b" * 2_900}),
    post({"filter": "(" * 11_000}),
    post({"filter": "a=" * 6_000}),
    post({"a": "2024-01-01 " * 5_900}),
    post({"rows": [{"id": at, "name": f"n{at}"} for at in range(1_500)]}),
    post("\n".join('{"a": 1}' for _ in range(7_000)), media="application/x-ndjson"),
    post(" " * 65_000, media="text/plain"),
    post("\n" * 65_000, media="application/x-ndjson"),
    post("a=1;(b)" * 9_000, media="application/x-www-form-urlencoded"),
    get("/a?f=" + "[1," * 2_700),
    get("/" + "a.1-" * 500),
]


@pytest.mark.parametrize("view", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_requests_take_bounded_time(view) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        shape_key(view)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(7)) < 0.005


MEDIA = st.sampled_from([
    "", "application/json", "application/x-ndjson", "text/xml", "text/plain", "image/png",
    "application/graphql", "application/sql", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class TestAnything:
    @settings(max_examples=300, deadline=None)
    @given(
        st.text(), MEDIA, st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace"))
    )
    def test_no_request_is_an_error(self, path, media, body) -> None:
        shape_key(RequestView("POST", f"/{path}", media, (("accept", path),), body, len(body)))

    @settings(max_examples=200, deadline=None)
    @given(JSON)
    def test_no_document_is_an_error(self, document) -> None:
        shape_key(post(document))
        shape_key(get("/a?f=" + quote(json.dumps(document))))

    @settings(max_examples=200, deadline=None)
    @given(st.sampled_from(["query", "sql", "expr", "text", "variables"]),
           st.text("(){}[]<>=|:;,.'\"`#-/*$@!~% \nabcSELECTIN0123456789"))  # fmt: skip
    def test_no_query_is_an_error(self, name, text) -> None:
        shape_key(post({name: text}))

    def test_surrogates_of_raw_bytes_are_no_error(self) -> None:
        assert shape_key(get("/a\udcff/b?c\udcff=d\udcff")) is not None


def test_magnitudes_of_other_numbers_are_decades() -> None:
    assert decade(0) == "0"
    assert [decade(number) for number in (1, 9, 10, 99.5, 12345)] == ["e0", "e0", "e1", "e1", "e4"]
    assert decade(float("nan")) == decade(1e308) == fine(float("inf")) == "inf"
    assert not re.search(r"12345|99", decade(12345) + decade(99))
