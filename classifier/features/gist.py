"""What a REST request asks for in one phrase: the kind of thing, and how much of it.

One strong feature instead of many weak ones: `GET:list:none` is a page of a collection however
it is called, `GET:list:own` one member found by a key of its own, `GET:word:group` an
aggregation written into a query string.
"""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from pydantic import JsonValue

from classifier.features.argument_values import number_of
from classifier.features.intent import head_of, intent_of, verb_of
from classifier.features.magnitudes import instant
from classifier.features.nouns import NOUNS
from classifier.features.request import Parts
from classifier.features.roles import role_of
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, is_plural, split_name, stem

_STRENGTH: Final = 1.2
_KEYS: Final = ("id", "key")
_WRITES: Final = ("POST", "PUT", "PATCH")
_COORDINATES: Final = re.compile(r"-?\d{1,3}\.\d+,-?\d{1,3}\.\d")
_KEY_TERM: Final = re.compile(
    r"[\w.]*?(?:id|ID|Id|uuid|key|sku|slug|code|email|name)\s*(?:=|==|:|:=|\beq\b|-eq)\s*['\"]?[\w.@:-]+['\"]?$"
)
_AGGREGATES: Final = re.compile(
    r"(?i)\b(?:count|sum|avg|min|max|p\d\d|count_unique|percentile)\("
    r"|\baggregate\(|groupby\(|\bgroup by\b"
)


def read_gist(
    parts: Parts,
    segments: tuple[str, ...],
    found: list[str],
    document: JsonValue,
    bag: dict[str, float],
) -> None:
    """Add the gist: method, kind of thing, how much is asked; and the pairs among them."""
    method = parts.method
    if method in ("HEAD", "OPTIONS"):
        bag["gist=HEAD"] = _STRENGTH
        return
    thing, name = _thing(method, segments, found)
    if method in _WRITES:
        thing = _command(segments, document) or thing
    asked = _prompted(bag) or _carried(parts) or _asked(parts, document, name)
    if method in _WRITES and _is_mass(segments, document):
        bag["gist=mass"] = _STRENGTH
        bag[f"gist=mass:{thing}"] = _STRENGTH
    bag[f"gist={method}:{thing}"] = _STRENGTH
    bag[f"asked={method}:{asked}"] = _STRENGTH
    if asked == "since":
        asked = _since(bag)
    bag[f"gist={method}:{thing}:{asked}"] = _STRENGTH
    owner = _owner(segments, found, name)
    if owner:
        bag[f"gist={method}:{thing}<{owner}"] = 1.0


def read_call_gist(parts: Parts, document: JsonValue, bag: dict[str, float]) -> None:
    """Add the gist of a call whose operation was read before: `call=` says which."""
    thing = next((name[5:] for name in bag if name.startswith("call=")), "none")
    asked = _prompted(bag) or _asked(parts, document, "")
    if asked == "since":
        asked = _since(bag)
    bag[f"asked=call:{asked}"] = _STRENGTH
    bag[f"gist=call:{thing}:{asked}"] = _STRENGTH


def thing_of_call(name: str) -> str:
    """The kind of thing an operation's name asks for: `GetStatus` a status, `listUsers` a list."""
    verb, head, number = intent_of(name)
    if verb not in ("get", "list", "describe", "none"):
        return f"do-{verb}"
    kind = noun_of(name)
    if kind:
        return f"{kind}-{number}" if kind in ("feed", "small") else kind
    if verb == "none":
        return f"none-{head}"
    return "list" if verb == "list" or is_plural(name) or number != "one" else "one"


def _since(bag: dict[str, float]) -> str:
    """How long a range of time is."""
    if not _SHORT.isdisjoint(bag):
        return "since-short"
    return "since-open" if "span=open" in bag or "span.log" not in bag else "since-long"


_SHORT: Final = frozenset(("span=hours", "span=day", "span=week"))


def _owner(segments: tuple[str, ...], found: list[str], name: str) -> str:
    """The kind of thing the named one stands under, "" at the top."""
    literals = [
        s for s, kind in zip(segments, found, strict=True) if kind not in (*_KEYS, "version")
    ]
    if len(literals) < 2 or not name:
        return ""
    words = split_name(literals[-2])
    return noun_of(literals[-2]) or (head_of(words[-1]) if words else "")


def _thing(method: str, segments: tuple[str, ...], found: list[str]) -> tuple[str, str]:
    """The kind of thing a path names, and the word it is called by."""
    at = next((i for i in reversed(range(len(found))) if found[i] not in (*_KEYS, "version")), None)
    if segments and _COORDINATES.match(segments[-1]):
        return ("geo-heavy" if noun_of(segments[at or 0]) == "geo-heavy" else "geo"), ""
    if at is None:
        return ("one" if found and found[-1] in _KEYS else "root"), ""
    name = segments[at].rsplit(":", 1)[-1]
    if found[-1] in _KEYS:
        return _one(method, name, segments[-1]), name
    if method in _WRITES:
        return _written(name), name
    return _read(name, "sub-" if any(kind in _KEYS for kind in found[:at]) else ""), name


def _one(method: str, name: str, key: str) -> str:
    """One thing by its key, told apart where the collection is no ordinary one."""
    if instant(key) is not None and "-" in key[:5]:
        return "dated"
    words = split_name(name)
    verb = verb_of(words[0]) if words else ""
    if method == "GET" and verb in ("get", "list") and is_plural(name):
        return "sub-list"
    if method in ("POST", "PUT") and verb:
        return f"one-{verb}"
    kind = noun_of(name)
    return f"one-{kind}" if kind in _ODD else "one"


def _written(name: str) -> str:
    verb, head, _ = intent_of(name)
    words, plural = split_name(name), is_plural(name)
    if verb != "none" and (not plural or (len(words) > 1 and verb_of(words[0]) == verb != head)):
        return f"do-{verb}"
    unknown = "list" if plural else "word"
    return f"on-{noun_of(name) or (head if head != 'unknown' else unknown)}"


def _read(name: str, under: str) -> str:
    kind = noun_of(name)
    if not kind:
        words = split_name(name)
        verb = verb_of(words[0]) if words else ""
        kind = "list" if is_plural(name) else f"do-{verb}" if verb else "word"
    return kind if kind in _PLAIN else under + kind


_ODD: Final = ("report", "export", "agg", "render", "search", "feed", "geo", "value", "geo-heavy")
_PLAIN: Final = ("health", "meta", "self", "count", "export", "render", "search", "geo")
_OPERATION_KEYS: Final = ("type", "action", "op", "operation", "command", "method", "name")
_BODY_OF_ACTION: Final = frozenset(("action", "actions", "command", "commands", "operation"))


def _command(segments: tuple[str, ...], document: JsonValue) -> str:
    """What the body tells to do: `{"createBackup": {..}}`, or a type below `/actions`."""
    if not isinstance(document, dict) or not document:
        return ""
    if segments and segments[-1].lower() in _BODY_OF_ACTION:
        named = next((document[key] for key in _OPERATION_KEYS if key in document), None)
        name = named if isinstance(named, str) else next(iter(document))
        return f"act-{intent_of(name)[0]}"
    if len(document) == 1:
        name, inner = next(iter(document.items()))
        words = split_name(name)
        if isinstance(inner, dict) and len(words) > 1 and verb_of(words[0]):
            verb, head, number = intent_of(name)
            return f"act-{verb if verb != 'none' else head}-{number}"
    return ""


_AUDIENCES: Final = vocabulary("""
    campaign campaigns broadcast broadcasts newsletter newsletters segment segments audience
    audiences blast mailing mailings collectors bulk everyone recipients lists
""")
_SENDING: Final = frozenset(("send", "start"))


def _is_mass(segments: tuple[str, ...], document: JsonValue) -> bool:
    """Whether something is sent to an audience rather than to somebody."""
    words = {word for segment in segments[-5:] for word in split_name(segment)}
    keys = list(document) if isinstance(document, dict) else []
    words.update(word for key in keys[:20] for word in split_name(key))
    if words.isdisjoint(_AUDIENCES):
        return False
    last = segments[-1] if segments else ""
    return any(group == "send" for word in split_name(last) for group in groups(word))


@lru_cache(maxsize=4096)
def noun_of(name: str) -> str:
    """The class of noun a path segment is, "" for one like any other."""
    words = split_name(name)
    if not words:
        return ""
    whole = "".join(words)
    for word in (whole, words[-1], stem(words[-1])):
        if word in NOUNS:
            return NOUNS[word]
    return ""


def _prompted(bag: dict[str, float]) -> str:
    """Whether a body talks to a model."""
    if "ai=chat" in bag or "ai=media-part" in bag:
        return "chat"
    return "prompt" if "ai=prompt+model" in bag or "ai=prompt+model+tuning" in bag else ""


_MAGIC: Final = (
    "%PDF",
    "/9j/",
    "iVBOR",
    "ID3",
    "PK\x03",
    "\x89PNG",
    "ÿØÿ",
    "RIFF",
    "OggS",
    "GIF8",
    "JVBER",
)
_NUMBERS: Final = re.compile(r"[\d\s.,;eE+-]{3,200}")


def _carried(parts: Parts) -> str:
    """What kind of thing a body is that holds no arguments."""
    if not parts.body_bytes or parts.document is not None or parts.form:
        return ""
    if parts.media.startswith("multipart/"):
        return "multipart"
    if parts.lines:
        return "lines"
    if (
        not parts.text
        or parts.text.startswith(_MAGIC)
        or parts.media.startswith(("image/", "audio/", "video/"))
    ):
        return "raw"
    if parts.text[:64].lstrip()[:1] == "<":
        return "xml"
    return "numbers" if _NUMBERS.match(parts.text) else "text"


def _asked(parts: Parts, document: JsonValue, name: str) -> str:
    """How much is asked: the weightiest of what the arguments say."""
    sole = len(parts.params) == 1
    said = {_said(key, value, name, sole=sole) for key, value in _arguments(parts, document)}
    if isinstance(document, list):
        said.add("many" if len(document) > 20 else "some")
    return next((role for role in _WEIGHT if role in said), "none")


_FLAG_VALUES: Final = (True, False, "true", "false", "0", "1", "yes", "no", "", None)
_EXPORT_FORMATS: Final = frozenset(
    ["csv", "xlsx", "xls", "pdf", "zip", "parquet", "excel", "tsv", "jsonl", "ndjson", "avro"]
)
_WEIGHT: Final = (
    "heavy", "render", "group", "huge", "all", "export", "nested", "expand", "since", "wild",
    "many", "search", "filter", "some", "keys", "watch", "own", "page", "foreign", "other", "flag",
)  # fmt: skip


def _arguments(parts: Parts, document: JsonValue) -> Iterable[tuple[str, JsonValue]]:
    yield from parts.params[:30]
    if isinstance(document, dict):
        yield from list(document.items())[:30]


def _said(key: str, value: JsonValue, name: str, *, sole: bool) -> str:
    role = "group" if key == "$group" else role_of(key)
    text = value[:300] if isinstance(value, str) else ""
    if not role:
        return _other(value, text)
    judge = _JUDGES.get(role)
    if judge:
        return judge(value, text)
    if role == "key":
        if key.lower() == "key" and not sole:
            return "neutral"
        return _keyed(key, value, text, name)
    return role


_WILD: Final = re.compile(r"(?:i?like\.)?[*%]\S|.{0,80}\.\*")


def _other(value: JsonValue, text: str) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "many" if len(value) > 20 else "some" if len(value) > 1 else "other"
    if isinstance(value, list | dict):
        return "other"
    if value in _FLAG_VALUES:
        return "flag"
    return "wild" if _WILD.match(text) else "other"


def _set(value: JsonValue, _text: str) -> str:
    """A flag that costs much, if it is set."""
    return "flag" if value in (False, "false", "0", 0, None, "no") else "heavy"


def _neutral(_value: JsonValue, text: str) -> str:
    return "group" if _AGGREGATES.search(text) else "neutral"


def _page(_value: JsonValue, _text: str) -> str:
    return "page"


def _format(_value: JsonValue, text: str) -> str:
    return "export" if text.lower() in _EXPORT_FORMATS else "neutral"


def _limit(value: JsonValue, text: str) -> str:
    number = number_of(value)
    if number is None:
        return "huge" if text.lower() in ("all", "max", "none", "unlimited") else "other"
    return "huge" if number == 0 or number > 1000 else "page"


def _count(value: JsonValue, text: str) -> str:
    """`count=20` bounds a page, `count=name` counts by a field, `count=true` counts as well."""
    if number_of(value) is not None:
        return _limit(value, text)
    return "flag" if value in _FLAG_VALUES or text in ("exact", "planned", "estimated") else "group"


def _time(_value: JsonValue, text: str) -> str:
    return "since" if instant(text) is not None else "filter"


def _all(value: JsonValue, _text: str) -> str:
    number = number_of(value)
    return (
        "neutral"
        if value in (False, "false", "0", 0, None, "no") or (number == 1 and value != "1")
        else "all"
    )


def _expand(value: JsonValue, text: str) -> str:
    if value in (False, "false", "0", 0, None, ""):
        return "neutral"
    deep = text.count("(") > 1 or any(part.count(".") > 1 for part in text.split(",")[:10])
    return "nested" if deep else "expand"


def _search(_value: JsonValue, text: str) -> str:
    if _AGGREGATES.search(text):
        return "group"
    if _WILD.match(text):
        return "wild"
    return "own" if _KEY_TERM.match(text) else "search"


def _filter(_value: JsonValue, text: str) -> str:
    if _AGGREGATES.search(text):
        return "group"
    if _WILD.match(text):
        return "wild"
    return "own" if _KEY_TERM.match(text) else "filter"


_JUDGES: Final = {
    "neutral": _neutral, "page": _page, "format": _format, "limit": _limit, "count": _count,
    "time": _time, "all": _all, "expand": _expand, "search": _search, "filter": _filter,
    "heavy": _set, "render": _set,
}  # fmt: skip


def _keyed(  # noqa: PLR0911 - a list of cases
    key: str, value: JsonValue, text: str, name: str
) -> str:
    """`own` for a key of the thing itself, `foreign` for one of what it belongs to."""
    if isinstance(value, list):
        return "keys" if len(value) != 1 else "own"
    if not isinstance(value, str | int) or isinstance(value, bool):
        return "filter"
    if text.startswith(("eq.", "in.")):
        return "own" if text[0] == "e" else "keys"
    if "," in text or "|" in text:
        return "keys"
    if "*" in text or "%" in text:
        return "filter"
    words = [word for word in split_name(key) if word not in ("id", "ids", "key", "name")]
    if not words or words[-1] in _UNIQUE or not name or key.endswith(("s", "S")):
        return "own"
    nouns = {stem(word) for word in split_name(name)}
    return "own" if stem(words[0]) in nouns or not is_plural(name) else "foreign"


_UNIQUE: Final = vocabulary("""
    login username email slug sku isbn symbol hash handle uuid guid code ticker barcode ean path
    uri url ip number digest fingerprint lat lon latitude longitude location
""")
