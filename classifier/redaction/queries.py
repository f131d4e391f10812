"""Query text of any language: its words and numbers stay, its literals go."""

# The bounds are part of the shapes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re

from classifier.redaction.shapes import (
    CUT,
    MASK,
    MAX_EXCERPT_CHARS,
    MAX_TEXT,
    NO_DIGITS,
    is_key,
    is_sensitive,
)

_TEXT_TOKEN = re.compile(
    r"(?P<line>\n\s*+)|(?P<gap>\s++)"
    r"|(?P<comment>/\*(?:.*?\*/|.*)|(?:--|//)[^\n]*+|\#(?![>&|-])[^\n]*+)"
    r"|(?P<hidden>(?i:bearer|basic)[ ]++\S++)"
    r'|(?P<quoted>"""(?:.*?"""|.*)|"(?:[^"\\]|\\.)*+(?:"|\Z|\\)'
    # Dialects differ on \': what follows it may or may not be inside.
    r"|'[^'\\]*+(?:\\[^'][^'\\]*+)*+(?:'|\\.*|\Z)|\$(?P<tag>\w*)\$(?:.*?\$(?P=tag)\$|.*))"
    r"|(?P<date>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.]*+Z?)?(?![\w-]))"
    r"|(?P<digits>\d(?:[ .-]?\d){8,}+\w*+)"
    r"|(?P<chunk>(?:[\w@%+~=.:]|/(?!\*)|-(?!-))++)|(?P<other>.)",
    re.DOTALL,
)
_ASSIGNED = re.compile(
    r"(?P<name>[\"']?[\w.%+/~\\-]{0,80}+[\"']?)[ \t]{0,9}+"
    r"(?P<by>[:=]{1,2}+>?|(?i:by|is)\b|(?<=[ \t])(?=\d))[ \t]{0,9}+"
)
_NAMES = re.compile(r"\s{0,9}+:")
_SHORT_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,8})?", re.ASCII)
_LINE_VALUE = re.compile(r"[|>][^\n]*+(?:\n[ \t]++[^\n]*+)*+|[^\n]*+")
_WORD_VALUE = re.compile(r"[^\s,;&)\]}]*+")
_PIECES = re.compile(r"[%+/~=.:-]+")


def shown_query(text: str) -> str:
    """The words, short numbers and operators of a query or of prose; literals are masked."""
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + CUT
    shown: list[str] = []
    position, starts_line = 0, True
    while len(shown) < MAX_EXCERPT_CHARS and (token := _TEXT_TOKEN.match(text, position)):
        piece, position = token[0], token.end()
        assigned = _ASSIGNED.match(text, token.start())
        if assigned and token.lastgroup in {"chunk", "quoted"} and is_sensitive(assigned["name"]):
            value = (_LINE_VALUE if starts_line else _WORD_VALUE).match(text, assigned.end())
            quoted = text[assigned.end() : assigned.end() + 1] in {'"', "'"}
            name = assigned["name"].strip("\"'")
            gap = "" if assigned["by"][:1] in {":", "="} else " "
            shown += [name if is_key(name) else MASK, gap, assigned["by"], "" if quoted else MASK]
            position = assigned.end() if quoted or value is None else value.end()
        else:
            shown.append(_shown_token(token))
        starts_line = token.lastgroup == "line" or (
            starts_line and (piece.isspace() or piece == "-")
        )
    return "".join(shown).strip()


def _shown_token(token: re.Match[str]) -> str:
    piece = token[0]
    match token.lastgroup:
        case "line" | "gap" | "comment":
            return " "
        case "chunk":
            return _shown_chunk(piece)
        case "digits":
            return piece if len(piece) <= 9 and piece.isdigit() else MASK
        case "quoted":
            is_name = _NAMES.match(token.string, token.end()) and is_key(piece[1:-1])
            return piece if is_name else f"{piece[0]}{MASK}{piece[0]}"
        case "hidden":
            return MASK
        case _:
            return piece if piece.isprintable() and piece.isascii() else "?"


def _shown_chunk(chunk: str) -> str:
    """What stands between two spaces or brackets, whole or not at all: keys hold punctuation."""
    bare = chunk.strip("%+/~=.:-")
    *names, value = re.split("[:=]", bare)
    if "@" in chunk or (value and any(map(is_sensitive, names))):
        return MASK
    if bare.upper() == bare.lower() and bare.isascii():
        return chunk if not bare.strip("_") or _SHORT_NUMBER.fullmatch(bare) else MASK
    short = len(NO_DIGITS.sub("", bare)) < 10
    return chunk if short and all(map(is_key, _PIECES.split(bare))) else MASK
