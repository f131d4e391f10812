"""What the arguments ask for, wherever they stand: query string, form, JSON document.

`?limit=10` and `{"limit": 10}` give the same features; so do `from`/`to` in any of the three.
"""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

from pydantic import JsonValue

from classifier.features.argument_values import FILTERS, ID_KEYS, SELECTS, number_of, read_contents
from classifier.features.magnitudes import bucket, instant, log, seconds, span
from classifier.features.request import Parts
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, split_name, stem

_MAX_NODES: Final = 600


_MAX_KEYS: Final = 150


_MAX_FIELDS: Final = 60


# Names and values are cut before the caches, so that long ones of strangers do not fill the memory.
_MAX_KEY: Final = 160
_MAX_IDENTIFIER: Final = 41


_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][\w.:/ -]{0,39}$")


_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]")


_LIMITS: Final = vocabulary("""
    limit size perpage pagesize first last take top maxresults n rows hitsperpage maxitems
    maxkeys num topk k pagelength batchsize nresults numresults recordlimit rpp maxcount
    itemsperpage resultsperpage pagelimit limitrows maxrows rowlimit fetchsize resultlimit
    numitems maxrecords maxresultcount recordcount pagecount resultcount count limitresults
    records
""")


_PAGES: Final = vocabulary("""
    page offset cursor after before startingafter endingbefore pagetoken nexttoken skip marker
    continue continuationtoken startat startindex pagenumber pageno exclusivestartkey startkey
    nextpagetoken pageindex start scrollid searchafter position pagination paging
""")


_SORTS: Final = vocabulary("""
    sort order orderby sortby sortorder ordering sorts direction sortfield
""")


_STARTS: Final = vocabulary("""
    from start since starttime startdate begin fromdate datefrom startat timestart gte gt
    after begindate createdafter createdgte min startdatetime fromtime starttimestamp
    periodstart validfrom von earliest earliesttime
""")


_ENDS: Final = vocabulary("""
    to end until endtime enddate todate dateto finish endat timeend lte lt before
    createdbefore max enddatetime totime endtimestamp periodend validto bis latest latesttime
""")


_FORMATS: Final = vocabulary("""
    format output outputformat accept filetype exportformat alt responseformat mimetype
    extension
""")


_EXPORT_VALUES: Final = vocabulary("""
    csv xlsx xls pdf zip parquet excel tsv gz tar jsonl ndjson avro
""")


_FLAGS: Final = {
    "async": "async", "background": "async", "callbackurl": "callback", "webhookurl": "callback",
    "callback": "callback", "webhook": "callback", "notifyurl": "callback",
    "recursive": "recursive",
    "dryrun": "dryrun", "force": "force", "full": "full", "all": "full", "deep": "recursive",
    "includeall": "full", "fullrefresh": "full", "rebuild": "full", "validateonly": "dryrun",
    "stream": "stream", "cascade": "recursive", "watch": "watch", "follow": "watch",
    "includedeleted": "full", "destination": "destination", "destinationuri": "destination",
    "outputlocation": "destination", "outputuri": "destination", "s3uri": "destination",
    "target": "target", "bucket": "destination", "outputconfig": "destination",
    "inputconfig": "inputlocation", "gcssource": "inputlocation", "sourceuri": "inputlocation",
    "sourceuris": "inputlocation", "inputfileid": "inputlocation", "fileurl": "inputlocation",
    "audiourl": "inputlocation", "videourl": "inputlocation", "imageurl": "inputlocation",
}  # fmt: skip


@dataclass(slots=True)
class _Seen:
    """What the walk over the arguments has met."""

    bag: dict[str, float]
    keys: int = 0
    ids: int = 0
    top: int = 0
    depth: int = 0
    nodes: int = 0
    longest_text: int = 0
    longest_list: int = 0
    object_list: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    back_seconds: float = 0.0


def read_arguments(parts: Parts, document: JsonValue, bag: dict[str, float]) -> None:
    """Add what names and values of all arguments say."""
    seen = _Seen(bag)
    for key, text in parts.params[:60]:
        _argument(seen, key, text, 0)
    bag["qs.count"] = log(len(parts.query_params))
    if not parts.query_params:
        bag["qs=none"] = 1.0
    if parts.query_params and all(not value for _, value in parts.query_params):
        bag["qs=bare"] = 1.0
        _bare(parts, bag)
    for depth, key, value in _walk(document, seen):
        _argument(seen, key, value, depth)
    _summary(parts, seen)
    _time_span(seen)


def _bare(parts: Parts, bag: dict[str, float]) -> None:
    for key, _ in parts.query_params[:3]:
        for word in split_name(key)[:3]:
            bag[f"bare.w={stem(word)}"] = 1.0
            for group in groups(word):
                bag[f"bare={group}"] = 1.0


def _walk(document: JsonValue, seen: _Seen) -> Iterator[tuple[int, str, JsonValue]]:
    """Keys with values, breadth first, over at most `_MAX_NODES` nodes."""
    queue: list[tuple[int, JsonValue]] = [(0, document)]
    for depth, node in queue:
        if seen.nodes >= _MAX_NODES:
            return
        seen.nodes += 1
        if isinstance(node, dict):
            seen.depth = max(seen.depth, depth)
            for key, value in islice(node.items(), _MAX_FIELDS):
                yield depth, key, value
                if isinstance(value, (dict, list)):
                    queue.append((depth + 1, value))
        elif isinstance(node, list):
            seen.longest_list = max(seen.longest_list, len(node))
            if node and isinstance(node[0], dict):
                seen.object_list = max(seen.object_list, len(node))
            queue.extend(
                [(depth + 1, item) for item in node[:12] if isinstance(item, (dict, list))]
            )


class _Key(NamedTuple):
    """What an argument's name alone says.

    Attributes:
        name: In lower case, letters and digits only.
        identifier: Whether what it names is a key.
        side: Whether it begins or ends a range of time.
        limit: Whether it is a page size.
        flag: The switch it is, "" if it is none.
        format: Whether it chooses a format.
        many: Whether it names several things.
        said: Its words and roles as features.
    """

    name: str
    identifier: bool
    side: str
    limit: bool
    flag: str
    format: bool
    many: bool
    said: dict[str, float]


def _argument(seen: _Seen, key: str, value: JsonValue, depth: int) -> None:
    seen.keys += 1
    text = value if isinstance(value, str) else None
    if text is not None:
        seen.longest_text = max(seen.longest_text, len(text))
    if seen.keys > _MAX_KEYS:
        return
    known = _key(key[:_MAX_KEY], min(depth, 2))
    seen.bag.update(known.said)
    if depth == 0:
        seen.top += 1
        seen.ids += known.identifier and _is_scalar(value)
    _roles(seen, known, value, depth)
    if text is None or depth > 1 or len(text) > _MAX_IDENTIFIER or known.name in ID_KEYS:
        return
    seen.bag.update(_value_words(text))


@lru_cache(maxsize=4096)
def _key(key: str, depth: int) -> _Key:
    name = _indexed(key) if "[" in key else _NOT_LETTERS.sub("", key.lower())[:40]
    return _Key(
        name=name,
        identifier=name in ID_KEYS or name.endswith(_ID_ENDINGS),
        side=_side(name),
        limit=name in _LIMITS,
        flag=_FLAGS.get(name, ""),
        format=name in _FORMATS,
        many=name.endswith(("ids", "keys", "names")),
        said=dict.fromkeys((*_key_words(key, depth), *_key_roles(name, depth)), 1.0),
    )


_ID_ENDINGS: Final = ("id", "key", "name", "code", "number", "uuid", "arn")


def _indexed(key: str) -> str:
    """The innermost name of `searchCriteria[pageSize]` or `created[gte]`."""
    inner = [piece for piece in re.split(r"[\[\]]+", key[:120]) if piece and not piece.isdigit()]
    return _NOT_LETTERS.sub("", inner[-1].lower()) if inner else ""


def _key_words(key: str, depth: int) -> Iterator[str]:
    place = ("k", "k1", "kn")[depth]
    for word in split_name(key)[:4]:
        yield f"{place}.w={stem(word)}"
        for group in groups(word):
            yield f"{place}={group}"


def _key_roles(name: str, depth: int) -> Iterator[str]:
    where = "" if depth < 2 else "n"
    for role, names in _ROLES:
        if name in names:
            yield f"arg{where}={role}"


def _is_scalar(value: JsonValue) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and len(str(value)) < 120


def _roles(seen: _Seen, key: _Key, value: JsonValue, depth: int) -> None:
    bag = seen.bag
    if key.limit and (number := number_of(value)) is not None:
        where = "" if depth < 2 else "n"
        bag[f"arg{where}=limit"] = 1.0
        bag[f"limit{where}={bucket(number)}"] = 1.0
        bag["limit.log"] = max(bag.get("limit.log", 0.0), log(number))
    if key.flag and value not in (False, "false", "0", 0, None):
        bag[f"flag={key.flag}"] = 1.0
    if key.format and isinstance(value, str) and _last_word(value) in _EXPORT_VALUES:
        bag["format=export"] = 1.0
    if key.many and isinstance(value, list):
        bag[f"ids.n={bucket(len(value))}"] = 1.0
    read_contents(bag, key.name, value)
    if key.side:
        _times(seen, key, value)


_ROLES: Final = (
    ("page", _PAGES), ("filter", FILTERS), ("sort", _SORTS), ("start", _STARTS), ("end", _ENDS),
    ("select", SELECTS), ("format", _FORMATS),
)  # fmt: skip


def _last_word(value: str) -> str:
    words = split_name(value)
    return words[-1] if words else ""


def _times(seen: _Seen, key: _Key, value: JsonValue) -> None:
    text = str(value)[:60] if isinstance(value, (str, int, float)) else ""
    if key.name == "days" and (number := number_of(value)) is not None:
        seen.back_seconds = max(seen.back_seconds, number * 86_400)
        return
    when = instant(text)
    if when is not None:
        (seen.starts if key.side == "start" else seen.ends).append(when)
    elif (back := seconds(text)) is not None and not text.isdigit():
        seen.back_seconds = max(seen.back_seconds, back)


def _side(name: str) -> str:
    """Whether an argument begins or ends a range of time."""
    if name in _STARTS or name.startswith(_START_WORDS) or name.endswith(_START_WORDS):
        return "start"
    if name in _ENDS or name.startswith(_END_WORDS) or name.endswith(_END_WORDS):
        return "end"
    return "back" if name in _BACKS else ""


_START_WORDS: Final = (
    "start",
    "from",
    "since",
    "begin",
    "after",
    "gte",
    "min",
    "startdate",
    "starttime",
)


_END_WORDS: Final = ("end", "until", "before", "lte", "max", "enddate", "endtime", "dateto")


_BACKS: Final = vocabulary("""
    last range period window timerange lookback duration days daterange interval timeframe
    history span
""")


def _time_span(seen: _Seen) -> None:
    long = seen.back_seconds
    if seen.starts and seen.ends:
        long = max(long, max(seen.ends) - min(seen.starts))
    if long > 0:
        seen.bag[f"span={span(long)}"] = 1.0
        seen.bag["span.log"] = log(long / 3600) / 2
    elif seen.starts:
        seen.bag["span=open"] = 1.0


@lru_cache(maxsize=4096)
def _value_words(value: str) -> dict[str, float]:
    """The meanings of a value that looks like a name."""
    if not _IDENTIFIER.match(value):
        return {}
    return {f"val={group}": 1.0 for word in split_name(value)[:4] for group in groups(word)}


def _summary(parts: Parts, seen: _Seen) -> None:
    bag = seen.bag
    bag[f"top={min(9, seen.top)}"] = 1.0
    if seen.top and seen.ids == seen.top:
        bag["args=only-ids"] = 1.0
        bag[f"args=only-ids:{min(3, seen.ids)}"] = 1.0
    bag["args.ids"] = min(3, seen.ids) / 2
    bag["json.depth"] = min(8, seen.depth) / 4
    bag["json.nodes"] = log(seen.nodes) / 2
    bag["list.log"] = log(max(seen.longest_list, parts.lines))
    bag["objects.log"] = log(max(seen.object_list, parts.lines))
    bag["text.log"] = log(seen.longest_text) / 2
    bag["body.log"] = log(parts.body_bytes) / 2
