"""Values in a shape: of a text its kind, of a number its magnitude, of a list its items' shapes."""

# The cut-offs are the kinds; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final

from pydantic import JsonValue
from pydantic_core import from_json

from classifier.features.magnitudes import instant, seconds
from classifier.features.vocabulary import vocabulary
from classifier.shape.names import Name, Numbers, Texts, digest, name_of
from classifier.shape.queries import Language, language_of, query_shape
from classifier.shape.scales import Ranges, count, decade, duration, fine, step
from classifier.shape.texts import DATE_MARK, is_structured, location, marks, pattern, prose, worded

MAX_NODES: Final = 500
MAX_ELEMENTS: Final = 40
_MAX_DEPTH: Final = 40
_MAX_POSITIONAL: Final = 8
# Where a value's words may say something: in the outermost object and in those within it.
_OUTER: Final = 2
_MAX_WORDED: Final = 40
_MAX_LIST: Final = 400
_MAX_NESTED: Final = 8_192
_EPOCH_MIN: Final = 1_000_000_000
_POSITIONAL: Final = vocabulary("params args arguments arg parameters")
ELEMENT: Final = name_of("")._replace(item=True)
COMMAND: Final = name_of("command-word")._replace(texts=Texts.OPERATION)


class ShapelessError(Exception):
    """The request has no safe shape: too large, too deep, or nothing that is understood."""


class Values:
    """Shapes of the values of one request, and what is told of all of them together."""

    __slots__ = ("_fine", "_nodes", "longest", "longest_item", "metrics", "ranges")

    def __init__(self) -> None:
        """Nothing seen yet."""
        self.ranges = Ranges()
        self.longest = self.longest_item = 0
        self.metrics = False
        self._nodes = 0
        self._fine = False

    def node(self, name: Name, value: JsonValue, depth: int) -> str:
        """The shape of a JSON value.

        Args:
            name: What it stands under.
            value: The value.
            depth: 1 for what stands in the outermost object.

        Raises:
            ShapelessError: If there is too much of it.
        """
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > _MAX_DEPTH:
            raise ShapelessError
        if isinstance(value, str):
            return self.text(name, value, depth)
        if isinstance(value, dict):
            return self._object(value, depth)
        if isinstance(value, list):
            return self._list(name, value, depth)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        return self.number(name, value)

    def number(self, name: Name, value: float) -> str:
        """The magnitude of a number, as closely as its name wants it."""
        if isinstance(value, float):
            return f"{self._magnitude(name, value)}."
        return self._magnitude(name, value)

    def _magnitude(self, name: Name, value: float) -> str:
        if name.bounds and value >= _EPOCH_MIN:
            return self.ranges.epoch(min(value, 1e15))
        if name.silent and value in (0, 1):
            # Where flags are written as numbers, all others are none.
            return "1" if value else "0"
        if name.numbers is Numbers.ID:
            return "i"
        if name.numbers is Numbers.FINE:
            return fine(value)
        if self._fine:
            return step(value)
        return self.ranges.number(value) if name.bounds else decade(value)

    def text(self, name: Name, value: str, depth: int) -> str:
        """The kind of a text; `depth` as for `node`.

        Raises:
            ShapelessError: If it is a query that is too long.
        """
        if name.item:
            self.longest_item = max(self.longest_item, len(value))
        else:
            self.longest = max(self.longest, len(value))
        if len(value) < 2:
            return self._short(name, value, depth)
        if value[0] in "{[" and value[-1] in "}]":
            return self._nested(name, value, depth)
        language = self._language(name, value)
        return self._query(value, language) if language else self._short(name, value, depth)

    def _short(self, name: Name, value: str, depth: int) -> str:
        """A text that is no query."""
        if name.texts is Texts.MODEL and len(value) <= _MAX_WORDED:
            return f"={digest(value)}"
        if name.texts is not Texts.OPERATION:
            if DATE_MARK in value:
                return "s"
            if len(value) >= _DATE_CHARS and "-" in value:
                value = self._dated(name, value, depth)
            if value[:1] in _NUMERIC and len(value) <= _MAX_WORDED:
                return self._numeric(name, value, depth)
        if len(value) > _MAX_WORDED:
            return self._long(name, value, depth)
        return worded(value, operation=name.texts is Texts.OPERATION, outer=depth <= _OUTER)

    def _nested(self, name: Name, value: str, depth: int) -> str:
        """A text that is JSON, or reads like it."""
        if len(value) <= _MAX_NESTED:
            try:
                return f"({self.node(name, from_json(value), depth)})"
            except ValueError:
                pass
        if language := self._language(name, value):
            return self._query(value, language)
        return pattern(value) if len(value) <= _MAX_LIST else prose(value)

    def _language(self, name: Name, value: str) -> Language | None:
        texts = name.texts
        if self.metrics and texts is Texts.QUERY:
            texts = Texts.ALWAYS
        told = texts in (Texts.QUERY, Texts.MAYBE, Texts.ALWAYS)
        return language_of(value, texts) if told or len(value) > _SHORT_TEXT else None

    def _dated(self, name: Name, value: str, depth: int) -> str:
        """The text with a mark for each date in it; what may be a range of time is taken in."""
        dates = _DATE.findall(value[:_MAX_DATED])
        if dates and (name.bounds or depth <= _OUTER or len(dates) > 1):
            for found in dates:
                self.ranges.instant(instant(found) or 0.0)
        return _DATE.sub(DATE_MARK, value) if dates else value

    def _query(self, value: str, language: Language) -> str:
        found = query_shape(value, language, self.ranges)
        if found is None:
            raise ShapelessError
        return found

    def _object(self, value: dict[str, JsonValue], depth: int) -> str:
        pieces: list[str] = []
        again = 1
        for key, item in value.items():
            name = name_of(key)
            if depth == 0 and not pieces and name.shown.startswith("~") and _is_word(item):
                # The first member of a message, called like in no other API: it may say what to do.
                name = name._replace(texts=Texts.OPERATION)
            fine_before = self._fine
            self._fine = fine_before or key == "variables"
            # The parameters of a call are read as if there were nothing around them.
            below = 0 if name.shown in _POSITIONAL else depth + 1
            piece = f"{name.shown}:{self.node(name, item, below)}"
            self._fine = fine_before
            if pieces and pieces[-1] == piece:
                again += 1
                continue
            again = _counted(pieces, again)
            pieces.append(piece)
        _counted(pieces, again)
        return f"{{{','.join(pieces)}}}"

    def _list(self, name: Name, value: list[JsonValue], depth: int) -> str:
        kinds = set(map(type, value))
        if kinds <= {int, float}:
            return f"[n{count(len(value))}]"
        command = depth == 0 and dict not in kinds
        if len(value) <= _MAX_POSITIONAL and (command or name.shown in _POSITIONAL):
            names = [COMMAND if command else ELEMENT, *[ELEMENT] * (len(value) - 1)]
            items = [self.node(*one, depth + 1) for one in zip(names, value, strict=True)]
            return f"[{','.join(items)}]"
        inner = name._replace(item=True)
        shapes = {self.node(inner, item, depth + 1) for item in value[:MAX_ELEMENTS]}
        return f"[{'|'.join(sorted(shapes))}{count(len(value))}]"

    def _numeric(self, name: Name, value: str, depth: int) -> str:
        """A text that begins like a number: a number, a time, a hash, an id."""
        if value.isascii() and value.isdigit():
            return f"'{self.number(name, int(value))}"
        if value[4:5] == "-" and (when := instant(value)) is not None:
            return self.ranges.instant(when) if name.bounds else "d"
        if value[:2] == "0x":
            return self._hexadecimal(name, value)
        if (name.bounds or name.numbers is Numbers.FINE) and (long := seconds(value)) is not None:
            return f"t{duration(long)}{'now' if value[0] == 'n' else ''}"
        if sides := _SIDES.fullmatch(value):
            return f"{fine(int(sides[1]))}x{fine(int(sides[2] or 1))}"
        return worded(value, operation=False, outer=depth <= _OUTER)

    def _hexadecimal(self, name: Name, value: str) -> str:
        digits = value[2:18]
        if value == "0x0" or len(value) > 18 or not name.bounds:
            return "h0" if value == "0x0" else "h"
        try:
            return f"{self.ranges.number(int(digits, 16))}h"
        except ValueError:
            return "h"

    def _long(self, name: Name, value: str, depth: int) -> str:
        if found := location(value):
            return found
        if len(value) <= _MAX_LIST and " " not in value and _LISTED.search(value):
            return pattern(value)
        if depth <= _OUTER and is_structured(value):
            return self._query(value, Language.OTHER)
        token = " " not in value and any(map(str.isdigit, value[:_MAX_LIST]))
        return ("x" if token else prose(value)) + (marks(value) if name.keyed else "")


_NUMERIC: Final = frozenset("0123456789+-nP")
_DATE: Final = re.compile(r"(?<!\d)\d{4}-\d\d-\d\d(?:[T ]\d\d:[\d:.]+(?:Z|[+-]\d\d:?\d\d)?)?")
_DATE_CHARS: Final = 10
_MAX_DATED: Final = 400
_SHORT_TEXT: Final = 12
# `1024x768`, and the -1 that asks for all.
_SIDES: Final = re.compile(r"(-1|\d{1,5}(?=x))(?:x(\d{1,5}))?", re.ASCII)
_LISTED: Final = re.compile(r"[(,*=:|%]")
_WORD: Final = re.compile(r"[A-Za-z_.:/-]{2,40}")


def _is_word(value: JsonValue) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _counted(pieces: list[str], times: int) -> int:
    if times > 1:
        pieces[-1] += count(times)
    return 1
