"""GraphQL by its structure: what a document costs to answer, judged from its shape."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

from functools import lru_cache
from typing import Final

from pydantic import JsonValue

from classifier.features.graphql_shape import Shape, read_shape
from classifier.features.intent import add_intent, intent_of
from classifier.features.magnitudes import bucket, log
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
    if shape.operation == "query":
        bag[f"g={_verdict(shape)}"] = 1.0
        bag[f"gql.cost={round(log(shape.product) * 1.5)}"] = 1.0
        bag["gql.cost.log"] = log(shape.product) / 2
        _query_roots(shape, bag)
    for root in shape.roots[:4]:
        # Cut before the cache, where words are cut anyway.
        name = root.name[:_MAX_NAME]
        bag.update(_root_words(shape.operation, name, keyed=root.keyed, bounded=root.bounded))


def _verdict(shape: Shape) -> str:
    """The one word that says most about what a query costs."""
    keyed = bool(shape.roots) and all(root.keyed for root in shape.roots)
    if shape.introspection:
        return "introspection"
    if shape.aggregates and not keyed:
        return "aggregate" if not shape.lists or not shape.limits else "aggregate-page"
    if not shape.lists:
        return (
            "point"
            if keyed
            else "single"
            if not any(r.arguments for r in shape.roots)
            else "arguments"
        )
    deep = min(3, shape.list_depth)
    bounds = (
        "open"
        if not shape.limits
        else "huge"
        if shape.product > 20_000
        else "large"
        if shape.product > 1_500
        else "page"
    )
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
