"""A request taken apart once: what every reader of features starts from. Never raises."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote_plus

from pydantic import JsonValue

from classifier.contracts import RequestView

MAX_BODY_CHARS: Final = 65_536
_MAX_SALVAGE_CHARS: Final = 8_192
_MAX_SEGMENTS: Final = 24
_MAX_PARAMS: Final = 60
_MAX_QUERY_CHARS: Final = 8_192
_MAX_NDJSON_LINES: Final = 40
_MAX_NESTING: Final = 200
_MAX_DIGITS: Final = 400
_PAIR: Final = re.compile(
    r'"([\w$@.\-]{1,60})"\s*:\s*("(?:[^"\\]|\\.){0,2000}"?|-?\d{1,18}(?:\.\d{1,9})?|true|false|[\[{])'
)
_TRAILING_COMMA: Final = re.compile(r",\s*([}\]])")


@dataclass(frozen=True, slots=True)
class Parts:
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
    pieces = raw_path[:4096].split("/")
    return tuple(unquote_plus(piece) if "%" in piece else piece for piece in pieces if piece)[
        :_MAX_SEGMENTS
    ]


def _pairs(raw: str) -> tuple[tuple[str, str], ...]:
    raw = raw[:_MAX_QUERY_CHARS]
    if not raw:
        return ()
    if raw.count("&") > _MAX_PARAMS:
        raw = "&".join(raw.split("&", _MAX_PARAMS)[:_MAX_PARAMS])
    return tuple(parse_qsl(raw, keep_blank_values=True))


_LEAF: Final = re.compile(r"<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)[^<>]{0,200}>([^<>]{1,200})</")
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
            document = _parsed(value)
            if isinstance(document, dict):
                return document
    return None


def _is_form(text: str, media: str) -> bool:
    if media == "application/x-www-form-urlencoded":
        return "=" in text[:200]
    return not media and bool(
        re.match(r"[\w.\[\]-]{1,40}=[^\s]*(?:&[\w.\[\]%-]{1,60}=[^\s]*)*$", text[:2000])
    )


def _json(text: str, media: str) -> tuple[JsonValue, int]:
    """The JSON value of a body and, if it is newline-delimited, how many there are."""
    head = text[:64].lstrip()
    if not head or (head[0] not in '{["' and "json" not in media):
        return None, 0
    if "ndjson" in media or "jsonl" in media or _looks_ndjson(text):
        return _json_lines(text)
    document = _parsed(text)
    return (document, 0) if document is not None else (_salvaged(text), 0)


def _looks_ndjson(text: str) -> bool:
    first, _, rest = text[:4096].partition("\n")
    return first.startswith("{") and first.rstrip().endswith("}") and rest.lstrip()[:1] == "{"


def _json_lines(text: str) -> tuple[JsonValue, int]:
    parsed = [_parsed(line) for line in text.split("\n", _MAX_NDJSON_LINES)[:_MAX_NDJSON_LINES]]
    documents: list[JsonValue] = [document for document in parsed if document is not None]
    return documents, text.count("\n") + 1


def _parsed(text: str) -> JsonValue:
    if text.count("[") + text.count("{") > _MAX_NESTING and _deep(text):
        return None
    try:
        found: JsonValue = json.loads(text, parse_int=_bounded_int)
    except (ValueError, RecursionError):
        return None
    return found


def _deep(text: str) -> bool:
    """Whether brackets nest beyond what any API sends; quick, strings not told apart."""
    return re.search(r"(?:[\[{]\s*){60}", text) is not None


def _bounded_int(digits: str) -> int:
    return int(digits[:_MAX_DIGITS])


def _salvaged(text: str) -> JsonValue:
    """What a cut-off or slightly broken JSON text still says, as one flat object."""
    if text[:64].lstrip()[:1] not in ("{", "["):
        return None
    mended = _TRAILING_COMMA.sub(r"\1", text[:_MAX_SALVAGE_CHARS])
    document = _parsed(mended)
    if document is not None:
        return document
    flat: dict[str, JsonValue] = {}
    for key, value in _PAIR.findall(mended):
        flat.setdefault(key, _scalar(value))
    return flat or None


def _scalar(value: str) -> JsonValue:
    if value[0] == '"':
        return value.strip('"')
    if value[0] in "[{":
        return [] if value[0] == "[" else {}
    if value[0] in "tf":
        return value == "true"
    return float(value) if "." in value else int(value)
