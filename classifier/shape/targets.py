"""Method, path, query string and headers in a shape."""

# The cut-offs are the kinds; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

from classifier.features.magnitudes import instant
from classifier.features.target import kinds, unsuffixed
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, split_name
from classifier.shape.names import digest, name_of, shown
from classifier.shape.scales import count, fine
from classifier.shape.texts import pattern
from classifier.shape.values import ShapelessError, Values

MAX_PATH_CHARS: Final = 2_048
MAX_QUERY_CHARS: Final = 8_192
MAX_SEGMENTS: Final = 24
MAX_PARAMS: Final = 60
MAX_HEADER_CHARS: Final = 256
METHODS: Final = vocabulary("""
    GET POST PUT PATCH DELETE HEAD OPTIONS PROPFIND REPORT SEARCH COPY MOVE MKCOL LOCK UNLOCK
    QUERY PROPPATCH TRACE
""")
_VERSION: Final = re.compile(r"v?\d{1,2}$")
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$", re.IGNORECASE)
_HEX: Final = re.compile(r"(?:0x)?[0-9a-f]{8,}$")
_DATE: Final = re.compile(r"(?<!\d)\d{4}-\d\d(?:-\d\d)?(?!\d)")
_EXTENSION: Final = re.compile(r"\.([A-Za-z][A-Za-z\d]{1,5})$")
_CUSTOM: Final = re.compile(r".:[A-Za-z]+$")
_MARKED: Final = re.compile(r"[(),;:]")


def path_shape(values: Values, method: str, raw_path: str) -> str:
    """The segments of a path: words as names, ids as their kind.

    Raises:
        ShapelessError: If it is too long.
    """
    if len(raw_path) > MAX_PATH_CHARS:
        raise ShapelessError
    segments = tuple(
        [unquote_plus(piece) if "%" in piece else piece for piece in raw_path.split("/") if piece]
    )
    if len(segments) > MAX_SEGMENTS:
        raise ShapelessError
    whole = unsuffixed(segments)
    found = kinds(whole, method)
    values.metrics = not _METRICS.isdisjoint(segments) or segments[-3:] == ("api", "v1", "query")
    before, pieces = "", []
    for segment, kind in zip(whole, found, strict=True):
        model = before in _MODELS and kind in ("id", "key")
        pieces.append(_model(segment) if model else _segment(values, segment, kind))
        before = segment
    ending = "" if whole == segments else f" {pattern(segments[-1][:200])}"
    return "/" + "/".join(pieces) + ending


_METRICS: Final = frozenset(("query_range", "prom", "prometheus", "loki", "render", "series"))
_MODELS: Final = frozenset(("models", "engines"))


def _model(segment: str) -> str:
    """A model's name says how much work it is; its number in a list of models does not."""
    return "{int}" if segment.isdigit() else digest(segment[:MAX_HEADER_CHARS])


def _segment(values: Values, segment: str, kind: str) -> str:
    if kind == "id" or (kind == "key" and _DATE.match(segment)):
        return _id(values, segment)
    if kind == "key":
        marks = f"{':' if _CUSTOM.search(segment) else ''}{_items(segment)}"
        return f"{{key{marks}{_meaning(segment)}}}{_extension(segment)}"
    if kind == "version":
        return segment if _VERSION.match(segment) else f"v{_id(values, segment)}"
    name, colon, verb = segment.rpartition(":")
    return f"{shown(name)}{colon}{shown(verb)}" if colon else shown(segment)


def _items(segment: str) -> str:
    """How many items a list in a path has."""
    number = segment.count(",") + segment.count(";")
    return count(number) if number else ""


def _id(values: Values, segment: str) -> str:
    if segment.isdigit():
        return "{int}"
    if _UUID.match(segment):
        return "{uuid}"
    if dates := _DATE.findall(segment[:80]):
        return "{date}" * len([values.ranges.instant(instant(date) or 0.0) for date in dates])
    if _MARKED.search(segment):
        return f"{{{pattern(segment[:200])}}}"
    if _HEX.match(segment):
        return "{hex}"
    return f"{{id{_meaning(segment)}}}{_extension(segment)}"


def _meaning(segment: str) -> str:
    """The words of the lexicon that a name in a key's place is made of."""
    words = [word for word in split_name(segment)[:4] if len(word) > 2 and groups(word)]
    return f" {' '.join(words)}" if words else ""


def _extension(segment: str) -> str:
    found = _EXTENSION.search(segment)
    return f".{shown(found[1].lower())}" if found else ""


def pairs_of(raw: str) -> list[tuple[str, str]]:
    """The parameters of a query string or a form, in order.

    Raises:
        ShapelessError: If there are too many.
    """
    if len(raw) > MAX_QUERY_CHARS or raw.count("&") >= MAX_PARAMS:
        raise ShapelessError
    found = []
    for part in raw.split("&"):
        if part:
            name, _, value = part.partition("=")
            found.append((_decoded(name), _decoded(value)))
    return found


def _decoded(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text


def pairs_shape(values: Values, pairs: list[tuple[str, str]]) -> str:
    """Names in their order with the kinds of their values.

    Raises:
        ShapelessError: If a value is too long.
    """
    pieces: list[str] = []
    again = 1
    for key, value in pairs:
        name = name_of(key)
        piece = f"{name.shown}={values.text(name, value, 1)}"
        if pieces and pieces[-1] == piece:
            again += 1
            continue
        if again > 1:
            pieces[-1] += count(again)
            again = 1
        pieces.append(piece)
    if again > 1:
        pieces[-1] += count(again)
    return "&".join(pieces)


_TOKEN: Final = re.compile(r"[^\W\d][\w]*|\d+|[^\w\s]")


@lru_cache(maxsize=512)
def _header(value: str) -> str:
    return " ".join(
        fine(float(token[:20])) if token.isascii() and token.isdigit() else shown(token)
        for token in _TOKEN.findall(value)
    )


def headers_shape(headers: tuple[tuple[str, str], ...]) -> str:
    """The headers that say what is asked for.

    Raises:
        ShapelessError: If one is too long.
    """
    pieces = []
    for name, value in headers:
        if len(value) > MAX_HEADER_CHARS:
            raise ShapelessError
        pieces.append(f"{name}:{_header(value)}")
    return ";".join(pieces)
