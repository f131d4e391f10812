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
