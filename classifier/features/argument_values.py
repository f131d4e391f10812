"""What argument values say whatever they are called: everything, a place of files, an operator."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final

from pydantic import JsonValue

from classifier.features.magnitudes import bucket, log
from classifier.features.vocabulary import vocabulary

_PURE_NUMBER: Final = re.compile(r"\d{1,9}$")


FILTERS: Final = vocabulary("""
    filter filters where query q search term keyword keywords selector condition conditions
    status state type predicate searchcriteria criteria match text category filterexpression
    jql cql searchterm filterby wheres fq
""")


SELECTS: Final = vocabulary("""
    fields select projection include expand columns field attributes props properties embed
    populate
""")


ID_KEYS: Final = vocabulary("""
    id key uuid guid name slug sku code email hash address number ref arn identifier username
    handle symbol ticker iban isbn barcode ean vin token url uri path filename oid pk objectid
    recordid
""")


def read_contents(bag: dict[str, float], name: str, value: JsonValue) -> None:
    """What values say whatever they are called: everything, a place of files, a large number."""
    if isinstance(value, str):
        _read_text(bag, name, value[:300].lower())
    elif name in FILTERS and value == {}:
        bag["arg=empty-filter"] = 1.0
    elif name in _AMOUNTS and (number := number_of(value)) is not None:
        bag[f"amount={bucket(number)}"] = 1.0
        bag["amount.log"] = max(bag.get("amount.log", 0.0), log(number))


def _read_text(bag: dict[str, float], name: str, lower: str) -> None:
    if lower in _EVERYTHING and name not in SELECTS and name not in _SHOWN:
        bag["val=everything"] = 1.0
        bag[f"val=everything:{'filter' if name in FILTERS else 'other'}"] = 1.0
    if "://" in lower and _LOCATION.match(lower):
        bag["val=location"] = 1.0
        bag[f"val.file={_FILES.get(lower.rsplit('.', 1)[-1], 'none')}"] = 1.0
    # All that operators are written with; most values hold none of it.
    if "." in lower or "(" in lower or "*" in lower or "%" in lower or "=" in lower:
        _operators(bag, name, lower)


def _operators(bag: dict[str, float], name: str, lower: str) -> None:
    """Filters written into query values: `id=eq.1`, `select=amount.sum()`, `q=*:*`."""
    nesting = min(4, lower.count("(") if lower.endswith("))") else 0)
    if nesting:
        bag[f"val.nesting={nesting}"] = 1.0
    found = _OPERATOR.match(lower)
    if found:
        keyed = name in ID_KEYS or name.endswith(("id", "key", "code", "uuid"))
        bag[f"op.value={found[1]}{':key' if keyed and found[1] in ('eq', 'in') else ''}"] = 1.0
    if _AGGREGATE_CALL.search(lower):
        bag["val=aggregate-call"] = 1.0
    if len(lower) > 1 and _WILDCARD.match(lower):
        bag["val=wildcard"] = 1.0


_WILDCARD: Final = re.compile(r"\*?\.?\*|%")


_EVERYTHING: Final = vocabulary("""
    * all everyone everything *:* todos todas alle tous tutti all_time alltime
""")


_SHOWN: Final = vocabulary("""
    projection view mode fl format level detail prefer order visibility access
""")


_LOCATION: Final = re.compile(
    r"(s3|gs|gcs|abfss?|wasbs?|hdfs|az|file|azblob|dbfs|ftp|sftp|oss)://|https?://\S+\.(csv|parquet|mp4|mov|wav|mp3|pdf|zip|gz|jsonl?|png|jpe?g|flac|m4a|docx?|tiff?)\b"
)


_FILES: Final = {
    **dict.fromkeys(("mp3", "wav", "m4a", "ogg", "flac"), "audio"),
    **dict.fromkeys(("mp4", "mov", "avi", "mkv", "webm"), "video"),
    **dict.fromkeys(("png", "jpg", "jpeg", "tiff", "tif"), "image"),
    **dict.fromkeys(("pdf", "docx", "doc", "html"), "document"),
    **dict.fromkeys(("csv", "jsonl", "json", "parquet", "gz", "zip", "xlsx", "ndjson"), "table"),
}


_AMOUNTS: Final = vocabulary("""
    iterations samples runs paths simulations points depth maxdepth hops epochs nepochs steps
    scenarios trials maxpages maxresults rows expectedrows records limit size n count times
    population generations numsamples nsimulations draws duration durationminutes pages
    maxhops maxlevel level levels rounds width height fps maxtokens horizon bootstrap
    repetitions seconds days history
""")


_OPERATOR: Final = re.compile(
    r"(?:not\.)?(eq|neq|gt|gte|lt|lte|like|ilike|in|is|fts|plfts|phfts|wfts|cs|cd|ov|match|imatch)\."
)


_AGGREGATE_CALL: Final = re.compile(
    r"\b(count|sum|avg|min|max)\(\)|\baggregate\(|groupby\(|\bapply="
)


# `limit=-1` asks for everything.
_UNLIMITED: Final = 1e6


def number_of(value: JsonValue) -> float | None:
    """A number, or digits in a text, bounded; None for anything else."""
    if isinstance(value, bool):
        return None
    if value == -1:
        return _UNLIMITED
    if isinstance(value, (int, float)):
        # Bounded first: whole numbers of JSON may be too large for a float.
        return float(max(-1e12, min(value, 1e12))) if value < 1e15 else 1e12
    if value == "-1":
        return _UNLIMITED
    if isinstance(value, str) and _PURE_NUMBER.match(value):
        return float(value)
    return None
