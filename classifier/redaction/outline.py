"""The request as an LLM may see it: its build, told in words of a closed list.

Whoever sends a request chooses its words, and an LLM may do what words say. So it sees none that
this room does not know: what `words.txt` lacks becomes `_`, in whatever language, encoding or
spelling it came. The list holds words of APIs and of query languages, and none that speaks to a
reader. This is the last step before the prompt, and the one that nothing gets around: it knows
nothing of formats, so no mistake of a parser before it can let text through.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Final

from classifier.contracts import RequestView
from classifier.redaction.bodies import excerpt
from classifier.redaction.targets import shown_path

UNKNOWN: Final = "_"
MAX_WORDS: Final = 5
"""Of one identifier: longer ones are sentences."""
MAX_SHOWN_NUMBER: Final = 31
"""Of larger numbers only the magnitude is told: a row of them could spell a text."""
_RUN = re.compile(r"[^\W_]+(?:[_$-]+[^\W_]+)*+")
_DATE = re.compile(r"(?<![\w-])((?:19|20)\d\d)-(\d\d)-(\d\d)(?![\d-])(?:T[\d:.]+Z?)?", re.ASCII)
_YEAR = re.compile(r"(?:19|20)\d\d", re.ASCII)
# `30d` and `15ms` are numbers.
_WORD = re.compile(r"[0-9]+(?:(?:ms|[smhdwMy])(?![A-Za-z0-9]))?|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ODD = re.compile(r"[^\x20-\x7e\n]|[`\\]")
_LETTER = re.compile(r"[a-zA-Z]")


def outline(view: RequestView, names: Iterable[str] = ()) -> str:
    """Method, target, media type, size and body of a request, in known words only.

    Args:
        view: The request.
        names: Of labels; none of them is in the text, however its letters are spread over it.
    """
    media = view.content_type.partition(";")[0]
    text = (
        f"{view.method[:32]} {shown_path(view.path)}\ncontent-type: {media[:100]}\n"
        f"body bytes: {max(view.body_bytes, len(view.body))}\n\n{excerpt(view)}"
    )
    return without_names(in_known_words(text), names)


def in_known_words(text: str) -> str:
    """A text whose every word is in the list, with rounded numbers and plain punctuation."""
    dates: list[str] = []

    def kept(found: re.Match[str]) -> str:
        dates.append(f"{found[1]}-{found[2]}-{found[3]}")
        return "\x00"

    shown = _RUN.sub(_shown_run, _DATE.sub(kept, text.replace("\x00", "")))
    whole = iter(dates)
    shown = re.sub("\x00", lambda _: next(whole), shown)
    return _ODD.sub(UNKNOWN, shown)


def without_names(text: str, names: Iterable[str]) -> str:
    """A text that does not hold these names, even if all but its letters is left out."""
    chars = list(text)
    places = [found.start() for found in _LETTER.finditer(text)]
    letters = "".join(text[at] for at in places).lower()
    for name in names:
        spelled = "".join(_LETTER.findall(name)).lower()
        start = letters.find(spelled) if spelled else -1
        while start >= 0:
            for at in places[start : start + len(spelled)]:
                chars[at] = UNKNOWN
            start = letters.find(spelled, start + 1)
    return "".join(chars)


def _shown_run(found: re.Match[str]) -> str:
    run = found[0]
    words = _WORD.findall(run)
    if not run.isascii() or sum(map(str.isalpha, words)) > MAX_WORDS:
        return UNKNOWN
    return _WORD.sub(_shown_word, run)


def _shown_word(found: re.Match[str]) -> str:
    word = found[0]
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyzM")
    if digits.isdigit():
        return _rounded(digits) + word[len(digits) :]
    # `v2` is a word of APIs as well; any other letter alone could spell something.
    is_version = word in {"v", "V"} and found.string[found.end() : found.end() + 1].isdigit()
    return word if is_version or word.lower() in known_words() else UNKNOWN


def _rounded(digits: str) -> str:
    if _YEAR.fullmatch(digits) or int(digits[:9]) <= MAX_SHOWN_NUMBER:
        return digits[:9]
    return digits[0] + "0" * (len(digits) - 1)


@cache
def known_words() -> frozenset[str]:
    """The list, read once."""
    text = resources.files("classifier.redaction").joinpath("words.txt").read_text("ascii")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(" ".join(lines).split())
