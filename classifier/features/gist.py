"""What a REST request asks for in one phrase: the kind of thing, and how much of it.

One strong feature instead of many weak ones: `GET list none` is a page of a collection however
it is called, `GET list own` one member found by a key of its own, `GET thing group` an
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
from classifier.features.intent import intent_of, verb_of
from classifier.features.magnitudes import bucket, instant
from classifier.features.nouns import NOUNS
from classifier.features.request import Parts
from classifier.features.roles import role_of
from classifier.features.words import is_plural, split_name, stem

_STRENGTH: Final = 1.5
_KEYS: Final = ("id", "key")
_WRITES: Final = ("POST", "PUT", "PATCH")
_KEY_TERM: Final = re.compile(
    r"[\w.]*?(?:id|ID|Id|uuid|key|sku|slug|code|email|name)\s*(?:=|==|:|:=|\beq\b|-eq)\s*['\"]?[\w.@:-]+['\"]?$"
)
_AGGREGATES: Final = re.compile(
    r"(?i)\b(?:count|sum|avg|min|max|p\d\d|count_unique|percentile)\(|\baggregate\(|groupby\(|\bgroup by\b"
)


def read_gist(parts: Parts, segments: tuple[str, ...], found: list[str], document: JsonValue,
              bag: dict[str, float]) -> None:
    """Add the gist: method, kind of thing, how much is asked; and the pairs among them."""
    method = parts.method
    thing, name = _thing(method, segments, found)
    asked = _asked(parts, document, name)
    bag[f"gist={method}:{thing}"] = _STRENGTH
    bag[f"asked={method}:{asked}"] = _STRENGTH
    bag[f"gist={method}:{thing}:{asked}"] = _STRENGTH


def _thing(method: str, segments: tuple[str, ...], found: list[str]) -> tuple[str, str]:
    """The kind of thing a path names, and the word it is called by."""
    at = next((i for i in reversed(range(len(found))) if found[i] not in (*_KEYS, "version")), None)
    if at is None:
        return ("one" if found and found[-1] in _KEYS else "root"), ""
    name = segments[at].rsplit(":", 1)[-1]
    kind = noun_of(name)
    if found[-1] in _KEYS:
        return f"one-{kind}" if kind in _ODD else "one", name
    if method in _WRITES:
        verb, head, _ = intent_of(name)
        if verb != "none" and not is_plural(name):
            return f"do-{verb}", name
        return f"on-{kind or head}", name
    under = "sub-" if any(kind in _KEYS for kind in found[:at]) else ""
    if kind in ("", "job") and method == "GET":
        verb = verb_of(split_name(name)[0]) if split_name(name) else ""
        kind = kind or ("list" if is_plural(name) else f"do-{verb}" if verb else "word")
        return under + kind, name
    return kind if kind in _PLAIN else under + kind, name


_ODD: Final = ("report", "export", "agg", "render", "search", "feed", "geo", "value")
_PLAIN: Final = ("health", "meta", "self", "count", "export", "render", "search", "geo")


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


def _asked(parts: Parts, document: JsonValue, name: str) -> str:
    """How much is asked: the weightiest of what the arguments say."""
    said = {_said(key, value, name) for key, value in _arguments(parts, document)}
    return next((role for role in _WEIGHT if role in said), "none")


_WEIGHT: Final = (
    "group", "huge", "all", "export", "expand", "range", "since", "search", "filter", "keys", "own",
    "page", "foreign", "flag",
)  # fmt: skip


def _arguments(parts: Parts, document: JsonValue) -> Iterable[tuple[str, JsonValue]]:
    yield from parts.params[:30]
    if isinstance(document, dict):
        yield from list(document.items())[:30]


def _said(key: str, value: JsonValue, name: str) -> str:
    role = role_of(key)
    text = value[:300] if isinstance(value, str) else ""
    if role in ("neutral", "page"):
        number = number_of(value) if role == "page" else None
        if _AGGREGATES.search(text):
            return "group"
        if role == "page" and number is not None and "limit" in _flat(key):
            pass
        return role
    if role == "limit":
        return _limited(number_of(value))
    if role == "key":
        return _keyed(key, value, text, name)
    if role in ("search", "filter"):
        return _filtered(role, text)
    if role == "time":
        return "since" if instant(text) is not None else "filter"
    if role in ("all", "expand") and value in (False, "false", "0", 0, None, ""):
        return "neutral" if value != "" else role
    return role


def _limited(number: float | None) -> str:
    if number is None:
        return "filter"
    return "huge" if number == 0 or number > 999 else "page"


def _filtered(role: str, text: str) -> str:
    if _AGGREGATES.search(text):
        return "group"
    return "own" if _KEY_TERM.match(text) else role


def _keyed(key: str, value: JsonValue, text: str, name: str) -> str:
    """`own` for a key of the thing itself, `foreign` for one of what it belongs to."""
    if isinstance(value, list):
        return "keys" if len(value) != 1 else "own"
    if not isinstance(value, str | int) or isinstance(value, bool):
        return "filter"
    if text.startswith(("eq.", "in.")):
        return "own" if text[0] == "e" else "keys"
    if "," in text or "|" in text:
        return "keys"
    if any(mark in text for mark in "*%"):
        return "filter"
    words = [word for word in split_name(key) if word not in ("id", "ids", "key", "name")]
    if not words or words[-1] in _UNIQUE or not name:
        return "own"
    nouns = {stem(word) for word in split_name(name)}
    return "own" if stem(words[0]) in nouns or not is_plural(name) else "foreign"


_UNIQUE: Final = frozenset(
    "login username email slug sku isbn symbol hash handle uuid guid code ticker barcode ean path "
    "uri url ip number digest fingerprint".split()
)


def _flat(key: str) -> str:
    return key.lower()
