"""A request taken apart once: what every reader of features starts from. Never raises."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_plus, unquote_to_bytes

from pydantic import JsonValue

from classifier.contracts import RequestView
from classifier.features.json_text import read_json, salvage

MAX_BODY_CHARS: Final = 65_536
_MAX_SEGMENTS: Final = 24
_MAX_PARAMS: Final = 60
_MAX_QUERY_CHARS: Final = 8_192
_MAX_ESCAPES: Final = 1_500
_MAX_ESCAPED_CHARS: Final = 4_096
_MAX_NDJSON_LINES: Final = 40
_MAX_NDJSON_CHARS: Final = 8_192


class Parts(NamedTuple):
    """One request, decoded.

    Attributes:
        method: Upper-case; what X-HTTP-Method-Override says, if it is there.
        segments: Path segments, percent-decoded, without empty ones.
        params: Query parameters in order; of a form body as well.
        query_params: Only those that stood in the query string.
        media: Content type without parameters, lower-case.
        headers: The semantic headers by lower-case name.
        text: The body's beginning as text, "" when it is not text.
        document: The body as JSON, or None; of a broken body what could be salvaged.
        lines: Number of JSON documents in a newline-delimited body, else 0.
        form: Whether the body is a form.
        body_bytes: Length of the whole body.
    """

    method: str
    segments: tuple[str, ...]
    params: tuple[tuple[str, str], ...]
    query_params: tuple[tuple[str, str], ...]
    media: str
    headers: dict[str, str]
    text: str
    document: JsonValue
    lines: int
    form: bool
    body_bytes: int


def take_apart(view: RequestView) -> Parts:
    """Decode path, query and body, within fixed bounds."""
    headers = dict(view.headers)
    raw_path, _, raw_query = view.path.partition("?")
    query_params = _pairs(raw_query)
    media = view.content_type.partition(";")[0].strip().lower()
    text = view.body[:MAX_BODY_CHARS].decode("utf-8", "replace")
    if text.count("�", 0, 512) > 2 or text.count("\x00", 0, 512) > 1:
        text = ""
    document, lines = _json(text, media)
    form = document is None and _is_form(text, media)
    if document is None and not form:
        document = _json_parameter(query_params)
    return Parts(
        method=(headers.get("x-http-method-override") or view.method).upper()[:16],
        segments=_segments(raw_path),
        params=query_params + (_pairs(text) if form else _elements(text, media)),
        query_params=query_params,
        media=media,
        headers=headers,
        text=text,
        document=document,
        lines=lines,
        form=form,
        body_bytes=max(view.body_bytes, len(view.body)),
    )


def _segments(raw_path: str) -> tuple[str, ...]:
    pieces = [piece for piece in raw_path[:4096].split("/") if piece][:_MAX_SEGMENTS]
    return tuple([_unquoted(piece) if "%" in piece else piece for piece in pieces])


def _unquoted(text: str) -> str:
    """What `unquote_plus` gives; in one piece where that is the same, for it is much faster."""
    if text.count("%") > _MAX_ESCAPES:
        text = text[:_MAX_ESCAPED_CHARS]
    if text.isascii():
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "replace")
    return unquote_plus(text)


def _pairs(raw: str) -> tuple[tuple[str, str], ...]:
    """What `parse_qsl` makes of a query string, of its first fields; blank values are kept."""
    if not raw:
        return ()
    fields = raw[:_MAX_QUERY_CHARS].split("&", _MAX_PARAMS)[:_MAX_PARAMS]
    if "%" in raw or "+" in raw:
        split = [field.partition("=") for field in fields if field]
        return tuple([(_unquoted(name), _unquoted(value)) for name, _, value in split])
    return tuple([field.partition("=")[::2] for field in fields if field])


# What a name or an attribute took is never given back: no text makes the match slower than linear.
_LEAF: Final = re.compile(r"<(?:[\w.-]++:)?([A-Za-z_][\w.-]*+)[^<>]{0,200}+>([^<>]{1,200}+)</")
_MEMBER: Final = re.compile(r"<name>([\w.-]{1,60})</name>\s*<value>\s*(?:<\w+>)?([^<>]{0,200})<")


def _elements(text: str, media: str) -> tuple[tuple[str, str], ...]:
    """The leaf elements of an XML body, as arguments."""
    if "xml" not in media and text[:1] != "<":
        return ()
    text = text[:_MAX_QUERY_CHARS]
    found = _MEMBER.findall(text) if "<methodCall" in text[:400] else _LEAF.findall(text)
    return tuple(found[:40])


def _json_parameter(params: tuple[tuple[str, str], ...]) -> JsonValue:
    """The first JSON object that a query parameter carries."""
    for _, value in params[:12]:
        if value[:1] == "{" and value[-1:] == "}" and len(value) > 4:
            document = read_json(value)
            if isinstance(document, dict):
                return document
    return None


_FORM: Final = re.compile(r"[\w.\[\]-]{1,40}=\S*$")


def _is_form(text: str, media: str) -> bool:
    if media == "application/x-www-form-urlencoded":
        return "=" in text[:200]
    return not media and _FORM.match(text[:2000]) is not None


def _json(text: str, media: str) -> tuple[JsonValue, int]:
    """The JSON value of a body and, if it is newline-delimited, how many there are."""
    head = text[:64].lstrip()
    if not head or (head[0] not in '{["' and "json" not in media):
        return None, 0
    if "ndjson" in media or "jsonl" in media or _looks_ndjson(text):
        return _json_lines(text)
    document = read_json(text)
    return (document, 0) if document is not None else (salvage(text), 0)


def _looks_ndjson(text: str) -> bool:
    if text[:1] != "{":
        return False
    first, _, rest = text[:4096].partition("\n")
    return first.rstrip().endswith("}") and rest.lstrip()[:1] == "{"


def _json_lines(text: str) -> tuple[JsonValue, int]:
    documents: list[JsonValue] = []
    left = _MAX_NDJSON_CHARS
    for line in text.split("\n", _MAX_NDJSON_LINES)[:_MAX_NDJSON_LINES]:
        document = read_json(line) if left > 0 else None
        left -= len(line)
        if document is not None:
            documents.append(document)
    return documents, text.count("\n") + 1
