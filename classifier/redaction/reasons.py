"""What an LLM says of a request, without what it repeats of it."""

import html
import re
from typing import Final
from urllib.parse import unquote_plus

from classifier.contracts import RequestView
from classifier.redaction.bodies import excerpt
from classifier.redaction.shapes import MASK, MAX_READ, unescaped
from classifier.redaction.targets import shown_path

MAX_REASON_CHARS: Final = 200
_REASON_HIDES = re.compile(r"[\d@]|\w{25}")
_LETTERS = re.compile(r"[^\W\d_]{4,}")


def clean_reason(text: str, view: RequestView) -> str:
    """What an LLM gives as its reason, without anything that it may have from the request."""
    body = view.body[:MAX_READ].decode("utf-8", "replace")
    raw = f"{view.path[:MAX_READ]} {body}"
    forms = (raw, unquote_plus(raw), html.unescape(raw), unescaped(raw))
    hidden = set().union(*map(_stems, forms)) - _stems(f"{shown_path(view.path)} {excerpt(view)}")
    printable = "".join(char if char.isprintable() else " " for char in text[:1_000])
    words = (
        MASK if _REASON_HIDES.search(word) or not hidden.isdisjoint(_stems(word)) else word
        for word in printable.split()
    )
    return " ".join(words)[:MAX_REASON_CHARS]


def _stems(text: str) -> set[str]:
    return {word.casefold().removesuffix("s") for word in _LETTERS.findall(text)}
