"""What an operation's name means as a whole: a verb on a head noun.

English names put the verb first and the head last: `cancelExport` stops, `exportStatus` asks for
a status, `exportTemplates` are things. One pair stands for all protocols, so that
`POST /exports`, `startExport` and `Export.Create` look alike.
"""

from functools import lru_cache
from typing import Final

from classifier.features.words import groups, is_plural, split_name

# The first of these groups that a word belongs to is its meaning as a verb.
_VERBS: Final = (
    "stop", "validate", "list", "count", "search", "delete", "export", "import", "train", "generate",
    "embed", "infer", "convert", "optimize", "maintain", "trace", "start", "get", "describe", "exists",
    "upsert", "update", "create", "send", "scan", "agg", "auth", "health", "tokenize", "bulk",
)  # fmt: skip
# The first of these groups that a word belongs to is its meaning as a noun.
_HEADS: Final = (
    "progress", "health", "version", "template", "meta", "self", "auth", "tokenize", "embed", "train",
    "generate", "infer", "media", "convert", "export", "import", "report", "agg", "optimize", "graph",
    "maintain", "trace", "search", "scan", "tree", "bulk", "count", "job", "logs", "latest", "pay",
    "price", "geo", "send", "user", "block", "thing", "stop", "list", "get",
)  # fmt: skip
_CUTS: Final = frozenset("by for with of from in on to at using via per and".split())
_ONE: Final = frozenset("one single unique first id".split())
_MANY: Final = frozenset("all many bulk batch mass multi everything every".split())


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


@lru_cache(maxsize=4096)
def intent_of(name: str) -> tuple[str, str, str]:
    """Verb, head and number (`one`, `some`, `all`) of an operation's name."""
    words = [word for word in split_name(name)[-8:] if not word.isdigit()]
    at = next((i for i, word in enumerate(words) if verb_of(word)), None)
    verb = verb_of(words[at]) if at is not None else "none"
    rest = words[at + 1 :] if at is not None else words
    number = "all" if any(w in _MANY for w in words) else "one" if any(w in _ONE for w in rest) else ""
    for position, word in enumerate(rest):
        if word in _CUTS and position > 0:
            rest = rest[:position]
            break
    rest = [w for w in rest if w not in _ONE and w not in _MANY] or rest
    head = head_of(rest[-1]) if rest else head_of(words[at - 1]) if at else "none"
    if not number:
        number = "some" if rest and is_plural(rest[-1]) else "one"
    if verb == "search" and number == "one" and any(w in _ONE for w in words):
        verb = "get"
    return verb, head, number


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
    if named and not noun and (method in ("POST", "PUT", "PATCH") or named not in ("get", "list", "create", "update")):
        inner_verb, head, number = intent_of(last)
        if head in ("none", "get", "list") and len(literals) > 1:
            head = head_of(split_name(literals[-2])[-1]) if split_name(literals[-2]) else "none"
        return f"{inner_verb}", head, f"{number}-{method.lower()}"
    if method == "GET" and not keyed and is_plural(last):
        verb = "list"
    head = head_of(words[-1]) if words else "none"
    return verb, head, "one" if keyed else "some" if is_plural(last) else "word"
