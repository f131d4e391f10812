"""Kinds of texts in a shape: what stands for a text holds no word of it that no lexicon knows."""

# The cut-offs are the kinds; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from functools import lru_cache
from typing import Final

from classifier.features.intent import verb_of
from classifier.features.magnitudes import seconds
from classifier.features.target import is_id
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, split_name
from classifier.shape.names import Numbers, is_plain, name_of, shown
from classifier.shape.scales import count, duration, fine

_LOCATION: Final = re.compile(r"[a-zA-Z][a-zA-Z\d+.-]{1,12}://|data:")
_HASH: Final = re.compile(
    r"(?=.*\d)[0-9a-fA-F]{10,}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE
)
_DURATION: Final = re.compile(r"\d{1,6}(?:ms|[smhdwMy]|min|mon|mo)$")
_CHUNK: Final = re.compile(r"\w+|[^\w\s]")
_OPERATION: Final = re.compile(r"[A-Za-z_][\w.:/\-# ]{0,79}$")
_RUN: Final = re.compile(r"\b([nxw])(?:([,;])\1\b)++(?:\2\1\b)*+")
_ASSIGNED: Final = re.compile(r"\w[=<>:]{1,2}-?\w")
_MARKS: Final = re.compile(r"[(){}|=<>;\[\]]")
_MAIL: Final = re.compile(r"[\w.+-]+@[\w.-]+")
_MAX_READ: Final = 400
DATE_MARK: Final = "\x1d"
"""Stands for a date that was taken out of a text."""


def is_structured(text: str) -> bool:
    """Whether a longer text is written for a program rather than for people."""
    start = text[:_MAX_READ]
    return len(_ASSIGNED.findall(start)) >= 2 or len(_MARKS.findall(start)) >= 6


def location(text: str) -> str:
    """Scheme and file type of a URL, so far as both are common; "" if it is none."""
    if not _LOCATION.match(text):
        return ""
    scheme = text.partition(":")[0].lower()
    if scheme == "data":
        kind = text[5:20].partition("/")[0]
        return f"url:data:{kind if kind in _MEDIA else ''}"
    ending = re.split(r"[?#]", text[-300:], maxsplit=1)[0].rsplit(".", 1)[-1].lower()
    return f"url:{scheme if scheme in _SCHEMES else ''}:{ending if ending in _FILES else ''}"


_MEDIA: Final = frozenset(("image", "audio", "video", "application"))
_FILES: Final = vocabulary("""
    mp3 wav m4a ogg flac mp4 mov avi mkv webm png jpg jpeg tiff tif pdf docx doc html csv jsonl
    json parquet gz zip xlsx ndjson
""")
_SCHEMES: Final = vocabulary("""
    s3 gs gcs abfs abfss wasb wasbs hdfs az file azblob dbfs ftp sftp oss http https data
""")


def prose(text: str) -> str:
    """A text for people: nothing of it but a wildcard in front, or calls within calls."""
    wildcard = text[0] if text[0] in "*%" else ""
    return f"s{wildcard}" + (f"){min(4, text.count('('))}" if text.endswith("))") else "")


def marks(text: str) -> str:
    """Whether a key is a list of keys, or stands for many."""
    listed = "," in text or "|" in text
    return f"{',' if listed else ''}{'*' if '*' in text or '%' in text else ''}"


# The same few words come again and again; what is kept is short and bounded.
@lru_cache(maxsize=8_192)
def worded(text: str, *, operation: bool, outer: bool) -> str:
    """The kind of a short text.

    Args:
        text: It.
        operation: Whether it names what is to be done.
        outer: Whether it stands where its words may say something.
    """
    if known := _known(text):
        return known
    if operation and not any(map(str.isdigit, text)):
        return f"={shown(text)}"
    if not is_id(text) and _OPERATION.match(text) and (operation or _acts(text)):
        return f"={shown(text)}"
    if outer or (" " not in text and not text.isalnum()):
        return pattern(text)
    return prose(text) if " " in text else "w"


def _known(text: str) -> str:
    """The kind of a text that is one as a whole, else ""."""
    if not text:
        return "e"
    if text in ("0", "1") or is_plain(text.lower()):
        return f"={text}"
    if _MAIL.fullmatch(text):
        return "mail"
    if _HASH.fullmatch(text) and not text.isdigit():
        return "x"
    found = location(text)
    return found and found + marks(text)


def _acts(text: str) -> bool:
    """Whether a text reads like the name of an operation: `createInvoice`."""
    words = split_name(text)
    return len(words) > 1 and " " not in text and bool(verb_of(words[0]))


def pattern(text: str) -> str:
    """Words of the lexicon and punctuation; `w`, `n`, `x` for other words, numbers and ids."""
    pieces: list[str] = []
    scaling = False
    for chunk in _CHUNK.findall(text):
        if chunk.isdigit():
            _add(pieces, fine(float(chunk[:20])) if scaling and chunk.isascii() else "n")
        elif any(map(str.isdigit, chunk)):
            long = seconds(chunk) if _DURATION.match(chunk) else None
            _add(pieces, f"t{duration(long)}" if long is not None else "x")
        elif chunk.isascii() and chunk.replace("_", "").isalpha():
            for word in split_name(chunk):
                _add(pieces, word if word in _SYNTAX or groups(word) else _ending(word))
            scaling = name_of(chunk).numbers is Numbers.FINE
        else:
            mark = "d" if chunk == DATE_MARK else chunk
            _add(pieces, mark if len(chunk) == 1 and chunk.isascii() else "W")
    found = " ".join(pieces).replace(" , ", ",").replace(" ; ", ";")
    return _RUN.sub(lambda run: f"{run[1]}{count(run[0].count(run[2]) + 1)}", found)


def _ending(word: str) -> str:
    """A word that no lexicon knows; whether it may be the name of a key is told all the same."""
    found = _KEY_END.search(word)
    return f"w{found[0]}" if found else "w"


_KEY_END: Final = re.compile(r"(?:id|uuid|key|sku|slug|code|email|name)$")


def _add(pieces: list[str], piece: str) -> None:
    if piece not in _MERGED or not pieces or pieces[-1].rstrip("+") != piece:
        pieces.append(piece)
    else:
        pieces[-1] = f"{piece}+"


_MERGED: Final = frozenset("wWnx")
_SYNTAX: Final = vocabulary("""
    yes no on off unlimited none exact planned estimated all everyone everything todos todas alle
    tous tutti eq neq ne gt gte lt lte like ilike in is fts plfts phfts wfts cs cd ov imatch and
    or not asc desc sum avg min max csv json xlsx parquet pdf now
""")
