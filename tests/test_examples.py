"""Labels by example: paraphrases are captured, requests of other APIs are not."""

import json
import random
import re
from dataclasses import replace

import pytest

from classifier.contracts import Label, RequestView, semantic_headers
from classifier.examples import MAX_IN_ALL, MAX_OF_LABEL, Examples, likeness_of
from classifier.labels_file import NO_FILE, LabelsFile, LabelSpec
from tests.recorded import body_of, rows

OWN = Label("reports")
FREE_TEXT = {"query", "sql", "statement", "q"}
NAMES = {"method", "action", "operationName", "operation", "op", "jsonrpc", "model", "type"}


def examples(*views: RequestView) -> Examples:
    spec = LabelSpec(OWN, pool="general", examples=views)
    return Examples.of(LabelsFile({**NO_FILE.labels, OWN: spec}, (), "x"))


def recorded(row: dict) -> RequestView:
    headers = {name.lower(): value for name, value in row["headers"].items()}
    body = body_of(row)
    return RequestView(
        row["method"],
        row["path"],
        headers.get("content-type", ""),
        semantic_headers(headers.items()),
        body,
        len(body),
    )


class Paraphrase:
    """The same request about something else: other ids, other literals."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def of(self, view: RequestView) -> RequestView:
        path, question_mark, query = view.path.partition("?")
        pairs = (pair.partition("=") for pair in query.split("&"))
        new = "&".join(f"{n}{eq}{self._digits(v) if v.isdigit() else v}" for n, eq, v in pairs)
        segments = "/".join(map(self._segment, path.split("/")))
        body = self._body(view.body)
        return replace(
            view, path=f"{segments}{question_mark}{new}", body=body, body_bytes=len(body)
        )

    def _segment(self, segment: str) -> str:
        if segment.isdigit():
            return self._digits(segment)
        if re.fullmatch(r"[0-9a-f-]{16,}", segment):
            return re.sub("[0-9a-f]", lambda _: self._random.choice("0123456789abcdef"), segment)
        return segment

    def _body(self, body: bytes) -> bytes:
        try:
            return json.dumps(self._json(json.loads(body))).encode() if body else body
        except ValueError:
            return self._text(body.decode("latin-1")).encode("latin-1")

    def _json(self, value: object, name: str = "") -> object:
        match value:
            case dict():
                return {key: self._json(member, key) for key, member in value.items()}
            case list():
                return [self._json(item, name) for item in value]
            case str() if name in FREE_TEXT:
                return self._text(value)
            case str() if name not in NAMES and len(value) > 2 and not value[0].isdigit():
                return " ".join(self._word() for _ in value.split())
            case int() if not isinstance(value, bool) and value > 9:
                return int(self._digits(str(value)))
        return value

    def _text(self, text: str) -> str:
        text = re.sub(r"'[^']*'", lambda _: f"'{self._word()}'", text)
        return re.sub(r"(?<![\w.])\d{2,9}(?![\w.])", lambda found: self._digits(found[0]), text)

    def _word(self) -> str:
        return "".join(self._random.choices("abcdefghijklmnopqrstuvwxyz", k=6))

    def _digits(self, digits: str) -> str:
        least = 10 ** (len(digits) - 1)
        return str(self._random.randrange(least, 10 * least)) if len(digits) > 1 else digits


def test_examples_of_other_apis_capture_no_recorded_request() -> None:
    chosen = random.Random(7).sample(rows(), 20)
    shares = []
    for row in chosen:
        known = examples(recorded(row))
        others = [recorded(other) for other in rows() if other["api"] != row["api"]]
        shares.append(sum(known.match(other) is not None for other in others) / len(rows()))

    print(f"of {len(rows())} requests one example of another API captures at most {max(shares)}")
    assert max(shares) == 0


def test_paraphrases_with_other_ids_and_literals_are_captured() -> None:
    paraphrase = Paraphrase(5)
    views = [recorded(row) for row in rows()]

    captured = sum(examples(view).match(paraphrase.of(view)) is not None for view in views) / len(
        views
    )

    print(f"{captured:.3f} of the paraphrases are captured")
    assert captured > 0.95


def post(path: str, body: str = "") -> RequestView:
    return RequestView("POST", path, "application/json", (), body.encode(), len(body))


REPORT = post("/reports/run", '{"range": "2020..2024"}')


@pytest.mark.parametrize(
    ("asked", "captured"),
    [
        (post("/reports/run", '{"range": "1999..2001"}'), True),
        (post("/reports/run", '{"range": "x", "user": 1, "name": "y", "city": "z"}'), False),
        (post("/reports/stop", '{"range": "2020..2024"}'), False),
        (post("/reports/run/now", '{"range": "2020..2024"}'), False),
        (post("/users", '{"name": "2020..2024"}'), False),
        (post("/", ""), False),
        (replace(REPORT, method="PUT"), False),
    ],
)
def test_an_example_captures_its_own_kind(asked, captured) -> None:
    assert (examples(REPORT).match(asked) is not None) is captured


def test_on_one_endpoint_the_query_decides() -> None:
    known = examples(
        post("/graphql", '{"query": "{ orders(last: 9000) { lines { sku total } } }"}')
    )

    assert known.match(
        post("/graphql", '{"query": "{ orders(last: 8000) { lines { sku total } } }"}')
    )
    assert not known.match(post("/graphql", '{"query": "{ user(id: 7) { name } }"}'))


def test_the_likest_example_decides() -> None:
    light = LabelSpec(Label.FAST_PATH, examples=(post("/reports/run", '{"check": true}'),))
    heavy = LabelSpec(OWN, pool="general", examples=(REPORT,))
    file = LabelsFile({**NO_FILE.labels, light.name: light, OWN: heavy}, (), "x")

    found = Examples.of(file).match(post("/reports/run", '{"check": false}'))

    assert found is not None
    assert found.label == Label.FAST_PATH


def test_no_more_examples_are_compared_than_the_bounds_allow() -> None:
    views = tuple(post(f"/a{number}/b") for number in range(MAX_OF_LABEL + 1))
    names = [Label(f"own-{number}") for number in range(12)]
    specs = {name: LabelSpec(name, pool="general", examples=views) for name in names}

    known = Examples.of(LabelsFile({**NO_FILE.labels, **specs}, (), "x"))

    assert len(known.known) == MAX_IN_ALL
    assert known.left_out == 12 * (MAX_OF_LABEL + 1) - MAX_IN_ALL


def test_no_bytes_are_too_odd_to_be_compared() -> None:
    for body in (b"", b"\xff\x00", b"{" * 70_000, b"a=b&" * 9_000):
        likeness_of(RequestView("POST", "/%zz/\x00", "application/json", (), body, len(body)))
