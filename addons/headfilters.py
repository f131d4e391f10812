"""mitmproxy's flow filters as tests of a request's head alone: no flow is made to answer them.

Each expression becomes a function; what it says of a method, a host or an address is remembered.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mitmproxy import flowfilter
from mitmproxy.net.http import url

from addons.choosing import HeadTest
from addons.filters import KNOWN_BEFORE_ROUTING, parse_filter
from addons.flowmaking import as_sent
from addons.forwarding import Peer
from addons.http1 import RequestHead

KNOWN_BY_HEAD = tuple(code for code in KNOWN_BEFORE_ROUTING if code not in {"b", "bq"})
"""Expressions that need no body."""

MAX_KNOWN = 256
"""Hosts, methods and the like of which the answer is remembered."""

type _Found = Callable[[str], bool]
"""Whether a regular expression is found in a text."""


@lru_cache(maxsize=256)
def compile_head_filter(text: str) -> HeadTest:
    """The test that a flow filter makes of a request when its head is there.

    Raises:
        ValueError: If it is none, or asks for more: for the body, or for an answer.
    """
    return _head_test(parse_filter(text, KNOWN_BY_HEAD))


def _head_test(token: Any) -> HeadTest:  # noqa: ANN401 - mitmproxy's own classes have no names
    if hasattr(token, "lst"):
        return _joined([_head_test(part) for part in token.lst], isinstance(token, flowfilter.FOr))
    if hasattr(token, "itm"):
        inner = _head_test(token.itm)
        return lambda head, peer: not inner(head, peer)
    make = _HEAD_TESTS.get(token.code)
    return make(token.re.found_in) if make is not None else _always


def _always(_head: RequestHead, _peer: Peer) -> bool:
    """What `~all`, `~http` and `~q` say: it is HTTP, and there is no answer yet."""
    return True


def _joined(tests: list[HeadTest], enough: bool) -> HeadTest:
    """All of the tests; or any of them, if one that fits is `enough`."""

    def test(head: RequestHead, peer: Peer) -> bool:
        for one in tests:
            if one(head, peer) is enough:
                return enough
        return not enough

    return test


def _method_test(found: _Found) -> HeadTest:
    fits = lru_cache(MAX_KNOWN)(lambda method: found(method.decode("latin-1")))
    return lambda head, _peer: fits(head.method)


def _domain_test(found: _Found) -> HeadTest:
    @lru_cache(MAX_KNOWN)
    def fits(host: bytes) -> bool:
        name, pretty, _ = _authority(host.decode("latin-1"), "http")
        return found(name) or found(pretty)

    return lambda head, _peer: fits(head.host)


def _url_test(found: _Found) -> HeadTest:
    @lru_cache(MAX_KNOWN)
    def site(host: bytes, scheme: str) -> str:
        return _authority(host.decode("latin-1"), scheme)[2]

    def test(head: RequestHead, peer: Peer) -> bool:
        path = head.target.decode("latin-1")
        return found(site(head.host, peer.scheme) + (path if path != "*" else ""))

    return test


def _authority(host: str, scheme: str) -> tuple[str, str, str]:
    """A Host as mitmproxy sees it: by itself, as people shall see it, and as a URL begins."""
    name, _, port = host.rpartition(":")
    has_port = bool(name) and port.isascii() and port.isdigit()
    pretty, pretty_port = url.parse_authority(host, check=False) if host else ("", None)
    begin = url.unparse(scheme, pretty, pretty_port or url.default_port(scheme) or 443, "")
    return name if has_port else host, pretty, begin


def _header_test(found: _Found) -> HeadTest:
    def test(head: RequestHead, _peer: Peer) -> bool:
        lines = b"".join([name + b": " + value + b"\r\n" for name, value in as_sent(head)])
        return found(lines.decode("utf-8", "replace"))

    return test


def _type_test(found: _Found) -> HeadTest:
    def test(head: RequestHead, _peer: Peer) -> bool:
        for name, value in head.fields:
            if name.lower() == b"content-type" and found(value.decode("utf-8", "replace")):
                return True
        return False

    return test


def _source_test(found: _Found) -> HeadTest:
    fits = lru_cache(MAX_KNOWN)(lambda address: found(f"{address}:0"))
    return lambda _head, peer: fits(peer.address)


_HEAD_TESTS: dict[str, Callable[[_Found], HeadTest]] = {
    "d": _domain_test,
    "h": _header_test,
    "hq": _header_test,
    "m": _method_test,
    "src": _source_test,
    "t": _type_test,
    "tq": _type_test,
    "u": _url_test,
}
