"""Query languages in a shape: their tokens, with literals as their kind and scale.

One tokenizer serves them all: GraphQL, SQL and its dialects, Cypher, SPARQL, PromQL, KQL, Flux,
AQL. Identifiers stay as names, comments go where they surely are comments, lists of literals are
one literal and their number.
"""

# The bounds are part of the shapes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from enum import StrEnum
from typing import Final

from classifier.features.dialects import read_dialect
from classifier.features.magnitudes import instant, seconds
from classifier.features.querytext import looks_like_graph, read_query_text
from classifier.features.sql import looks_like_sql
from classifier.features.vocabulary import vocabulary
from classifier.shape.names import Name, Numbers, Texts, name_of, shown
from classifier.shape.scales import Ranges, count, decade, duration, fine, step

MAX_QUERY_CHARS: Final = 12_000
MAX_TOKENS: Final = 1_200
_LEXEME: Final = (
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:""")?|"(?:[^"\\]|\\.)*+"?|\'(?:[^\'\\]|\'\'|\\.)*+\'?|`[^`]*+`?'
    r"|<[A-Za-z][\w+.-]*+:[^<>\s]*+>|[^\W\d][\w.$]*+"
    r"|\d{4}-\d\d-\d\d(?:T[\d:.]++Z?)?+|\d[\w.]*+|[<>=!~|&:.+*-]{1,3}+|\S"
)
_GRAPHQL: Final = re.compile(
    r"\s*+(?:\#[^\n]*+\n\s*+)*+(?:(?:query|mutation|subscription|fragment)\b[^{]{0,2000}+\{|\{)"
)
_MARKS: Final = re.compile(r"[(){}|=<>;\[\]$*]")


class Language(StrEnum):
    """What a text is written in, as far as the shape must know."""

    GRAPHQL = "gql"
    SQL = "sql"
    OTHER = "ql"


_TOKENS: Final = {
    Language.GRAPHQL: re.compile(r"\#[^\n]*+|" + _LEXEME, re.DOTALL),
    Language.SQL: re.compile(r"--[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?|" + _LEXEME, re.DOTALL),
    Language.OTHER: re.compile(_LEXEME, re.DOTALL),
}
_COMMENTS: Final[dict[Language, tuple[str, ...]]] = {
    Language.GRAPHQL: ("#",),
    Language.SQL: ("--", "/*"),
    Language.OTHER: (),
}


def language_of(text: str, texts: Texts) -> Language | None:
    """The language of a text that stands where texts of this kind do; None for prose."""
    if _GRAPHQL.match(text):
        return Language.GRAPHQL
    if looks_like_sql(text, sure=texts is Texts.ALWAYS) and not looks_like_graph(text):
        return Language.SQL
    if texts is Texts.ALWAYS or (texts is Texts.QUERY and _MARKS.search(text)):
        return Language.OTHER
    if text.lstrip()[:1] == "<":
        return None
    if read_query_text(text, {}) or (texts is not Texts.PLAIN and read_dialect(text, {})):
        return Language.OTHER
    return None


def query_shape(text: str, language: Language, ranges: Ranges) -> str | None:
    """The shape of a query; None if it is too long to have one."""
    if len(text) > MAX_QUERY_CHARS:
        return None
    lexemes = _TOKENS[language].findall(text)
    if len(lexemes) > MAX_TOKENS:
        return None
    reader = _Reader(language, ranges)
    for lexeme in lexemes:
        reader.take(lexeme)
    return f"{language}<{reader.end()}>"


# Rows of literals, as they stand in the joined pieces.
_ROWS: Final = re.compile(r"(\( ?'[^()]*+\))(?: , \1)++")


def _counted_rows(found: re.Match[str]) -> str:
    return f"{found[1]}{count((len(found[0]) + 3) // (len(found[1]) + 3))}"


_LISTS: Final = vocabulary("IN in In VALUES values Values")
_ROWS_BEGIN: Final = vocabulary("VALUES values Values")
_SCALING: Final = vocabulary("""
    LIMIT TOP FETCH NEXT FIRST INTERVAL SAMPLE TABLESAMPLE TAKE HEAD LAST ROWS AGO BIN SINCE
    RANGE DATE_ADD DATE_SUB DATEADD DATEDIFF ADDDATE SUBDATE TIMESTAMP_SUB TIMESTAMP_ADD
    DATETIME_SUB DATETIME_ADD
""")
_NO_NAME: Final = Name("", Numbers.DECADE, Texts.PLAIN, bounds=False)
_EVERYTHING: Final = vocabulary("all * .* .+ % *:* everything true false")
_LAST_DAYS: Final = re.compile(r"(?:last|next)_?(\d{1,6})", re.IGNORECASE)


class _Reader:
    """Takes the lexemes of one query and keeps its pieces."""

    __slots__ = (
        "_comments", "_fine", "_in_list", "_items", "_items_end", "_name", "_ranges", "_rows",
        "_scaling", "pieces",
    )  # fmt: skip

    def __init__(self, language: Language, ranges: Ranges) -> None:
        self.pieces: list[str] = []
        self._ranges = ranges
        self._fine = language is Language.GRAPHQL
        self._comments = _COMMENTS[language]
        self._name = _NO_NAME
        self._scaling = False
        self._rows = False
        self._in_list = False
        self._items = 0
        self._items_end = -1

    def take(self, lexeme: str) -> None:
        """One lexeme."""
        first = lexeme[0]
        if first.isalpha() or first == "_":
            self._word(lexeme)
        elif first.isdigit():
            self._literal(self._number(lexeme))
        elif first in "\"'`" or (first == "<" and len(lexeme) > 3):
            self._literal(f"'{self._string(lexeme)}")
        elif not lexeme.startswith(self._comments):
            self._mark(lexeme)

    def end(self) -> str:
        """All pieces as one text."""
        self._end_items()
        shape = " ".join(self.pieces)
        return _ROWS.sub(_counted_rows, shape) if self._rows else shape

    def _word(self, lexeme: str) -> None:
        name = self._name = name_of(lexeme)
        self._scaling = lexeme.upper() in _SCALING
        self._rows |= lexeme in _ROWS_BEGIN
        self.pieces.append(name.shown)
        if found := _LAST_DAYS.match(lexeme):
            self.pieces.append(fine(int(found[1])))

    def _mark(self, lexeme: str) -> None:
        pieces = self.pieces
        if lexeme == ",":
            if self._in_list:
                return
        elif lexeme == "(":
            again = self._rows and pieces[-2:] == [")", ","]
            self._in_list = again or (bool(pieces) and pieces[-1] in _LISTS)
        elif lexeme == "[":
            self._in_list = True
        elif lexeme in ")]{}":
            self._end_items()
            self._in_list = False
        pieces.append(lexeme)

    def _literal(self, piece: str) -> None:
        """Keeps a literal; in a list, of a run of them the first one and how many there are."""
        if self._in_list and self._items and self._items_end == len(self.pieces):
            self._items += 1
            return
        self._end_items()
        self.pieces.append(piece)
        self._items = 1
        self._items_end = len(self.pieces)

    def _end_items(self) -> None:
        if self._items > 1:
            self.pieces[self._items_end - 1] += count(self._items)
        self._items = 0

    def _number(self, lexeme: str) -> str:
        if lexeme[4:5] == "-":
            return self._ranges.instant(instant(lexeme) or 0.0)
        if not (lexeme.isascii() and lexeme.replace(".", "", 1).isdigit()):
            return self._worded_number(lexeme)
        value = float(lexeme) if len(lexeme) < 30 else float("inf")
        last = self.pieces[-1] if self.pieces else ""
        if self._in_list and last not in (":", "="):
            return "'n"
        if self._scaling or self._name.numbers is Numbers.FINE or last == "*":
            return fine(value)
        if self._name.numbers is Numbers.ID:
            return "'i"
        return step(value) if self._fine or last == "(" else decade(value)

    def _worded_number(self, lexeme: str) -> str:
        """`30d`, `1..3`, `0x1F` or `1_000`."""
        if ".." in lexeme:
            ends = [end for end in lexeme.split("..") if end.isascii() and end.isdigit()]
            return "..".join(fine(float(end[:20])) for end in ends) + ".."
        if long := seconds(lexeme):
            return f"t{duration(long)}"
        digits = lexeme.replace("_", "")
        return fine(float(digits[:20])) if digits.isascii() and digits.isdigit() else "x"

    def _string(self, lexeme: str) -> str:
        content = lexeme.strip("\"'`")[:80]
        if not content or lexeme[0] == "<":
            return "iri" if content else "e"
        if content.lower() in _EVERYTHING or self.pieces[-1:] == ["import"]:
            return shown(content.lower())
        if content[0] in "%*" or content[:2] in (".*", ".+", '\\"'):
            return f"{content[0]}s"
        if content[0].isdigit() or content[0] == "-":
            return self._digits(content)
        return "s"

    def _digits(self, content: str) -> str:
        if not self._in_list and content[4:5] == "-" and (when := instant(content)) is not None:
            return self._ranges.instant(when)
        if not (self._scaling or self._name.numbers is Numbers.FINE or self._name.bounds):
            return "s"
        if content.isascii() and content.isdigit():
            return fine(float(content[:20]))
        return f"t{duration(seconds(content) or 0.0)}"
