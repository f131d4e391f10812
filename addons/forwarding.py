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

from addons.http1 import Fields, RequestHead, ResponseHead, is_well_formed, serialise
from addons.routing import RESERVED_PREFIX, RESERVED_REQUEST_HEADERS

VIA = b"1.1 slb"

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
    route_headers: Iterable[tuple[str, str]],
    *,
    content_length: int | None,
    default_host: str,
) -> bytes:
    """The request head that a worker gets.

    Args:
        head: The client's.
        peer: Who the client is.
        route_headers: What the worker is told about the decision.
        content_length: Length of the body if it is not sent as it was announced.
        default_host: Host for an HTTP/1.0 request that has none.
    """
    host = head.host or default_host.encode()
    length = head.content_length if content_length is None else content_length
    fields, before, via = _passing_fields(head, host, length)
    if head.chunked and content_length is None:
        fields.append((b"Transfer-Encoding", b"chunked"))
    fields += _forwarded(peer, host, before if peer.trusted else {})
    fields.append((b"Via", b", ".join((*via, VIA))))
    fields += [(name.encode(), value.encode("latin-1", "replace")) for name, value in route_headers]
    if head.is_websocket:
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    return serialise(b"%b %b HTTP/1.1" % (head.method, head.target), fields)


def _passing_fields(
    head: RequestHead, host: bytes, length: int | None
) -> tuple[Fields, dict[bytes, bytes], list[bytes]]:
    """The client's fields in their order, and apart from them what was said of forwarding."""
    dropped = _REQUEST_DROPPED if not head.connection else _REQUEST_DROPPED | head.connection
    fields: Fields = []
    before: dict[bytes, bytes] = {}
    via: list[bytes] = []
    missing = {b"host": host}
    if length is not None:
        missing[b"content-length"] = b"%d" % length
    for name, value in head.fields:
        lower = name.lower()
        if lower in missing:
            fields.append((name, missing.pop(lower)))
        elif lower in dropped or lower.startswith(_RESERVED_PREFIX) or _is_disguised(lower):
            continue
        elif lower in FORWARDED:
            before[lower] = before[lower] + b", " + value if lower in before else value
        elif lower == b"via":
            via.append(value)
        else:
            fields.append((name, value))
    fields += [(name.title(), value) for name, value in missing.items()]
    return fields, before, via


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
    told: Iterable[tuple[str, str]],
    *,
    framing: Fields,
    keep_alive: bool,
) -> bytes:
    """The response head that a client gets.

    Args:
        head: The worker's.
        told: What the client is told about the decision.
        framing: How the body is sent.
        keep_alive: Whether the client may send another request.
    """
    fields = _answer_fields(head)
    fields.append((b"Via", VIA))
    fields += [(name.encode(), value.encode()) for name, value in told]
    fields += framing
    if not keep_alive:
        fields.append((b"Connection", b"close"))
    return serialise(b"HTTP/1.1 %d %b" % (head.status, head.reason), fields)


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


def switching_head(head: ResponseHead, told: Iterable[tuple[str, str]]) -> bytes:
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
