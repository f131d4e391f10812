"""GraphQL by its structure: what a document costs to answer, judged from its shape."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from functools import lru_cache
from typing import Final

from pydantic import JsonValue

from classifier.features.graphql_shape import Shape, read_shape
from classifier.features.intent import add_intent, intent_of
from classifier.features.magnitudes import bucket, log
from classifier.features.sql import looks_like_sql
from classifier.features.sql_cost import read_sql
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, is_plural, split_name, stem

_MAX_NAME: Final = 120
_FLAG_NAMES = {"aggregates": "aggregate", "filters": "filter"}


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
    for name in ("aggregates", "introspection", "filters", "everything", "wildcard", "recursive"):
        if getattr(shape, name):
            bag[f"gql={_FLAG_NAMES.get(name, name)}"] = 1.0
    if shape.everything and shape.operation == "mutation":
        bag["gql=mutation-everything"] = 1.0
    for group in shape.meanings:
        bag[f"gql.means={group}"] = 1.0
    _limits(shape, bag)
    if shape.operation == "mutation":
        bag[f"g={_change(shape)}"] = 1.0
    if shape.operation == "query":
        bag[f"g={'embedded' if _embedded(shape, bag) else _verdict(shape)}"] = 1.0
        bag[f"gql.cost={round(log(shape.product) * 1.5)}"] = 1.0
        bag["gql.cost.log"] = log(shape.product) / 2
        _query_roots(shape, bag)
    for root in shape.roots[:4]:
        # Cut before the cache, where words are cut anyway.
        name = root.name[:_MAX_NAME]
        bag.update(_root_words(shape.operation, name, keyed=root.keyed, bounded=root.bounded))


def read_operation_name(name: str, bag: dict[str, float]) -> None:
    """Add what the name of an operation says whose document is not sent."""
    base = re.sub(r"(?:Query|Mutation|Document|Subscription)$", "", name)
    if not split_name(base):
        return
    operation = "mutation" if name.endswith("Mutation") else "query"
    bag.update(_root_words(operation, base[:_MAX_NAME], keyed=False, bounded=False))
    verb, head, _ = intent_of(base)
    if _works(base) or head in ("agg", "report", "export"):
        bag["g=work"] = 1.0
    elif verb in ("get", "none") and head in ("self", "progress", "version", "health", "meta"):
        bag["g=single"] = 1.0


def _embedded(shape: Shape, bag: dict[str, float]) -> bool:
    """Read a query in another language that an argument carries: `nrql(query: "SELECT ..")`."""
    text = next((text for text in shape.texts[:6] if looks_like_sql(text)), "")
    if text:
        read_sql(text, bag)
    return bool(text)


def _verdict(shape: Shape) -> str:
    """The one word that says most about what a query costs."""
    keyed = bool(shape.roots) and all(root.keyed for root in shape.roots)
    special = _special(shape, keyed=keyed)
    if special:
        return special
    if not shape.lists:
        return _flat(shape, keyed=keyed)
    if keyed and shape.list_depth < 2 and _one_each(shape):
        return "one"
    part = "" if keyed or shape.bounds or any(root.listed for root in shape.roots) else "part-"
    return f"{'keyed-' if keyed else part}{_bounds(shape)}{min(3, shape.list_depth)}"


def _special(shape: Shape, *, keyed: bool) -> str:
    """What costs the same however the lists nest, "" for an ordinary query."""
    if shape.introspection:
        return "introspection"
    if shape.model:
        return "model"
    if shape.recursive:
        return "recursive"
    if shape.groups or shape.computes:
        return "aggregate-key" if keyed else "aggregate"
    worked = any(_works(_named(root.name)) for root in shape.roots if not root.keyed)
    return "work" if worked else ""


def _named(name: str) -> str:
    """A query's root without what says only that it is a list: `allPosts`, `_allPostsMeta`."""
    return re.sub(r"^_*all(?=[A-Z_])", "", name)


def _flat(shape: Shape, *, keyed: bool) -> str:
    if keyed:
        return "point"
    return "arguments" if any(root.arguments for root in shape.roots) else "single"


def _one_each(shape: Shape) -> bool:
    """Whether each root is one object of a list, told by what is unique."""
    bound = max((root.bound or 1.0 for root in shape.roots), default=1.0)
    return bound <= 1 and all(root.unique and is_plural(root.name) for root in shape.roots)


def _bounds(shape: Shape) -> str:
    if not shape.bounds:
        return "open"
    largest = max(shape.limits, default=0.0)
    if shape.product > 20_000:
        return "huge"
    return "large" if largest >= 1_000 else "page"


_WORK: Final = vocabulary("""
    export import train generate embed infer convert optimize maintain scan report media
""")
_WORK_VERBS: Final = vocabulary("""
    export import train generate embed infer convert optimize maintain scan
""")
_STARTING: Final = vocabulary("create start none send convert bulk import export list")


def _works(name: str) -> bool:
    """Whether a field is named for heavy work: `exportProducts`, `reportSales`, `runBackfill`."""
    verb, head, _ = intent_of(name)
    words = split_name(name)
    if head in ("template", "progress", "auth", "stop", "latest") or verb in _SPARING:
        return False
    if verb == "none" and is_plural(name) and len(words) < 3:
        return False
    if not _WORK_WORDS.isdisjoint(words) and verb in _STARTING:
        return True
    if verb in _WORK_VERBS:
        return _SMALL_WORDS.isdisjoint(words)
    return verb in _STARTING and head in _WORK


# Words of the lexicon's groups of work that are no work where they name a change.
_SMALL_WORDS: Final = vocabulary("complete ask answer asks draft entities token")
_WORK_WORDS: Final = vocabulary("export import backfill bulk report reports reindex transcode")
_SPARING: Final = vocabulary("stop delete update")


def _change(shape: Shape) -> str:
    """The one word that says most about what a mutation costs."""
    if shape.everything:
        return "change-all"
    return "change-work" if any(_works(root.name) for root in shape.roots) else "change"


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


@lru_cache(maxsize=4096)
def _root_words(operation: str, name: str, *, keyed: bool, bounded: bool) -> dict[str, float]:
    bag: dict[str, float] = {}
    words = split_name(name)[:6]
    verb, head, number = intent_of(name)
    if operation == "query" and verb == "none":
        verb = "get" if keyed or number == "one" else "list"
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
        kind = "plural" if is_plural(name) else "single"
        bag[f"gql.root={kind}{'-keyed' if keyed else ''}{'-bounded' if bounded else ''}"] = 1.0
    return bag
