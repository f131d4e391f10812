"""Names into words, words into meanings: camelCase, snake_case and kebab-case alike."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from functools import lru_cache
from typing import Final
from unicodedata import combining, normalize

from classifier.features.lexicon import GROUPS_BY_WORD, LITERALS
from classifier.features.nouns import NOUNS
from classifier.features.vocabulary import vocabulary

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_MAX_NAME: Final = 80
_NOT_PLURAL: Final = vocabulary("""
    status news address access process analysis basis series-one is this has was as css js
    https dns aws sms gps kubernetes sts ses sqs sns ls sudoers windows always us bus gas
    alias canvas progress express address business success class pass press
""")
_PLURAL: Final = vocabulary("""
    people children media indices vertices news-items criteria edges nodes datasets data
""")


def split_name(name: str) -> tuple[str, ...]:
    """The lower-case words of an identifier, digits apart: `getUserByID2` has five."""
    # Cut before the cache, so that long names of strangers do not fill the memory.
    name = name[:_MAX_NAME]
    return _split(name if name.isascii() else unaccented(name))


def unaccented(name: str) -> str:
    """The name in plain Latin letters: `analítica` as `analitica`; other scripts unchanged."""
    return "".join(c for c in normalize("NFKD", name) if not combining(c))


@lru_cache(maxsize=8192)
def _split(name: str) -> tuple[str, ...]:
    words = [word.lower() for word in _WORD.findall(name)]
    if len(words) == 1 and len(words[0]) > 6:
        return _unglued(words[0])
    return tuple(words)


_GLUED: Final = re.compile(
    r"(get|list|create|delete|update|set|send|import|export|dump|rescan|scan|verify|sign|add|remove|find|search|"
    r"start|stop|run|load|upload|download|check|validate|decode|generate|insert|abort|cancel|lock|unlock|fetch|read|show)"
    r"(one|many|all|by)?([a-z]{3,})$"
)


def _unglued(word: str) -> tuple[str, ...]:
    """`getblockhash` is `get` and `blockhash`; words of the lexicon stay whole."""
    found = None if groups(word) else _GLUED.match(word)
    return tuple(part for part in found.groups() if part) if found else (word,)


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """The word as the lexicon knows it, or without its plural ending."""
    if word in GROUPS_BY_WORD and not (word.endswith("s") and word[:-1] in GROUPS_BY_WORD):
        return word
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch")):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            return word[: -len(ending)] + instead
    if len(word) > 3 and word.endswith("s") and word not in _NOT_PLURAL and word[-2] != "s":
        return word[:-1]
    return word


_INFLECTIONS: Final = (("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"), ("er", "e"), ("d", ""))


@lru_cache(maxsize=8192)
def groups(word: str) -> tuple[str, ...]:
    """The meaning groups of a lower-case word, through its inflections."""
    for candidate in (word, stem(word)):
        if candidate in GROUPS_BY_WORD:
            return GROUPS_BY_WORD[candidate]
    for ending, instead in _INFLECTIONS:
        base = word[: -len(ending)] + instead if word.endswith(ending) else ""
        if len(base) > 2 and base in GROUPS_BY_WORD:
            return GROUPS_BY_WORD[base]
    return ()


def is_plural(name: str) -> bool:
    """Whether the name's last word is a plural noun."""
    words = split_name(name)
    if not words:
        return False
    last = words[-1]
    if last in _PLURAL:
        return True
    return len(last) > 3 and last[-1] == "s" and last[-2] not in "su" and last not in _NOT_PLURAL


def is_known(name: str) -> bool:
    """Whether a path segment is a word of APIs rather than somebody's key."""
    return _known(name[:_MAX_NAME])


@lru_cache(maxsize=8192)
def _known(name: str) -> bool:
    lower = name.lower()
    if lower in LITERALS or lower in NOUNS:
        return True
    words = split_name(name)
    ends = (words[0], words[-1]) if len(words) > 2 else words
    return any(word in LITERALS or word in NOUNS or groups(word) for word in ends)
