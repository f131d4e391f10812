"""Request targets and URLs, for people."""

import re
from typing import Final
from urllib.parse import unquote, unquote_plus

from classifier.redaction.shapes import (
    CUT,
    MASK,
    MAX_TARGET,
    is_harmless,
    is_key,
    is_sensitive,
    is_word,
    plain_name,
)

MAX_SHOWN_CHARS: Final = 200
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


def shown_path(target: str) -> str:
    """A request target fit for people: bounded, printable ASCII, words and short numbers only.

    Query values are masked but for numbers and words under names such as `limit` and `sort`.
    """
    if len(target) > MAX_TARGET:
        target = target[:MAX_TARGET] + CUT
    path, question_mark, query = target.partition("?")
    shown, before = [], ""
    for segment in path.split("/"):
        hidden = segment.isdigit() and is_sensitive(before)
        shown.append(MASK if hidden else _shown_segment(segment))
        before = segment
    tail = "&".join(map(_shown_parameter, query.split("&"))) if question_mark else ""
    return f"{'/'.join(shown)}{question_mark}{tail}"[:MAX_SHOWN_CHARS]


def _shown_segment(segment: str) -> str:
    if is_word(segment) or _UUID.fullmatch(segment):
        return segment
    word, semicolon, _ = segment.partition(";")
    if semicolon:
        return f"{_shown_segment(word)};{MASK}"
    decoded = unquote(segment)
    return decoded if is_word(decoded) else MASK


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    decoded = unquote_plus(value)
    # Nothing but `=` after it is the padding of base64.
    padded = bool(value) and not value.strip("=")
    shown = name if is_key(unquote(name)) and name.isascii() and not padded else MASK
    allowed = not value or is_harmless(plain_name(name), decoded)
    return f"{shown}{equals}{decoded if allowed else MASK}"


def shown_url(url: str) -> str:
    """A URL of a setting, fit for logs and messages: without user and password."""
    return re.sub(r"//[^/@]*@", f"//{MASK}@", url)
