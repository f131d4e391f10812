"""Finding the query that a request carries: in its body, in a field of it, in a parameter."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from itertools import islice
from typing import Final

from pydantic import JsonValue

from classifier.features.graphql import read_graphql
from classifier.features.magnitudes import bucket
from classifier.features.metrics_query import looks_like_metrics, read_metrics_query
from classifier.features.querytext import looks_like_graph, read_query_text
from classifier.features.request import Parts
from classifier.features.sql import looks_like_sql
from classifier.features.sql_cost import read_sql
from classifier.features.vocabulary import vocabulary

_QUERY_KEYS: Final = vocabulary("""
    query q sql statement stmt statements expr expression cypher gremlin querystring querytext
    command search script sqlstatement kql esql flux aql db_query queries sqlquery oql soql
    querydefinition sqltext sql_query raw_query rawsql userquery jql mdx dax commands code
    body promql logql target n1ql text criteria
""")


_GRAPHQL: Final = re.compile(
    r"^\s*(?:#[^\n]*\n\s*)*(?:(?:query|mutation|subscription|fragment)\b[^{]{0,2000}\{|\{\s*(?:#[^\n]*\n\s*)*\w+\s*(?:[({}:,@]|\s\w))"
)


_MIN_QUERY_CHARS: Final = 12
_MAX_BATCH_CHARS: Final = 6_000
_MAX_FIELDS: Final = 40
_METRIC_PATHS: Final = frozenset(("query_range", "prom", "prometheus", "loki", "render", "series"))


def read_queries(parts: Parts, bag: dict[str, float]) -> str:
    """Read the first query in a query language that the request carries; gives its protocol."""
    if isinstance(parts.document, list):
        batched = _graphql_batch(parts.document, bag)
        if batched:
            return "graphql"
    if _is_persisted(parts):
        bag["gql=persisted"] = 1.0
    variables = _variables(parts)
    found = ""
    for key, text in _candidates(parts):
        found = _read_text(parts, key, text, variables, bag)
        if found:
            bag[f"{found}.in={'body' if not key else 'value'}"] = 1.0
            return found
    if "gql=persisted" in bag or (
        parts.segments
        and parts.segments[-1].lower() in ("graphql", "gql")
        and not found
        and parts.document
    ):
        return "graphql-opaque"
    return ""


def _is_persisted(parts: Parts) -> bool:
    if parts.text.find("persistedQuery", 0, 4000) >= 0:
        return True
    return any("persistedQuery" in value for _, value in parts.query_params[:10])


def _graphql_batch(document: list[JsonValue], bag: dict[str, float]) -> bool:
    queries = [
        (item["query"], item.get("variables"))
        for item in document[:20]
        if isinstance(item, dict) and isinstance(item.get("query"), str)
    ]
    texts = [(q, v) for q, v in queries if isinstance(q, str) and _GRAPHQL.match(q[:4000])]
    left = _MAX_BATCH_CHARS
    for query, variables in texts[:6]:
        if left > 0:
            read_graphql(query[:left], variables, bag)
        left -= len(query)
    if texts:
        bag[f"rpc.batch={bucket(len(document))}"] = 1.0
    return bool(texts)


def _variables(parts: Parts) -> JsonValue:
    return parts.document.get("variables") if isinstance(parts.document, dict) else None


def _candidates(parts: Parts) -> list[tuple[str, str]]:
    """Texts that may be queries, the likeliest first."""
    found: list[tuple[str, str]] = []
    document = parts.document
    if document is None and parts.text and _is_plain(parts):
        found.append(("", parts.text))
    if isinstance(document, dict):
        found.extend(_strings(document, 0))
        if "graphql" in parts.media:
            found.append(("", parts.text))
    elif isinstance(document, list):
        for item in document[:5]:
            found.extend(_in_item(item))
    elif isinstance(document, str):
        found.append(("", document))
    found.extend(
        (key, value) for key, value in parts.params[:30] if key.lower().rstrip("[]") in _QUERY_KEYS
    )
    return found[:12]


def _is_plain(parts: Parts) -> bool:
    return not parts.form and not parts.media.startswith("multipart/")


def _in_item(item: JsonValue) -> list[tuple[str, str]]:
    if isinstance(item, dict):
        return _strings(item, 0)
    return [("", item)] if isinstance(item, str) and len(item) > _MIN_QUERY_CHARS else []


def _strings(document: dict[str, JsonValue], depth: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in islice(document.items(), _MAX_FIELDS):
        if isinstance(value, str):
            if key.lower().replace("-", "_") in _QUERY_KEYS:
                found.append((key, value))
        elif isinstance(value, dict) and depth < 3:
            found.extend(_strings(value, depth + 1))
        elif isinstance(value, list) and value and depth < 3:
            if isinstance(value[0], dict):
                found.extend(_strings(value[0], depth + 1))
            elif isinstance(value[0], str) and key.lower() in _QUERY_KEYS:
                found.append((key, value[0]))
    return found


def _read_text(
    parts: Parts, key: str, text: str, variables: JsonValue, bag: dict[str, float]
) -> str:
    if key.lower() in ("", "query", "queries") and _GRAPHQL.match(text[:4000]):
        read_graphql(text, variables, bag)
        return "graphql"
    graph = looks_like_graph(text)
    if not graph and looks_like_sql(text) and key.lower() not in ("text", "body", "code", "search"):
        read_sql(text, bag)
        return "sql"
    if key and len(text) < 4:
        return ""
    if (
        not text.lstrip().startswith("<")
        and (not key or key.lower() != "text")
        and read_query_text(text, bag)
    ):
        return "ql"
    if _is_metrics(parts, key.lower()) and looks_like_metrics(text):
        read_metrics_query(text, bag)
        return "metrics"
    return ""


def _is_metrics(parts: Parts, key: str) -> bool:
    """Whether a value in this place can be a query of a metrics store."""
    if key in ("expr", "promql"):
        return True
    last = [segment.lower() for segment in parts.segments[-4:]]
    stored = any(segment in _METRIC_PATHS for segment in last)
    return key in ("query", "q", "target", "match[]") and (
        stored or last[-3:] == ["api", "v1", "query"]
    )
