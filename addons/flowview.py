"""mitmproxy's flows to our types and back. Who reads or writes their fields does it here.

New ones are made in `flowmaking`.
"""

from collections.abc import Callable, Iterable

from mitmproxy import http

from addons import http1
from addons.pool import Worker
from addons.routing import (
    RESERVED_PREFIX,
    RESERVED_REQUEST_HEADERS,
    Rejection,
    error_body,
    error_headers,
    route_headers,
)
from classifier.contracts import (
    Classification,
    ExplainResponse,
    Label,
    RequestView,
    semantic_headers,
)

METADATA_KEY = "router"
EXPLANATION_KEY = "router.explanation"
EXPLAINED = " | explained: "
"""What comes before an explanation in a flow's comment."""
CLIENT_LEFT = "Client disconnected."
"""What mitmproxy says of a client that has gone; programs know it by this text."""

MARKERS = {
    Label.FAST_PATH: ":zap:",
    Label.GENERAL: ":gear:",
    Label.HIGH_COMPUTE: ":snail:",
}
OWN_LABEL_MARKER = ":label:"
"""Emoji that mitmproxy's interfaces show beside a flow; `~marker snail` finds the heavy ones."""


def shows(request: http.Request, head: http1.RequestHead) -> bool:
    """Whether a flow's request has the line and the fields of this head, one by one."""
    data = request.data
    return (
        data.headers.fields == tuple(head.fields)
        and data.path == head.target
        and data.method == head.method
    )


def head_of(request: http.Request, original: http1.RequestHead) -> http1.RequestHead:
    """The head of a flow's request, with what addons have changed.

    Raises:
        ProtocolError: If it is not valid any more.
    """
    data = request.data
    head = http1.make_request_head(
        data.method, data.path, original.minor, list(data.headers.fields)
    )
    head.host = head.host or original.host
    # How the body is framed the client has said, whatever fields say now.
    head.content_length, head.chunked = original.content_length, original.chunked
    return head


def response_head_of(
    response: http.Response, framed: http1.ResponseHead | None
) -> http1.ResponseHead:
    """The head of a flow's response, with what addons have changed.

    Args:
        response: The flow's.
        framed: Whose framing it has, if its body passes as it comes.
    """
    fields = list(response.headers.fields)
    if not http1.is_well_formed(fields):
        fields = [field for field in fields if http1.is_well_formed([field])]
    reason = response.data.reason if http1.is_well_formed([(b"x", response.data.reason)]) else b""
    head = http1.ResponseHead(response.status_code, reason, 1, fields)
    if framed is not None:
        head.minor = framed.minor
        head.content_length, head.chunked = framed.content_length, framed.chunked
    return head


def view_of(request: http.Request, max_body_bytes: int) -> RequestView:
    """What the classifier may see of a whole request.

    `raw_content`, not `content`: nothing is decoded here, so a body cannot blow up.
    """
    body = request.raw_content or b""
    return RequestView(
        method=request.method.upper(),
        path=request.path,
        content_type=next(filter(None, request.headers.get_all("content-type")), ""),
        headers=semantic_headers(request.headers.items(multi=True)),
        body=body[:max_body_bytes],
        body_bytes=len(body),
    )


def address(flow: http.HTTPFlow, decided: Classification, worker: Worker) -> None:
    """Send a flow that mitmproxy itself forwards (a replay) to a worker."""
    request = flow.request
    # Not `request.host`, which rewrites the Host header: the worker shall see the client's.
    request.data.host, request.data.port = worker.host, worker.port
    request.scheme = worker.scheme
    request.authority = ""
    for name in [name for name in request.headers if _is_reserved(name.lower())]:
        request.headers.pop(name, None)
    for name, value in route_headers(decided):
        request.headers[name] = value


def _is_reserved(name: str) -> bool:
    return name in RESERVED_REQUEST_HEADERS or name.startswith(RESERVED_PREFIX)


def show_decision(flow: http.HTTPFlow, decided: Classification, worker: Worker) -> None:
    """Show the decision in mitmproxy's interfaces: comment, marker, filterable metadata."""
    flow.request.data.host, flow.request.data.port = worker.host, worker.port
    cached = " cached" if decided.cached else ""
    flow.comment = (
        f"{decided.label} -> {worker.name}"
        f" ({decided.source}{cached} {decided.confidence:.2f}) {decided.reason}"
    )
    flow.marked = MARKERS.get(decided.label, OWN_LABEL_MARKER)
    # Plain values only: a flow that holds anything else cannot be saved.
    flow.metadata[METADATA_KEY] = {
        "label": str(decided.label),
        "source": str(decided.source),
        "confidence": decided.confidence,
        "reason": decided.reason,
        "code": str(decided.code),
        "cached": decided.cached,
        "worker": worker.name,
    }


def show_explanation(flow: http.HTTPFlow, answer: ExplainResponse) -> str:
    """Note in comment and metadata why a flow has its label; the text that now ends the comment."""
    shares = ", ".join(f"{label} {share:.3f}" for label, share in answer.probabilities.items())
    weights = ", ".join(f"{one.feature} {one.weight:+.2f}" for one in answer.features)
    text = (
        f"{answer.label} ({answer.source} {answer.confidence:.2f} {answer.reason_code})"
        f" {answer.reasoning}; probabilities: {shares}; weighed: {weights}"
    )
    before = flow.comment.partition(EXPLAINED)[0]
    flow.comment = f"{before}{EXPLAINED}{text}"
    flow.metadata[EXPLANATION_KEY] = answer.model_dump(mode="json")
    return text


def reject(flow: http.HTTPFlow, rejection: Rejection) -> None:
    """Answer the flow here and now."""
    flow.response = http.Response.make(
        rejection.status, error_body(rejection), error_headers(rejection)
    )


def is_stream(head: http1.ResponseHead, max_buffered_bytes: int) -> bool:
    """Whether the response has to pass as it comes.

    True for all whose end is not announced (server-sent events, token streams, chunked) and for
    those too long to be held in memory.
    """
    if head.chunked or head.content_length is None:
        return head.status not in http1.NO_CONTENT
    return head.content_length > max_buffered_bytes


def announced_body_bytes(response: http.Response) -> int | None:
    """The Content-Length, or None if there is no usable one (chunked, or until the end)."""
    length = response.headers.get("content-length", "")
    usable = length.isascii() and length.isdigit() and len(length) <= http1.MAX_LENGTH_DIGITS
    return int(length) if usable and "transfer-encoding" not in response.headers else None


def joined(stream: Callable[[bytes], Iterable[bytes] | bytes]) -> Callable[[bytes], bytes]:
    """An addon's `response.stream` function as one that always returns bytes."""

    def transform(data: bytes) -> bytes:
        result = stream(data)
        return result if isinstance(result, bytes) else b"".join(result)

    return transform
