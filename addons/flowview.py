"""mitmproxy's flows to our types and back. The only place that reads or writes a flow's fields."""

import json

from mitmproxy import http

from addons.routing import (
    RESERVED_PREFIX,
    RESERVED_REQUEST_HEADERS,
    Rejection,
    Route,
)
from classifier.contracts import Label, RequestView, semantic_headers

METADATA_KEY = "router"
MAX_LENGTH_DIGITS = 18

# mitmproxy tells whose fault an error is by its text alone.
CLIENT_LEFT_MESSAGES = ("Client disconnected", "Connection killed", "stream reset by client")
CLIENT_FAULT_MESSAGES = ("HTTP/1 protocol error", "Request body exceeds")

MARKERS = {
    Label.FAST_PATH: ":zap:",
    Label.GENERAL: ":gear:",
    Label.HIGH_COMPUTE: ":snail:",
}
"""Emoji that mitmproxy's interfaces show beside a flow; `~marker snail` finds the heavy ones."""


def announced_body_bytes(message: http.Message) -> int | None:
    """The Content-Length, or None if there is no usable one (chunked, or until the end)."""
    if "transfer-encoding" in message.headers:
        return None
    length = message.headers.get("content-length", "")
    usable = length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS
    return int(length) if usable else None


def view_of(request: http.Request, max_body_bytes: int) -> RequestView:
    """What the classifier may see of a whole request.

    `raw_content`, not `content`: nothing is decoded here, so a body cannot blow up.
    """
    body = request.raw_content or b""
    return _view(request, body[:max_body_bytes], len(body))


def head_view_of(request: http.Request) -> RequestView:
    """What the classifier may see of a request whose body passes unread."""
    length = announced_body_bytes(request)
    return _view(request, b"", -1 if length is None else length)


def _view(request: http.Request, body: bytes, body_bytes: int) -> RequestView:
    return RequestView(
        method=request.method.upper(),
        path=request.path,
        content_type=request.headers.get("content-type", ""),
        headers=semantic_headers(request.headers.items(multi=True)),
        body=body,
        body_bytes=body_bytes,
    )


def apply(flow: http.HTTPFlow, route: Route) -> None:
    """Send the flow to the route's worker: only address and routing headers change."""
    request = flow.request
    worker = route.lease.worker
    request.scheme = worker.scheme
    # Not `request.host`, which rewrites the Host header: the worker shall see the client's.
    request.data.host = worker.host
    request.data.port = worker.port
    # An absolute-form target would name another authority than the worker's: origin form.
    request.authority = ""
    for name in [name for name in request.headers if _is_reserved(name.lower())]:
        request.headers.pop(name, None)
    for name, value in route.headers():
        request.headers[name] = value


def _is_reserved(name: str) -> bool:
    return name in RESERVED_REQUEST_HEADERS or name.startswith(RESERVED_PREFIX)


def annotate(flow: http.HTTPFlow, route: Route) -> None:
    """Show the decision in mitmproxy's interfaces: comment, marker, filterable metadata."""
    decided = route.classification
    cached = " cached" if decided.cached else ""
    flow.comment = (
        f"{decided.label} -> {route.lease.worker.name}"
        f" ({decided.source}{cached} {decided.confidence:.2f}) {decided.reason}"
    )
    flow.marked = MARKERS[decided.label]
    # Plain values only: a flow that holds anything else cannot be saved.
    flow.metadata[METADATA_KEY] = {
        "label": str(decided.label),
        "source": str(decided.source),
        "confidence": decided.confidence,
        "reason": decided.reason,
        "cached": decided.cached,
        "worker": route.lease.worker.name,
    }


def is_clients_fault(flow: http.HTTPFlow) -> bool:
    """Whether a flow failed because the client left, or broke the protocol while it sent."""
    message = flow.error.msg if flow.error else ""
    if message.startswith(CLIENT_LEFT_MESSAGES):
        return True
    unfinished = flow.request.timestamp_end is None
    return unfinished and message.startswith(CLIENT_FAULT_MESSAGES)


def reject(flow: http.HTTPFlow, rejection: Rejection) -> None:
    """Answer the flow here and now."""
    headers = {"content-type": "application/json"}
    if rejection.retry_after_seconds is not None:
        headers["retry-after"] = str(rejection.retry_after_seconds)
    flow.response = http.Response.make(rejection.status, error_body(rejection), headers)


def error_body(rejection: Rejection) -> bytes:
    """The JSON that clients get with an error of the proxy's own."""
    error = {"code": rejection.code, "message": rejection.message}
    return json.dumps({"error": error}).encode()


def is_stream(response: http.Response, max_buffered_bytes: int) -> bool:
    """Whether the response has to pass as it comes.

    True for all whose end is not announced (server-sent events, token streams, chunked) and for
    those too long to be held in memory.
    """
    length = announced_body_bytes(response)
    return length is None or length > max_buffered_bytes


def tell_client(response: http.Response, headers: dict[str, str]) -> None:
    """Set our response headers; a worker's values under our names are dropped."""
    ours = [name for name in response.headers if name.lower().startswith(RESERVED_PREFIX)]
    for name in ours:
        response.headers.pop(name, None)
    for name, value in headers.items():
        response.headers[name] = value
