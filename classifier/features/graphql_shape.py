"""GraphQL documents taken apart: what the roots ask for, how lists nest, what bounds them.

A small tolerant lexer instead of a full parse: it takes cut-off documents and is several times
faster; the shape is all that is needed.
"""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from dataclasses import dataclass, field
from functools import lru_cache
from string import ascii_letters
from typing import Final, NamedTuple

from pydantic import JsonValue

from classifier.features.intent import head_of
from classifier.features.lexemes import lexemes
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, is_plural, split_name

# Blanks are stepped over with the lexeme behind them: to look for one at every blank costs more.
# Not all at once, for where no lexeme is behind them, the next blank is tried as well.
# Texts are unrolled and possessive, so that a long one takes one pass.
_TOKEN: Final = re.compile(
    r"[\s,]{0,31}+(?:[\s,]|("
    r"[A-Za-z_]\w*|[{}()\[\]:@$!=|]|#[^\n]*|"
    r'"""[^"\\]*+(?:(?:\\.|"(?!""))[^"\\]*+)*+(?:""")?|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+"?|'
    r"\.\.\.|-?\d[\w.+-]*))"
)


_MAX_CHARS: Final = 12_000


_MAX_TOKENS: Final = 800
_MAX_NAME: Final = 120
_LETTERS: Final = frozenset(ascii_letters + "_")
# After a field: its arguments, directives, selection.
_GOES_ON: Final = frozenset("(@{")


_OPERATIONS: Final = frozenset(("query", "mutation", "subscription"))


_BOUNDS: Final = vocabulary("""
    first last limit take top pagesize size perpage count n amount max
""")


_KEYS: Final = vocabulary("""
    id _id key slug uuid number code handle sku name email login iid ids lexeme urlkey url_key
    address hash
""")


_AGGREGATES: Final = vocabulary("""
    count totalcount aggregate sum avg average min max stddev groupby _aggregate buckets stats
    aggregations
""")


_TELLING: Final = vocabulary("""
    generate infer embed export report optimize train convert agg search scan import maintain
    tree
""")


_NO_LISTS: Final = frozenset(("self", "version", "health", "template"))


_WRAPPERS: Final = frozenset(("edges", "nodes", "items", "data", "results"))
_FILTERS: Final = vocabulary("filter where search query filters condition input")
_WILDCARDS: Final = ('"%', '"*', '"\\"%')
_RECURSIONS: Final = frozenset(("recurse", "depth", "shortest", "hops", "maxdepth"))
_MAX_MEANT_FIELDS: Final = 60
_ASSUMED_SIZE: Final = 30.0
_MAX_PRODUCT: Final = 1e12
_SINGLE: Final = frozenset(("viewer", "me", "node"))


def last_word(name: str) -> str:
    """The last word of a name, "" if it has none."""
    words = split_name(name)
    return words[-1] if words else ""


@dataclass(slots=True)
class Root:
    """One field of the root selection."""

    name: str
    keyed: bool = False
    bounded: bool = False
    bound: float | None = None
    arguments: int = 0


@dataclass(slots=True)
class Shape:
    """What was seen of a GraphQL document."""

    operation: str = "query"
    roots: list[Root] = field(default_factory=list)
    depth: int = 0
    list_depth: int = 0
    unbounded_list_depth: int = 0
    lists: int = 0
    fields: int = 0
    spreads: int = 0
    aggregates: int = 0
    limits: list[float] = field(default_factory=list)
    introspection: bool = False
    filters: int = 0
    operations: int = 0
    product: float = 1.0
    everything: bool = False
    wildcard: bool = False
    recursive: bool = False
    meanings: set[str] = field(default_factory=set)


class _Level(NamedTuple):
    """Where a selection stands: lists above it, those without bounds, how many objects."""

    lists: int
    unbounded: int
    product: float = 1.0


class _FieldName(NamedTuple):
    """What a field's name alone says."""

    introspection: bool
    typename: bool
    aggregate: bool
    meanings: frozenset[str]
    wrapper: bool
    single: bool
    many: bool


class _ArgumentName(NamedTuple):
    """What an argument's name alone says."""

    meanings: frozenset[str]
    bound: bool
    key: bool
    ends_as_key: bool
    filters: bool
    filter: bool
    recursion: bool


@lru_cache(maxsize=4096)
def _field_name(name: str) -> _FieldName:
    lower = name.lower()
    wrapper = lower in _WRAPPERS
    return _FieldName(
        introspection=lower.startswith("__") and lower != "__typename",
        typename=lower == "__typename",
        aggregate=lower in _AGGREGATES or lower.endswith(("aggregate", "count", "stats")),
        meanings=_meanings(name),
        wrapper=wrapper,
        single=name in _SINGLE or head_of(last_word(name)) in _NO_LISTS,
        many=is_plural(name) or wrapper or lower.endswith("connection"),
    )


@lru_cache(maxsize=4096)
def _argument_name(name: str) -> _ArgumentName:
    lower = name.lower()
    return _ArgumentName(
        meanings=_meanings(name),
        bound=lower in _BOUNDS,
        key=lower in _KEYS,
        ends_as_key=lower.endswith(("id", "key", "slug", "ids")),
        filters=lower in _FILTERS,
        filter=lower == "filter",
        recursion=lower in _RECURSIONS,
    )


def _meanings(name: str) -> frozenset[str]:
    return frozenset(
        group for word in split_name(name)[:5] for group in groups(word) if group in _TELLING
    )


def read_shape(text: str, variables: JsonValue) -> Shape:
    """The shape of a GraphQL document; never raises."""
    found = lexemes(_TOKEN, text[:_MAX_CHARS], _MAX_TOKENS)
    tokens = [token for token in found if token[0] != "#"]
    reader = _Reader(tokens, variables if isinstance(variables, dict) else {})
    reader.run()
    return reader.shape


class _Reader:
    """Walks the tokens of a document once, with a stack of selection levels."""

    def __init__(self, tokens: list[str], variables: dict[str, JsonValue]) -> None:
        self.shape = Shape()
        self._tokens = tokens
        self._variables = variables
        self._at = 0
        self._stack: list[_Level] = []
        self._pending = _Level(0, 0)
        self._fragment = False

    def run(self) -> None:
        while self._at < len(self._tokens):
            lexeme = self._tokens[self._at]
            self._at += 1
            if lexeme == "{":
                self._open()
            elif lexeme == "}":
                self._close()
            elif not self._stack:
                self._head(lexeme)
            elif lexeme == "...":
                self._spread()
            elif lexeme[0] in _LETTERS:
                self._field(lexeme)
            else:
                self._skip(lexeme)

    def _skip(self, lexeme: str) -> None:
        """Steps over directives and stray arguments."""
        if lexeme == "@":
            self._at += 1
            self._skip_arguments()
        elif lexeme == "(":
            self._skip_from_open()

    def _head(self, lexeme: str) -> None:
        """Outside of all braces: `query Name($a: Int) {`, `fragment F on T {`."""
        if lexeme in _OPERATIONS:
            self._fragment = False
            self.shape.operations += 1
            if self.shape.operations == 1:
                self.shape.operation = lexeme
        elif lexeme == "fragment":
            self._fragment = True
        elif lexeme == "(":
            self._skip_from_open()

    def _open(self) -> None:
        level = self._pending if self._stack else _Level(0, 0)
        self._stack.append(level)
        self._pending = level
        self.shape.depth = max(self.shape.depth, len(self._stack))

    def _close(self) -> None:
        if self._stack:
            self._stack.pop()
        if not self._stack:
            self._fragment = False

    def _spread(self) -> None:
        self.shape.spreads += 1
        tokens = self._tokens
        if self._at < len(tokens) and tokens[self._at] == "on":
            self._at += 2
        elif self._at < len(tokens) and tokens[self._at] not in "{@":
            self._at += 1
        self._pending = self._stack[-1]

    def _field(self, name: str) -> None:
        if self._peek() == ":":
            self._at += 1
            name = self._take()
        known = _field_name(name[:_MAX_NAME])
        self._count(known)
        root = Root(name)
        if len(self._stack) == 1 and not self._fragment and not known.typename:
            self.shape.roots.append(root)
        if self._peek() in _GOES_ON:
            self._arguments(root)
            while self._peek() == "@":
                self._at += 2
                self._skip_arguments()
            self._pending = self._level_below(root, known)
        else:
            self._pending = self._stack[-1]

    def _count(self, known: _FieldName) -> None:
        shape = self.shape
        shape.fields += 1
        shape.introspection |= known.introspection
        shape.aggregates += known.aggregate
        if known.meanings and shape.fields < _MAX_MEANT_FIELDS:
            shape.meanings |= known.meanings

    def _level_below(self, root: Root, known: _FieldName) -> _Level:
        """The level that a field's selection opens; how many objects stand on it is a guess."""
        shape, above = self.shape, self._stack[-1]
        if self._peek() != "{" or known.single or not (known.many or root.bounded):
            return above
        # A connection and its edges are one list: the wrapper adds none of its own.
        if known.wrapper:
            return above
        shape.lists += 1
        size = root.bound if root.bound is not None else _ASSUMED_SIZE
        many = not root.keyed or root.bounded
        level = _Level(
            above.lists + 1,
            above.unbounded + (not root.bounded and not root.keyed),
            min(_MAX_PRODUCT, above.product * (max(1.0, size) if many else 1.0)),
        )
        shape.product = max(shape.product, level.product)
        shape.list_depth = max(shape.list_depth, level.lists)
        shape.unbounded_list_depth = max(shape.unbounded_list_depth, level.unbounded)
        return level

    def _arguments(self, root: Root) -> None:
        """Reads `(id: 1, first: $n, where: {..})` if it comes next."""
        if self._peek() != "(":
            return
        self._at += 1
        nesting = 1
        tokens, end = self._tokens, len(self._tokens)
        while self._at < end and nesting:
            lexeme = tokens[self._at]
            self._at += 1
            if lexeme in "([{":
                nesting += 1
            elif lexeme in ")]}":
                nesting -= 1
            elif self._at < end and tokens[self._at] == ":":
                self._at += 1
                self._argument(root, lexeme, nesting)

    def _argument(self, root: Root, name: str, nesting: int) -> None:
        known = _argument_name(name[:_MAX_NAME])
        shape, value = self.shape, self._value()
        if nesting <= 2:
            shape.meanings |= known.meanings
        root.arguments += nesting == 1
        if known.bound:
            self._bound(root, value)
        if known.key or (known.ends_as_key and nesting == 1):
            root.keyed = True
        if known.filters:
            shape.filters += 1
            shape.everything |= value == {} or self._empty_before()
        shape.wildcard |= isinstance(value, str) and value.startswith(_WILDCARDS)
        shape.everything |= known.filter and value in ("ALL", '"all"')
        shape.recursive |= known.recursion

    def _bound(self, root: Root, value: JsonValue) -> None:
        root.bounded = True
        number = _number(value)
        if number is not None:
            self.shape.limits.append(number)
            root.bound = max(root.bound or 0.0, number)

    def _empty_before(self) -> bool:
        return self._peek() == "}" and self._tokens[self._at - 1] == "{"

    def _value(self) -> JsonValue:
        lexeme = self._peek()
        if lexeme == "$":
            self._at += 1
            return self._variables.get(self._take())
        if lexeme == "{" and self._tokens[self._at + 1 : self._at + 2] == ["}"]:
            return {}
        return lexeme

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        lexeme = self._peek()
        self._at += 1
        return lexeme

    def _skip_arguments(self) -> None:
        if self._peek() == "(":
            self._at += 1
            self._skip_from_open()

    def _skip_from_open(self) -> None:
        nesting = 1
        while self._at < len(self._tokens) and nesting:
            lexeme = self._take()
            nesting += (lexeme in "([{") - (lexeme in ")]}") if lexeme else 0


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        # First the smaller one: whole numbers of JSON may be too large for a float.
        return float(min(value, 1e9))
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    return None
