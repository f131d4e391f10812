"""What method, path and query string say: the shape of the resource that is asked for."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from functools import lru_cache
from typing import Final, NamedTuple

from classifier.features.intent import add_intent, rest_intent, verb_of
from classifier.features.magnitudes import bucket
from classifier.features.nouns import NOUNS
from classifier.features.request import Parts
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, is_known, is_plural, split_name, stem

_VERSION: Final = re.compile(
    r"v?\d{1,2}(\.\d+){0,2}(alpha\d?|beta\d?|p\d+)?$|v\d+\w{0,8}$|\d{4}-\d{2}(-\d{2})?$",
    re.IGNORECASE,
)
_ID: Final = re.compile(
    r"-?\d+$|[0-9a-f]{8}-[0-9a-f]{4}|0x[0-9a-f]+$|[0-9a-f]{10,}$|\{.*\}$|:[a-z]|<.*>$|"
    r"[A-Za-z]{1,12}[_-](?=\w*\d)[A-Za-z0-9]{2,}$|[A-Z]{2,6}-?\d+|.*@.*|urn:|gid:|arn:|"
    r"[^\d\n]*+\d[^A-Za-z\n]*+[A-Za-z][^\d\n]*+\d|"  # a letter between two digits
    r"(?=.*\d)[A-Za-z0-9_-]{9,}$|\d{4}-\d\d|~.*|[A-Za-z0-9_-]{20,}={1,2}$|[^(\n]*+\(.*\)$"
)
_FILE: Final = re.compile(r"\.([a-z][a-z0-9]{1,5})$", re.IGNORECASE)
_STATIC: Final = vocabulary("""
    js css png jpg jpeg gif svg ico woff woff2 map webp html htm txt ttf
""")
_EXPORTS: Final = vocabulary("""
    csv xlsx xls pdf zip gz tar tgz parquet ndjson jsonl dump sql bak
""")
_PREFIXES: Final = vocabulary("""
    api rest rpc services service public internal admin restapi apis odata wp-json
""")
# As much as `_VERSION` and the words of a name look at, and then some.
_MAX_SEGMENT: Final = 256
_MAX_KEPT: Final = 512
ACTION_GROUPS: Final = vocabulary("""
    search count exists create update delete upsert auth health agg report export import bulk
    start stop train infer generate embed media convert optimize graph maintain trace send
    tokenize
""")


_SUFFIX: Final = re.compile(r"(?<=\w)\.(json|xml|php|aspx?|jsp|cgi|fcgi|do)$", re.IGNORECASE)
_FORMAT_NAMES: Final = frozenset(("json", "xml"))
_CALL: Final = re.compile(r"([A-Za-z][\w.]{2,60})\((?:\w+=.*)?\)$")


def unsuffixed(segments: tuple[str, ...]) -> tuple[str, ...]:
    """A path's segments without what only names the form of the answer: `/tickets.json`."""
    if not segments:
        return segments
    last = _SUFFIX.sub("", segments[-1])
    if last in _FORMAT_NAMES and len(segments) > 1:
        return segments[:-1]
    call = _CALL.match(last) if last.endswith(")") else None
    if call and call[1][:1].islower():
        last = call[1]
    return segments if last == segments[-1] else (*segments[:-1], last)


def is_id(segment: str) -> bool:
    """Whether a segment looks like a key by its characters alone."""
    if len(segment) > 64 and " " not in segment:
        return True
    # Cut before the cache, so that long segments of strangers do not fill the memory.
    return _is_id(segment[:_MAX_SEGMENT])


@lru_cache(maxsize=8192)
def _is_id(segment: str) -> bool:
    if _VERSION.match(segment) and not segment.isdigit():
        return False
    if segment == "/":
        return True
    return _ID.match(segment[:80]) is not None


def kinds(segments: tuple[str, ...], method: str = "GET") -> list[str]:
    """For each segment: `id`, `key` (a name in a key's place), `plural`, `word`, `version`.

    A POST seldom ends on a key, so there an unknown last word stays a word.
    """
    found: list[str] = []
    kind = before = ""
    for position, segment in enumerate(segments):
        kind = _kind(segment[:_MAX_SEGMENT], kind, before, early=position < 4)
        before = segment[:_MAX_SEGMENT]
        found.append(kind)
    if method == "POST" and kind == "key":
        found[-1] = "word"
    return found


@lru_cache(maxsize=8192)
def _kind(segment: str, previous: str, before: str, *, early: bool) -> str:
    """The kind of a segment after another one, whose kind and text are given."""
    kind = _kind_by_itself(segment, previous, early=early)
    if kind not in ("word", "plural") or previous != "plural":
        return kind
    return "key" if _is_named_after(segment, before) or _is_name(segment, before) else kind


def _is_named_after(segment: str, collection: str) -> bool:
    """Whether a segment is one of its collection by its name: `jobs/query_job`."""
    words = split_name(segment)
    if len(words) < 2:
        return False
    noun = stem(split_name(collection)[-1])
    return (
        words[-1] == "id"
        or words[0] in ("my", "test", "example", "sample", "demo")
        or (noun == words[-1] != words[0])
    )


# What people name themselves: `/topics/orders` is one topic, `/users/orders` are orders.
_NAMED: Final = vocabulary("""
    topics indexes indices queues exchanges tables databases buckets namespaces pods deployments
    models datasets repositories repos streams schemas keyspaces secrets configmaps vhosts
    realms functions plugins modules packages tags branches images volumes networks keys
    collections connectors subjects tubes flags variables lexicons dictionaries aliases
    warehouses catalogs tablespaces graphs datastores kustomizations helmreleases applications
    templates environments stacks registries caches feeds sensors vaults charts pipelines
    workflows rooms channels stations classes types labels metrics domains zones clusters
""")
_QUALIFIERS: Final = vocabulary("""
    available active inactive recent popular trending starred latest default current overview
    summary archived deleted enabled disabled owned shared public private all mine list detail
    details stats new top hot featured missing tree lookup values names ids info me self types
    groups versions schemas models bulk batch query data metadata metrics events search
""")


def _is_name(segment: str, collection: str) -> bool:
    """Whether a known word stands in the place of a name that somebody gave."""
    if segment[:1].isupper() and collection.islower():
        return True
    return (
        collection.lower() in _NAMED
        and segment.islower()
        and segment not in _QUALIFIERS
        and segment not in NOUNS
        and not segment.startswith(("_", "$", "."))
        and not verb_of(split_name(segment)[0] if split_name(segment) else "")
    )


def _kind_by_itself(segment: str, previous: str, *, early: bool) -> str:
    if early and _VERSION.match(segment) and not segment.isdigit():
        return "version"
    if is_id(segment):
        return "id"
    if not is_known(segment) and not segment.startswith(("_", "$")):
        if previous == "plural" and not (is_plural(segment) and segment.islower()):
            return "key"
        if (
            re.search(r"[A-Z].*[A-Z]|[^\w.:-]", segment)
            and previous in ("word", "")
            and "." in segment
        ):
            return "key"
    return "plural" if is_plural(segment) else "word"


type Features = dict[str, float]


class Target(NamedTuple):
    """What stands in a path.

    Attributes:
        shape: The shape in one word.
        segments: The segments, those emptied that only say that a key stands there.
        kinds: For each segment what it is.
        whole: The segments as they stand there.
    """

    shape: str
    segments: tuple[str, ...]
    kinds: tuple[str, ...]
    whole: tuple[str, ...]

    def without_lead(self) -> tuple[tuple[str, ...], list[str]]:
        """The whole segments with their kinds, without what only leads to the API."""
        at = _lead(self.whole, self.kinds)
        return self.whole[at:], list(self.kinds[at:])


def _lead(segments: tuple[str, ...], found: tuple[str, ...]) -> int:
    """How many segments only lead to the API: `api`, `v1`."""
    at = 0
    while at < len(segments) - 1 and (found[at] == "version" or segments[at].lower() in _PREFIXES):
        at += 1
    return at


def read_target(parts: Parts, bag: Features) -> Target:
    """Add the features of method and path."""
    whole = unsuffixed(parts.segments)
    found = tuple(kinds(whole, parts.method))
    # Emptied, so that paths that differ in their keys alone have one place in the cache.
    segments = tuple(
        [
            _telling(segment) if kind in _KEYS and len(segment) <= _MAX_SEGMENT else segment
            for segment, kind in zip(whole, found, strict=True)
        ]
    )
    method = parts.method if parts.method in _METHODS else "OTHER"
    read = _target if _long(segments) else _kept_target
    shape, features = read(method, segments, found)
    bag.update(features)
    return Target(shape, segments, found, whole)


def read_rest_intent(parts: Parts, target: Target, bag: Features) -> None:
    """Add verb and head of a request that names no operation otherwise."""
    bare = ""
    if parts.query_params:
        key, value = parts.query_params[0]
        bare = key if not value and _BARE.match(key) else ""
    segments, found = target.segments, target.kinds
    read = _intent if _long(segments) else _kept_intent
    bag.update(read(parts.method, segments, found, bare))


_BARE: Final = re.compile(r"[a-zA-Z_-]{3,30}$")
_QUIET: Final = re.compile(r"[\w-]+$")


@lru_cache(maxsize=8192)
def _telling(segment: str) -> str:
    """A key's segment, "" if it says no more than that a key stands there."""
    if not _QUIET.match(segment) or segment.lower() in _PREFIXES:
        return segment
    return segment if any(groups(word) for word in split_name(segment)) else ""


def _long(segments: tuple[str, ...]) -> bool:
    """Whether a path is too long to be kept in a cache."""
    return sum(map(len, segments)) > _MAX_KEPT


def _target(method: str, segments: tuple[str, ...], found: tuple[str, ...]) -> tuple[str, Features]:
    at = _lead(segments, found)
    segments, found = segments[at:], found[at:]
    bag: Features = {}
    shape = _shape(segments, found)
    bag[f"m={method}"] = 1.0
    bag[f"shape={method}:{shape}"] = 1.0
    bag[f"shape={shape}"] = 1.0
    bag[f"ids={min(3, sum(kind in _KEYS for kind in found))}"] = 1.0
    bag["depth"] = min(8, len(segments)) / 4
    if segments:
        _last_words(segments, found, bag)
        _path_words(segments[:-1], found[:-1], bag)
        if segments[-1].count(";") or segments[-1].count(",") > 1:
            count = segments[-1].count(";") + segments[-1].count(",")
            bag[f"path.items={bucket(count)}"] = 1.0
    return shape, bag


def _intent(method: str, segments: tuple[str, ...], found: tuple[str, ...], bare: str) -> Features:
    literals = [
        segment.rsplit(":", 1)[-1] if kind == "word" else segment
        for segment, kind in zip(segments, found, strict=True)
        if kind not in _NO_LITERALS and segment.lower() not in _PREFIXES
    ]
    keyed = bool(found) and found[-1] in _KEYS
    if bare:
        literals, keyed = [*literals, bare], False
    verb, head, number = rest_intent(method, literals, keyed=keyed)
    bag: Features = {}
    add_intent(bag, verb, head, number, "rest")
    bag[f"rest.do={method}:{verb}:{head}:{number}"] = 1.0
    return bag


_kept_target: Final = lru_cache(maxsize=4096)(_target)
_kept_intent: Final = lru_cache(maxsize=4096)(_intent)
_METHODS: Final = vocabulary("""
    GET POST PUT PATCH DELETE HEAD OPTIONS PROPFIND REPORT SEARCH COPY MOVE MKCOL LOCK
""")
_KEYS: Final = ("id", "key")
_NO_LITERALS: Final = (*_KEYS, "version")


def _shape(  # noqa: PLR0911 - a list of cases
    segments: tuple[str, ...], found: tuple[str, ...]
) -> str:
    """`id`, `list`, `sub-list`, `sub-word`, `word`, `root`, `file`, `asset` or `custom`."""
    if not segments:
        return "root"
    last, kind = segments[-1], found[-1]
    extension = _FILE.search(last)
    if extension and extension[1].lower() in _STATIC:
        return "asset"
    if extension and extension[1].lower() in _EXPORTS:
        return "file"
    if ":" in last[1:] and kind != "id" and re.search(r":[a-zA-Z]+$", last):
        return "custom"
    if kind in _KEYS:
        return "id" if len(found) > 1 else "bare-id"
    under = "sub-" if any(earlier in _KEYS for earlier in found[:-1]) else ""
    if any(group in ACTION_GROUPS for word in split_name(last) for group in groups(word)):
        return under + "action"
    return under + ("list" if kind == "plural" else "word")


def _last_words(segments: tuple[str, ...], found: tuple[str, ...], bag: dict[str, float]) -> None:
    """The words of the last literal segment, and whether a key follows it."""
    position = next((i for i in reversed(range(len(found))) if found[i] not in _KEYS), None)
    if position is None:
        return
    place = "last" if position == len(found) - 1 else "coll"
    words = split_name(segments[position].rsplit(":", 1)[-1])[:6]
    seen: set[str] = set()
    for word in words:
        bag[f"{place}.w={stem(word)}"] = 1.0
        seen.update(groups(word))
    for group in seen:
        bag[f"{place}={group}"] = 1.0
    if place == "last" and not seen:
        bag["last=unknown"] = 1.0
    if position > 0:
        for group in {g for w in split_name(segments[position - 1])[:4] for g in groups(w)}:
            bag[f"before={group}"] = 1.0
            bag[f"{place}&before={group}"] = 1.0


def _path_words(segments: tuple[str, ...], found: tuple[str, ...], bag: dict[str, float]) -> None:
    for segment, kind in zip(segments, found, strict=True):
        if kind in _KEYS or kind == "version":
            continue
        for word in split_name(segment)[:4]:
            bag[f"path.w={stem(word)}"] = 1.0
            for group in groups(word):
                bag[f"path={group}"] = 1.0
