"""What a SQL statement costs to answer, in one word, beside the clauses that say so."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

from typing import Final

from classifier.features.magnitudes import bucket, log, span
from classifier.features.sql import FIRST, SYSTEM_TABLE, Statement, parse
from classifier.features.vocabulary import vocabulary

_DAY: Final = 86_400.0
_BULK: Final = vocabulary("""
    OPTIMIZE VACUUM COPY UNLOAD LOAD EXPORT IMPORT BACKUP RESTORE REINDEX MSCK ANALYZE REORG
    CLUSTER REPAIR BUILD
""")
_META: Final = vocabulary("""
    INFO SHOW DESCRIBE DESC USE SET EXPLAIN PRAGMA EXISTS LIST BEGIN COMMIT ROLLBACK
""")
_REWRITES: Final = vocabulary("""
    OPTIMIZE REBUILD COMPACT MATERIALIZE VACUUM MERGE MOVE CLUSTER
""")


def read_sql(text: str, bag: dict[str, float]) -> None:
    """Add the features of a SQL text to the channel that all query languages share."""
    seen = parse(text)
    verdict = verdict_of(seen)
    bag[f"q={verdict}"] = 1.0
    bag[f"sql.first={seen.first if seen.first in FIRST else 'other'}"] = 1.0
    if seen.kind and seen.first in ("CREATE", "ALTER", "DROP"):
        bag[f"sql.first={seen.first}:{seen.kind}"] = 1.0
    if verdict in ("meta", "define", "ddl"):
        return
    bag["sql.tokens"] = log(seen.tokens) / 2
    bag["sql.joins"] = min(5, seen.joins) / 2
    bag["sql.selects"] = min(5, seen.selects) / 2
    for name, there in _flags(seen).items():
        if there:
            bag[f"q.{name}"] = 1.0
    _magnitudes(seen, bag)


def _magnitudes(seen: Statement, bag: dict[str, float]) -> None:
    if seen.limit is not None:
        bag[f"q.limit={bucket(seen.limit)}"] = 1.0
        bag["q.limit.log"] = log(seen.limit)
    rows = max(seen.rows, seen.inserts - 1)
    if rows > 0:
        bag[f"q.rows={bucket(rows)}"] = 1.0
    if seen.in_list:
        bag[f"q.in={bucket(seen.in_list)}"] = 1.0
    if seen.span_seconds:
        bag[f"q.span={span(seen.span_seconds)}"] = 1.0


def _flags(seen: Statement) -> dict[str, bool]:
    words = seen.words
    return {
        "agg": seen.aggregates > 0,
        "agg-many": seen.aggregates > 2,
        "group": "GROUP" in words,
        "window": seen.windows > 0,
        "join": seen.joins > 0,
        "joins": seen.joins > 2,
        "distinct": "DISTINCT" in words,
        "union": "UNION" in words,
        "sort": "ORDER" in words,
        "where": seen.where,
        "nowhere": bool(seen.tables) and not seen.where,
        "key": seen.key_equal,
        "equal": seen.equal > 0,
        "range": seen.ranges > 0,
        "timebound": seen.time_bound,
        "text": seen.leading_like or seen.regex or seen.contains,
        "nolimit": seen.limit is None and bool(seen.tables),
        "generator": seen.generator > 0,
        "many-statements": seen.statements > 1,
        "recursive": "RECURSIVE" in words,
        "rollup": bool(words & {"ROLLUP", "CUBE", "GROUPING", "TOTALS"}),
    }


def verdict_of(seen: Statement) -> str:
    """The one word that says most about what a statement costs."""
    if seen.first in _META:
        return "meta"
    if seen.first in _BULK:
        return "bulk"
    if seen.first in (
        "CREATE",
        "ALTER",
        "REFRESH",
        "DROP",
        "RENAME",
        "GRANT",
        "REVOKE",
        "TRUNCATE",
        "DEFINE",
    ):
        return _definition(seen)
    if seen.first in ("INSERT", "REPLACE", "UPSERT", "MERGE", "UPDATE", "DELETE"):
        return _write(seen)
    if seen.first in ("SELECT", "WITH", "EXPLAIN_ANALYZE", "FROM", "TABLE", "VALUES"):
        return _read(seen)
    return "other"


def _definition(seen: Statement) -> str:
    if seen.first == "REFRESH":
        return "bulk" if seen.kind in ("MATERIALIZED", "DICTIONARY") else "ddl"
    if seen.first == "CREATE":
        return _creation(seen)
    if seen.first == "ALTER" and seen.words & _REWRITES:
        return "bulk"
    if seen.first == "ALTER" and seen.where and seen.words & {"DELETE", "UPDATE"}:
        return "write-range"
    return "ddl"


_CREATED: Final = {
    **dict.fromkeys(
        ("VIEW", "TASK", "FUNCTION", "PROCEDURE", "TRIGGER", "STREAM", "PIPE", "POLICY"), "define"
    ),
    **dict.fromkeys(("MODEL", "SNAPSHOT", "BACKUP"), "bulk"),
    "INDEX": "index",
    "MATERIALIZED": "define-stored",
}


def _creation(seen: Statement) -> str:
    known = _CREATED.get(seen.kind)
    return known or ("copy" if seen.selects else "ddl")


def _write(seen: Statement) -> str:
    if seen.first in ("INSERT", "REPLACE", "UPSERT", "MERGE"):
        return (
            "copy"
            if seen.tables or (seen.first == "MERGE" and not seen.selects and not seen.rows)
            else "write"
        )
    joined = seen.first == "UPDATE" and bool(seen.tables)
    if seen.record and not seen.where:
        return "write"
    if not seen.where or joined or seen.leading_like or seen.contains:
        return "write-all"
    return "write" if seen.key_equal or not seen.ranges else "write-range"


def _read(seen: Statement) -> str:  # noqa: PLR0911 - a list of cases
    tables = [table for table in seen.tables if not SYSTEM_TABLE.match(table)]
    if seen.generator >= 100_000 or seen.ml:
        return "heavy"
    if not seen.tables:
        return "const" if seen.generator < 1 else "generated"
    if not tables:
        return "system"
    if seen.aggregates and seen.last_value and seen.key_equal and "GROUP" not in seen.words:
        return "point"
    if (
        seen.windows
        or seen.words & {"GROUP", "DISTINCT", "SAMPLE", "RECURSIVE", "FACET"}
        or seen.aggregates
    ):
        return _aggregation(seen)
    if seen.leading_like or seen.regex or seen.contains:
        return "scan-text" if seen.limit is None else "scan-text-limit"
    return _plain(seen)


def _aggregation(seen: Statement) -> str:
    if not seen.where and not seen.span_seconds:
        return "agg-all"
    if seen.leading_like or seen.contains or seen.windows or "RECURSIVE" in seen.words:
        return "agg-wide"
    if seen.primary and "GROUP" not in seen.words and not seen.joins and len(seen.tables) == 1:
        return "point"
    recent = 0 < seen.span_seconds <= _DAY
    if seen.key_equal:
        return "agg-key-recent" if recent else "agg-key"
    return "agg-recent" if recent else "agg-filtered"


def _plain(seen: Statement) -> str:  # noqa: PLR0911 - a list of cases
    if seen.record and not seen.joins:
        return "point"
    if seen.latest and seen.equal and not seen.ranges:
        return "point"
    large = (seen.limit or 0) > 1000
    if large:
        return "bounded-large" if seen.where else "scan-large"
    if seen.joins:
        return (
            "join-key" if seen.key_equal else "join-bounded" if seen.limit is not None else "join"
        )
    sole = seen.equal == 1 and not seen.ranges and "ORDER" not in seen.words
    if seen.key_equal or (sole and seen.limit == 1):
        return (
            "point"
            if seen.limit in (None, 1) and not seen.ranges and "ORDER" not in seen.words
            else "keyed-page"
        )
    if seen.limit is not None:
        return "bounded"
    if not seen.where:
        return "scan-all"
    return "filtered-one" if sole else "filtered-range" if seen.time_bound else "filtered"
