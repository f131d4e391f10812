"""JSON texts within bounded work: whole if short or plain, else in outline. Never raises.

A long text with many values is read only as far as readers of features look anyway: the first
members of every container, and the fields that follow the long one. A list that was cut keeps
its length, estimated from how many characters its first items took.
"""

import json
import re
from typing import Final

from pydantic import JsonValue

_MAX_WHOLE_CHARS: Final = 16_384
# What costs are values, not characters: a long prompt is read whole, a long table is not.
_MAX_MARKS: Final = 1_500
_OUTLINE_CHARS: Final = 6_144
_MAX_OPENED: Final = 4
_MAX_STEPS: Final = 120
_LONG_TEXT: Final = 200
_ENDING_CHARS: Final = 2_048
_MAX_ENDINGS: Final = 8
_MAX_SALVAGE_CHARS: Final = 8_192
_MAX_NESTING: Final = 200
_MAX_DIGITS: Final = 400
_PAIR: Final = re.compile(
    r'"([\w$@.\-]{1,60})"\s*:\s*("(?:[^"\\]|\\.){0,2000}"?|-?\d{1,18}(?:\.\d{1,9})?|true|false|[\[{])'
)
_TRAILING_COMMA: Final = re.compile(r",\s*([}\]])")
_DEEP: Final = "[" * 60
_GAP: Final = re.compile(r"[\s,]*")
_COLON: Final = re.compile(r"\s*:\s*")
_AFTER_CONTAINER: Final = re.compile(r"[\]}]\s*,(?=\s*\")")
_BLANKS: Final = " \t\n\r"
_DECODER: Final = json.JSONDecoder()


def read_json(text: str) -> JsonValue:
    """The value of a JSON text, of a long one its outline; None if it is broken."""
    if len(text) > _MAX_WHOLE_CHARS and _is_rich(text):
        return None if _deep(text[:_OUTLINE_CHARS]) else _outline(text)
    return parse(text)


def _is_rich(text: str) -> bool:
    """Whether a text holds many values."""
    commas = text.count(",")
    return commas > _MAX_MARKS or commas + text.count("[") + text.count("{") > _MAX_MARKS


def parse(text: str) -> JsonValue:
    """The value of a whole JSON text; None if it is broken or nests too deep."""
    if len(text) > _MAX_NESTING and _deep(text):
        return None
    try:
        found: JsonValue
        text = text.strip(_BLANKS)
        found, end = _DECODER.raw_decode(text)
    except RecursionError:
        return None
    except ValueError as exc:
        # Not broken, but a number of more digits than Python takes.
        return None if isinstance(exc, json.JSONDecodeError) else _parsed_with_bounds(text)
    return found if end == len(text) else None


def _parsed_with_bounds(text: str) -> JsonValue:
    try:
        found: JsonValue = json.loads(text, parse_int=_bounded_int)
    except (ValueError, RecursionError):
        return None
    return found


def _bounded_int(digits: str) -> int:
    return int(digits[:_MAX_DIGITS])


def _deep(text: str) -> bool:
    """Whether brackets nest beyond what any API sends; quick, strings not told apart."""
    if text.count("[") + text.count("{") <= _MAX_NESTING:
        return False
    return _DEEP in text.replace("{", "[")


def salvage(text: str) -> JsonValue:
    """What a cut-off or slightly broken JSON text still says, as one flat object."""
    if text[:64].lstrip()[:1] not in ("{", "["):
        return None
    mended = _TRAILING_COMMA.sub(r"\1", text[:_MAX_SALVAGE_CHARS])
    document = parse(mended)
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


def _outline(text: str) -> JsonValue:
    document = _Outline(text).read()
    if isinstance(document, dict):
        for key, value in _ending(text).items():
            document.setdefault(key, value)
    return document or None


def _ending(text: str) -> dict[str, JsonValue]:
    """The last fields of an object whose longest field was not read to its end."""
    tail = text[-_ENDING_CHARS:]
    for found in list(_AFTER_CONTAINER.finditer(tail))[-_MAX_ENDINGS:]:
        document = parse("{" + tail[found.end() :])
        if isinstance(document, dict):
            return document
    return {}


class _Outline:
    """Reads a text up to a limit: the outer containers item by item, what they hold at once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = len(text) - len(text.lstrip())
        self._limit = self._at + _OUTLINE_CHARS
        self._steps = 0
        self._cut = False

    def read(self) -> JsonValue:
        return self._value(0)

    def _value(self, depth: int) -> JsonValue:
        """The value here, None if it ends behind the limit and cannot be read in part."""
        start = self._at
        opening = self._text[start : start + 1]
        self._steps += 1
        if start >= self._limit or self._steps > _MAX_STEPS:
            return self._stop()
        if opening not in ("[", "{"):
            found = self._scan(self._text)
            # A long text says nothing about how many values follow it.
            self._limit += self._at - start if self._at - start > _LONG_TEXT else 0
            return found
        found = self._scan(self._text[: self._limit]) if depth else self._stop()
        if not self._cut or depth >= _MAX_OPENED:
            return found
        self._cut = False
        return self._list(depth) if opening == "[" else self._object(depth)

    def _scan(self, text: str) -> JsonValue:
        try:
            found: JsonValue
            found, self._at = _DECODER.raw_decode(text, self._at)
        except (ValueError, RecursionError):
            return self._stop()
        return found

    def _stop(self) -> JsonValue:
        self._cut = True
        return None

    def _list(self, depth: int) -> list[JsonValue]:
        start = self._at
        self._at += 1
        items: list[JsonValue] = []
        while not self._ends("]"):
            before = self._at
            item = self._value(depth + 1)
            if self._cut:
                # One like the others that the limit fell upon, or the long one that brought it on?
                like_others = item is None or self._at - before <= before - start
                return self._as_long(items, start, before) if like_others else [*items, item]
            items.append(item)
        return items

    def _as_long(self, items: list[JsonValue], start: int, end: int) -> list[JsonValue]:
        """The items with the last of them standing for those that were not read."""
        share = (end - start) / (len(self._text) - start)
        missing = int(len(items) / share) - len(items)
        return items + items[-1:] * missing

    def _object(self, depth: int) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = {}
        self._at += 1
        while not self._ends("}"):
            key = self._key()
            value = self._value(depth + 1) if key is not None else self._stop()
            if key is not None and not (self._cut and value is None):
                found[key] = value
            if self._cut:
                break
        return found

    def _key(self) -> str | None:
        key = self._scan(self._text)
        colon = _COLON.match(self._text, self._at)
        if not isinstance(key, str) or colon is None:
            return None
        self._at = colon.end()
        return key

    def _ends(self, closing: str) -> bool:
        """Step to the next value or over the end of the container."""
        gap = _GAP.match(self._text, self._at)
        self._at = gap.end() if gap else self._at
        if not self._text.startswith(closing, self._at):
            return False
        self._at += 1
        return True
