"""What an operation's name means as a whole: a verb on a head noun.

English names put the verb first and the head last: `cancelExport` stops, `exportStatus` asks for
a status, `exportTemplates` are things. One pair stands for all protocols, so that
`POST /exports`, `startExport` and `Export.Create` look alike.
"""

import re
from functools import lru_cache
from typing import Final

from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, is_plural, split_name

# What can be the name of an operation.
NAME: Final = re.compile(r"[A-Za-z_][\w.:/\-# ]{0,79}$")
# The first of these groups that a word belongs to is its meaning as a verb.
_VERBS: Final = (
    "stop", "validate", "list", "count", "search", "delete", "export", "import", "train",
    "generate", "embed", "infer", "convert", "optimize", "maintain", "trace", "start", "get",
    "describe", "exists", "upsert", "update", "create", "send", "scan", "agg", "auth", "health",
    "tokenize", "bulk",
)  # fmt: skip
# The first of these groups that a word belongs to is its meaning as a noun.
_HEADS: Final = (
    "progress", "health", "version", "catalog", "template", "meta", "self", "auth", "tokenize",
    "embed", "train", "aithing", "generate", "infer", "media", "convert", "export", "import",
    "report", "agg", "optimize", "graph",
    "maintain", "trace", "search", "scan", "tree", "bulk", "count", "job", "logs", "latest", "pay",
    "price", "geo", "send", "user", "block", "thing", "stop", "list", "get",
)  # fmt: skip
_CUTS: Final = vocabulary("""
    by for with of from in on to at using via per and assigned ordered sorted related
""")
_SELECTIONS: Final = frozenset(("query", "filter", "selection", "criteria", "selector"))
_ONE: Final = frozenset(("one", "single", "unique", "first", "id"))
_MANY: Final = vocabulary("all many bulk batch mass multi everything every")


@lru_cache(maxsize=8192)
def verb_of(word: str) -> str:
    """The verb a word is, "" if it is none."""
    found = groups(word)
    return next((verb for verb in _VERBS if verb in found), "")


@lru_cache(maxsize=8192)
def head_of(word: str) -> str:
    """The kind of noun a word is, `unknown` if the lexicon has none."""
    found = groups(word)
    return next((head for head in _HEADS if head in found), "unknown")


def intent_of(name: str) -> tuple[str, str, str]:
    """Verb, head and number (`one`, `some`, `all`) of an operation's name."""
    return _intent(split_name(name)[-8:])


@lru_cache(maxsize=4096)
def _intent(name: tuple[str, ...]) -> tuple[str, str, str]:
    words = [word for word in name if not word.isdigit()]
    at = next((i for i, word in enumerate(words) if _acts(words, i)), None)
    verb = verb_of(words[at]) if at is not None else "none"
    rest = words[at + 1 :] if at is not None else words
    number = _number_of(words, rest)
    rest = _head_phrase(rest)
    head = head_of(rest[-1]) if rest else head_of(words[at - 1]) if at else "none"
    if verb == "search" and number == "one" and not _ONE.isdisjoint(words):
        verb = "get"
    return verb, head, number or ("some" if rest and is_plural(rest[-1]) else "one")


def _number_of(words: list[str], rest: list[str]) -> str:
    """`one` or `all` if a word says so, else ""."""
    if rest[:1] == ["by"] and not _SELECTIONS.isdisjoint(rest[1:2]):
        return "all"
    if not _MANY.isdisjoint(words):
        return "all"
    return "" if _ONE.isdisjoint(rest) else "one"


def _head_phrase(rest: list[str]) -> list[str]:
    """What follows the verb, up to the first preposition."""
    cut = next((at for at, word in enumerate(rest) if at and word in _CUTS), len(rest))
    rest = rest[:cut]
    return [word for word in rest if word not in _ONE and word not in _MANY] or rest


# Nouns at least as often as verbs: verbs only where they stand alone.
_AMBIGUOUS: Final = vocabulary("""
    block tag rate label link place set complete star record post book number comment page
    index order queue image stream total summary size state process pin lock vote report batch
    group count check match range release hold track filter event schedule test plan score
    balance rank archive
""")


# Those that are verbs all the same where they stand first.
_VERBS_IN_FRONT: Final = vocabulary("""
    set check count archive place schedule rank match score batch lock tag track
""")


def _acts(words: list[str], at: int) -> bool:
    """Whether a word is the verb of a name."""
    word = words[at]
    if not verb_of(word):
        return False
    if word not in _AMBIGUOUS or len(words) == 1:
        return True
    return at == 0 and word in _VERBS_IN_FRONT


def add_intent(bag: dict[str, float], verb: str, head: str, number: str, place: str) -> None:
    """Add a verb on a head, and both alone."""
    bag[f"do={verb}:{head}"] = 1.0
    bag[f"do.verb={verb}"] = 1.0
    bag[f"do.head={head}"] = 1.0
    bag[f"do.num={verb}:{number}"] = 1.0
    bag[f"{place}.do={verb}:{head}"] = 1.0


_METHOD_VERBS: Final = {
    "GET": "get", "HEAD": "exists", "POST": "create", "PUT": "update", "PATCH": "update",
    "DELETE": "delete", "OPTIONS": "exists",
}  # fmt: skip


def rest_intent(method: str, literals: list[str], *, keyed: bool) -> tuple[str, str, str]:
    """Verb, head and number of a REST call.

    Args:
        method: HTTP method.
        literals: Path segments that are no keys, in order.
        keyed: Whether a key follows the last of them.
    """
    verb = _METHOD_VERBS.get(method, "other")
    if not literals:
        return verb, "none", "one" if keyed else "root"
    last = literals[-1]
    words = split_name(last)
    named = verb_of(words[0]) if words else ""
    noun = is_plural(last) or keyed
    if (
        named
        and not noun
        and (method in ("POST", "PUT", "PATCH") or named not in ("get", "list", "create", "update"))
    ):
        inner_verb, head, number = intent_of(last)
        if head in ("none", "get", "list") and len(literals) > 1:
            head = head_of(split_name(literals[-2])[-1]) if split_name(literals[-2]) else "none"
        return f"{inner_verb}", head, f"{number}-{method.lower()}"
    if method == "GET" and not keyed and is_plural(last):
        verb = "list"
    head = head_of(words[-1]) if words else "none"
    return verb, head, "one" if keyed else "some" if is_plural(last) else "word"
