"""Smaller query languages, each told by its first characters and read for its cost alone.

GROQ, calls chained on a collection (FQL, ReQL, shell-like and dataframe code), Lucene terms,
Kusto's commands, streaming expressions, Overpass, DAX, and plain arithmetic.
"""

import re
from collections.abc import Callable
from typing import Final

from classifier.features.verdicts import choose, flag
from classifier.features.vocabulary import vocabulary

_ARITHMETIC: Final = re.compile(r"\s*\d[\d.]*(?:\s*[+*/]\s*\d[\d.]*|\s+-\s+\d[\d.]*){1,9}\s*$")
_LUCENE_KEY: Final = re.compile(
    r"\+?(?:_?id|uuid|uid|key|sku|isbn|doi|ean|barcode|slug)\s*:\s*(?:\"[^\"*?]{1,80}\"|[\w./-]{1,80})$",
    re.IGNORECASE,
)
_GROQ: Final = re.compile(r"\s*(?:\{\s*)?[\w\s\":(]{0,60}\*\s*\[\s*(?:[\w@!(]|\]|$)")
_CHAIN: Final = re.compile(
    r"\s*(?:return\s+|let\s+\w+\s*=\s*|\w+\s*=\s*)?[A-Za-z_$][\w$]*"
    r"(?:\[[^\]]{1,60}\]|\.[A-Za-z_]\w*){0,3}\.[A-Za-z_]\w*!?\s*[({]"
)
_METHOD: Final = re.compile(r"\.([A-Za-z_]\w*)!?\s*[({]")
_STREAMING: Final = re.compile(
    r"\s*(?:rollup|facet|facet2D|stats|timeseries|search|hashJoin|innerJoin|leftOuterJoin|unique|top|"
    r"reduce|select|sort|merge|update|daemon|parallel|having|nodes|gatherNodes|hashRollup|"
    r"significantTerms|train|features|topic|let|list|tuple|random)\s*\((?=[^)]{0,400}(?:\bq\s*=|\w\())"
)
_COMMAND: Final = re.compile(r"\s*\.([a-z]+)(?:[ -]([a-z-]+))?")
_OVERPASS: Final = re.compile(r"\s*(?:\[(?:out|timeout|bbox|maxsize|date)\s*:|<osm-script)")
_DAX: Final = re.compile(r"\s*(?:DEFINE\b.{0,2000}?)?EVALUATE\b", re.IGNORECASE | re.DOTALL)

_ONE: Final = vocabulary(
    "byid get findone find_one getbyid findbyid find_by_id first firstwhere one lookup"
)
_SUMS: Final = vocabulary("""
    fold reduce count sum avg average mean group groupby aggregate groupcount distinct mapreduce
    describe value_counts agg corr pivot nunique join merge cube rollup crosstab
""")
_WRITES: Final = vocabulary("""
    create insert update replace delete remove save upsert insertone insertmany updateone
    updatemany deleteone deletemany replaceone drop
""")
_ENDS: Final = vocabulary("limit take page pagesize paginate head tail sample slice show top")
_ALL: Final = vocabulary("all toarray foreach scan find to_array collect topandas")
_HEAVY_COMMANDS: Final = vocabulary(
    "export ingest set append purge backfill move replace import rebuild"
)


def read_dialect(text: str, bag: dict[str, float]) -> bool:
    """Add the features of a query in one of these languages; False if it is in none."""
    for pattern, read in _DIALECTS:
        if pattern.match(text):
            read(text, bag)
            return True
    return False


def _constant(_text: str, bag: dict[str, float]) -> None:
    bag["q=const"] = 1.0


def _lucene(_text: str, bag: dict[str, float]) -> None:
    bag["q=point"] = 1.0


def _groq(text: str, bag: dict[str, float]) -> None:
    bag["ql=pipe"] = 1.0
    keyed = re.search(r"\b_?id\s*==|\bslug\.current\s*==|\b_id\s+in\b", text)
    one = re.search(r"\]\s*\[\s*0\s*\]", text)
    agg = re.search(r"\bcount\s*\(\s*\*|math::|array::unique", text)
    page = re.search(r"\[\s*[\d$]\w*\s*\.{2,3}\s*[\d$]", text)
    everything = re.match(r"\s*\*\s*(?:\[\s*\])?\s*(?:\{|$)", text)
    flag(bag, agg=agg, key=keyed, nolimit=not page, join=text.count("*[") > 1)
    choose(
        bag,
        (agg, "agg-all"),
        (one, "point" if keyed else "filtered-one"),
        (keyed, "keyed-page"),
        (page, "bounded"),
        (everything, "scan-all"),
        otherwise="filtered",
    )


def _chain(text: str, bag: dict[str, float]) -> None:
    """`Customer.byId("1")`, `Order.all().fold(...)`, `df.groupby("x").sum()`."""
    methods = {name.lower() for name in _METHOD.findall(text[:4_000])[:40]}
    agg, ends = methods & _SUMS, methods & _ENDS
    write, one = methods & _WRITES, methods & _ONE
    bag["ql=chain"] = 1.0
    flag(bag, agg=agg, write=write, key=one, nolimit=not ends)
    choose(
        bag,
        (one and not agg and "all" not in methods, "write" if write else "point"),
        (write, "write-all" if methods & _ALL else "write"),
        (agg, "agg-all"),
        (ends, "bounded"),
        (methods & _ALL, "scan-all" if re.search(r"\.(?:all|find)\(\s*\)", text) else "filtered"),
        otherwise="filtered",
    )


def _streaming(text: str, bag: dict[str, float]) -> None:
    bag["ql=stream"] = 1.0
    agg = re.match(
        r"\s*(?:\w*rollup|facet|stats|timeseries|reduce|unique|parallel)", text, re.IGNORECASE
    )
    whole = "/export" in text
    model = re.match(r"\s*(?:train|features|update|daemon|\w*join)", text, re.IGNORECASE)
    choose(bag, (agg, "agg-all"), (whole, "scan-all"), (model, "heavy"), otherwise="bounded")


def _command(text: str, bag: dict[str, float]) -> None:
    """Kusto's management commands: `.show tables`, `.export to ... <| T`."""
    found = _COMMAND.match(text)
    name = found[1] if found else ""
    choose(bag, (name == "show", "meta"), (name in _HEAVY_COMMANDS, "bulk"), otherwise="ddl")


def _overpass(text: str, bag: dict[str, float]) -> None:
    keyed = re.search(r"\b(?:node|way|rel|relation|nwr)\s*\(\s*(?:id:)?\d+\s*\)", text)
    boxed = re.search(r"\(\s*-?\d+(?:\.\d+)?\s*,\s*-?\d+(?:\.\d+)?\s*,|around\s*:|\[bbox", text)
    recursed = re.search(r">>|<<|\(\._;>;?\)", text)
    choose(bag, (keyed and not recursed, "point"), (boxed, "bounded"), otherwise="scan-all")


def _dax(text: str, bag: dict[str, float]) -> None:
    upper = text.upper()
    agg = re.search(r"SUMMARIZE|GROUPBY|ADDCOLUMNS|\bROLLUP|COUNTROWS|\bSUMX?\(", upper)
    bounded = "TOPN" in upper
    constant = re.search(r"EVALUATE\s*(?:\{|ROW\s*\(\s*\"\w*\"\s*,\s*\d)", upper)
    choose(bag, (constant, "const"), (agg, "agg-all"), (bounded, "bounded"), otherwise="scan-all")


_DIALECTS: Final[tuple[tuple[re.Pattern[str], Callable[[str, dict[str, float]], None]], ...]] = (
    (_ARITHMETIC, _constant),
    (_LUCENE_KEY, _lucene),
    (
        re.compile(r"\s*\.(?:show|export|ingest|set|create|alter|drop|purge|append|move)\b"),
        _command,
    ),
    (_OVERPASS, _overpass),
    (_DAX, _dax),
    (_GROQ, _groq),
    (_STREAMING, _streaming),
    (_CHAIN, _chain),
)
