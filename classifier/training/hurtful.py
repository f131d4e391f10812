"""Bodies of 64 KB made to hurt: what nests, what never ends, what makes a pattern go back."""

from collections.abc import Iterator
from itertools import product
from string import printable
from typing import Final

from classifier.contracts import RequestView

_SIZE: Final = 65_536
_PLACES: Final = (
    ("/", "application/json"),
    ("/graphql", "application/json"),
    ("/graphql", "application/graphql"),
    ("/", "text/plain"),
    ("/", ""),
    ("/ws", "text/xml"),
    ("/upload", "multipart/form-data; boundary=b"),
    ("/_bulk", "application/x-ndjson"),
    ("/form", "application/x-www-form-urlencoded"),
)
"""Paths and media types that lead a body to different readers."""

_NESTS: Final = (
    "[", "{", "(", "<", "<a>", '{"a":', '[{"a":', "{a", "{a(b:{c:", "[]", "{}", "[],", "{},",
    '{"a":[', "((", "(SELECT ", "a{b(", "<a><b>", "[[],", '{"a":1,"b":', "[1,[", "{ a ",
)  # fmt: skip
_UNENDING: Final = (
    '"', "'", "`", '"""', "/*", "--", "#", "<!--", "<![CDATA[", '{"a":"', '["', "SELECT '",
    "SELECT /*", "SELECT -- ", "SELECT \"", "{a(b:\"", '{a(b:"""', "{a #", '{"query":"{a(b:\\"',
    '{"sql":"SELECT \'', "a=", "a=%", '{"method":"', "<a b='", "data:image/png;base64,",
    '--b\r\nContent-Disposition: form-data; name="', 'Content-Disposition: form-data; name="a"; ',
)  # fmt: skip
_FILLS: Final = ("a", " ", "\\", '\\"', "\\n", "\n", "'", '"', "0", ",", "é", "a ", "{", "*")
# Each repeats what a pattern of the package can take in more ways than one, and never ends as
# the pattern wants it to end. The beginning is what leads there.
_BAIT: Final = (
    ("", "/**/"), ("", "/* */"), ("", "--\n"), ("", "( "), ("/*", "*/ /*"),
    ("", "a=&"), ("a=", "&a="), ("a=", "&a=b c"), ("a=", "%41a"), ("a=", "+"), ("", "a[b]=&"),
    ("<", "a"), ("<", "a:"), ("<", "a."), ("", "<a "), ("", "<a:"), ("", "<a/"), ("", "<a>b"),
    ("<methodCall>", "<name>a</name><value> "), ("<methodCall><name>a</name>", " "),
    ("<methodCall><methodName>", " "), ("<Envelope>", "<Body"),
    ("", "Content-Disposition: "), ("", 'Content-Disposition: x; name="'), ("", 'name="'),
    ('Content-Disposition: x; name="a"; ', 'filename="'),
    ("", "PREFIX a:<b> "), ("", "PREFIX "), ("PREFIX ", " "), ("SELECT ?a {", "<http"),
    ("SELECT ", "?a "), ("ASK { ", "{<a"), ("ASK { ?a ", "{<"), ("SELECT ?a {?b ", "a:a "),
    ("SELECT ", "<http "), ("SELECT <http ", "a "),
    ("FOR a", ", a"), ("FOR a IN b ", ".id"), ("LET a ", "FOR "), ("LET ", "FOR a,"),
    ("MATCH (", "{id"), ("MATCH (a)", "{" + "id" * 40), ("MATCH (a) RETURN a", ".id"),
    ("MATCH (a)", "*  "), ("MATCH (a)", "*"), ("MATCH (a) LIMIT", " "), ("MATCH (a) ", "limit n"),
    ("MATCH (a) ", "-["), ("MATCH (a) {", "id"), ("MATCH ", "id("), ("WITH ", "= "),
    ("g.V(", "has('"), ("g.V().has('", "id"), ("g.V()", ".has('a','"), ("g.V()", ".out("),
    ("a | limit", " "), ("a ", "| "), ("a ", "|> "), ("a | b ", "-  "), ("a | b -", "1"),
    ("a | take (", " "), ("a | ", "start: "), ("a | b first n :", " "), ("| a ", "last "),
    ("SELECT ", "a "), ("SELECT ", "a("), ("SELECT ", "a,"), ("SELECT a IN ", "IN "),
    ("SELECT * FROM t WHERE a ", "IN ("), ("SELECT * FROM t WHERE a ", "IN (1,"),
    ("SELECT ", "VALUES "), ("INSERT INTO t VALUES ", "VALUES ("), ("SELECT ", "[a"),
    ("SELECT ", "[" + "a" * 59), ("SELECT ", "''"), ("SELECT ", '""'), ("SELECT '", "\\"),
    ("SELECT a WHERE ", "id="), ("SELECT a WHERE id ", "= 1 "), ("SELECT a WHERE ", "a_id.id"),
    ("SELECT a WHERE ", "a < "), ("SELECT ", "interval "), ("SELECT INTERVAL", " "),
    ("SELECT ", "ago("), ("SELECT ", "now() - "), ("SELECT now()", " "), ("SELECT ", "last_"),
    ("SELECT ", "since "), ("SELECT since", " "), ("SELECT ", "date_add("),
    ("SELECT date_add(", " "),
    ("SELECT ", "FROM a "), ("SELECT ", "JOIN "), ("SELECT ", "LIMIT "), ("", "SET a=1;"),
    ("", "BEGIN;"), ("", ";"), ("SELECT ", "LIKE "), ("SELECT ", "a.a"), ("SELECT ", "1_"),
    ("{a", "(b:{c:"), ("{", "a:"), ("{", "a @b "), ("{ ", "...on "), ("{", "a(first:1){"),
    ("{", "users{"), ("{", "users(first:9){"), ("{", "a "), ("{a(", "b:$c "), ("query ", "($a:"),
    ("#", "\n#"), ("# a\n", "\n"), ("query ", "a"), ("{", "a{b}"), ("{ a(", "where:{}"),
    ("{a(b:", '"""'), ("{a(b:\"\"\"", '""\\'), ("{a(b:", '"\\'), ("{", "fragment "),
    ("sum(", "a:"), ("a{", 'id="'), ("a{", "id="), ("", "{a=~"), ("", "a("),
    ("a(b sum", " "), ("1", " "), ("ab", "A"), ("ab", "_A"), ("a.b", "A"), ("rate(", "a[5m"),
    ("", " "), ("txt", "where"), ("", "CSV1"), ("", "0xresets"),
    ("", "a:a("), ("a{", "=~"), ("sum by (a) (", "[5m:"), ("a ", "offset "), ("", "{"),
    ('"role', " "), ("", "role :"), ("", '"role"'), ("", "data:image"), ("", "data:audio/"),
    ("[", '"a":"b",'), ("{", '"a":1,'), ("{", '"a" '), ("{", '"a":"\\'), ("{", ", "),
    ("{", '"' + "a" * 60), ("[1", ",   "), ("[", "1,"), ("[", "0.5,"), ("[", "9" * 4000 + ","),
    ("[", "1" * 5000 + ","), ("", "[" * 59 + "1,"), ("", "[ " * 59 + "1,"), ("[", "-"),
    ('{"', "a"), ('{"', "-"), ('{"a":{"', "-"), ("[", '"a",'), ("[", "true,"), ("[", "NaN,"),
    ("[", '{"method":"a","params":[],"id":1},'), ("[", '{"query":"{a{b(c:1)}}"},'),
    ("[", '{"query":"SELECT ?a {<http"},'), ('{"a":{}}\n', '{"a":[1,2,3]}\n'), ("", "{}\n"),
    ("[", '["GET","a"],'), ("{", '"a":{"b":{"c":{"d":[]}}},'), ("", '{"a":1}'),
)  # fmt: skip
_CARRIED: Final = ("query", "sql", "expr", "method", "text")
_CARRIED_CHARS: Final = 60_000


def hurtful() -> Iterator[tuple[str, RequestView]]:
    """Named requests; every one has some 64 KB."""
    for text in _texts():
        for path, media in _PLACES:
            yield f"{text[:40]!r} {media} {path}", _view(path, media, text)
        yield f"{text[:40]!r} in the path", RequestView("GET", f"/{text[:4_000]}?{text[:9_000]}")
    for (head, unit), key in product(_BAIT, _CARRIED):
        inner = (head + unit * (_CARRIED_CHARS // len(unit))).translate(_ESCAPED)
        text = f'{{"{key}":"{inner}"}}'
        yield f"{head + unit!r} as {key}", _view("/api/v1/query", "application/json", text)
        twelve = ",".join(f'{{"{key}":"{inner[:5_000]}"}}' for _ in range(12))
        yield (
            f"{head + unit!r} as {key} x 12",
            _view("/", "application/json", f'{{"a":[{twelve}]}}'),
        )


_ESCAPED: Final = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"})


def _view(path: str, media: str, text: str) -> RequestView:
    raw = text.encode()[:_SIZE]
    return RequestView("POST", path, media, (), raw, len(raw))


def _texts() -> Iterator[str]:
    for unit in (*printable, *_NESTS, *_pairs()):
        yield _full(unit)
    for nest in _NESTS:
        closing = nest.translate(str.maketrans("[{(<", "]})>"))[::-1]
        yield _full(nest)[: _SIZE // 2] + _full(closing)[: _SIZE // 2]
    for beginning, fill in product(_UNENDING, _FILLS):
        yield beginning + _full(fill)
    for head, unit in _BAIT:
        yield head + _full(unit)


def _pairs() -> Iterator[str]:
    """Patterns of two and three characters that mean something to a reader."""
    telling = "[]{}()<>\"'\\,:;=&%#*-/ \n.a1"
    yield from ("".join(pair) for pair in product(telling, repeat=2) if pair[0] != pair[1])
    yield from (
        "a,b",
        '"a,',
        "':a",
        "\\'\"",
        "{a}",
        "<a>",
        "(a)",
        "[1]",
        "a=&",
        "%20",
        "a.b",
        "1 a",
    )


def _full(unit: str) -> str:
    return (unit * (_SIZE // len(unit) + 1))[:_SIZE]
