"""Recorded requests grown to 64 KB as clients grow them: longer lists, prompts, statements."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote_plus

from pydantic import JsonValue

from classifier.contracts import RequestView

WANTED: Final = 65_536
_PROSE: Final = (
    "Please look at the order of last week, compare it with what the customer asked for, and "
    'tell me in two sentences what went wrong.\nQuote the numbers "as they are". '
)
_BLOB: Final = base64.b64encode(random.Random(7).randbytes(60_000)).decode()
_PROMPTS: Final = ("content", "prompt", "input", "text", "description", "message", "name")


def grown(view: RequestView) -> Iterator[tuple[str, RequestView]]:
    """The ways in which a request can be long, each with its name; none if it has no body."""
    text = view.body.decode("utf-8", "replace")
    if not text:
        return
    document = _parsed(text)
    ways = _of_json(document) if document is not None else _of_text(text)
    for name, body in ways:
        raw = body.encode()[:WANTED]
        yield name, _with_body(view, raw)


def _with_body(view: RequestView, raw: bytes) -> RequestView:
    return RequestView(view.method, view.path, view.content_type, view.headers, raw, len(raw))


def _parsed(text: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return None
    return found


def _of_json(document: JsonValue) -> Iterator[tuple[str, str]]:
    """The document in a list of its like, with a longer list, prompt, statement or blob in it."""
    yield "list of the like", _fill([document], lambda items, n: items * n)
    yield "lines", (json.dumps(document) + "\n") * (WANTED // (len(json.dumps(document)) + 1))
    if not isinstance(document, dict):
        return
    items = next((value for value in document.values() if isinstance(value, list) and value), None)
    rows: list[JsonValue] = items or [{"id": 17, "name": "a name", "price": 9.5, "tags": ["a"]}]
    key = next((key for key, value in document.items() if value is items), "items")
    yield "longer list", _fill(rows, lambda rows, n: {**document, key: rows * n})
    yield "list of numbers", _fill([17, 4, 256], lambda rows, n: {"ids": rows * n, **document})
    yield "map", _fill([0], lambda _, n: {**document, "map": {f"key{at}": at for at in range(n)}})
    prompt = next((name for name in _PROMPTS if name in document), "content")
    yield "longer prompt", _text_in(document, prompt, _PROSE * 500)
    yield "blob", _text_in(document, "data", _BLOB)
    query = next((document[k] for k in ("query", "sql", "statement") if k in document), None)
    if isinstance(query, str):
        yield "longer query", _text_in(document, "query", _longer_query(query))


def _fill(items: list[JsonValue], make: Callable[[list[JsonValue], int], JsonValue]) -> str:
    """A document with as many items as 64 KB take."""
    one, eleven = len(json.dumps(make(items, 1))), len(json.dumps(make(items, 11)))
    return json.dumps(make(items, max(1, int((WANTED - one) * 10 / max(1, eleven - one) * 0.98))))


def _text_in(document: dict[str, JsonValue], key: str, text: str) -> str:
    left = WANTED - len(json.dumps(document)) - len(key) - 600
    return json.dumps({**document, key: text[: max(left * 9 // 10, 100)]})


def _longer_query(query: str) -> str:
    if "{" in query:
        return (
            query.rstrip().rstrip("}")
            + " fieldOne fieldTwo { id name nodes { id } } " * 2_000
            + "}"
        )
    return f"{query.rstrip('; ')} AND kind IN ({', '.join(str(n) for n in range(12_000))})"


def _of_text(text: str) -> Iterator[tuple[str, str]]:
    """The text again and again, as a form, as a statement, with a blob behind it."""
    yield "again", (text + "\n") * (WANTED // (len(text) + 1))
    if "=" in text[:40] and "&" in text:
        yield "big form", text + "".join(f"&Item.{n}.Value=value+{n}" for n in range(3_000))
        yield "form field", f"{text}&content={quote_plus(_PROSE * 300)}"
    elif "<" in text[:20]:
        yield "longer XML", text[:2_000] + "<item><id>17</id><name>a name</name></item>" * 1_500
    else:
        yield "IN list", _longer_query(text)
    yield "blob", text + _BLOB
