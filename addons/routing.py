"""What clients and workers are told: routing headers, and the answers of the proxy's own."""

import json
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from classifier.contracts import Classification, Label, Source

ROUTE_LABEL_HEADER = "X-Route-Label"
ROUTE_CONFIDENCE_HEADER = "X-Route-Confidence"
ROUTE_SOURCE_HEADER = "X-Route-Source"

RESERVED_REQUEST_HEADERS = frozenset({
    ROUTE_LABEL_HEADER.lower(),
    ROUTE_CONFIDENCE_HEADER.lower(),
    ROUTE_SOURCE_HEADER.lower(),
})  # fmt: skip
"""Ours alone: a client's values never reach a worker."""

RESERVED_PREFIX = "x-slb-"
"""Of the headers that clients get from us: not theirs to send, nor a worker's."""

CLIENT_LABEL_HEADER = f"{RESERVED_PREFIX}label"
CLIENT_SOURCE_HEADER = f"{RESERVED_PREFIX}source"
CLIENT_DECISION_HEADER = f"{RESERVED_PREFIX}decision-id"

FORCE_LABEL_HEADER = f"{RESERVED_PREFIX}force-label"
"""Where a trusted client says which label a request has; reserved, so no worker ever sees it."""

INSPECT_HEADER = f"{RESERVED_PREFIX}inspect"
"""Where a trusted client asks that a request become a flow; reserved as well."""


def route_headers(decided: Classification) -> tuple[tuple[str, str], ...]:
    """What the worker is told about the decision."""
    return (
        (ROUTE_LABEL_HEADER, decided.label),
        (ROUTE_CONFIDENCE_HEADER, f"{decided.confidence:.3f}"),
        (ROUTE_SOURCE_HEADER, decided.source.value),
    )


def route_block(decided: Classification) -> bytes:
    """The same as lines of a head."""
    return _route_block(decided.label, decided.confidence, decided.source)


@lru_cache(maxsize=1_024)
def _route_block(label: Label, confidence: float, source: Source) -> bytes:
    return _lines(route_headers(Classification(label, confidence, source, "")))


def client_headers(decided: Classification, decision_id: str) -> tuple[tuple[str, str], ...]:
    """What the client is told about the decision."""
    return (
        (CLIENT_LABEL_HEADER, decided.label),
        (CLIENT_SOURCE_HEADER, decided.source.value),
        (CLIENT_DECISION_HEADER, decision_id),
    )


def client_block(decided: Classification, decision_id: str) -> bytes:
    """The same as lines of a head."""
    return b"%b%b\r\n" % (_client_block(decided.label, decided.source), decision_id.encode())


@lru_cache(maxsize=1_024)
def _client_block(label: Label, source: Source) -> bytes:
    told = client_headers(Classification(label, 1.0, source, ""), "")
    return _lines(told).removesuffix(b"\r\n")


def _lines(fields: tuple[tuple[str, str], ...]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


@dataclass(frozen=True, slots=True)
class Rejection:
    """An answer of the proxy's own, instead of a route.

    Attributes:
        code: Closed set, for programs.
        message: For people; names no address.
    """

    status: int
    code: str
    message: str
    retry_after_seconds: int | None = None


INTERNAL_ERROR = Rejection(
    503, "routing_failed", "The request could not be routed. Try again.", retry_after_seconds=1
)
BAD_GATEWAY = Rejection(502, "bad_gateway", "The worker gave no usable answer.")
GATEWAY_TIMEOUT = Rejection(504, "gateway_timeout", "The worker did not answer in time.")
UNKNOWN_LABEL = Rejection(
    400, "unknown_label", "x-slb-force-label must be one field that names a label."
)
NO_WORKER = Rejection(
    503, "no_worker", "No worker can be reached. Try again.", retry_after_seconds=1
)
REJECTION_CODES = (
    "bad_gateway", "bad_request", "connect_not_allowed", "expectation_failed", "gateway_timeout",
    "headers_too_large", "method_not_supported", "no_worker", "overloaded", "pool_full",
    "request_timeout", "request_too_large", "routing_failed", "too_many_connections",
    "too_many_headers", "trailers_too_large", "unknown_label", "version_not_supported",
)  # fmt: skip
"""Every code that an answer of the proxy's own can bear: a closed set, also a metric label."""


def error_body(rejection: Rejection) -> bytes:
    """The JSON that clients get with an error of the proxy's own."""
    error = {"code": rejection.code, "message": rejection.message}
    return json.dumps({"error": error}).encode()


def error_headers(rejection: Rejection) -> dict[str, str]:
    """The header fields that go with it."""
    headers = {"content-type": "application/json"}
    if rejection.retry_after_seconds is not None:
        headers["retry-after"] = str(rejection.retry_after_seconds)
    return headers


def error_response(rejection: Rejection, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """A whole HTTP/1.1 response for an error of the proxy's own.

    Args:
        rejection: What to say.
        keep_alive: Whether the client may send another request.
        head_only: It answers a HEAD request.
    """
    body = error_body(rejection)
    headers = {**error_headers(rejection), "content-length": str(len(body))}
    if not keep_alive:
        headers["connection"] = "close"
    lines = [f"HTTP/1.1 {rejection.status} {HTTPStatus(rejection.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head_only else body)
