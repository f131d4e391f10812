"""The same request for something else, as a client would send it: other ids, names, texts, pages.

Changed are ids in paths and arguments, words that no lexicon knows, texts, all dates by the same
number of days, and numbers within their magnitude.
"""

# What is short says little; a name for each bound would say less than the number does.
# ruff: noqa: PLR2004

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Final
from urllib.parse import quote, unquote_plus

from pydantic import JsonValue

from classifier.contracts import RequestView
from classifier.features.target import kinds
from classifier.features.words import split_name, stem
from classifier.shape.names import Numbers, Texts, is_plain, name_of
from classifier.shape.queries import language_of
from classifier.shape.scales import decade, fine

_DATE: Final = re.compile(r"(?<!\d)(20[0-2]\d|19[7-9]\d)-(0[1-9]|1[0-2])-([0-3]\d)(?!\d)")
_QUOTED: Final = re.compile(r"'[^'\\%*\n]{2,}'|\"[^\"\\%*\n]{2,}\"")
_NUMBER: Final = re.compile(r"(?<![\w.$-])\d{1,9}(?![\w.-])")
_WORD: Final = re.compile(r"[A-Za-z]{3,}")
_EPOCH: Final = 10
_PAGES: Final = frozenset(("page", "pagenumber", "page_number", "pageno", "pageindex"))
_MOST_PAGES: Final = 40
_VOWELS: Final = "aeiou"
_OTHERS: Final = "bcdfghjklmnpqrstvwxyz"


class Variation:
    """Changes the literals of one request; dates of it move together."""

    def __init__(self, rng: random.Random) -> None:
        """What is drawn from `rng` is all that the outcome depends on."""
        self._rng = rng
        self._days = rng.randrange(-700, 700)

    def view(self, view: RequestView) -> RequestView:
        """The request for something else."""
        raw_path, mark, raw_query = view.path.partition("?")
        path = self._path(view.method, raw_path)
        query = self._query(raw_query) if mark else ""
        body = self._body(view)
        same_length = view.body_bytes == len(view.body)
        return replace(
            view,
            path=f"{path}{mark}{query}",
            body=body,
            body_bytes=len(body) if same_length else view.body_bytes,
        )

    def _path(self, method: str, raw_path: str) -> str:
        pieces = raw_path.split("/")
        segments = tuple(unquote_plus(p) if "%" in p else p for p in pieces if p)
        found = iter(kinds(segments, method))
        decoded = iter(segments)
        changed: list[str] = []
        for piece in pieces:
            if not piece:
                changed.append(piece)
                continue
            kind, segment = next(found), next(decoded)
            if kind in ("id", "key") and not re.search(r"[^\w.@-]", segment):
                changed.append(quote(self._id(segment), safe="@.-_"))
            else:
                changed.append(piece)
        return "/".join(changed)

    def _id(self, text: str) -> str:
        if text.isascii() and text.isdigit():
            return str(self._rng.randrange(1, 10 ** self._rng.randrange(1, 9)))
        if _DATE.search(text):
            return self._shifted(text)
        stem_, dot, ending = text.rpartition(".")
        return f"{self._letters(stem_)}{dot}{ending}" if dot else self._letters(text)

    def _letters(self, text: str) -> str:
        """Other letters and digits in their places; hexadecimal stays so."""
        if re.fullmatch(r"0x[0-9a-fA-F]+|[0-9a-f-]{8,}", text):
            begin = 2 if text.startswith("0x") else 0
            other = "".join(
                "-" if c == "-" else self._rng.choice("123456789" if c.isdigit() else "abcdef")
                for c in text[begin:]
            )
            return text[:begin] + other
        kept = self._words(text)
        return "".join(self._rng.choice("123456789") if c.isdigit() else c for c in kept)

    def _words(self, text: str) -> str:
        """Words that no lexicon knows become others of their length."""
        return _WORD.sub(self._other_word, text)

    def _other_word(self, found: re.Match[str]) -> str:
        word = found[0]
        parts = split_name(word)
        if any(is_plain(part) or is_plain(stem(part)) for part in parts):
            return word
        for _ in range(40):
            other = "".join(
                self._rng.choice(_VOWELS if at % 2 else _OTHERS) for at in range(len(word))
            )
            other = "".join(
                c.upper() if w.isupper() else c for c, w in zip(other, word, strict=True)
            )
            if not any(is_plain(part) for part in split_name(other)):
                return other
        return word

    def _shifted(self, text: str) -> str:
        def shift(found: re.Match[str]) -> str:
            try:
                then = date(int(found[1]), int(found[2]), int(found[3]))
            except ValueError:
                return found[0]
            return (then + timedelta(days=self._days)).isoformat()

        return _DATE.sub(shift, text)

    def _number(self, key: str, number: int, numbers: Numbers) -> int:
        """Another number of the same magnitude; or another page."""
        if key.lower() in _PAGES and number < _MOST_PAGES:
            return self._rng.randrange(1, _MOST_PAGES)
        measure: Callable[[float], str] = fine if numbers is Numbers.FINE else decade
        for _ in range(20):
            if numbers is Numbers.ID:
                other = self._rng.randrange(1, 10 ** self._rng.randrange(1, 8))
            else:
                other = round(number * self._rng.uniform(0.5, 2))
            if numbers is Numbers.ID or measure(other) == measure(number):
                return other
        return number

    def _query(self, raw: str) -> str:
        parts = []
        for part in raw.split("&"):
            key, equals, value = part.partition("=")
            text = unquote_plus(value)
            other = self._text(unquote_plus(key), text)
            parts.append(f"{key}{equals}{value if other == text else quote(other, safe=':,.-_')}")
        return "&".join(parts)

    def _text(self, key: str, text: str) -> str:
        """Another value for a parameter or a member of an object."""
        name = name_of(key)
        if text.isascii() and text.isdigit() and len(text) < _EPOCH:
            return str(self._number(key, int(text), name.numbers)) if not name.bounds else text
        if name.texts is Texts.OPERATION or len(text) < 3:
            return text
        if language_of(text, name.texts):
            return self._literals(text)
        return self._other_text(text)

    def _other_text(self, text: str) -> str:
        if text[:1] in "{[" and text[-1:] in "}]":
            return self._json_text(text)
        if "://" in text or text.startswith("data:"):
            return text
        return self._letters(text) if not text[:1].isdigit() else self._other_digits(text)

    def _other_digits(self, text: str) -> str:
        if re.match(r"\d{4}-\d\d", text):
            return self._shifted(text)
        if text.isdigit():
            return str(int(text) + self._days * 86_400) if len(text) == _EPOCH else text
        return self._letters(text) if len(text) > 7 else text

    def _json_text(self, text: str) -> str:
        try:
            return json.dumps(self._value("", json.loads(text)), ensure_ascii=False)
        except ValueError:
            return text

    def _literals(self, text: str) -> str:
        """A query with other strings in it, and its dates moved."""
        return _QUOTED.sub(
            lambda found: (
                self._shifted(found[0])
                if _DATE.search(found[0])
                else self._letters(found[0])
                if re.fullmatch(r".[A-Za-z][\w .@-]*.", found[0])
                else found[0]
            ),
            text,
        )

    def _value(self, key: str, value: JsonValue) -> JsonValue:
        if isinstance(value, str):
            return self._text(key, value)
        if isinstance(value, dict):
            return {name: self._value(name, item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._value(key, item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool) and not name_of(key).bounds:
            return self._number(key, value, name_of(key).numbers) if value > 0 else value
        return value

    def _body(self, view: RequestView) -> bytes:
        try:
            text = view.body.decode()
        except UnicodeDecodeError:
            return view.body
        if text[:1] in "{[":
            return self._json_body(view, text)
        if "form-urlencoded" in view.content_type:
            return self._query(text).encode()
        if language_of(text, Texts.MAYBE):
            return self._literals(text).encode()
        return view.body

    def _json_body(self, view: RequestView, text: str) -> bytes:
        try:
            document = json.loads(text)
        except ValueError:
            return view.body
        return self._dumped(text, self._value("", document))

    @staticmethod
    def _dumped(before: str, document: JsonValue) -> bytes:
        """Written in the style of the text before."""
        indent = 2 if "\n  " in before else None
        separators = (",", ":") if '":"' in before or '":[' in before or '":{' in before else None
        text = json.dumps(document, ensure_ascii=False, indent=indent, separators=separators)
        return text.encode()
