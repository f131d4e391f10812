"""An operator's rules: conditions on a request, and the label of those that meet them all.

Invariant: time is linear in the request and in the rules, whatever a client sends. Patterns are
globs, which are looked for from left to right and never again, or regular expressions of an engine
that does not backtrack.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from pydantic_core import SchemaError, SchemaValidator, core_schema

from classifier.contracts import Label

MAX_PATTERN_CHARS = 500
MAX_REPEATS = 1_000
_REPEAT = re.compile(r"\{(?:\d+,)?(\d+),?\}")

type JsonScalar = str | int | float | bool
type Predicate = Callable[[RequestFacts], bool]
type CompileFilter = Callable[[str], Predicate]
"""Makes a predicate of a mitmproxy flow filter; a ValueError says why there is none."""


@dataclass(frozen=True)
class RequestFacts:
    """What rules may know of a request. Never leaves the process.

    Attributes:
        method: Upper-case HTTP method.
        path: Request target in origin form, query string included.
        headers: All of them, as they came, with lower-case names.
        body: The body, or the first bytes of a long one; still encoded as on the wire.
        scheme: How the client speaks to us.
        peer: Address of whoever has connected; "" if that is not known.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    scheme: str = "http"
    peer: str = ""

    @cached_property
    def bare_path(self) -> str:
        """The path without its query string."""
        return self.path.partition("?")[0]

    @cached_property
    def body_text(self) -> str:
        """The body, a character for each byte: patterns for it are spelled by `as_body_text`."""
        return self.body.decode("latin-1")

    @cached_property
    def document(self) -> object:
        """The body as JSON; `NO_DOCUMENT` if it is none, or not whole."""
        try:
            return json.loads(self.body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return NO_DOCUMENT


def as_body_text(text: str) -> str:
    """Text as it looks in `RequestFacts.body_text`, if it came as UTF-8."""
    return text.encode().decode("latin-1")


NO_DOCUMENT = object()
_ABSENT = object()


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


class Glob:
    """A pattern in which each `*` stands for anything, also for nothing and for slashes."""

    __slots__ = ("_first", "_last", "_middle", "_whole")

    def __init__(self, pattern: str) -> None:
        """A glob; all but the star stands for itself."""
        parts = pattern.split("*")
        self._whole = len(parts) == 1
        self._first, self._last = parts[0], parts[-1]
        self._middle = tuple(part for part in parts[1:-1] if part)

    def fits(self, text: str) -> bool:
        """Whether the pattern fits the whole text."""
        if self._whole:
            return text == self._first
        at, end = len(self._first), len(text) - len(self._last)
        if at > end or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            # The first place leaves most for those that follow, so no other need be tried.
            if (found := text.find(part, at, end)) < 0:
                return False
            at = found + len(part)
        return True


class LinearRegex:
    """A regular expression, found anywhere in a text in time that is linear in it.

    Python's own engine backtracks: `(a+)+$` would let a client stop the proxy. This is the engine
    of Rust (through pydantic): no look-around, no back-references.
    """

    __slots__ = ("_validator",)

    def __init__(self, pattern: str, flags: str = "") -> None:
        """Compile.

        Args:
            pattern: In Rust's syntax, which is that of Python but for what cannot be linear.
            flags: Letters of the set `ims`.

        Raises:
            ValueError: If it is none, or too large.
        """
        repeats = math.prod(max(1, int(most)) for most in _REPEAT.findall(pattern))
        if len(pattern) > MAX_PATTERN_CHARS or repeats > MAX_REPEATS:
            msg = f"{pattern[:60]!r} is too large a pattern"
            raise ValueError(msg)
        source = f"(?{flags}){pattern}" if flags else pattern
        schema = core_schema.str_schema(pattern=source, regex_engine="rust-regex")
        try:
            self._validator = SchemaValidator(schema)
        except SchemaError as exc:
            why = str(exc).rpartition("error: ")[2].strip() or "not understood"
            msg = f"{pattern!r} is not a usable regular expression: {why}"
            raise ValueError(msg) from exc

    def found_in(self, text: str) -> bool:
        """Whether some part of the text matches."""
        if not text.isascii():
            # Bytes of the wire that are no text are kept as surrogates; the engine takes none.
            text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return self._validator.isinstance_python(text)


class Condition(Protocol):
    """Something to ask about a request."""

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class MethodIs:
    """The method is one of these, written in capitals."""

    methods: frozenset[str]

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        return facts.method in self.methods


@dataclass(frozen=True, slots=True)
class PathFits:
    """A glob fits the path, as it was sent, without its query."""

    glob: Glob

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        return self.glob.fits(facts.bare_path)


@dataclass(frozen=True, slots=True)
class PathMatches:
    """A regular expression is found in the path, as it was sent, without its query."""

    regex: LinearRegex

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        return self.regex.found_in(facts.bare_path)


@dataclass(frozen=True, slots=True)
class HeaderFits:
    """There is a header of this name (lower-case) whose value a glob fits."""

    name: str
    glob: Glob

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        return any(name == self.name and self.glob.fits(value) for name, value in facts.headers)


@dataclass(frozen=True, slots=True)
class BodyFits:
    """A glob fits the body, or as much of it as is looked at."""

    glob: Glob

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        return self.glob.fits(facts.body_text)


@dataclass(frozen=True, slots=True)
class JsonFits:
    """The body is JSON, and what stands at a path in it passes a test.

    Attributes:
        path: Names of members; in arrays, positions from 0.
        test: Gets what stands there, or a value equal to nothing.
    """

    path: tuple[str, ...]
    test: Callable[[object], bool]

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        document = facts.document
        return document is not NO_DOCUMENT and self.test(_member(document, self.path))


@dataclass(frozen=True, slots=True)
class FilterFits:
    """A mitmproxy flow filter fits.

    Attributes:
        predicate: What it says; None where mitmproxy is not at hand, and then it fits nothing.
    """

    text: str
    predicate: Predicate | None = field(compare=False)

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets it."""
        return self.predicate is not None and self.predicate(facts)


@dataclass(frozen=True, slots=True)
class Rule:
    """What gives its label to each request that meets all conditions.

    Attributes:
        conditions: At least one; the cheap ones first.
    """

    name: str
    label: Label
    conditions: tuple[Condition, ...]

    def fits(self, facts: RequestFacts) -> bool:
        """Whether the request meets all conditions."""
        return all(condition.fits(facts) for condition in self.conditions)


def first_match(rules: Iterable[Rule], facts: RequestFacts) -> Rule | None:
    """The first rule that fits; None if none does."""
    return next((rule for rule in rules if rule.fits(facts)), None)


def _member(document: object, path: tuple[str, ...]) -> object:
    for name in path:
        if isinstance(document, dict):
            document = document.get(name, _ABSENT)
        elif isinstance(document, list) and name.isdecimal() and int(name) < len(document):
            document = document[int(name)]
        else:
            return _ABSENT
    return document


# Tests of values in JSON

_ORDERINGS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def json_test(expected: JsonScalar) -> Callable[[object], bool]:
    """The test of a value that a rule asks for.

    Args:
        expected: A number or truth value; or text that begins with `=`, `!=`, `>=`, `<=`, `>` or
            `<`; or a glob. What is not there differs from everything, and passes `!=` alone.

    Raises:
        ValueError: If text compares with something that is no number.
    """
    text = _text_of(expected)
    if text is None or not isinstance(expected, str):
        return _equal_to(text or "")
    for sign, compare in _ORDERINGS.items():
        if text.startswith(sign):
            return _ordered(compare, text, text.removeprefix(sign))
    if text.startswith("!="):
        equal = _equal_to(text.removeprefix("!="))
        return lambda value: not equal(value)
    if text.startswith("="):
        return _equal_to(text.removeprefix("="))
    glob = Glob(text)
    return lambda value: (shown := _text_of(value)) is not None and glob.fits(shown)


def _ordered(
    compare: Callable[[float, float], bool], expected: str, operand: str
) -> Callable[[object], bool]:
    bound = _number_of(operand)
    if bound is None:
        msg = f"{expected[:60]!r} compares with no number; write one, like >=1000"
        raise ValueError(msg)
    return lambda value: _is_number(value) and compare(value, bound)  # type: ignore[arg-type]  # it is one


def _equal_to(text: str) -> Callable[[object], bool]:
    text, number = text.strip(), _number_of(text)

    def equal(value: object) -> bool:
        if number is not None and _is_number(value):
            return value == number
        return _text_of(value) == text

    return equal


def _number_of(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text_of(value: object) -> str | None:
    """A value as a glob sees it; None for objects, arrays and what is not there."""
    match value:
        case str():
            return value
        case True | False | None:
            return json.dumps(value)
        case int() | float():
            return repr(value)
        case _:
            return None
