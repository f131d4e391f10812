"""The beginning of a text in a query language as lexemes."""

import re
from itertools import islice
from typing import Final

# So many characters of a lexeme that all matches at once cost little more than the wanted ones.
_SHORT: Final = 4


def lexemes(pattern: re.Pattern[str], text: str, most: int) -> list[str]:
    """What the pattern's one group captures in the first matches, at most so many.

    Matches without it are left out: patterns step over long runs of blanks with them.
    """
    if len(text) <= _SHORT * most:
        found = pattern.findall(text)[:most]
    else:
        found = [match[1] for match in islice(pattern.finditer(text), most)]
    return [lexeme for lexeme in found if lexeme]
