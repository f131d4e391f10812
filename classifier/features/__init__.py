"""What a request means, as named numbers: protocol facts first, words second.

`extract` is pure, takes bounded time whatever the bytes, and never raises.
"""

import re
from typing import Final

from pydantic import JsonValue

from classifier.contracts import RequestView
from classifier.features.arguments import read_arguments
from classifier.features.calls import read_calls, read_rest_verb, read_xml
from classifier.features.documents import read_document
from classifier.features.graphql import read_graphql
from classifier.features.inference import read_inference
from classifier.features.magnitudes import bucket, log
from classifier.features.modifiers import read_bounds, read_modifier
from classifier.features.querytext import looks_like_graph, looks_like_metrics, read_metrics_query, read_query_text
from classifier.features.request import Parts, take_apart
from classifier.features.sql import looks_like_sql
from classifier.features.sql_cost import read_sql
from classifier.features.target import read_rest_intent, read_target

_QUERY_KEYS: Final = frozenset(
    "query q sql statement stmt statements expr expression cypher gremlin querystring querytext command search "
    "script sqlstatement kql esql flux aql db_query queries sqlquery oql soql querydefinition sqltext "
    "sql_query raw_query rawsql userquery jql mdx dax commands code body promql logql target n1ql "
    "text criteria".split()
)
_GRAPHQL: Final = re.compile(r"^\s*(?:#[^\n]*\n\s*)*(?:(?:query|mutation|subscription|fragment)\b[^{]{0,2000}\{|\{\s*(?:#[^\n]*\n\s*)*\w+\s*(?:[({}:,@]|\s\w))")
_METRIC_PATHS: Final = frozenset("query query_range api prom prometheus loki render range instant series".split())


def extract(view: RequestView) -> dict[str, float]:
    """Feature names and values of a request."""
    parts = take_apart(view)
    bag: dict[str, float] = {}
    protocol = _read_queries(parts, bag)
    if protocol:
        _read_beside_query(parts, protocol, bag)
    else:
        _read_operation(parts, bag)
    read_inference(parts, bag)
    _read_body_kind(parts, bag)
    return bag


def _read_operation(parts: Parts, bag: dict[str, float]) -> None:
    """Read a request that carries no query: its name, its target, its arguments."""
    shape = read_target(parts, bag)
    protocol = read_calls(parts, bag)
    bag[f"proto={protocol or 'rest'}"] = 1.0
    if not protocol:
        read_rest_verb(parts, shape, bag)
        read_rest_intent(parts, bag)
    read_arguments(parts, bag)
    read_document(parts.document, bag)


def _read_beside_query(parts: Parts, protocol: str, bag: dict[str, float]) -> None:
    """Where a query was read, the rest only says whether it is run: words would be noise."""
    bag[f"proto={protocol}"] = 1.0
    kind = "graphql" if protocol.startswith("graphql") else "query"
    modifier = "" if kind == "graphql" else read_modifier(parts)
    if modifier:
        verdict = next((name for name in bag if name.startswith("q=")), "q=")
        for name in [n for n in bag if n.startswith(("q=", "q.", "sql", "ql", "span", "prom"))]:
            del bag[name]
        bag[f"q={modifier}"] = 1.0
        bag[f"q={modifier}:{verdict[2:]}"] = 1.0
    if kind == "query":
        read_bounds(parts, bag)
    bag[f"m={parts.method if parts.method in ('GET', 'POST') else 'OTHER'}:{kind}"] = 1.0


def _read_body_kind(parts: Parts, bag: dict[str, float]) -> None:
    if "xml" in parts.media or parts.text[:1] == "<":
        read_xml(parts, bag)
    kind = "none" if parts.body_bytes == 0 else _kind(parts)
    bag[f"body={kind}"] = 1.0
    if parts.lines:
        bag[f"lines={bucket(parts.lines)}"] = 1.0
        bag["lines.log"] = log(parts.lines)
    accept = parts.headers.get("accept", "").lower()
    for word in ("event-stream", "csv", "pdf", "zip", "html", "image", "octet-stream", "excel", "sheet", "parquet"):
        if word in accept:
            bag[f"accept={word}"] = 1.0
    for name in ("prefer", "range", "depth"):
        if name in parts.headers:
            bag[f"header={name}"] = 1.0
    if "count=exact" in parts.headers.get("prefer", ""):
        bag["header=count-exact"] = 1.0


def _kind(parts: Parts) -> str:
    if parts.lines:
        return "lines"
    if parts.document is not None:
        return "list" if isinstance(parts.document, list) else "json"
    if parts.form:
        return "form"
    if parts.media.startswith("multipart/"):
        return "multipart"
    if "xml" in parts.media or parts.text[:1] == "<":
        return "xml"
    return "text" if parts.text.isprintable() or parts.media.startswith("text/") else "other"


def _read_queries(parts: Parts, bag: dict[str, float]) -> str:
    """Read the first query in a query language that the request carries; gives its protocol."""
    if isinstance(parts.document, list):
        batched = _graphql_batch(parts.document, bag)
        if batched:
            return "graphql"
    if "persistedQuery" in parts.text[:4000] or any("persistedQuery" in v for _, v in parts.query_params[:10]):
        bag["gql=persisted"] = 1.0
    variables = _variables(parts)
    found = ""
    for key, text in _candidates(parts):
        found = _read_text(parts, key, text, variables, bag)
        if found:
            bag[f"{found}.in={'body' if not key else 'value'}"] = 1.0
            return found
    if "gql=persisted" in bag or (parts.segments and parts.segments[-1].lower() in ("graphql", "gql") and not found and parts.document):
        return "graphql-opaque"
    return ""


def _graphql_batch(document: list[JsonValue], bag: dict[str, float]) -> bool:
    queries = [(item["query"], item.get("variables")) for item in document[:20] if isinstance(item, dict) and isinstance(item.get("query"), str)]
    texts = [(q, v) for q, v in queries if isinstance(q, str) and _GRAPHQL.match(q[:4000])]
    for query, variables in texts[:6]:
        read_graphql(query, variables, bag)
    if texts:
        bag[f"rpc.batch={bucket(len(document))}"] = 1.0
    return bool(texts)


def _variables(parts: Parts) -> JsonValue:
    return parts.document.get("variables") if isinstance(parts.document, dict) else None


def _candidates(parts: Parts) -> list[tuple[str, str]]:
    """Texts that may be queries, the likeliest first."""
    found: list[tuple[str, str]] = []
    document = parts.document
    if document is None and parts.text and not parts.form and not parts.media.startswith("multipart/"):
        found.append(("", parts.text))
    if isinstance(document, dict):
        found.extend(_strings(document, 0))
        if "graphql" in parts.media:
            found.append(("", parts.text))
    elif isinstance(document, list):
        for item in document[:5]:
            if isinstance(item, dict):
                found.extend(_strings(item, 0))
    elif isinstance(document, str):
        found.append(("", document))
    found.extend((key, value) for key, value in parts.params[:30] if key.lower().rstrip("[]") in _QUERY_KEYS)
    return found[:12]


def _strings(document: dict[str, JsonValue], depth: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in list(document.items())[:40]:
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


def _read_text(parts: Parts, key: str, text: str, variables: JsonValue, bag: dict[str, float]) -> str:
    if _GRAPHQL.match(text[:4000]) and key.lower() in ("", "query", "queries"):
        read_graphql(text, variables, bag)
        return "graphql"
    graph = looks_like_graph(text)
    if not graph and looks_like_sql(text) and not (key.lower() in ("text", "body", "code", "search")):
        read_sql(text, bag)
        return "sql"
    if key and len(text) < 4:
        return ""
    if not text.lstrip().startswith("<") and (not key or key.lower() != "text") and read_query_text(text, bag):
        return "ql"
    metric = any(s.lower() in _METRIC_PATHS for s in parts.segments[-3:])
    if key.lower() in ("query", "expr", "target", "promql", "match") and metric and looks_like_metrics(text):
        read_metrics_query(text, bag)
        return "metrics"
    return ""
