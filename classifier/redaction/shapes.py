"""Shapes of what may be shown: words, short numbers, keys; and names whose values may not be."""

# The bounds are part of the shapes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

MASK: Final = "***"
MAX_EXCERPT_CHARS: Final = 1_500
MAX_READ, MAX_TARGET, MAX_TEXT, MAX_ITEMS, MAX_KEYS, MAX_DEPTH = 65_536, 800, 6_000, 5, 60, 12
# Ends a text that was cut off: nothing that holds it is ever shown, so no half of a secret is.
CUT: Final = "@"


def name_set(names: str) -> frozenset[str]:
    """The words of a text, for sets that read better as one."""
    return frozenset(names.split())


_PART = (
    r"(?:v\d{1,3}(?:alpha|beta|rc)\d{0,3}|[A-Za-z]\d{1,2}[a-z]|\d{1,8}[A-Za-z]{0,2}"
    r"|[A-Za-z]{1,20}\d{0,3}|[A-Z]{0,4}[a-z]{1,15}(?:[A-Z]{1,4}[a-z]{1,15}){1,8})(?![A-Za-z\d])"
)
_JOIN = r"[-_.$:~*]"
_WORD = re.compile(rf"{_JOIN}{{0,2}}+(?:{_PART}(?:{_JOIN}{{1,2}}+{_PART})*+)?{_JOIN}{{0,2}}+")
_PLAIN_WORD = re.compile(r"[a-z]{1,12}|")
_NUMBER = re.compile(r"\d{1,12}|v?\d{1,4}(?:\.\d{1,3}){1,2}|\d{4}-\d\d(?:-\d\d)?", re.ASCII)
# Pairs of letters that hardly any word of code or prose holds; two of them are no accident.
_RARE = (
    r"(?:[aA][hjoq]|[bB][ghkqvwxz]|[cC][jnqvwxz]|[dD][hkqxz]|[eE][j]|[fF][bhjkmpqvwxz]"
    r"|[gG][bdjkqvwxz]|[hH][cfghjkpqvwxz]|[iI][hijqwy]|[jJ][bcdfghjklmnpqrtvwxyz]"
    r"|[kK][bcfghjkmpqrvxyz]|[lL][hjqwxz]|[mM][cghjnqvwxyz]|[nN][qxz]|[oO][qz]|[pP][bgjnqvwxz]"
    r"|[qQ][abcdefghijklmnopqtvwxyz]|[rR][hjqxz]|[sS][bjxz]|[tT][jkq]|[uU][hjkquvwyz]"
    r"|[vV][bcdfhjklmnpqrstuvwxyz]|[wW][bcfgjkmpqtuvwxyz]|[xX][bghjkmnqrsuvwxyz]"
    r"|[yY][bghjkquvxyz]|[zZ][bcdfghjklmnpqrstuvwxyz])"
)
# Letters that are no word of any language, and the beginnings of well-known keys.
_SOUP = re.compile(
    rf"[b-df-hj-np-tv-xz]{{6}}|[B-DF-HJ-NP-TV-XZ]{{6}}|{_RARE}[A-Za-z]{{0,20}}?{_RARE}|[A-Z]{{15}}"
    r"|(?<![A-Za-z])(?:(?i:AKIA|ASIA)|eyJ|xox[a-z]-|gh[a-z]_|[spr]k[-_])"
)
_HUMP = re.compile(r"[a-z](?=[A-Z])")
_SMALL_HUMP = re.compile(r"(?<![a-z])[a-z](?=[A-Z])")
_MIXED = re.compile(r"[A-Za-z]\d|\d[A-Za-z]")
NO_DIGITS = re.compile(r"[^0-9]+")
_FOREIGN_LETTER = re.compile(r"[^\W\d_a-zA-Z]")
_NO_NAME = re.compile(r"[\W_]+")
_SENSITIVE = re.compile(
    r"(?<!by)(?<!com)pass(?!age|eng|ing|iv)|pwd|secret|token(?!iz)|credential|cookie|session|jwt"
    r"|signature|auth(?!or(?!i))|iban|cvv|cvc|ssn(?!ame|o)|otp(?!rin)|(?:^|user|card)pin(?![a-z])"
    r"|(?:pin|sig|sid)(?:$|\d|code|number|hash)|(?<!dis)(?<!wild)card(?!inal)|accountn|identified$"
    r"|key(?!s|w|b|f|p)|(?:api|access|private|secret)keys"
)
_COUNTED_TOKENS = re.compile(r"(?:max|min|num|n|new|total|prompt|completion|input|output)\w*tokens")
_COUNTS = name_set(
    "limit offset page perpage pagesize size first last top skip depth step start end"
    " count take rows maxresults maxtokens n k topk"
)
_CHOICES = name_set("sort order orderby sortby format expand include fields")
_COUNT = re.compile(r"-?\d{1,9}(?:ms|[smhdwy])?", re.ASCII)
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


def is_word(text: str, digits: int = 8) -> bool:
    """Whether a text reads as words or as one number, and not as a key or token."""
    return len(text) <= 64 and _reads_as_word(text, digits)


# The same few segments and names come again and again; what is kept is short and bounded.
@lru_cache(maxsize=4_096)
def _reads_as_word(text: str, digits: int) -> bool:
    if _PLAIN_WORD.fullmatch(text):
        return not _SOUP.search(text)
    if not _WORD.fullmatch(text):
        return False
    numerals = len(NO_DIGITS.sub("", text))
    if numerals and text.upper() == text.lower():
        return bool(_NUMBER.fullmatch(text))
    if numerals and (len(text) > 48 or numerals > digits or len(_MIXED.findall(text)) > 4):
        return False
    return not (_is_jagged(text) or _SOUP.search(text.lower() if text.isupper() else text))


def _is_jagged(text: str) -> bool:
    """Whether upper and lower case change too often for `camelCase`."""
    small = len(_SMALL_HUMP.findall(text))
    return 7 * len(_HUMP.findall(text)) > 2 * len(text) or small > 1 + len(text) // 16


def is_key(name: str) -> bool:
    """Whether a name of a parameter or member is one; `user[name]` and `größe` are."""
    if not name.isascii():
        name = _FOREIGN_LETTER.sub("e", name)
    return is_word(name.lstrip("@#").replace("[", ".").replace("]", ""))


def plain_name(name: str) -> str:
    """A name without case and separators: `Page-Size`, `page_size` and `pageSize` are one."""
    return _NO_NAME.sub("", name).lower()


def is_sensitive(name: str) -> bool:
    """Whether the values under a name are secrets, whatever they look like."""
    plain = plain_name(unescaped(unquote(name)))
    return bool(_SENSITIVE.search(plain)) and not _COUNTED_TOKENS.fullmatch(plain)


def is_harmless(name: str, value: str) -> bool:
    """Whether a value may be shown under a plain name: counts, orders, flags."""
    if name in _COUNTS:
        return bool(_COUNT.fullmatch(value))
    return value in {"true", "false"} or (
        name in _CHOICES
        and len(value) <= 100
        and all(is_word(word.lstrip("+-")) and not word.isdigit() for word in value.split(","))
    )


def unescaped(text: str) -> str:
    """A text with its JSON escapes by code point resolved."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
