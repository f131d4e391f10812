"""Query languages that are not SQL, read into the same channel of features.

Pipelines (Kusto, ES|QL, Splunk, Flux), graph patterns (Cypher, Gremlin, AQL)
and SPARQL. What counts is the same everywhere: keyed, filtered, aggregated, bounded, written.
"""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final

from classifier.features.dialects import read_dialect
from classifier.features.magnitudes import bucket, log, seconds, span
from classifier.features.verdicts import choose, flag
from classifier.features.vocabulary import vocabulary

_MAX_CHARS: Final = 6_000


_CYPHER: Final = re.compile(
    r"^\s*+(?:PROFILE\s+|EXPLAIN\s+)?(?:OPTIONAL\s+)?"
    r"(MATCH|MERGE|CREATE|UNWIND|CALL|RETURN|LOAD CSV|WITH)\b(?=[^=]*[(\[{]|\s+\d)",
    re.IGNORECASE,
)


_PROLOGUE: Final = r"^\s*+(?:(?:PREFIX\s+[\w.-]*:|BASE)\s*<[^>\s]{0,300}>\s*)*+"


_SPARQL: Final = re.compile(
    _PROLOGUE + r"(?:SELECT|ASK|CONSTRUCT|DESCRIBE|INSERT|DELETE|WITH)\b[^{]{0,400}"
    r"(?:\{|<http)[^}]{0,600}(?:\?\w|<http)|"
    + _PROLOGUE
    + r"(?:ASK|DESCRIBE)\b[^{]{0,200}\{?[^}]{0,400}\w:\w|"
    + _PROLOGUE
    + r"(?:SELECT|ASK|CONSTRUCT)\b[^{]{0,300}\?\w[^{]{0,300}\{",
    re.IGNORECASE,
)


_AQL: Final = re.compile(
    r"^\s*+(?:LET\b[^;]{0,300}\s)?(FOR\s+\w+(?:\s*,\s*\w+)*\s+IN\b|RETURN\b)", re.IGNORECASE
)


_GREMLIN: Final = re.compile(r"\bg\.(?:V|E|addV|addE|with\w*|tx)\(")


_PIPE: Final = re.compile(r"\|>?\s*([a-zA-Z_]+)")


_FLUX: Final = re.compile(r"\s*(?:import\s+\"[\w/]+\"\s*)+\s*\w+\.\w+\(")


_GROUP_STAGE: Final = vocabulary("""
    summarize stats aggregate count group aggregatewindow sum mean timechart chart top rare
    eventstats streamstats makeseries distinct uniq bin window reduce median quantile join
    lookup transaction dedup unique spread histogram collect_stats facet mv_expand pivot
""")


_COUNTS: Final = re.compile(
    r"\b(?:sum|avg|min|max|count|topk|quantile)\s*(?:by|without)?\s*\([^|]*\|"
    r"|\bjoin\(tables|\|\s*(?:cardinality|percentile|histogram|uniq)\w*\s*\("
)


_FILTER_STAGE: Final = vocabulary("where filter search range fields project keep")


def read_query_text(text: str, bag: dict[str, float]) -> bool:
    """Add the features of a query in a language that is told by its text; False if it is none."""
    # Patterns begin with blanks: a long run of them would be walked by each.
    text = text.lstrip()[:_MAX_CHARS]
    if _is_sparql(text):
        _sparql(text, bag)
    elif not _GREMLIN.search(text[:400]) and read_dialect(text, bag):
        return True
    elif _GREMLIN.search(text[:400]):
        _gremlin(text, bag)
    elif _AQL.match(text) and text.lstrip()[:6].upper() != "RETURN":
        _aql(text, bag)
    elif _CYPHER.match(text):
        _cypher(text, bag)
    elif (
        ("|" in text and _PIPE.search(text) and not text.lstrip().startswith(("{", "[")))
        or "|>" in text
        or _FLUX.match(text)
    ):
        _pipeline(text, bag)
    else:
        return False
    return True


# Possessive: blanks that could be split between two places would be split in every way.
_LIMIT: Final = re.compile(
    r"\b(?:limit|take|head|top|n:|first|last)\s*+(?:[(:=]\s*+)?(?:n\s*+:\s*+)?(\d{1,9}+)(?![\da-z])",
    re.IGNORECASE,
)


def _bound(text: str, bag: dict[str, float]) -> float | None:
    found = _LIMIT.search(text)
    if not found:
        return None
    number = float(found[1])
    bag[f"q.limit={bucket(number)}"] = 1.0
    bag["q.limit.log"] = log(number)
    return number


def _cypher(text: str, bag: dict[str, float]) -> None:
    upper = text.upper()
    bag["ql=graph"] = 1.0
    write = re.search(r"\b(CREATE|MERGE|SET|DELETE|REMOVE)\b", upper) is not None
    agg = re.search(r"\b(COUNT|SUM|AVG|COLLECT|MIN|MAX|PERCENTILE\w*)\s*\(", upper) is not None
    variable = re.search(r"\*(\d*\.\.\d*)?\s*[\]{]|\*\d", text) is not None
    algorithm = re.search(
        r"\b(shortestpath|allshortestpaths|gds\.|algo\.|apoc\.(?:path|periodic|export|load))",
        text,
        re.IGNORECASE,
    )
    hops = len(re.findall(r"-\[|-->|<--|--\(", text))
    keyed = re.search(
        r"\{\s*+(?=\w{0,60}?(?:id|name|key|uuid|email|title|code|slug|number))\w++\s*+:|\.\w*(?:id|uuid|email|key|name)\s*=\s*|\bid\(\w+\)\s*=|elementId\(",
        text,
        re.IGNORECASE,
    )
    limit = _bound(text, bag)
    where = "WHERE" in upper or bool(keyed)
    flag(
        bag,
        agg=agg,
        write=write,
        key=keyed,
        where=where,
        nowhere=not where,
        sort="ORDER BY" in upper,
        nolimit=limit is None,
        path=variable,
        join=hops > 1,
        joins=hops > 2,
    )
    bag["sql.joins"] = min(5, hops) / 2
    choose(
        bag,
        (algorithm, "heavy"),
        (re.match(r"\s*(RETURN|CALL\s+db(?:ms)?\.)", text, re.IGNORECASE), "const"),
        ("LOAD CSV" in upper or "PERIODIC" in upper or "IN TRANSACTIONS" in upper, "bulk"),
        (write and ("CREATE INDEX" in upper or "CONSTRAINT" in upper), "ddl"),
        (write, "write" if keyed or "MATCH" not in upper else "write-all"),
        (variable, "traverse" if not keyed or limit is None else "join-key"),
        (agg, "agg-key" if keyed else "agg-filtered" if where else "agg-all"),
        (keyed, "join-key" if hops else "point"),
        (limit is not None, "bounded"),
        otherwise="filtered" if where else "scan-all",
    )


def _gremlin(text: str, bag: dict[str, float]) -> None:
    bag["ql=graph"] = 1.0
    keyed = re.search(
        r"\.V\(\s*[\w'\"]|\.hasId\(|has\(\s*['\"](?:\w+['\"]\s*,\s*['\"])?\w*(?:id|name|key|email)",
        text,
    )
    agg = re.search(r"\.(count|group|groupCount|sum|mean|dedup)\(", text)
    walk = re.search(r"\.(repeat|path|shortestPath|pageRank|connectedComponent)\(", text)
    hops = len(re.findall(r"\.(?:out|in|both)E?\(", text))
    limit = _bound(text, bag)
    flag(bag, agg=agg, key=keyed, path=walk, nolimit=limit is None, join=hops > 0)
    choose(
        bag,
        (re.search(r"\.(addV|addE|property|drop)\(", text), "write"),
        (walk, "traverse"),
        (agg, "agg-key" if keyed else "agg-all"),
        (keyed, "join-key" if hops else "point"),
        (limit is not None, "bounded"),
        otherwise="scan-all",
    )


def _aql(text: str, bag: dict[str, float]) -> None:
    upper = text.upper()
    bag["ql=graph"] = 1.0
    agg = "COLLECT" in upper or re.search(r"\b(LENGTH|SUM|AVERAGE|COUNT)\s*\(", upper)
    walk = re.search(r"\b(OUTBOUND|INBOUND|ANY|SHORTEST_PATH|K_PATHS|GRAPH)\b", upper)
    keyed = re.search(
        r"\._(key|id)\s*==|\.\w*(id|email|name|key)\s*==|DOCUMENT\(", text, re.IGNORECASE
    )
    limit = _bound(text, bag)
    loops = len(re.findall(r"\bFOR\b", upper))
    where = "FILTER" in upper
    flag(
        bag,
        agg=agg,
        key=keyed,
        path=walk,
        where=where,
        nowhere=not where,
        nolimit=limit is None,
        join=loops > 1,
    )
    choose(
        bag,
        (
            re.search(r"\b(INSERT|UPDATE|REMOVE|REPLACE|UPSERT)\b", upper),
            "write" if where else "write-all",
        ),
        (walk, "traverse"),
        (agg, "agg-filtered" if where else "agg-all"),
        (keyed, "point"),
        (limit is None and re.search(r"CONTAINS\(|\bLIKE\b|=~|REGEX_", upper), "scan-text"),
        (limit is not None, "bounded"),
        otherwise="filtered" if where else "scan-all",
    )


def _sparql(text: str, bag: dict[str, float]) -> None:
    text = _LABELS.sub("", text)
    upper = text.upper()
    bag["ql=graph"] = 1.0
    agg = re.search(r"\b(COUNT|SUM|AVG|GROUP_CONCAT|MIN|MAX)\s*\(|GROUP BY", upper)
    given = re.search(r"\bVALUES\s+[?(]", upper)
    constant = re.search(r"(?:WHERE)?\s*\{\s*\}\s*$", upper)
    asked = re.search(r"^\s*(?:PREFIX[^\n]*?>\s*)*ASK\b", upper)
    limit = _bound(text, bag)
    patterns = len(re.findall(r"\?\w+", text))
    keyed = (
        re.search(r"\{\s*+(?:<[^<>]{1,300}+>|\w++:\w++)\s++(?:\?|<|\w++:)", text) and patterns <= 8
    )
    walk = re.search(r"[\w>]\s*[*+]\s+[?<\w]", text)
    regex = "REGEX(" in upper or "CONTAINS(" in upper
    flag(
        bag,
        agg=agg,
        key=keyed,
        nolimit=limit is None,
        regex=regex,
        path=walk,
        sort="ORDER BY" in upper,
    )
    choose(
        bag,
        (constant, "const"),
        (_CHANGES_ALL.search(upper), "write-all"),
        (re.search(r"\b(INSERT|DELETE|LOAD|CLEAR)\b", upper), "write"),
        (agg, "agg-key" if keyed else "agg-all"),
        (asked and limit is None and patterns < 4, "point"),
        (walk, "traverse"),
        (keyed and upper.lstrip().startswith("CONSTRUCT"), "join-key"),
        (keyed, "point"),
        (regex, "scan-text"),
        (given, "keyed-page"),
        (limit is not None, "bounded" if (limit or 0) <= 1000 else "bounded-large"),
        otherwise="scan-all",
    )


_LABELS: Final = re.compile(r"SERVICE\s+\w+:label\s*\{[^}]{0,200}\}?", re.IGNORECASE)
_CHANGES_ALL: Final = re.compile(
    r"WHERE\s*\{\s*\?\w+\s+\?\w+\s+\?\w+\s*\.?\s*\}|\bCLEAR\s+(?:ALL|DEFAULT)|DROP\s+ALL"
)


def _pipeline(text: str, bag: dict[str, float]) -> None:
    """Kusto, ES|QL, Splunk, Flux, LogQL's pipes."""
    stages = [stage.lower() for stage in _PIPE.findall(text)]
    bag["ql=pipe"] = 1.0
    agg = any(stage in _GROUP_STAGE for stage in stages) or _COUNTS.search(text) is not None
    limit = _bound(text, bag)
    where = any(stage in _FILTER_STAGE for stage in stages)
    heavy = sum(stage in ("join", "lookup", "transaction", "pivot") for stage in stages)
    back = re.search(r"(?:ago\(|start:\s*-|earliest=-|-)\s*(\d+\s*\w)", text)
    long = seconds(back[1]) if back else None
    if long:
        bag[f"span={span(long)}"] = 1.0
        bag["span.log"] = log(long / 3600) / 2
    flag(
        bag,
        agg=agg,
        where=where,
        join=heavy,
        nolimit=limit is None,
        sort=any(s in ("sort", "order") for s in stages),
    )
    bag["q.stages"] = min(8, len(stages)) / 4
    generated = re.match(
        r"\s*(?:row\b|\|\s*makeresults|print\b|range\b|datatable|union\s+\(print|"
        r"array\.from|import \"array\")",
        text,
        re.IGNORECASE,
    )
    last = stages[-1:] in (["last"], ["first"]) and where
    choose(
        bag,
        (generated, "const"),
        (last and (long or 0) < 700_000, "point"),
        (agg and long is not None and long <= 90_000 and where and not heavy, "agg-recent"),
        (
            agg and (long is None or long > 700_000),
            "agg-all" if not where or long else "agg-filtered",
        ),
        (agg, "agg-filtered"),
        (limit is not None, "bounded" if (limit or 0) <= 1000 else "bounded-large"),
        otherwise="filtered" if where else "scan-all",
    )


def looks_like_graph(text: str) -> bool:
    """Whether a text that may look like SQL is SPARQL or a graph procedure instead."""
    return _is_sparql(text[:2000]) or _PROCEDURE.match(text[:200]) is not None


def _is_sparql(text: str) -> bool:
    # No text without one of these is SPARQL, and most hold none.
    return any(sign in text for sign in _SPARQL_SIGNS) and _SPARQL.match(text) is not None


_SPARQL_SIGNS: Final = ("?", "<", "ASK", "DESCRIBE")


_PROCEDURE: Final = re.compile(r"\s*+CALL\s+\w+\.\w+", re.IGNORECASE)
