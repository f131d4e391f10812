"""SQL and its dialects by their clauses: a tokenizer that keeps what scales the work."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Final

from classifier.features.lexemes import lexemes
from classifier.features.vocabulary import vocabulary

# Blanks are stepped over with the lexeme behind them: to look for one at every blank costs more.
# Not all at once, for where no lexeme is behind them, the next blank is tried as well.
# Texts are unrolled and possessive, so that a long one takes one pass.
_TOKEN: Final = re.compile(
    r"\s{0,31}+(?:\s|("
    r"[A-Za-z_@$#][\w$]*(?:\.[\w$*]+)*|<>|<=|>=|!=|=~|!~|~\*?|\|\||--[^\n]*|/\*.*?(?:\*/|$)|"
    r"[=<>(),;*?:%+\-/{}]|\d[\d_]*(?:\.\d+)?(?:[eE]\d+)?|"
    r"'[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+'?|\"[^\"]*+(?:\"\"[^\"]*+)*+\"?|`[^`]*`?|"
    r"\[[^\[\]\s]{1,60}+\](?!\()))",
    re.DOTALL,
)
_MAX_TOKENS: Final = 1200
_MAX_CHARS: Final = 16_000
_MAX_NAME: Final = 64
_MAX_LISTS: Final = 32
FIRST: Final = vocabulary("""
    SELECT WITH INSERT UPDATE DELETE CREATE ALTER DROP TRUNCATE SHOW DESCRIBE DESC EXPLAIN USE
    SET OPTIMIZE VACUUM ANALYZE COPY LOAD UNLOAD EXPORT IMPORT BACKUP RESTORE MERGE UPSERT
    REPLACE CALL EXEC EXECUTE EXISTS GRANT REVOKE BEGIN COMMIT ROLLBACK REFRESH KILL CHECK
    SYSTEM ATTACH DETACH RENAME PRAGMA VALUES REINDEX CLUSTER REPAIR MSCK DECLARE DO TABLE
    PURGE REORG CACHE LIST FROM INFO BUILD PREPARE DEFINE
""")
_AGGREGATES: Final = vocabulary("""
    COUNT SUM AVG MIN MAX MEAN MEDIAN STDDEV STDDEV_POP VARIANCE PERCENTILE QUANTILE QUANTILES
    APPROX_DISTINCT APPROX_COUNT_DISTINCT UNIQ UNIQEXACT GROUPARRAY GROUP_CONCAT STRING_AGG
    ARRAY_AGG LISTAGG PERCENTILE_CONT PERCENTILE_DISC APPROX_PERCENTILE APPROX_QUANTILES
    COUNTIF SUMIF AVGIF TOPK ARGMAX ARGMIN ANYLAST UNIQCOMBINED HISTOGRAM CORR APPX_MEDIAN HLL
    FIRST LAST ANY SPREAD MODE COUNT_DISTINCT DISTINCTCOUNT BIT_XOR JSON_AGG JSONB_AGG
    COLLECT_LIST NTH_VALUE INTEGRAL DERIVATIVE
""")
SYSTEM_TABLE: Final = re.compile(
    r"^(information_schema|pg_catalog|pg_|system\.|sys\.|performance_schema|svv_|stv_|sqlite_master|_v_|dual$)",
    re.IGNORECASE,
)
_KEY: Final = re.compile(
    r"(^|[._])(k|id|key|uuid|pk|guid|email|sku|slug|code|number|hash|lexeme|name|username|login|isbn|no)$|(id|key|uuid|number|code)$",
    re.IGNORECASE,
)
_GENERATORS: Final = vocabulary("""
    NUMBERS GENERATE_SERIES NUMBERS_MT GENERATERANDOM RANGE ZEROS SLEEP UNNEST LONG_SEQUENCE
""")
_CONTAINS: Final = vocabulary("""
    POSITION STRPOS INSTR LOCATE CHARINDEX REGEXP_CONTAINS HASTOKEN MULTISEARCHANY
""")
_ML: Final = (
    "ML.", "AI.", "CORTEX", "SNOWFLAKE.CORTEX", "AI_", "PREDICT", "FORECAST", "VECTOR_",
)  # fmt: skip


@dataclass(slots=True)
class Statement:
    """The clauses of one statement, as far as they were seen."""

    first: str = ""
    second: str = ""
    words: set[str] = field(default_factory=set)
    selects: int = 0
    tables: list[str] = field(default_factory=list)
    joins: int = 0
    aggregates: int = 0
    windows: int = 0
    limit: float | None = None
    where: bool = False
    key_equal: bool = False
    equal: int = 0
    ranges: int = 0
    leading_like: bool = False
    regex: bool = False
    functions: int = 0
    generator: float = 0.0
    ml: bool = False
    rows: int = 0
    statements: int = 1
    tokens: int = 0
    time_bound: bool = False
    in_list: int = 0
    lists: int = 0
    valued: bool = False
    contains: bool = False
    record: bool = False
    span_seconds: float = 0.0
    kind: str = ""
    inserts: int = 0
    last_value: bool = False
    primary: bool = False
    latest: bool = False


# Possessive: a comment that could end in two places would be tried in each, for all comments.
_START: Final = re.compile(
    r"(?:\s|(?:--|#)[^\n]*\n|/\*.{0,400}?\*/|\()*+"
    r"([A-Za-z]+)\b(?!\s*[:=.({]|\s+\"[\w/]+\"\s*(?:\n|$))(.{0,200})",
    re.DOTALL,
)
_CLAUSE: Final = re.compile(r"[*,=()]|\b(from|into|table|set|where|\d)\b", re.IGNORECASE)
_FROM_FIRST: Final = re.compile(r"\b(?:SELECT|SHOW|INSERT|WHERE|GROUP)\b", re.IGNORECASE)


def looks_like_sql(text: str, *, sure: bool = False) -> bool:
    """Whether a text starts with a statement of SQL or a dialect of it.

    Args:
        text: What may be a statement.
        sure: Whether its place says so, so that `show tables` is one without more signs.
    """
    found = _START.match(text[:800])
    if not found or found[1].upper() not in FIRST:
        return False
    if found[1].upper() == "FROM" and ("|" in text[:400] or not _FROM_FIRST.search(text[:800])):
        return False
    return found[1].isupper() or sure or bool(_CLAUSE.search(found[2]))


def parse(text: str) -> Statement:
    """The clauses of the first 1,200 tokens; later statements add to the first."""
    found = lexemes(_TOKEN, text[:_MAX_CHARS], _MAX_TOKENS)
    tokens = _without_prefix([t for t in found if not t.startswith(("--", "/*"))])
    seen = Statement(tokens=len(tokens))
    upper = [token.upper() for token in tokens]
    seen.first = upper[0] if upper else ""
    seen.second = upper[1] if len(upper) > 1 else ""
    seen.kind = next((t for t in upper[1:6] if t in _KINDS), "")
    seen.span_seconds = _span(text)
    seen.inserts = upper.count("INSERT")
    seen.words = set(upper)
    for at, lexeme in enumerate(upper):
        if lexeme in _RULES:
            _RULES[lexeme](seen, tokens, at)
        elif lexeme == "(" and at and upper[at - 1][0] in _NAME_STARTS:
            _function(seen, upper[at - 1], tokens, at - 1)
    if seen.first == "EXPLAIN":
        seen.first = "EXPLAIN" if "ANALYZE" not in upper[:5] else "EXPLAIN_ANALYZE"
    return seen


_KINDS: Final = vocabulary("""
    TABLE VIEW MATERIALIZED INDEX FUNCTION PROCEDURE TASK MODEL SNAPSHOT BACKUP TRIGGER
    DATABASE SCHEMA USER ROLE WAREHOUSE STREAM PIPE TYPE DICTIONARY SEQUENCE EXTENSION STAGE
    POLICY
""")
_PREFIXES: Final = frozenset(("BEGIN", "START", "SET", "USE", "PRAGMA", "DECLARE"))
# Each with what stands in every text it finds, which is quicker to look for.
_SPANS: Final = (
    (
        "INTERVAL",
        re.compile(
            r"(?<!bin\()(?<!bucket\()(?<!bin, )"
            r"INTERVAL\s+'?(\d{1,6})'?\s*'?(SECOND|MINUTE|HOUR|DAY|WEEK|MONTH|QUARTER|YEAR)",
            re.IGNORECASE,
        ),
    ),
    ("NOW()", re.compile(r"now\(\)\s*-\s*(\d{1,6})\s*([smhdwy])\b", re.IGNORECASE)),
    ("AGO(", re.compile(r"\bago\('?PT?(\d{1,6})([HMDSWY])", re.IGNORECASE)),
    (
        "SINCE",
        re.compile(
            r"\bSINCE\s+(\d{1,6})\s+(SECOND|MINUTE|HOUR|DAY|WEEK|MONTH|YEAR)", re.IGNORECASE
        ),
    ),
    ("LAST_", re.compile(r"\bLAST_(\d{1,4})?_?(DAY|WEEK|MONTH|YEAR|HOUR)", re.IGNORECASE)),
)
_ADD: Final = re.compile(
    r"date_?(?:add|sub)\(\s*'?(second|minute|hour|day|week|month|quarter|year)s?'?\s*,\s*-?(\d{1,6})",
    re.IGNORECASE,
)
_UNITS: Final = {
    "S": 1, "SECOND": 1, "M": 60, "MINUTE": 60, "H": 3600, "HOUR": 3600, "D": 86_400, "DAY": 86_400,
    "W": 604_800, "WEEK": 604_800, "MONTH": 2_592_000, "QUARTER": 7_776_000,
    "Y": 31_536_000, "YEAR": 31_536_000,
}  # fmt: skip


def _span(text: str) -> float:
    """How far back a statement looks, in seconds; 0 if it does not say."""
    text = text[:6000]
    upper = text.upper()
    for sign, pattern in _SPANS:
        found = pattern.search(text) if sign in upper else None
        if found:
            return float(found[1] or 1) * _UNITS[found[2].upper()]
    found = _ADD.search(text) if "DATE" in upper else None
    return float(found[2]) * _UNITS[found[1].upper()] if found else 0.0


def _without_prefix(tokens: list[str]) -> list[str]:
    """The tokens from the first statement on that is more than a preparation."""
    start = 0
    for _ in range(8):
        while start < len(tokens) and tokens[start] in ("(", ";"):
            start += 1
        near = tokens[start : start + 200]
        if not near or not _prepares(near) or ";" not in near:
            break
        after = start + near.index(";") + 1
        if after == len(tokens):
            break
        start = after
    return tokens[start:]


def _prepares(tokens: list[str]) -> bool:
    """Whether the first statement only prepares the next."""
    first, second, third = [*(token.upper() for token in tokens[:3]), "", "", ""][:3]
    return first in _PREFIXES or (
        first == "CREATE" and second in ("TEMP", "TEMPORARY") and third == "FUNCTION"
    )


_NAME_STARTS: Final = frozenset(ascii_uppercase + "_")


def _function(seen: Statement, lexeme: str, tokens: list[str], at: int) -> None:
    name = lexeme.rsplit(".", 1)[-1]
    seen.functions += 1
    if name in _AGGREGATES or name.startswith(("APPROX_", "PERCENTILE", "QUANTILE", "UNIQ")):
        seen.aggregates += 1
    if name in _GENERATORS:
        numbers = [
            float(t) for t in tokens[at + 2 : at + 6] if t.isascii() and t.isdigit() and len(t) < 16
        ]
        seen.generator = max([seen.generator, 1.0, *numbers])
    if lexeme.startswith(_ML):
        seen.ml = True
    if name in _CONTAINS and seen.where:
        seen.contains = True
    if name in ("LAST", "FIRST", "LAST_VALUE", "ANYLAST"):
        seen.last_value = True


def _select(seen: Statement, _tokens: list[str], _at: int) -> None:
    seen.selects += 1


def _from(seen: Statement, tokens: list[str], at: int) -> None:
    name = tokens[at + 1] if at + 1 < len(tokens) else ""
    if name and name != "(":
        seen.tables.append(name.strip('"`[]'))
        seen.record |= tokens[at + 2 : at + 3] == [":"]


def _update(seen: Statement, tokens: list[str], at: int) -> None:
    """`UPDATE account:one` and `... USE KEYS "a"` name one record."""
    seen.record |= tokens[at + 2 : at + 3] == [":"]


def _use(seen: Statement, tokens: list[str], at: int) -> None:
    seen.record |= tokens[at + 1 : at + 2] in (["KEYS"], ["keys"])


def _latest(seen: Statement, _tokens: list[str], _at: int) -> None:
    seen.latest = True


def _join(seen: Statement, tokens: list[str], at: int) -> None:
    seen.joins += 1
    _from(seen, tokens, at)


def _over(seen: Statement, _tokens: list[str], _at: int) -> None:
    seen.windows += 1


def _limit(seen: Statement, tokens: list[str], at: int) -> None:
    for lexeme in tokens[at + 1 : at + 3]:
        if lexeme.isascii() and lexeme.isdigit() and len(lexeme) < 16:
            number = float(lexeme)
            seen.limit = number if seen.limit is None else max(seen.limit, number)
            return
        if lexeme in (":", "?", "$", "%") or lexeme[0] in "$@":
            seen.limit = max(seen.limit or 0.0, 50.0)


def _where(seen: Statement, _tokens: list[str], _at: int) -> None:
    seen.where = True


def _equals(seen: Statement, tokens: list[str], at: int) -> None:
    left = tokens[at - 1].strip('"`[]') if at else ""
    right = tokens[at + 1] if at + 1 < len(tokens) else ""
    if not seen.where or not left:
        return
    literal = bool(right) and (right[0] in "'\"?:$@%#{" or right[0].isdigit())
    if literal:
        seen.equal += 1
        seen.key_equal = seen.key_equal or _KEY.search(left[-_MAX_NAME:]) is not None
        seen.primary |= _is_own_key(left[-_MAX_NAME:], seen.tables[0] if seen.tables else "")


def _is_own_key(column: str, table: str) -> bool:
    """Whether a column is the table's own key: `id`, or `campaign_id` of `campaigns`."""
    name = column.rsplit(".", 1)[-1].lower()
    if name in ("id", "_id", "uuid", "pk"):
        return True
    noun = table.rsplit(".", 1)[-1].lower()
    stem = name.rstrip("id").rstrip("_")
    return name.endswith("id") and len(noun) > 3 and stem in (noun, noun[:-1])


def _in(seen: Statement, tokens: list[str], at: int) -> None:
    seen.lists += 1
    items = tokens[at + 2 : at + 200] if seen.lists <= _MAX_LISTS else []
    if items and items[0].upper() not in ("SELECT", "WITH"):
        end = items.index(")") if ")" in items else len(items)
        seen.in_list = max(seen.in_list, items[:end].count(",") + 1)


def _range(seen: Statement, tokens: list[str], at: int) -> None:
    seen.ranges += seen.where
    if at and seen.where and not seen.time_bound:
        seen.time_bound = _TIME.search(tokens[at - 1][-_MAX_NAME:].lower()) is not None


def _like(seen: Statement, tokens: list[str], at: int) -> None:
    right = tokens[at + 1] if at + 1 < len(tokens) else ""
    if right.startswith(("'%", '"%', "'*")):
        seen.leading_like = True


def _regex(seen: Statement, _tokens: list[str], _at: int) -> None:
    seen.regex = True


def _values(seen: Statement, tokens: list[str], at: int) -> None:
    # Counted once: the tokens of a later VALUES are among those of the first.
    if not seen.valued:
        seen.valued = True
        seen.rows = tokens[at:].count("(")


def _semicolon(seen: Statement, tokens: list[str], at: int) -> None:
    seen.statements += at + 1 < len(tokens)


_TIME: Final = re.compile(r"time|date|_at$|day|ts$|month|_dt$|timestamp|year")


_RULES: Final = {
    "SELECT": _select, "FROM": _from, "UPDATE": _update, "USE": _use, "LATEST": _latest,
    "JOIN": _join, "OVER": _over, "LIMIT": _limit,
    "FETCH": _limit, "TOP": _limit, "WHERE": _where, "PREWHERE": _where, "=": _equals,
    "IN": _in, ">": _range, ">=": _range, "<": _range, "<=": _range, "BETWEEN": _range,
    "LIKE": _like, "ILIKE": _like,
    "REGEXP": _regex, "RLIKE": _regex, "MATCHES": _regex, "REGEXP_LIKE": _regex,
    "REGEXP_MATCHES": _regex,
    "~": _regex, "=~": _regex, "VALUES": _values, ";": _semicolon, "NEXT": _limit, "FIRST": _limit,
}  # fmt: skip
