"""Finding the query that a request carries: in its body, in a field of it, in a parameter."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import json
import re
from itertools import islice
from typing import Final

from pydantic import JsonValue

from classifier.features.graphql import read_graphql, read_operation_name
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
    body promql logql target n1ql text criteria csl yql nrql hql traversal data
""")


_GRAPHQL: Final = re.compile(
    r"^\s*+(?:#[^\n]*\n\s*+)*+(?:(?:query|mutation|subscription|fragment)\b[^{]{0,2000}\{|\{\s*+(?:#[^\n]*\n\s*+)*+\w+\s*(?:[({}:,@]|\s\w))"
)


_MIN_QUERY_CHARS: Final = 12
_MAX_BATCH_CHARS: Final = 6_000
_MAX_FIELDS: Final = 40
# Names of arguments that carry prose as often as a query.
_PROSE: Final = frozenset(("text", "body", "data", "search"))
_BRACKETS: Final = frozenset(("BEGIN", "COMMIT", "ROLLBACK", "START", "END"))
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
    for key, text in _without_brackets(_candidates(parts)):
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
        read_operation_name(_operation_name(parts), bag)
        return "graphql-opaque"
    return ""


def _is_persisted(parts: Parts) -> bool:
    if parts.text.find("persistedQuery", 0, 4000) >= 0:
        return True
    return any("persistedQuery" in value for _, value in parts.query_params[:10])


def _operation_name(parts: Parts) -> str:
    """The name of an operation whose document is kept by the server."""
    named = dict(parts.params[:20])
    if isinstance(parts.document, dict):
        named.update((k, v) for k, v in parts.document.items() if isinstance(v, str))
    return next((named[key] for key in ("operationName", "queryName") if named.get(key)), "")


def _without_brackets(candidates: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The candidates without `BEGIN` and `COMMIT`, if there is more than these."""
    rest = [
        (key, text)
        for key, text in candidates
        if len(text) > 40 or text[:12].split(" ", 1)[0].strip(";").upper() not in _BRACKETS
    ]
    return rest or candidates


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
    if document is None and parts.text:
        plain = _is_plain(parts)
        found.append(("", parts.text if plain else _operations_part(parts.text)))
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


def _operations_part(text: str) -> str:
    """The query of a GraphQL request with files: JSON in the part named `operations`."""
    found = _OPERATIONS_PART.search(text[:20_000])
    try:
        document = json.loads(found[1]) if found else None
    except ValueError:
        return ""
    query = document.get("query") if isinstance(document, dict) else None
    return query if isinstance(query, str) else ""


_OPERATIONS_PART: Final = re.compile(
    r'name="operations"[^{\[]{0,200}(\{[^\r\n]{1,8000}\})[ \t]*\r?\n'
)


def _in_item(item: JsonValue) -> list[tuple[str, str]]:
    if isinstance(item, dict):
        return _strings(item, 0)
    if isinstance(item, list) and item:
        item = item[0]
    return [("", item)] if isinstance(item, str) and len(item) > _MIN_QUERY_CHARS else []


def _strings(  # noqa: C901 - one case a kind of value
    document: dict[str, JsonValue], depth: int
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in islice(document.items(), _MAX_FIELDS):
        if isinstance(value, str):
            if key.lower().replace("-", "_") in _QUERY_KEYS:
                found.append((key, value))
        elif isinstance(value, dict) and depth < 3:
            found.extend(_strings(value, depth + 1))
        elif isinstance(value, list) and value and depth < 3:
            if isinstance(value[0], dict):
                for item in value[:4]:
                    found.extend(_strings(item, depth + 1) if isinstance(item, dict) else [])
            elif isinstance(value[0], str) and key.lower() in _QUERY_KEYS:
                found.append((key, value[0]))
    return found


def _read_text(  # noqa: PLR0911 - a list of languages
    parts: Parts, key: str, text: str, variables: JsonValue, bag: dict[str, float]
) -> str:
    if key.lower() in ("", "query", "queries") and _GRAPHQL.match(text[:4000]):
        read_graphql(text, variables, bag)
        return "graphql"
    graph = looks_like_graph(text)
    sure = key.lower() in ("sql", "statement", "stmt", "sqltext")
    if (
        not graph
        and looks_like_sql(text, sure=sure)
        and key.lower() not in ("text", "body", "code", "search")
    ):
        read_sql(text, bag)
        return "sql"
    if key and len(text) < 4:
        return ""
    if key.lower() in _PROSE and not text.lstrip().startswith(("[", "|")) and " | " not in text:
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
