"""What stands beside a query: whether it is run at all, stored for later, bounded from outside."""

from typing import Final

from pydantic import JsonValue

from classifier.features.magnitudes import bucket, instant, log, seconds, span
from classifier.features.request import Parts
from classifier.features.vocabulary import vocabulary
from classifier.features.words import split_name

_DRY_WORDS: Final = vocabulary("""
    explain translate validate parse dryrun estimate format lint analyze plan suggest
    autocomplete preview syntax parsequery
""")
_RUN_WORDS: Final = vocabulary("execute run start query search submit sql statement exec")
_STORED_WORDS: Final = vocabulary("""
    saved saves views templates rules alerts schedules tasks subscriptions monitors dashboards
    definitions scripts triggers functions procedures stored metadata charts cards panels
    queries macros reports notebooks snippets bookmarks named prepared pipelines detectors
    watches rule alert task
""")
_DRY_KEYS: Final = vocabulary("""
    dryrun dry_run explain validateonly validate_only explainonly simulate estimateonly
    plan_only
""")
_STORED_KEYS: Final = vocabulary("""
    cron schedule is_scheduled cron_schedule interval every refresh_interval name title
""")
_BULK_WORDS: Final = vocabulary("export exports download csv unload exp dump xlsx")
_STARTS: Final = frozenset(("start", "from", "starttime", "time_from", "start_time", "since"))
_ENDS: Final = frozenset(("end", "to", "endtime", "until", "end_time"))
_LIMITS: Final = vocabulary("""
    limit maxresults querylimit size rows row_limit max_results fetch_size maxrows count
""")


_DRY_TYPES: Final = ("describe", "explain", "validate", "query_plan")
_FORMATS: Final = ("format", "output_mode", "default_format")
_ASYNC: Final = ("async", "background", "runasync", "wait_timeout")
_MAX_DEPTH: Final = 4


def read_modifier(parts: Parts) -> str:
    """`dry` if a query is only looked at, `stored` if it is only kept, else ""."""
    words = [word for segment in parts.segments[-4:] for word in split_name(segment)]
    target = parts.headers.get("x-amz-target", "").rsplit(".", 1)[-1]
    named = split_name(target)
    if any(word in _DRY_WORDS for word in words[-3:]) or _dry_argument(parts):
        return "dry"
    if named:
        return "stored" if named[0] in ("create", "put", "update") else ""
    if any(word in _RUN_WORDS for word in words[-1:]):
        return ""
    stored = any(word in _STORED_WORDS for word in words) and parts.method in (
        "POST",
        "PUT",
        "PATCH",
    )
    return "stored" if stored and _has_name(parts) else ""


def _dry_argument(parts: Parts) -> bool:
    for key, value in parts.params[:30]:
        if key.lower().replace("-", "") in _DRY_KEYS and value.lower() not in (
            "false",
            "0",
            "none",
        ):
            return True
    return _dry_key(parts.document, 0)


def _dry_key(node: JsonValue, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(node, list):
        return bool(node) and _dry_key(node[0], depth + 1)
    if not isinstance(node, dict):
        return False
    return any(
        _says_dry(key.lower(), value) or _dry_key(value, depth + 1)
        for key, value in list(node.items())[:30]
    )


def _says_dry(key: str, value: JsonValue) -> bool:
    if key in _DRY_KEYS:
        return value not in (False, None, "false", "none")
    return key in ("type", "op", "result_type") and value in _DRY_TYPES


def _has_name(parts: Parts) -> bool:
    names = {key.lower() for key, _ in parts.params[:20]}
    if isinstance(parts.document, dict):
        names.update(key.lower() for key in list(parts.document)[:20])
    return bool(names & _STORED_KEYS) or parts.method in ("PUT", "PATCH")


def read_bounds(parts: Parts, bag: dict[str, float]) -> None:
    """Add time range, page size and export format that were given outside of the query text."""
    pairs: list[tuple[str, JsonValue]] = [(key, value) for key, value in parts.params[:30]]
    if isinstance(parts.document, dict):
        pairs.extend(list(parts.document.items())[:30])
    starts, ends = _instants(pairs, _STARTS), _instants(pairs, _ENDS)
    if starts and ends:
        _add_span(max(ends) - min(starts), bag)
    for key, value in pairs:
        name = key.lower()
        if name in _STARTS and not starts and isinstance(value, str) and (back := seconds(value)):
            _add_span(back, bag)
        _bound(name, value, bag)
    if any(word in _BULK_WORDS for segment in parts.segments[-2:] for word in split_name(segment)):
        bag["q.exported"] = 1.0
    if any(segment.lower() in ("query_range", "range") for segment in parts.segments[-2:]):
        bag["q.range-query"] = 1.0


def _bound(name: str, value: JsonValue, bag: dict[str, float]) -> None:
    if name in _LIMITS and isinstance(value, str | int) and str(value)[:9].isdigit():
        bag[f"qlimit={bucket(float(str(value)[:9]))}"] = 1.0
    if name in _FORMATS and isinstance(value, str) and "csv" in value.lower():
        bag["q.csv"] = 1.0
    if name in _ASYNC and value not in (False, "false"):
        bag["q.async"] = 1.0


def _instants(pairs: list[tuple[str, JsonValue]], names: frozenset[str]) -> list[float]:
    texts = [
        str(value)
        for key, value in pairs
        if key.lower() in names and isinstance(value, str | int | float)
    ]
    return [when for text in texts if (when := instant(text)) is not None]


def _add_span(long: float, bag: dict[str, float]) -> None:
    if long > 0:
        bag[f"span={span(long)}"] = 1.0
        bag["span.log"] = log(long / 3600) / 2
