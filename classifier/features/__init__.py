"""What a request means, as named numbers: protocol facts first, words second.

`extract` is pure, takes bounded time whatever the bytes, and never raises.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from classifier.contracts import RequestView
from classifier.features.arguments import read_arguments
from classifier.features.bodies import read_body
from classifier.features.calls import read_calls, read_rest_verb
from classifier.features.documents import read_document, read_envelope
from classifier.features.gist import read_call_gist, read_gist
from classifier.features.inference import read_inference
from classifier.features.jsonrpc import argument_document
from classifier.features.modifiers import read_bounds, read_modifier
from classifier.features.queries import read_queries
from classifier.features.request import Parts, take_apart
from classifier.features.target import read_rest_intent, read_target
from classifier.features.verdict_gist import add_call_gist, add_gist


def extract(view: RequestView) -> dict[str, float]:
    """Feature names and values of a request."""
    parts = take_apart(view)
    bag: dict[str, float] = {}
    # First: the gist of a request says whether it puts something to a model.
    read_inference(parts, bag)
    protocol = read_queries(parts, bag)
    if protocol:
        _read_beside_query(parts, protocol, bag)
    else:
        _read_operation(parts, bag)
    read_body(parts, bag)
    return bag


def _read_operation(parts: Parts, bag: dict[str, float]) -> None:
    """Read a request that carries no query: its name, its target, its arguments."""
    target = read_target(parts, bag)
    protocol = read_calls(parts, bag)
    bag[f"proto={protocol or 'rest'}"] = 1.0
    if not protocol:
        read_rest_verb(parts, target.shape, bag)
        read_rest_intent(parts, target, bag)
    named = len(bag)
    document = argument_document(parts)
    read_arguments(parts, document, bag)
    if protocol:
        read_call_gist(parts, document, bag)
    else:
        read_gist(parts, *target.without_lead(), document, bag)
    read_envelope(parts.document, bag)
    verbs = [name[8:] for name in bag if name.startswith("do.verb=")][:3]
    read_document(document, bag)
    if any(name.startswith("d=") for name in bag) and read_modifier(parts) == "dry":
        bag["q=dry"] = 1.0
    add_gist(bag)
    if protocol:
        add_call_gist(bag)
    _cross(verbs, islice(bag, named, None), bag)


_CHEAP: Final = frozenset(("q=const", "q=meta", "q=system", "q=define", "q=ddl", "q=heavy"))


def _cross(verbs: list[str], names: Iterable[str], bag: dict[str, float]) -> None:
    """Add verbs together with what bounds them: `list` with a huge page is no ordinary list.

    Args:
        verbs: What is done.
        names: The features that the arguments gave.
        bag: Where the pairs go.
    """
    bounds = [name for name in names if name.startswith(_BOUNDS)][:8]
    for verb in verbs:
        for bound in bounds:
            bag[f"x={verb}&{bound}"] = 1.0


_BOUNDS: Final = (
    "limit=", "span=", "args=only-ids", "val=everything", "val.file=", "format=export", "d=",
    "ai=prompt", "arg=empty-filter", "ids.n=", "amount=", "flag=", "val=aggregate-call",
    "op.value=", "arg=filter", "val=wildcard",
)  # fmt: skip


def _read_beside_query(parts: Parts, protocol: str, bag: dict[str, float]) -> None:
    """Where a query was read, the rest only says whether it is run: words would be noise."""
    bag[f"proto={protocol}"] = 1.0
    kind = "graphql" if protocol.startswith("graphql") else "query"
    modifier = "" if kind == "graphql" else read_modifier(parts)
    if modifier:
        verdict = next((name for name in bag if name.startswith("q=")), "q=")
        _forget(bag, ("q=", "q.", "sql", "ql", "span", "prom"))
        bag[f"q={modifier}"] = 1.0
        bag[f"q={modifier}:{verdict[2:]}"] = 1.0
    if not _CHEAP.isdisjoint(bag):
        _forget(bag, ("q.", "ql", "sql.t", "sql.j", "sql.s", "prom"))
    if kind == "query":
        read_bounds(parts, bag)
    add_gist(bag)
    bag[f"m={parts.method if parts.method in ('GET', 'POST') else 'OTHER'}:{kind}"] = 1.0


def _forget(bag: dict[str, float], beginnings: tuple[str, ...]) -> None:
    for name in [name for name in bag if name.startswith(beginnings)]:
        del bag[name]
