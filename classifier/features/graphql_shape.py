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


_MAX_TOKENS: Final = 600
_MAX_NAME: Final = 120
_LETTERS: Final = frozenset(ascii_letters + "_")
# After a field: its arguments, directives, selection.
_GOES_ON: Final = frozenset("(@{")


_OPERATIONS: Final = frozenset(("query", "mutation", "subscription"))


_BOUNDS: Final = vocabulary("""
    first last limit take top pagesize size perpage count n amount max
""")


_KEYS: Final = vocabulary("""
    id key slug uuid uid number code handle sku name email login iid ids lexeme urlkey upc ean
    address hash username identifier path url phone no isbn pk guid domain token barcode
    representations
""")
# What names one object even among many: `products(filter: {sku: ..})`.
_UNIQUE: Final = vocabulary("id uuid uid sku slug handle hash guid key ids isbn upc ean pk")
# Arguments whose inner arguments are those of the field itself.
_CARRIERS: Final = vocabulary("""
    where filter filters input by condition conditions selector request params args and _and
    query data lookup
""")
_EQUALS: Final = frozenset(("eq", "_eq", "equals", "equal", "is", "equalto"))
_SORTS: Final = vocabulary("""
    orderby order_by sort sortby orderdirection sortdirection sortkey skip offset page after
    before cursor search searchterm term q text filter filters where startcursor
""")
_MODEL_ARGUMENTS: Final = vocabulary("""
    neartext nearimage nearaudio nearvideo singleresult groupedresult singleprompt groupedtask
    prompt askquestion question
""")
_MANY_WORDS: Final = frozenset(("all", "list", "search", "find", "lookup", "browse"))


_AGGREGATES: Final = vocabulary("""
    count totalcount aggregate sum avg average min max stddev groupby _aggregate buckets stats
    aggregations
""")
# Words of fields that compute over many objects, where counts alone may be kept ready.
_COMPUTING: Final = vocabulary("""
    aggregate aggregated aggregates sum avg average mean stddev variance percentile percentiles
    median histogram grouped aggregations facets
""")
_GROUPINGS: Final = vocabulary(
    "groupby group_by groupedby aggregations facets breakdown breakdowns"
)


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
_MIN_QUERY: Final = 20
_ASSUMED_SIZE: Final = 30.0
_ASSUMED_PART: Final = 10.0
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
    unique: bool = False
    listed: bool = False


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
    computes: bool = False
    groups: bool = False
    model: bool = False
    bounds: int = 0
    texts: list[str] = field(default_factory=list)


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
    computes: bool
    meanings: frozenset[str]
    wrapper: bool
    single: bool
    many: bool


@lru_cache(maxsize=4096)
def _field_name(name: str) -> _FieldName:
    lower, words = name.lower(), split_name(name)
    listed = lower.endswith("connection") or words[:1] == ("all",) or words[-1:] == ("list",)
    return _FieldName(
        introspection=lower.startswith("__") and lower != "__typename",
        typename=lower == "__typename",
        aggregate=lower in _AGGREGATES or lower.endswith(("aggregate", "count", "stats")),
        computes=not _COMPUTING.isdisjoint(words),
        meanings=_meanings(name),
        wrapper=lower in _WRAPPERS,
        single=name in _SINGLE or head_of(last_word(name)) in _NO_LISTS,
        many=is_plural(name) or lower in _WRAPPERS or listed,
    )


@lru_cache(maxsize=4096)
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
        self._spreads: dict[str, _Level] = {}
        self._base = _Level(0, 0)

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
            self._base = _Level(0, 0)
        elif lexeme == "fragment":
            self._fragment = True
            self._base = self._spreads.get(self._peek(), _Level(0, 0))
        elif lexeme == "(":
            self._skip_from_open()

    def _open(self) -> None:
        level = self._pending if self._stack else self._base
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
            self._spreads.setdefault(tokens[self._at], self._stack[-1])
            self._at += 1
        self._pending = self._stack[-1]

    def _field(self, name: str) -> None:
        if self._peek() == ":":
            self._at += 1
            name = self._take()
        known = _field_name(name[:_MAX_NAME])
        root = Root(name)
        if self._peek() in _GOES_ON:
            self._arguments(root)
            while self._peek() == "@":
                self.shape.recursive |= self._tokens[self._at + 1 : self._at + 2] == ["recurse"]
                self._at += 2
                self._skip_arguments()
        self._count(root, known)

    def _count(self, root: Root, known: _FieldName) -> None:
        shape, opens = self.shape, self._peek() == "{"
        shape.fields += 1
        shape.introspection |= known.introspection
        shape.aggregates += known.aggregate
        if shape.fields < _MAX_MEANT_FIELDS:
            if known.meanings:
                shape.meanings |= known.meanings
            # Only with a selection: a plain `count` may be kept ready.
            shape.computes |= opens and known.computes
        # A connection and its edges are one list: the wrapper adds none of its own.
        adds = opens and not known.wrapper and self._is_list(root, known)
        if len(self._stack) == 1 and not self._fragment and not known.typename:
            root.listed = adds
            shape.roots.append(root)
        shape.lists += adds
        self._pending = self._level_below(root) if adds else self._stack[-1]

    def _is_list(self, root: Root, known: _FieldName) -> bool:
        if known.single or self._only_counts():
            return False
        return known.many or root.bounded or (root.listed and not root.keyed)

    def _only_counts(self) -> bool:
        """Whether the selection that comes next asks for a number alone: `{ totalCount }`."""
        inner = self._tokens[self._at + 1 : self._at + 3]
        return inner[1:] == ["}"] and inner[0].lower().endswith(("count", "total"))

    def _level_below(self, root: Root) -> _Level:
        """The level that a list's selection opens; how many objects stand on it is a guess."""
        shape, above = self.shape, self._stack[-1]
        assumed = _ASSUMED_PART if above.lists and not root.bounded else _ASSUMED_SIZE
        size = root.bound if root.bound is not None else assumed
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
        names: list[str] = []
        while self._at < len(self._tokens) and nesting:
            lexeme = self._take()
            if lexeme in "([{":
                nesting += 1
            elif lexeme in ")]}":
                nesting -= 1
            elif self._peek() == ":":
                self._at += 1
                del names[nesting - 1 :]
                names.append(lexeme)
                self._argument(root, names, nesting)

    def _argument(self, root: Root, names: list[str], nesting: int) -> None:
        lower = names[-1].lower()
        value = self._value()
        if nesting <= 2:
            self.shape.meanings |= _meanings(names[-1][:_MAX_NAME])
        root.arguments += nesting == 1
        if lower in _BOUNDS:
            self._bound(root, value)
        root.listed |= nesting == 1 and lower in _SORTS
        if not isinstance(value, dict):
            self._key(root, names, value)
        elif lower in _CARRIERS:
            self._inner_keys(root, names, value)
        if lower in _FILTERS:
            self.shape.filters += 1
            self.shape.everything |= lower != "input" and (value == {} or self._empty_before())
        self._says(lower, value)

    def _says(self, lower: str, value: JsonValue) -> None:
        shape = self.shape
        if isinstance(value, str):
            shape.wildcard |= value.startswith(_WILDCARDS)
            if len(value) > _MIN_QUERY and value[0] != "{":
                shape.texts.append(value.strip('"').strip())
        shape.everything |= lower == "filter" and value in ("ALL", '"all"')
        shape.recursive |= lower in _RECURSIONS
        listed = value == "[" or (isinstance(value, list) and bool(value))
        shape.groups |= lower in _GROUPINGS and value not in ([], None)
        shape.groups |= lower in ("by", "dimensions") and listed
        shape.model |= lower in _MODEL_ARGUMENTS

    def _key(self, root: Root, names: list[str], value: JsonValue) -> None:
        """Notes a condition on a key: `id: 1`, `where: {id: {_eq: 1}}`, `func: uid(0x1)`."""
        if names[-1].lower() in _EQUALS and len(names) > 1:
            names = names[:-1]
        if not all(name.lower() in _CARRIERS for name in names[:-1]):
            return
        last, lower = last_word(names[-1]), names[-1].lower()
        key = last in _KEYS or lower.endswith(("id", "key", "slug", "ids"))
        if lower == "func":
            key = value == "uid"
            root.listed |= not key
        if key and isinstance(value, list):
            root.bound = max(root.bound or 0.0, float(len(value)))
        root.keyed |= key and (last in _UNIQUE or not is_plural(root.name) or len(names) == 1)
        root.unique |= key and (lower in _UNIQUE or lower == "representations")

    def _inner_keys(self, root: Root, names: list[str], value: JsonValue) -> None:
        """The keys of a filter that a variable carries."""
        for key, inner in list(value.items())[:20] if isinstance(value, dict) else ():
            if isinstance(inner, dict):
                equal = next((v for k, v in inner.items() if k.lower() in _EQUALS), None)
                if isinstance(equal, str | int):
                    self._key(root, [*names, key], equal)
            elif isinstance(inner, str | int):
                self._key(root, [*names, key], inner)

    def _bound(self, root: Root, value: JsonValue) -> None:
        root.bounded = True
        self.shape.bounds += 1
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
        # Bounded first: whole numbers of JSON may be too large for a float.
        return float(max(-1e9, min(value, 1e9)))
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    return None
