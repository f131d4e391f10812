"""GraphQL by its structure: what the roots ask for, how lists nest, what bounds them.

A small tolerant lexer instead of a full parse: it takes cut-off documents and is several times
faster; the shape is all that is needed.
"""

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pydantic import JsonValue

from classifier.features.intent import add_intent, intent_of
from classifier.features.magnitudes import bucket, log
from classifier.features.words import groups, is_plural, split_name, stem

_TOKEN: Final = re.compile(
    r'#[^\n]*|"""(?:[^"\\]|\\.|"(?!""))*(?:""")?|"(?:[^"\\\n]|\\.)*"?|\.\.\.|[{}()\[\]:@$!=|]|[A-Za-z_]\w*|-?\d[\w.+-]*'
)
_MAX_TOKENS: Final = 1500
_OPERATIONS: Final = frozenset(("query", "mutation", "subscription"))
_BOUNDS: Final = frozenset("first last limit take top pagesize size perpage count n amount max".split())
_KEYS: Final = frozenset("id _id key slug uuid number code handle sku name email login iid ids token urlkey url_key address hash".split())
_WRAPPERS: Final = frozenset("edges node nodes items data results pageinfo totalcount viewer list".split())
_AGGREGATES: Final = frozenset("count totalcount aggregate sum avg average min max stddev groupby _aggregate buckets stats aggregations".split())


@dataclass(slots=True)
class Root:
    """One field of the root selection."""

    name: str
    keyed: bool = False
    bounded: bool = False
    bound: float | None = None
    everything: bool = False
    arguments: int = 0
    leaves: int = 0


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


@dataclass(slots=True)
class _Level:
    lists: int
    unbounded: int
    product: float = 1.0


def read_shape(text: str, variables: JsonValue) -> Shape:
    """The shape of a GraphQL document; never raises."""
    found = (m.group() for m in islice(_TOKEN.finditer(text), _MAX_TOKENS))
    tokens = [t for t in found if t[0] != "#"]
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
            token = self._tokens[self._at]
            self._at += 1
            if token == "{":
                self._open()
            elif token == "}":
                self._close()
            elif not self._stack:
                self._head(token)
            elif token == "...":
                self._spread()
            elif token[0].isalpha() or token[0] == "_":
                self._field(token)
            elif token == "@":
                self._at += 1
                self._skip_arguments()
            elif token == "(":
                self._skip_from_open()

    def _head(self, token: str) -> None:
        """Outside of all braces: `query Name($a: Int) {`, `fragment F on T {`."""
        if token in _OPERATIONS:
            self._fragment = False
            self.shape.operations += 1
            if self.shape.operations == 1:
                self.shape.operation = token
        elif token == "fragment":
            self._fragment = True
        elif token == "(":
            self._skip_from_open()

    def _open(self) -> None:
        if not self._stack:
            level = _Level(0, 0)
        else:
            level = self._pending
        self._stack.append(level)
        self._pending = _Level(level.lists, level.unbounded, level.product)
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
        above = self._stack[-1]
        self._pending = _Level(above.lists, above.unbounded, above.product)

    def _field(self, name: str) -> None:
        if self._peek() == ":":
            self._at += 1
            name = self._take()
        root = Root(name)
        self._arguments(root)
        while self._peek() == "@":
            self._at += 2
            self._skip_arguments()
        self._count(root)

    def _count(self, root: Root) -> None:
        shape, lower = self.shape, root.name.lower()
        shape.fields += 1
        if lower.startswith("__"):
            shape.introspection |= lower != "__typename"
        selects = self._peek() == "{"
        aggregate = lower in _AGGREGATES or lower.endswith(("aggregate", "count", "stats"))
        shape.aggregates += aggregate
        is_list = selects and (lower in ("edges", "nodes", "items", "data") or is_plural(root.name) or root.bounded or lower.endswith("connection"))
        if len(self._stack) == 1 and not self._fragment and not lower == "__typename":
            shape.roots.append(root)
        above = self._stack[-1]
        # A connection and its edges are one list: the wrapper adds none of its own.
        adds = is_list and lower not in ("edges", "nodes", "items", "data", "results")
        shape.lists += adds
        size = root.bound if root.bound is not None else 30.0
        level = _Level(
            above.lists + adds,
            above.unbounded + (adds and not root.bounded and not root.keyed),
            min(1e12, above.product * (max(1.0, size) if adds and not (root.keyed and not root.bounded) else 1.0)),
        )
        shape.product = max(shape.product, level.product)
        shape.list_depth = max(shape.list_depth, level.lists)
        shape.unbounded_list_depth = max(shape.unbounded_list_depth, level.unbounded)
        self._pending = level

    def _arguments(self, root: Root) -> None:
        """Reads `(id: 1, first: $n, where: {..})` if it comes next."""
        if self._peek() != "(":
            return
        self._at += 1
        nesting = 1
        while self._at < len(self._tokens) and nesting:
            token = self._take()
            if token in "([{":
                nesting += 1
            elif token in ")]}":
                nesting -= 1
            elif self._peek() == ":":
                self._at += 1
                self._argument(root, token, nesting)

    def _argument(self, root: Root, name: str, nesting: int) -> None:
        lower = name.lower()
        value = self._value()
        root.arguments += nesting == 1
        if lower in _BOUNDS:
            root.bounded = True
            number = _number(value)
            if number is not None:
                self.shape.limits.append(number)
                root.bound = max(root.bound or 0.0, number)
        if lower in _KEYS or (lower.endswith(("id", "key", "slug", "ids")) and nesting == 1):
            root.keyed = True
        if lower in ("filter", "where", "search", "query", "filters", "condition", "input"):
            self.shape.filters += 1
            if value == {} or (self._peek() == "}" and self._tokens[self._at - 1] == "{"):
                self.shape.everything = True
        if isinstance(value, str) and value.startswith(('"%', '"*', '"\\"%')):
            self.shape.wildcard = True
        if lower == "filter" and value in ("ALL", '"all"'):
            self.shape.everything = True
        self._recursion(lower)

    def _recursion(self, lower: str) -> None:
        if lower in ("recurse", "depth", "shortest", "hops", "maxdepth"):
            self.shape.recursive = True

    def _value(self) -> JsonValue:
        token = self._peek()
        if token == "$":
            self._at += 1
            return self._variables.get(self._take())
        if token == "{" and self._tokens[self._at + 1 : self._at + 2] == ["}"]:
            return {}
        return token

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _skip_arguments(self) -> None:
        if self._peek() == "(":
            self._at += 1
            self._skip_from_open()

    def _skip_from_open(self) -> None:
        nesting = 1
        while self._at < len(self._tokens) and nesting:
            token = self._take()
            nesting += (token in "([{") - (token in ")]}") if token else 0


def _number(value: JsonValue) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return min(float(value), 1e9)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    return None


def read_graphql(text: str, variables: JsonValue, bag: dict[str, float]) -> None:
    """Add the features of one GraphQL document."""
    shape = read_shape(text, variables)
    bag[f"gql={shape.operation}"] = 1.0
    bag[f"gql.roots={min(3, len(shape.roots))}"] = 1.0
    bag["gql.depth"] = min(10, shape.depth) / 4
    bag["gql.fields"] = log(shape.fields)
    bag[f"gql.lists={min(4, shape.list_depth)}"] = 1.0
    bag["gql.listdepth"] = min(5, shape.list_depth) / 2
    bag["gql.nlists"] = min(8, shape.lists) / 4
    bag[f"gql.open={min(3, shape.unbounded_list_depth)}"] = 1.0
    if shape.aggregates:
        bag["gql=aggregate"] = 1.0
    if shape.introspection:
        bag["gql=introspection"] = 1.0
    if shape.filters:
        bag["gql=filter"] = 1.0
    for name in ("everything", "wildcard", "recursive"):
        if getattr(shape, name):
            bag[f"gql={name}"] = 1.0
    if shape.operation == "query":
        bag[f"g={_verdict(shape)}"] = 1.0
        bag[f"gql.cost={round(log(shape.product) * 1.5)}"] = 1.0
        bag["gql.cost.log"] = log(shape.product) / 2
    _limits(shape, bag)
    if shape.operation == "query":
        _query_roots(shape, bag)
    for root in shape.roots[:4]:
        _root_words(shape.operation, root, bag)


def _verdict(shape: Shape) -> str:
    """The one word that says most about what a query costs."""
    keyed = bool(shape.roots) and all(root.keyed for root in shape.roots)
    if shape.introspection:
        return "introspection"
    if shape.aggregates and not keyed:
        return "aggregate" if not shape.lists or not shape.limits else "aggregate-page"
    if not shape.lists:
        return "point" if keyed else "single" if not any(r.arguments for r in shape.roots) else "arguments"
    deep = min(3, shape.list_depth)
    bounds = "open" if not shape.limits else "huge" if shape.product > 20_000 else "large" if shape.product > 1_500 else "page"
    return f"{'keyed-' if keyed else ''}{bounds}{deep}"


def _limits(shape: Shape, bag: dict[str, float]) -> None:
    if not shape.limits:
        return
    product = 1.0
    for limit in shape.limits[:6]:
        product *= max(1.0, limit)
    bag[f"gql.limit={bucket(max(shape.limits))}"] = 1.0
    bag["gql.product"] = log(product) / 2
    bag["gql.limits"] = min(5, len(shape.limits)) / 2


def _query_roots(shape: Shape, bag: dict[str, float]) -> None:
    plain = not shape.lists
    if all(root.keyed for root in shape.roots) and shape.roots:
        bag["gql=keyed"] = 1.0
        bag["gql=keyed-flat" if plain else "gql=keyed-lists"] = 1.0
        if plain and len(shape.roots) == 1:
            bag["gql=point"] = 1.0
    elif plain and shape.roots and not any(root.arguments for root in shape.roots):
        bag["gql=singleton"] = 1.0
    if shape.lists and not shape.limits:
        bag["gql=no-limit"] = 1.0
        bag[f"gql=no-limit:{min(3, shape.list_depth)}"] = 1.0


def _root_words(operation: str, root: Root, bag: dict[str, float]) -> None:
    words = split_name(root.name)[:6]
    verb, head, number = intent_of(root.name)
    if operation == "query" and verb == "none":
        verb = "get" if root.keyed or number == "one" else "list"
    add_intent(bag, verb, head, number, operation)
    seen: set[str] = set()
    for word in words:
        bag[f"op.w={stem(word)}"] = 1.0
        seen.update(groups(word))
    for group in seen:
        bag[f"op={group}"] = 1.0
        bag[f"{operation}&op={group}"] = 1.0
    if words:
        for group in groups(words[0]):
            bag[f"verb={group}"] = 1.0
    if operation == "query":
        kind = "plural" if is_plural(root.name) else "single"
        bag[f"gql.root={kind}{'-keyed' if root.keyed else ''}{'-bounded' if root.bounded else ''}"] = 1.0
