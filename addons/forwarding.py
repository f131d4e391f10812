"""What passes from one side to the other: the one policy on headers, pure.

* Hop-by-hop fields (RFC 9110, section 7.6.1) end here, both ways; framing is written anew.
* `Via` is added both ways. `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` say what this proxy
  has seen itself; what a client sent under these names is dropped, unless its address is a trusted
  proxy's: then the chain is kept and extended.
* The routing headers are ours alone: whatever comes under these names is dropped, both ways.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from addons.http1 import Fields, RequestHead, ResponseHead, field_lines, is_well_formed, serialise
from addons.routing import RESERVED_PREFIX, RESERVED_REQUEST_HEADERS

VIA = b"1.1 slb"
MAX_KNOWN_NAMES = 2_048
MAX_KNOWN_NAME_BYTES = 64

HOP_BY_HOP = frozenset({
    b"connection", b"http2-settings", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-connection", b"te", b"transfer-encoding", b"upgrade",
})  # fmt: skip

FORWARDED = frozenset({
    b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-proto", b"x-real-ip",
})  # fmt: skip

_RESERVED = frozenset(name.encode() for name in RESERVED_REQUEST_HEADERS)
_RESERVED_PREFIX = RESERVED_PREFIX.encode()

# Written anew, or answered here.
_REQUEST_DROPPED = HOP_BY_HOP | _RESERVED | {b"content-length", b"expect", b"host"}
_RESPONSE_DROPPED = HOP_BY_HOP | {b"content-length"}

_NEVER_TRAILERS = (
    HOP_BY_HOP
    | FORWARDED
    | _RESERVED
    | {
        b"authorization", b"content-encoding", b"content-length", b"content-range", b"content-type",
        b"cookie", b"expect", b"host", b"set-cookie", b"trailer", b"via",
    }
)  # fmt: skip
"""Fields that change how a message is read must not come after it (RFC 9110, section 6.5.1)."""

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read a comma-separated list of addresses and networks, like `10.0.0.0/8, ::1`.

    Raises:
        ValueError: If an entry is neither.
    """
    networks = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            msg = f"{part!r} is no address or network; write one like 10.0.0.0/8"
            raise ValueError(msg) from None
    return tuple(networks)


@dataclass(frozen=True, slots=True)
class Peer:
    """The client's side of a connection.

    Attributes:
        address: IP address as text.
        scheme: `http`, or `https` if the client spoke TLS with us.
        trusted: It is a proxy whose word on forwarding is taken.
        chain: What is said of it to the worker, worked out once per connection.
    """

    address: str
    scheme: str
    trusted: bool = False
    chain: bytes = field(init=False)

    def __post_init__(self) -> None:
        quoted = f'"[{self.address}]"' if ":" in self.address else self.address
        chain = f"for={quoted};proto={self.scheme}".encode()
        object.__setattr__(self, "chain", chain)


def is_trusted(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address belongs to one of the networks."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(mapped in network for network in networks)


def upstream_head(
    head: RequestHead,
    peer: Peer,
    route_block: bytes,
    *,
    content_length: int | None,
    default_host: str,
) -> bytes:
    """The request head that a worker gets.

    Args:
        head: The client's.
        peer: Who the client is.
        route_block: What the worker is told about the decision: header lines, each with its CRLF.
        content_length: Length of the body if it is not sent as it was announced.
        default_host: Host for an HTTP/1.0 request that has none.
    """
    passed = _passed_block(head, peer, content_length, default_host)
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (head.method, head.target, passed, route_block)


def _passed_block(
    head: RequestHead, peer: Peer, content_length: int | None, default_host: str
) -> bytes:
    """The fields that pass, and what is said of the client; for a known head as it was before."""
    known = head.known
    if known is None or content_length is not None:
        return _work_out_block(head, peer, content_length, default_host)
    depends_on = (peer.chain, peer.trusted, head.host, head.content_length, head.chunked)
    passed = known.passed
    if passed is not None and passed[0] == depends_on:
        return passed[1]
    block = _work_out_block(head, peer, None, default_host)
    if head.host and not head.upgrade:
        known.passed = (depends_on, block)
    return block


def _work_out_block(
    head: RequestHead, peer: Peer, content_length: int | None, default_host: str
) -> bytes:
    host = head.host or default_host.encode()
    length = head.content_length if content_length is None else content_length
    fields, before, via = _passing_fields(head, host, length)
    if head.chunked and content_length is None:
        fields.append((b"Transfer-Encoding", b"chunked"))
    fields += _forwarded(peer, host, before if peer.trusted else {})
    fields.append((b"Via", b", ".join((*via, VIA))))
    if head.is_websocket:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    return field_lines(fields)


def _passing_fields(
    head: RequestHead, host: bytes, length: int | None
) -> tuple[Fields, dict[bytes, bytes], list[bytes]]:
    """The client's fields in their order, and apart from them what was said of forwarding."""
    nominated = head.connection
    fields: Fields = []
    before: dict[bytes, bytes] = {}
    via: list[bytes] = []
    missing = {b"host": host}
    if length is not None:
        missing[b"content-length"] = b"%d" % length
    for name, value in head.fields:
        way = _WAYS.get(name) or _way_of(name)
        if way is _Way.PASSES and not nominated:
            fields.append((name, value))
            continue
        lower = name.lower()
        if lower in missing:
            fields.append((name, missing.pop(lower)))
        elif way is _Way.ENDS or lower in nominated:
            continue
        elif way is _Way.FORWARDED:
            before[lower] = before[lower] + b", " + value if lower in before else value
        elif way is _Way.VIA:
            via.append(value)
        else:
            fields.append((name, value))
    fields += [(name.title(), value) for name, value in missing.items()]
    return fields, before, via


class _Way(Enum):
    """What becomes of a field of a request."""

    PASSES = auto()
    ENDS = auto()
    """Here: it is about this connection, ours, or written anew."""
    FORWARDED = auto()
    VIA = auto()


_WAYS: dict[bytes, _Way] = {}
"""Ways that have been worked out, by names as they were sent; bounded."""


def _way_of(name: bytes) -> _Way:
    lower = name.lower()
    if lower in _REQUEST_DROPPED or lower.startswith(_RESERVED_PREFIX) or _is_disguised(lower):
        way = _Way.ENDS
    elif lower in FORWARDED:
        way = _Way.FORWARDED
    else:
        way = _Way.VIA if lower == b"via" else _Way.PASSES
    if len(_WAYS) >= MAX_KNOWN_NAMES:
        _WAYS.clear()
    if len(name) <= MAX_KNOWN_NAME_BYTES:
        _WAYS[name] = way
    return way


def _is_disguised(lower: bytes) -> bool:
    """Whether a name is one of ours to a worker that takes `_` for `-`, as CGI does."""
    plain = lower.replace(b"_", b"-")
    ours = plain in FORWARDED or plain in _REQUEST_DROPPED or plain.startswith(_RESERVED_PREFIX)
    return plain != lower and ours


def _forwarded(peer: Peer, host: bytes, before: dict[bytes, bytes]) -> Fields:
    address = peer.address.encode()
    told = [
        (b"X-Forwarded-For", _extended(before.get(b"x-forwarded-for"), address)),
        (b"X-Forwarded-Proto", before.get(b"x-forwarded-proto", peer.scheme.encode())),
        (b"X-Forwarded-Host", before.get(b"x-forwarded-host", host)),
        (b"Forwarded", _extended(before.get(b"forwarded"), peer.chain + b';host="' + host + b'"')),
    ]
    kept = ((b"X-Forwarded-Port", b"x-forwarded-port"), (b"X-Real-IP", b"x-real-ip"))
    return told + [(name, before[lower]) for name, lower in kept if lower in before]


def _extended(before: bytes | None, more: bytes) -> bytes:
    return more if before is None else before + b", " + more


def client_head(
    head: ResponseHead,
    told: bytes,
    *,
    framing: Fields,
    keep_alive: bool,
) -> bytes:
    """The response head that a client gets.

    Args:
        head: The worker's.
        told: What the client is told about the decision: header lines, each with its CRLF.
        framing: How the body is sent.
        keep_alive: Whether the client may send another request.
    """
    close = b"" if keep_alive else b"Connection: close\r\n"
    return b"%b%b%b%b\r\n" % (_answer_block(head), told, field_lines(framing), close)


def counted_head(head: ResponseHead, told: bytes) -> bytes:
    """The same for an answer of known length on a connection that is kept: most are so.

    Args:
        head: The worker's; it has a `content_length`.
        told: What the client is told about the decision: header lines, each with its CRLF.
    """
    known = head.known
    if known is not None and known.counted:
        return b"%b%b\r\n" % (known.counted, told)
    block = b"%bContent-Length: %d\r\n" % (_answer_block(head), head.content_length or 0)
    if known is not None:
        known.counted = block
    return b"%b%b\r\n" % (block, told)


def _answer_block(head: ResponseHead) -> bytes:
    """Status line and fields of an answer that pass to the client."""
    lines = field_lines(_answer_fields(head))
    return b"HTTP/1.1 %d %b\r\n%bVia: %b\r\n" % (head.status, head.reason, lines, VIA)


def interim_head(head: ResponseHead) -> bytes:
    """An interim response (103 Early Hints and the like) as a client gets it."""
    return serialise(b"HTTP/1.1 %d %b" % (head.status, head.reason), _answer_fields(head))


def _answer_fields(head: ResponseHead) -> Fields:
    """The worker's fields that pass to the client."""
    dropped = _RESPONSE_DROPPED if not head.connection else _RESPONSE_DROPPED | head.connection
    return [
        (name, value)
        for name, value in head.fields
        if (lower := name.lower()) not in dropped and not lower.startswith(_RESERVED_PREFIX)
    ]


def switching_head(head: ResponseHead, told: bytes) -> bytes:
    """The 101 that turns a client's connection into a WebSocket."""
    return client_head(
        head,
        told,
        framing=[(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")],
        keep_alive=True,
    )


def passing_trailers(trailers: Fields) -> Fields:
    """The trailers that may be sent on."""
    return [
        (name, value)
        for name, value in trailers
        if (lower := name.lower()) not in _NEVER_TRAILERS
        and not lower.startswith(_RESERVED_PREFIX)
        and not _is_disguised(lower)
        and is_well_formed([(name, value)])
    ]
