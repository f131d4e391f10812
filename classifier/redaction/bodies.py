"""The start of a body, for an LLM: names and shapes stay, values go."""

# The bounds are part of the shapes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import codecs
import html
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final
from urllib.parse import unquote_plus

from classifier.contracts import RequestView
from classifier.redaction.queries import shown_query
from classifier.redaction.shapes import (
    CUT,
    MASK,
    MAX_DEPTH,
    MAX_EXCERPT_CHARS,
    MAX_ITEMS,
    MAX_KEYS,
    MAX_READ,
    MAX_TEXT,
    is_harmless,
    is_key,
    is_sensitive,
    is_word,
    name_set,
    plain_name,
)

type Json = dict[str, Json] | list[Json] | str | int | float | bool | None
_PROSE_WORDS: Final = 20
_RANGES = name_set(
    "interval range from to since until gte lte gt lt window step start end fixedinterval"
)
_RANGE = re.compile(
    r"\d{1,9} ?[a-z]{0,7}|now(?:-\d{1,6}[a-z])?(?:/[a-z])?|\d{4}-\d\d-\d\d(?:T[\d:.]{5,15}Z?)?"
    r"|-?P[\dTDHMSWY]{2,10}", re.ASCII
)  # fmt: skip
_BLOCKS = name_set("params fromblock toblock block blocknumber")
_BLOCK = re.compile(r"0x[0-9a-fA-F]{1,9}|latest|earliest|pending|safe|finalized")
_ALWAYS_QUERY = name_set("sql statement stmt gql cypher ksql kql promql flux")
_QUERIES = _ALWAYS_QUERY | name_set("query q expr expression mutation command")
_TERMS = name_set(
    "operationname method action op operation operator command cmd type model format interval"
    " function kind verb mode task event jsonrpc object dtype encoding methodname sort order"
    " role encodingformat calendarinterval fixedinterval unit aggregation aggregator metric"
)
_LABELS = name_set("name key field header param parameter id")
_QUERY = re.compile(
    r"[\s(]*+(?:\{|select\b|(?:insert|merge|replace)\s+into\b|update\s+\S{1,80}\s+set\b|delete\s+from\b"
    r"|(?:create|drop|alter|truncate|show|rename)\s+(?:or\s+replace\s+|temporary\s+|unique\s+)?(?:table"
    r"|database|index|view|user|role|materialized|schema|function|tables|databases|columns|full)"
    r"|(?:explain|describe|analyze|optimize|pragma|vacuum|kill|grant|revoke)\b|with\s+\S{1,80}\s+as\b"
    r"|(?:optional\s+)?match\s*\(|(?:merge|unwind)\b|(?:query|mutation|subscription|fragment)\b[^{]{0,900}\{"
    r"|from\s*\(|[\w:.]{1,80}(?:\s+by\s*)?[({\[]|[^|]{1,900}\|>)", re.IGNORECASE
)  # fmt: skip
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?P<closed>")?|[\[\]{},]', re.DOTALL)
_XML_TOKEN = re.compile(
    r"<!--(?:.*?-->|.*)|<!\[CDATA\[(?P<cdata>.*?)(?:\]\]>|\Z)|<[?!][^>]*+>?"
    r"|<(?P<close>/?)(?P<tag>[^\s<>/]*+)(?P<rest>[^<>]*+)>?|(?P<text>[^<]+)", re.DOTALL
)  # fmt: skip
_ATTRIBUTE = re.compile(r"([^\s=\"']++)(?:\s*+=\s*+(?:\"[^\"]*+\"?|'[^']*+'?|[^\s\"']*+))?+|[=\"']")
_COMPOUND = re.compile(r"[a-z][A-Z_.:/-]")
_BOUNDARY = re.compile(r"boundary=\"?([^\";,\s]{1,70})", re.IGNORECASE)
_PART_NAME = re.compile(r"[\s;]name=\"?([^\";\r\n]{1,64})", re.IGNORECASE)
_PART_TYPE = re.compile(r"content-type:\s*([a-z]{1,15}/[a-z.+-]{1,40})", re.IGNORECASE)
_FORM = re.compile(r"[\w.%\[\]+~$-]{1,100}+=\S*+\s*+\Z")
# Four words in a row are a sentence, and that is somebody's text and no order of a program.
_PROSE = re.compile(r"(?:[^\W\d_]{2,40}[ \t,.!?]{1,3}+){3}[^\W\d_]{2}|[^\W\d_]{41}")
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")


def excerpt(view: RequestView) -> str:
    """What a body says of the work it asks for, without the values in it: for the LLM."""
    raw, media = view.body[:MAX_READ], view.content_type.lower()
    if media.startswith("multipart/") or b"content-disposition:" in raw[:300].lower():
        return _multipart(raw.decode("utf-8", "replace"), view.content_type)[:MAX_EXCERPT_CHARS]
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(raw)
    except UnicodeDecodeError:
        text = "\0"
    if _BINARY.search(text):
        return f"(binary, {max(view.body_bytes, len(view.body))} bytes)"
    if max(view.body_bytes, len(view.body)) > len(raw):
        text += CUT
    return _shown_text(text.strip(), media)[:MAX_EXCERPT_CHARS]


def _shown_text(text: str, media: str) -> str:
    if text[:1] in {"{", "[", '"'} and (shown := _json_text(text)):
        return shown
    if text.startswith("<"):
        return "".join(islice(_xml(text), MAX_EXCERPT_CHARS))
    if "form-urlencoded" in media or _FORM.match(text):
        return _form(text)
    words = len(text.split())
    if _QUERY.match(text) or not (words > _PROSE_WORDS or _PROSE.search(text)):
        return shown_query(text)
    return f"({words} words of text)"


def _json_text(text: str) -> str:
    """A JSON text, whole, cut off or one per line, masked; "" if it is none."""
    if shown := _loaded(text):
        return shown
    lines = text.splitlines()
    if len(lines) > 1 and _loaded(lines[0]):
        shown = "\n".join(_loaded(line) or MASK for line in lines[:MAX_ITEMS])
        return shown + (f"\n... {left} more lines" if (left := len(lines) - MAX_ITEMS) > 0 else "")
    return next(filter(None, map(_loaded, _repaired(text))), "")


def _loaded(text: str) -> str:
    try:
        return _json(json.loads(text), "", 0)
    except (ValueError, RecursionError):
        return ""


def _repaired(text: str) -> Iterator[str]:
    """Ways to end a JSON text that was cut off."""
    closers, comma, closers_at_comma, is_open = "", 0, "", False
    for token in _JSON_TOKEN.finditer(text):
        piece = token[0]
        if piece[0] == '"':
            is_open = token["closed"] is None
        elif piece == ",":
            comma, closers_at_comma = token.start(), closers
        else:
            closers = ("}" if piece == "{" else "]") + closers if piece in "{[" else closers[1:]
        if len(closers) > MAX_DEPTH:
            return
    if is_open:
        yield text.removesuffix(CUT).rstrip("\\") + CUT + '"' + closers
    yield text[:comma] + closers_at_comma


def _json(value: Json, name: str, depth: int) -> str:
    if is_sensitive(name) or depth > MAX_DEPTH:
        return f'"{MASK}"'
    match value:
        case str():
            return json.dumps(_string(name, value), ensure_ascii=False)
        case dict():
            return _members(value, depth)
        case list():
            # Under `command` the first item is the command, the others are its arguments.
            rest = "" if plain_name(name) in _TERMS | _QUERIES else name
            items = [
                _json(v, rest if i else name, depth + 1) for i, v in enumerate(value[:MAX_ITEMS])
            ]
            left = len(value) - MAX_ITEMS
            return f"[{','.join([*items, f'... {left} more'] if left > 0 else items)}]"
        case bool() | None:
            return json.dumps(value)
        case _:
            return _number(value)


def _number(value: float) -> str:
    if not abs(value) < 1e9:
        return MASK
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _members(members: dict[str, Json], depth: int) -> str:
    # One member may name what another one holds.
    told = any(
        isinstance(value, str) and plain_name(key) in _LABELS and is_sensitive(value)
        for key, value in members.items()
    )
    shown = [
        f'"{key if is_key(key) else MASK}":'
        + (f'"{MASK}"' if told and plain_name(key) not in _LABELS else _json(value, key, depth + 1))
        for key, value in list(members.items())[:MAX_KEYS]
    ]
    left = len(members) - MAX_KEYS
    return f"{{{','.join([*shown, f'... {left} more'] if left > 0 else shown)}}}"


def _string(name: str, text: str) -> str:
    """A string value: shown as far as its name says that it is no data."""
    plain = plain_name(name)
    first, _, rest = text.partition(" ")
    if is_sensitive(name):
        return MASK
    if plain in _QUERIES and (plain in _ALWAYS_QUERY or _QUERY.match(text)):
        return shown_query(text)
    told = plain in _TERMS or (plain == "name" and not rest and _COMPOUND.search(first))
    if told and all(is_word(word, 12) for word in first.split("/")):
        return f"{first} {MASK}" if rest else first
    in_range = plain in _RANGES and _RANGE.fullmatch(text)
    if in_range or (plain in _BLOCKS and _BLOCK.fullmatch(text)) or is_harmless(plain, text):
        return text
    return MASK if len(text) <= 40 else f"{MASK} ({len(text)} chars)"


def _form(text: str) -> str:
    pairs = text.split("&")
    shown = []
    for pair in pairs[:MAX_KEYS]:
        name, equals, value = map(unquote_plus, pair.partition("="))
        number = re.fullmatch(r"\d{1,9}", value) and not is_sensitive(name)
        shown.append(
            f"{name if is_key(name) else MASK}{equals}"
            f"{value if number or not value else _string(name, value)}"
        )
    left = len(pairs) - MAX_KEYS
    return "&".join([*shown, f"... {left} more"] if left > 0 else shown)


def _xml(text: str) -> Iterator[str]:
    name = hidden = ""
    for token in islice(_XML_TOKEN.finditer(text), MAX_TEXT):
        tag, inside = token["tag"], token["text"] or token["cdata"]
        if inside and inside.strip():
            yield MASK if hidden else _string(name, html.unescape(inside.strip()))
        if not tag:
            continue
        name = "" if token["close"] else tag.rpartition(":")[2]
        if token["close"] and hidden == tag:
            hidden = ""
        elif not hidden and is_sensitive(name):
            hidden = tag
        attributes = (found[1] for found in _ATTRIBUTE.finditer(token["rest"]) if found[1])
        shown = [f' {a}="{MASK}"' for a in attributes if is_word(a)]
        yield f"<{token['close']}{tag if is_word(tag) else MASK}{''.join(shown)}>"


def _multipart(text: str, content_type: str) -> str:
    found = _BOUNDARY.search(content_type)
    boundary = f"--{found[1]}" if found else text.lstrip().split("\n", 1)[0].strip()
    shown = []
    for part in text.split(boundary or "--")[1 : MAX_KEYS + 1]:
        head, _, content = part.replace("\r\n", "\n").partition("\n\n")
        name, media = _PART_NAME.search(head), _PART_TYPE.search(head)
        if name is None:
            continue
        known = name[1] if is_key(name[1]) else MASK
        shown.append(f"{known}: {media[1] if media else ''} {MASK} ({len(content)} chars)")
    return "\n".join(shown)
