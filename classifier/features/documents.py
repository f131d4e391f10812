"""Queries written as documents: search DSLs, Mongo-like filters and pipelines, analytics cubes."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from pydantic import JsonValue

from classifier.features.intent import add_intent, intent_of
from classifier.features.magnitudes import bucket, log
from classifier.features.vocabulary import vocabulary
from classifier.features.words import split_name

_MAX_NODES: Final = 500
_MAX_FIELDS: Final = 40
_AGG_KEYS: Final = vocabulary("""
    aggs aggregations $group $bucket $facet $sum $avg $count $sortbycount $bucketauto
    date_histogram terms-agg cardinality percentiles measures metrics dimensions groupby
    group_by timedimensions granularity breakdowns aggregation facets facet aggregators
    postaggregations rollup histogram percentile_ranks avg sum min max value_count stats
    extended_stats significant_terms composite calculations metric_aggs groupings summaries
    $setwindowfields breakdown aggregate cohort funnel
""")
_HEAVY_KEYS: Final = vocabulary("""
    wildcard regexp script script_score fuzzy $where $regex regex more_like_this
    function_score query_string $graphlookup $lookup $unionwith $out $merge scripted_metric
    painless percolate
""")
_KEY_FILTERS: Final = vocabulary("_id id ids key uuid _key slug sku objectid externalid")
_KNN: Final = vocabulary("""
    knn vector queryvector query_vector nearvector neartext vectors vectorqueries hybrid
    $vectorsearch querytexts query_texts queryembeddings query_embeddings nearestneighbor
    neighbors annsearch search_params anns_field
""")
_ALL: Final = frozenset(("match_all", "matchall"))


_PREDICATES: Final = vocabulary("filter expr where filter_by filters predicate $filter")
_OWN_KEY: Final = re.compile(
    r"\s*_?(?:id|uuid|pk|key|sku)\s*(?:==?|:=|\beq\b)\s*(?:\"[^\"]{1,80}\"|'[^']{1,80}'|[\w-]{1,80})\s*$",
    re.IGNORECASE,
)


def read_envelope(document: JsonValue, bag: dict[str, float]) -> None:
    """Read an operation that is the only key of a document: `{"findOne": {"filter": ..}}`."""
    if not isinstance(document, dict) or len(document) != 1:
        return
    name, inner = next(iter(document.items()))
    words = split_name(name)
    if not isinstance(inner, dict | None) or (len(words) < 2 and name not in _OPERATIONS):
        return
    verb, head, number = intent_of(name)
    if verb == "none":
        return
    for other in [other for other in bag if other.startswith(("do", "rest.do", "rest.verb"))]:
        del bag[other]
    add_intent(bag, verb, head, number, "rpc")


_OPERATIONS: Final = frozenset(("find", "insert", "delete", "aggregate", "distinct", "drop"))


def read_document(document: JsonValue, bag: dict[str, float]) -> None:
    """Add the features of a query document, if the JSON value is one."""
    if not isinstance(document, (dict, list)):
        return
    names = set()
    pipeline = isinstance(document, dict) and isinstance(document.get("pipeline"), list)
    operators = 0
    for key, value in _keys(document):
        lower = key.lower()
        operators += lower.startswith("$")
        if lower in _KNOWN:
            names.add(lower)
        if lower in _ALL or (
            lower in ("filter", "selector", "query") and value in ({}, "", "*", "*:*")
        ):
            names.add("match_all")
        if isinstance(value, str) and lower in _PREDICATES and _OWN_KEY.match(value):
            names.add("_id")
        if lower in _KEY_FILTERS and isinstance(value, (str, int, dict)):
            names.add("_id")
    _say(document, names, operators, pipeline, bag)


_KNOWN: Final = (
    _AGG_KEYS
    | _HEAVY_KEYS
    | _KNN
    | frozenset(("rerank", "reranker", "conversation_model_id", "neartext"))
    | vocabulary("term terms match range bool sort from size limit")
)


def _keys(document: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    queue: list[JsonValue] = [document]
    for at, node in enumerate(queue):
        if at > _MAX_NODES:
            return
        if isinstance(node, dict):
            for key, value in islice(node.items(), _MAX_FIELDS):
                yield key, value
                if isinstance(value, (dict, list)):
                    queue.append(value)
        elif isinstance(node, list):
            queue.extend(item for item in node[:10] if isinstance(item, (dict, list)))


_PLAIN: Final = frozenset(("match_all", "_id", "range", "term", "match", "bool"))


def _say(
    document: JsonValue, names: set[str], operators: int, pipeline: bool, bag: dict[str, float]
) -> None:
    aggs, heavy = names & _AGG_KEYS, names & _HEAVY_KEYS
    said = {
        "operators": operators,
        "pipeline": pipeline,
        "agg": aggs,
        "heavy": heavy,
        "knn": names & _KNN,
    }
    bag.update({f"doc={name}": 1.0 for name, there in said.items() if there})
    bag.update({f"doc={name}": 1.0 for name in (*heavy, *(names & _PLAIN))})
    if aggs:
        bag["doc.aggs"] = min(4, len(aggs)) / 2
    if isinstance(document, dict):
        _size(document, bool(aggs), bag)
        verdict = _verdict(document, names, bag)
        if verdict:
            bag[f"d={verdict}"] = 1.0


def _size(document: dict[str, JsonValue], aggs: bool, bag: dict[str, float]) -> None:
    size = next(
        (
            document[k]
            for k in ("size", "limit", "hitsPerPage", "rows", "top", "topK", "top_k")
            if k in document
        ),
        None,
    )
    if isinstance(size, int) and not isinstance(size, bool):
        bag[f"doc.size={bucket(size)}"] = 1.0
        bag[f"doc.size={bucket(size)}{'&agg' if aggs else ''}"] = 1.0
        bag["doc.size.log"] = log(min(size, 10**9))


def _verdict(  # noqa: C901, PLR0911 - a list of cases
    document: dict[str, JsonValue], names: set[str], bag: dict[str, float]
) -> str:
    """The one word that says most about what a query document costs, "" if it is none."""
    queried = bool(_QUERIES & {key.lower() for key in islice(document, _MAX_FIELDS)})
    size = bag.get("doc.size.log", 0.0)
    if names & _MODELS or _is_model_input(document.get("query")):
        return "model"
    if names & _AGG_KEYS and names & _AGG_KEYS <= _FACETS and queried and size < 2.1:
        return "page"
    if names & _AGG_KEYS:
        return "agg-range" if "range" in names else "agg"
    if not queried and not names & _KNN:
        return ""
    if names & _HEAVY_KEYS:
        return "heavy"
    if "match_all" in names:
        return "all-large" if size > 2.6 else "all-page" if size else "all"
    if names & _KNN:
        return "knn"
    if "_id" in names:
        return "keyed"
    return "large" if size > 3 else "page" if size else "filtered"


_FACETS: Final = frozenset(("facets", "facet"))
_MODELS: Final = frozenset(("rerank", "reranker", "conversation_model_id", "neartext"))


def _is_model_input(query: JsonValue) -> bool:
    """Whether a query is a text that a named model has to embed first."""
    if not isinstance(query, dict):
        return False
    return "inputs" in query or (
        "model" in query and bool(query.keys() & {"text", "document", "image"})
    )


_QUERIES: Final = vocabulary("""
    query filter selector where pipeline conditions criteria search filters wheres find q
    structuredquery predicate
""")
