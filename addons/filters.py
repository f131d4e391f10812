"""mitmproxy's flow filters as conditions of rules. The one place that knows how they are made.

Invariant: no client can make a filter slow. The regular expressions in it run on an engine that
does not backtrack, and bodies are looked at as they came: nothing is unpacked.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, override

from mitmproxy import flowfilter, http
from mitmproxy.connection import Client, Server

from classifier.rules import LinearRegex, Predicate, RequestFacts

KNOWN_BEFORE_ROUTING = ("all", "b", "bq", "d", "h", "hq", "http", "m", "q", "src", "t", "tq", "u")
"""Expressions about what is known when a request gets its label: no answer, no mark, no server."""

MAX_NESTING = 3
"""Of parentheses: mitmproxy's parser takes seconds for six, and four times as long for seven."""

_QUOTED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'")
_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s"}


class _Search:
    """A regular expression as filters use them, of bytes as well."""

    def __init__(self, pattern: str, flags: int) -> None:
        letters = "".join(letter for flag, letter in _FLAGS.items() if flags & flag)
        self._regex = LinearRegex(pattern, letters)

    @property
    def found_in(self) -> Callable[[str], bool]:
        """Whether it is found in a text."""
        return self._regex.found_in

    def search(self, subject: str | bytes) -> bool:
        """Whether it is found in the subject."""
        text = subject if isinstance(subject, str) else subject.decode("utf-8", "replace")
        return self._regex.found_in(text)


class _BareRequest(http.Request):
    """A request whose body stays as it came: unpacked, a small one could become a huge one."""

    @override
    def get_content(self, strict: bool = True) -> bytes | None:
        return self.raw_content


@lru_cache(maxsize=256)
def compile_filter(text: str) -> Predicate:
    """The predicate of a flow filter, like `~m GET & ~u /export`.

    Remembered, for mitmproxy's parser takes milliseconds, which a reload shall not.

    Raises:
        ValueError: If it is none, or one that cannot be answered before a request is routed.
    """
    fits = parse_filter(text, KNOWN_BEFORE_ROUTING)
    return lambda facts: bool(fits(_STAGE.show(facts)))


def parse_filter(text: str, known: Sequence[str]) -> Any:  # noqa: ANN401 - mitmproxy's own, without a name
    """A filter as mitmproxy's parser makes it, but with expressions that cannot be slow.

    Args:
        text: What the operator wrote.
        known: Codes of the expressions that can be answered.

    Raises:
        ValueError: If it is none, or asks for more.
    """
    if _nesting(text) > MAX_NESTING:
        msg = f"{text[:60]!r} nests parentheses over {MAX_NESTING} deep"
        raise ValueError(msg)
    try:
        fits = flowfilter.parse(text)
    except (ValueError, RecursionError):
        msg = f"{text[:60]!r} is no flow filter; write one like ~m GET & ~u /export"
        raise ValueError(msg) from None
    for token in _tokens(fits):
        if token.code not in known:
            usable = ", ".join(f"~{code}" for code in known)
            msg = f"~{token.code} is about what is not known yet; known are {usable}"
            raise ValueError(msg)
        if hasattr(token, "re"):
            token.re = _Search(token.expr, token.re.flags)
    return fits


def _nesting(text: str) -> int:
    depth = deepest = 0
    for char in _QUOTED.sub("", text):
        depth += (char == "(") - (char == ")")
        deepest = max(deepest, depth)
    return deepest


def _tokens(token: Any) -> Iterator[Any]:  # noqa: ANN401 - mitmproxy's own classes have no names
    """The expressions of which a filter consists."""
    if hasattr(token, "lst"):
        for part in token.lst:
            yield from _tokens(part)
    elif hasattr(token, "itm"):
        yield from _tokens(token.itm)
    else:
        yield token


class _Stage:
    """One flow that shows one request after the other: to make a flow takes 0.1 ms.

    A filter only looks, and is done before it returns; nobody else ever gets this flow.
    """

    def __init__(self) -> None:
        self._facts: RequestFacts | None = None
        client = Client(peername=("", 0), sockname=("", 0), timestamp_start=0.0)
        self._flow = http.HTTPFlow(client, Server(address=None))
        self._flow.request = _BareRequest(
            host="",
            port=80,
            method=b"",
            scheme=b"http",
            authority=b"",
            path=b"",
            http_version=b"HTTP/1.1",
            headers=http.Headers(),
            content=b"",
            trailers=None,
            timestamp_start=0.0,
            timestamp_end=None,
        )

    def show(self, facts: RequestFacts) -> http.HTTPFlow:
        """The flow, with this request in it."""
        if facts is not self._facts:
            self._facts = facts
            self._fill(facts)
        return self._flow

    def _fill(self, facts: RequestFacts) -> None:
        data = self._flow.request.data
        data.method = facts.method.encode("utf-8", "surrogateescape")
        data.scheme = facts.scheme.encode()
        data.path = facts.path.encode("utf-8", "surrogateescape")
        data.headers = http.Headers([
            (name.encode("latin-1", "replace"), value.encode("utf-8", "surrogateescape"))
            for name, value in facts.headers
        ])  # fmt: skip
        data.content = facts.body
        host = data.headers.get("host", "")
        name, _, port = host.rpartition(":")
        has_port = bool(name) and port.isascii() and port.isdigit() and len(port) <= len("65535")
        data.host = name if has_port else host
        data.port = int(port) if has_port else {"https": 443}.get(facts.scheme, 80)
        self._flow.client_conn.peername = (facts.peer, 0)


_STAGE = _Stage()
