"""Nothing that could be a secret is shown or sent to the LLM; what says the meaning is."""

import json
import sys
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.contracts import RequestView
from classifier.redaction import (
    MASK,
    MAX_EXCERPT_CHARS,
    MAX_REASON_CHARS,
    MAX_SHOWN_CHARS,
    clean_reason,
    excerpt,
    shown_path,
)
from tests.recorded import body_of, rows

CANARY = "cAnArY0123456789abcdefghij"
TOKENS = (
    CANARY,
    "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
    "xK9fP2qLm7",
    "AKIAIOSFODNNEXAMPLE",
    "kqzvxwjhtbnmrplk",
    "JBSWYDPEHPKXPXPJBSWY",
    "4111111111111111",
    "4111-1111-1111-1111",
    "someone@example.com",
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "sk-proj-abcdef",
)


def view(body: str | bytes, content_type: str = "", path: str = "/") -> RequestView:
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return RequestView("POST", path, content_type, body=raw, body_bytes=len(raw))


@pytest.mark.parametrize(
    "target",
    [
        "/users/42",
        "/users?limit=50&sort=desc",
        "/users?sort=-created_at&fields=id,name&page[size]=20",
        "/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "/bucket?location",
        "/api/v1/pods/web-0/log",
        "/v1beta1/models/gemini-2.5-pro:streamGenerateContent",
        "/get-sources-assigned-to-stock-ordered-by-priority",
        "/getSourcesAssignedToStockOrderedByPriority",
        "/V1/searchProducts/_search",
        "/.well-known/openid-configuration",
        "/reports/2024-05-31/orders.csv",
        "/",
        "*",
    ],
)
def test_a_shown_path_says_what_was_asked(target) -> None:
    assert shown_path(target) == target


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/s?q=blue%20shoes", "/s?q=***"),
        ("/a\r\nb\x1b[31m", "/***"),
        ("/b?b64token==", "/b?***=***"),
        ("/b?abcdefgh==", "/b?***=***"),
        ("/a;jsessionid=1A2B3C4D/b", "/a;***/b"),
        ("/users/user@example.com", "/users/***"),
        ("/x?otp=123456&pin=1234&cvv=123&ssn=123456789", "/x?otp=***&pin=***&cvv=***&ssn=***"),
        ("/otp/123456", "/otp/***"),
        ("/caf%C3%A9/%6frders", "/***/orders"),
        ("/a%2541", "/***"),
        ("/tel/555-123-4567", "/tel/***"),
        ("http://user:pw1@host.example/x", "http://***/x"),
        ("/x?limit=abc&sort=a b;c&last=Smith", "/x?limit=***&sort=***&last=***"),
        ("/abcdefghijklmnopqrstuvwxyz", "/***"),
        ("/x?limit=5;token=abc", "/x?limit=***"),
        ("/aGBcQdoLuM/ItOfByPaGoOn", "/***/***"),
    ],
)
def test_a_shown_path_masks_what_is_no_word(target, shown) -> None:
    assert shown_path(target) == shown


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize(
    "place",
    [
        "/{}/files",
        "/bot123456:{}/getMe",
        "/x?{}",
        "/x?{}==",
        "/x?a=1&sig={}&b=2",
        "/x?limit={}",
        "/x?sort={}&fields=id,{}",
        "/x;sid={}/y",
        "/login?token={}",
        "/x#{}",
        "/" + "a/" * 395 + "{}",
    ],
)
def test_no_token_survives_anywhere_in_a_target(place, token) -> None:
    for odd in ("", *",!(;'+=%[|\\é"):
        for written in (token + odd, odd + token, quote(token + odd, safe="")):
            assert token not in shown_path(place.replace("{}", written))


@given(st.text(max_size=3_000))
def test_a_shown_path_is_short_and_printable(target) -> None:
    shown = shown_path(target)

    assert len(shown) <= MAX_SHOWN_CHARS
    assert shown.isprintable() or shown == ""
    assert shown.isascii()


@pytest.mark.parametrize("length", range(760, 840))
def test_a_target_that_is_cut_off_shows_no_half_of_a_token(length) -> None:
    secret = "wordlike" * 20
    target = "/" + CANARY * ((length - 2) // len(CANARY)) + "/" + secret

    assert "word" not in shown_path(target)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"user": "a", "password": CANARY}),
        json.dumps({"deep": {"api_key": CANARY, "clientSecret": CANARY}}),
        json.dumps({"accessToken": f'quo"te {CANARY}'}),
        json.dumps({"query": f'{{ login(password: "say \\"{CANARY}\\" zebra") {{ id }} }}'}),
        json.dumps({"sql": f"ALTER USER a IDENTIFIED BY '{CANARY}'"}),
        json.dumps({"sql": "ALTER USER a IDENTIFIED BY zebra"}),
        json.dumps({"sql": "SELECT a FROM b WHERE c = 'it''s zebra' AND d = $$zebra$$"}),
        json.dumps({"sql": r"SELECT a FROM b WHERE c = '\' OR d = ' zebra'"}),
        json.dumps({"sql": "SELECT a /* zebra */ FROM b -- zebra"}),
        json.dumps({"name": "password", "value": "zebra"}),
        json.dumps({"query": "zebra crossing near my house"}),
        json.dumps({"command": ["SET", "user", "zebra"]}),
        json.dumps({"name": "Zebra Zebra", "type": "zebra@x"}).replace("Zebra Z", "zebra z"),
        json.dumps(["zebra", {"a": ["zebra"]}]),
        json.dumps("zebra"),
        '{"password" : "' + CANARY,
        '{"p\\u0061ssword": "zebra", "a": "\\u007aebra"}',
        '{"model": "m", "prompt": "zebra zebra',
        "{'password': 'zebra', }",
        f"grant_type=password&client_secret={CANARY}&x=1",
        "p%61ssword=zebra&user[password]=zebra&note=zebra",
        f"<auth><Password type='t'>{CANARY}</Password></auth>",
        "<wsse:Password Type='zebra'>zebra</wsse:Password>",
        "<secret><name>get_zebra</name></secret>",
        "<a b=\"> zebra\" c='x zebra=1'>zebra</a><!-- zebra --><![CDATA[zebra]]>",
        f"Authorization: Bearer {CANARY}",
        "Authorization: Basic zebra",
        "user: me\npassword: my zebra phrase, zebra) zebra\nx: y",
        "password: |\n  zebra\n  zebra\nx: y",
        "password = 'zebra'",
        "db.password=zebra",
        '{"note": "my key is sk-' + CANARY + '"}',
        f'{{"jwt": "eyJhbGciOiJIUzI1NiJ9.{CANARY}.x"}}',
        "write to zebra@example.com or https://zebra:x@example.com/",
        '{"a": 1}\n{"b": "zebra"}\nzebra\n',
    ],
)
def test_an_excerpt_holds_no_secret(body) -> None:
    text = excerpt(view(body))

    assert CANARY not in text
    assert "zebra" not in text


@pytest.mark.parametrize(
    "key",
    [
        "pin", "otp", "cvv", "SSN", "card_number", "cardNumber", "iban", "accountNumber", "api-key",
        "privateKey", "key", "p\\u0061ss", "session.id", "user_pin", "auth", "accessToken", "pwd",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["731946", "[731946]", '{"a": 731946}', '"731946"', "731946.5"])
def test_every_value_under_a_sensitive_name_is_masked(key, value) -> None:
    assert "731946" not in excerpt(view(f'{{"{key}": {value}, "b": 1}}'))


def test_numbers_are_masked_where_a_sibling_or_a_form_says_what_they_are() -> None:
    assert "731946" not in excerpt(view('{"name": "otp", "value": 731946}'))
    assert "731946" not in excerpt(view("otp=731946&a=1"))
    assert "731946" not in excerpt(view('{"otp": 731946, broken}'))
    assert "731946" not in excerpt(view("the pin is 731946, my otp 731946"))


@pytest.mark.parametrize("number", ["4111111111111111", "4111 1111 1111 1111", "+49 170 1234567"])
@pytest.mark.parametrize("frame", ["{}", "call {} now", '{{"a": "{}"}}', "a={}&b=1", "<a>{}</a>"])
def test_long_numbers_are_masked_however_they_are_grouped(frame, number) -> None:
    assert number[-5:] not in excerpt(view(frame.format(number)))


@pytest.mark.parametrize(
    "key",
    [
        "keys",
        "keyword",
        "author",
        "mappings",
        "passengers",
        "cardinality",
        "max_tokens",
        "maxTokens",
    ],
)
def test_names_that_only_look_sensitive_keep_their_numbers(key) -> None:
    assert excerpt(view(json.dumps({key: 512}))) == f'{{"{key}":512}}'


@pytest.mark.parametrize(
    "document",
    [
        {"query": "query Q($first: Int) { user(id: 1) { name } }", "limit": 5},
        {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [{"fromBlock": "0x10d4f"}]},
        {"model": "meta-llama/Llama-3.1-8B-Instruct", "max_tokens": 4096, "stream": True},
        {"model": "claude-3-5-sonnet-20241022", "temperature": 0.7, "stop": None},
        {"sql": "SELECT a, count(*) FROM orders JOIN users ON a.id = b.id LIMIT 500"},
        {"query": "sum(rate(http_requests_total[5m])) by (job)"},
        {"method": "tools/call", "params": {"name": "get_weather"}},
        {"operationName": "GetUser", "interval": "1d", "größe": 3, "@type": "user"},
        {"aggs": {"by_day": {"date_histogram": {"fixed_interval": "1h"}}}, "size": 0},
        {"range": {"created_at": {"gte": "now-30d/d", "lt": "2024-01-01"}}},
    ],
)
def test_an_excerpt_keeps_what_says_the_meaning(document) -> None:
    written = json.dumps(document, separators=(",", ":"), ensure_ascii=False)

    assert excerpt(view(written)) == written


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("SELECT * FROM t WHERE a = 'x' LIMIT 5", "SELECT * FROM t WHERE a = '***' LIMIT 5"),
        ("MATCH (a:User)-[:KNOWS]->(b) RETURN b", "MATCH (a:User)-[:KNOWS]->(b) RETURN b"),
        (
            'from(bucket: "x") |> range(start: -30d) |> mean()',
            'from(bucket: "***") |> range(start: -30d) |> mean()',
        ),
        ("action=list&limit=50&note=hi", "action=list&limit=50&note=***"),
        ("filter[status]=open&x=1", "filter[status]=***&x=1"),
        ("<m:GetUser xmlns:m='u'><m:limit>5</m:limit></m:GetUser>",
         '<m:GetUser xmlns:m="***"><m:limit>5</m:limit></m:GetUser>'),
        ("<methodName>system.listMethods</methodName>",
         "<methodName>system.listMethods</methodName>"),
        ('{"a":1}\n{"b":2}', '{"a":1}\n{"b":2}'),
        ("[1,2,3,4,5,6,7]", "[1,2,3,4,5,... 2 more]"),
        ("word " * 30, "(30 words of text)"),
        ("please read this text", "(4 words of text)"),
        ("SELECT a /* b */ FROM c -- d\n# e\nLIMIT 1", "SELECT a   FROM c     LIMIT 1"),
        ("{ a: 1, // b\n c: 2 }", "{ a: 1,   c: 2 }"),
        ("", ""),
    ],
)  # fmt: skip
def test_each_kind_of_body_keeps_its_structure(body, shown) -> None:
    assert excerpt(view(body)) == shown


def test_the_length_of_a_long_text_is_told() -> None:
    body = json.dumps({"input": "word " * 1_000, "model": "m"})

    assert excerpt(view(body)) == '{"input":"*** (5000 chars)","model":"m"}'


def test_a_json_body_that_is_cut_off_keeps_its_beginning() -> None:
    body = json.dumps({"model": "m", "n": 2, "input": "word " * 40_000})

    assert excerpt(view(body)).startswith('{"model":"m","n":2,"input":"*** (65')
    assert excerpt(view('{"size": 5, "a": [1, 2')) == '{"size":5,"a":[1]}'


def test_multipart_keeps_the_names_and_types_of_its_parts() -> None:
    part = 'Content-Disposition: form-data; name="{}"; filename="zebra.png"\r\nContent-Type: {}'
    head = part.format("file", "image/png")
    body = f"--b\r\n{head}\r\n\r\nzebra\x00\xff\r\n--b--".encode("latin-1")

    text = excerpt(view(body, "multipart/form-data; boundary=b"))

    assert text.startswith("file: image/png ***")
    assert "zebra" not in text
    assert excerpt(view(body)) == text


@pytest.mark.parametrize(
    "body",
    ["zebra".encode("utf-16"), "zebra".encode("utf-16-le"), b"\x89PNG zebra", b"\x0a\x05zebra\x12"],
)
def test_of_bytes_that_are_no_text_only_the_number_is_told(body) -> None:
    assert excerpt(view(body)) == f"(binary, {len(body)} bytes)"


NAMES = st.sampled_from(
    ["a", "note", "user", "x-y", "items", "password", "id", "query", "type", "sql"]
)
TREES = st.recursive(
    st.sampled_from([CANARY, f"'{CANARY}'", f"{CANARY}\n", f'"{CANARY} \\', f"select {CANARY}"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(TREES, st.integers(0, 200), st.booleans())
def test_no_string_of_a_json_body_survives_cut_off_or_not(tree, cut, escaped) -> None:
    body = json.dumps(tree)
    if escaped:
        body = body.replace("cAn", "\\u0063An")

    assert CANARY not in excerpt(view(body))
    assert CANARY not in excerpt(view(body[:-cut] if cut else body))


@given(st.lists(st.tuples(NAMES, st.sampled_from(["{}", "a {} b", "'{}", "limit={}", "{}@x"]))))
def test_no_value_of_a_form_or_of_xml_survives(pairs) -> None:
    filled = [(name, frame.format(CANARY)) for name, frame in pairs]
    xml = "".join(f'<{name} {name}="{value}">{value}</{name}>' for name, value in filled)

    assert CANARY not in excerpt(view(urlencode(filled)))
    assert CANARY not in excerpt(view(urlencode(filled), "application/x-www-form-urlencoded"))
    assert CANARY not in excerpt(view(f"<r>{xml}</r>"))


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_token_between_spaces_survives_in_free_text(before, after) -> None:
    assert CANARY not in excerpt(view(f"{before} {CANARY} {after}"))


MEDIA = st.sampled_from(
    ["", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded"]
)


@given(st.binary(max_size=20_000) | st.text().map(lambda t: t.encode("utf-8", "ignore")), MEDIA)
def test_an_excerpt_is_bounded_whatever_the_body(body, media) -> None:
    text = excerpt(view(body, media))

    assert len(text) <= MAX_EXCERPT_CHARS
    text.encode()


@given(st.text(alphabet="\"'\\{}[]<>!-/*$:=,&;|@#%. \n\tpas1aZ", max_size=400))
def test_an_excerpt_survives_any_punctuation(body) -> None:
    assert len(excerpt(view(body))) <= MAX_EXCERPT_CHARS
    assert len(clean_reason(body, view(body, path=body))) <= MAX_REASON_CHARS


HOSTILE = [
    '\\"', '"', "'", "'\\", "\\", "{", "[", '{"a":', "[1,", "<", "<!--", "<![CDATA[", "<a ",
    '<a b="', "a|",
    "a=b&", "a", "a ", "1 ", "1", "1-", "$a", "$", "/*", "--", "a-", "password=", "password: |\n ",
    "bearer ", "aA", "1a", "select ", "with ", "( ", "\n", " ", "\\u0061", "%61", '"":', "query ",
    "qz", "q", "key", '"a":', "é", "&#1;", '{"a":1}\n', "2024-01-01", "--b\r\n",
]  # fmt: skip


def calls_of(work, *arguments) -> int:
    """How many functions the work calls, regular expressions and builtins included."""
    count = 0

    def profile(frame, event, argument) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(profile)
    try:
        work(*arguments)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.timeout(30)
@pytest.mark.parametrize("seed", HOSTILE)
@pytest.mark.parametrize("start", ["", '"', '{"query":"', "<a>"])
def test_hostile_bodies_take_bounded_work(start, seed) -> None:
    short, long = ((start + seed * size)[:size] for size in (65_536, 1_048_576))

    # What lies beyond the part that is read costs nothing; within it the cost is linear.
    calls = calls_of(excerpt, view(short))
    assert calls < 600_000
    assert calls_of(excerpt, view(long)) <= calls + 60_000
    assert calls_of(shown_path, short) < 20_000


@settings(max_examples=20)
@given(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE), st.sampled_from(HOSTILE))
def test_mixed_hostile_bodies_take_bounded_work(start, one, two) -> None:
    assert calls_of(excerpt, view((start + (one + two) * 65_536)[:65_536])) < 600_000


def test_every_recorded_request_can_be_shown() -> None:
    for row in rows():
        body = body_of(row)
        text = excerpt(view(body))

        assert len(text) <= MAX_EXCERPT_CHARS
        assert len(shown_path(row["path"])) <= MAX_SHOWN_CHARS
        assert "@example" not in text


def test_a_reason_repeats_no_value_of_the_request() -> None:
    asked = view('{"note": "Divorce \\u004cawyer", "limit": 5}', path="/s?q=blue%20shoes")

    reason = clean_reason("divorce lawyers\x00 want blue  shoes, by limit,\nfor a@b 4711", asked)

    assert reason == f"{MASK} {MASK} want {MASK} {MASK} by limit, for {MASK} {MASK}"


def test_a_reason_keeps_the_words_of_the_query() -> None:
    asked = view(json.dumps({"sql": "SELECT count(*) FROM orders GROUP BY region"}))

    assert clean_reason("aggregates orders by region", asked) == "aggregates orders by region"


def test_a_reason_is_short_and_holds_no_long_word() -> None:
    assert clean_reason("a" * 25 + " ok", view("")) == f"{MASK} ok"
    assert len(clean_reason("words " * 500, view(""))) <= MAX_REASON_CHARS


@given(st.text(max_size=400), st.text(max_size=200))
def test_a_reason_is_bounded_and_printable(text, body) -> None:
    reason = clean_reason(text, view(body))

    assert len(reason) <= MAX_REASON_CHARS
    assert reason.isprintable()
