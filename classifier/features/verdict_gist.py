"""The gist of a query: its verdict in any language as one of three costs.

A verdict such as `heavy` or `traverse` is rare in any collection of requests, and each language
has its own; that they cost the same is known beforehand and need not be learned apart.
"""

from typing import Final

from classifier.features.vocabulary import vocabulary

# Worth more than the many weak features beside it, so that it is penalised less.
_WEIGHT: Final = 2.0
_LIGHT: Final = vocabulary("const meta system point prom-one dry")
_HEAVY: Final = vocabulary("""
    agg-all agg-filtered agg-key agg-wide scan-all scan-large scan-text scan-text-limit
    bounded-large heavy write-all copy bulk index define-stored write-range generated traverse join
    prom-all prom-long prom-subquery
""")
_GRAPH_LIGHT: Final = vocabulary("point single introspection one")
_GRAPH_HEAVY: Final = vocabulary("""
    aggregate model recursive work open3 keyed-open3 change-all change-work
""")
_GRAPH_UNSURE: Final = vocabulary("embedded part-open1 keyed-open1 arguments")
_DOCUMENT_HEAVY: Final = vocabulary("agg agg-range all all-large large model")
_CHANGES: Final = vocabulary("delete update upsert create")


def add_gist(bag: dict[str, float]) -> None:
    """Add what the verdicts of a query come down to."""
    costs = {_cost(name) for name in bag if name.startswith(("q=", "g=", "d="))}
    if "light" in costs and "d=keyed" in bag and _changes(bag):
        costs = {"general"}
    if "q=stored" in bag or "q=dry" in bag:
        costs = {"general" if "q=stored" in bag else "light"}
    cost = next((cost for cost in ("heavy", "general", "light") if cost in costs), "")
    if cost:
        bag[f"gist={cost}"] = _WEIGHT


def _changes(bag: dict[str, float]) -> bool:
    """Whether the operation that carries a filter changes what it finds."""
    verbs = {name[8:] for name in bag if name.startswith("do.verb=")}
    return not _CHANGES.isdisjoint(verbs)


def _cost(name: str) -> str:
    kind, _, verdict = name.partition("=")
    if kind == "q":
        if verdict == "other":
            return ""
        return "light" if verdict in _LIGHT else "heavy" if verdict in _HEAVY else "general"
    if kind == "g":
        return _graph_cost(verdict)
    if verdict in ("keyed", "heavy"):
        return "light" if verdict == "keyed" else ""
    return "heavy" if verdict in _DOCUMENT_HEAVY else "general"


def _graph_cost(verdict: str) -> str:
    if verdict in _GRAPH_LIGHT:
        return "light"
    if verdict in _GRAPH_UNSURE:
        return ""
    heavy = verdict in _GRAPH_HEAVY or verdict.startswith(("huge", "large"))
    return "heavy" if heavy else "general"


_WORKING: Final = vocabulary("export import train generate embed infer convert optimize scan trace")
_WORKED: Final = vocabulary("""
    export import train generate embed infer convert optimize maintain report agg scan media trace
""")
_IDLE: Final = vocabulary("template progress auth stop catalog version health meta self tokenize")
_BEGINNING: Final = vocabulary("create start none send")
_READING: Final = vocabulary("get describe exists none count")
_FREE: Final = vocabulary("version health meta self progress count latest catalog")
_LISTING: Final = frozenset(
    ("arg=limit", "arg=page", "arg=sort", "arg=filter", "arg=start", "rpc.object", "argn=limit")
)
_CALL_WEIGHT: Final = 1.5


def add_call_gist(bag: dict[str, float]) -> None:
    """Add what the names of called operations come down to, together with their arguments."""
    pairs = [name[7:].split(":", 1) for name in bag if name.startswith("rpc.do=")]
    costs = {_call_cost(verb, head, bag) for verb, head in pairs}
    cost = next((cost for cost in ("heavy", "general", "light") if cost in costs), "")
    if cost:
        bag[f"callcost={cost}"] = _CALL_WEIGHT


def _call_cost(verb: str, head: str, bag: dict[str, float]) -> str:
    if verb in _READING and head in _FREE:
        return "light"
    if head not in _IDLE and (verb in _WORKING or (verb in _BEGINNING and head in _WORKED)):
        return "heavy"
    if verb in ("get", "describe", "exists") and _LISTING.isdisjoint(bag):
        return _read_cost(verb, bag)
    return "" if verb == "none" else "general"


def _read_cost(verb: str, bag: dict[str, float]) -> str:
    one = f"do.num={verb}:one" in bag
    keyed = "args=only-ids" in bag or "rpc.key" in bag
    return "light" if keyed or (one and "rpc.params=0" in bag) else "" if one else "general"
