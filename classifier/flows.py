"""Recorded flows as requests to label. The only module of this package that knows mitmproxy.

Who needs it imports it when a file of flows has been named, not before.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from mitmproxy import exceptions, flowfilter, http
from mitmproxy.io import FlowReader

from classifier.contracts import Classification, Label, ReasonCode, Source
from classifier.evaluation.samples import BadInputError, Sample, sample_of

TRUTH_HEADER: Final = "x-true-label"
"""A response header by which a worker, who knows what a request cost, may say its right label."""
TRUTH_METADATA: Final = "true_label"
_TRUTH_COMMENT: Final = re.compile(r"\btrue:\s*([a-z0-9-]+)")
_DECISION_METADATA: Final = "router"
"""Where the proxy notes what it decided."""


def read_flows(path: Path, expression: str | None = None) -> Iterator[Sample]:
    """The HTTP requests of a file that mitmproxy saved, in its order.

    Args:
        path: The file.
        expression: One of mitmproxy's filter expressions; None takes all.

    Raises:
        BadInputError: If the file or the expression cannot be read.
    """
    matches = _filter(expression)
    try:
        with path.open("rb") as file:
            flows = (flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow))
            for number, flow in enumerate(flows, start=1):
                if matches is None or matches(flow):
                    yield _sample(flow, f"flow {number}")
    except OSError as exc:
        msg = f"{path}: cannot be read ({exc.strerror})"
        raise BadInputError(msg) from exc
    except exceptions.FlowReadException as exc:
        msg = f"{path}: is no file of flows, or ends in the middle of one"
        raise BadInputError(msg) from exc


def _filter(expression: str | None) -> flowfilter.TFilter | None:
    if expression is None:
        return None
    try:
        return flowfilter.parse(expression)
    except ValueError as exc:
        msg = f"{expression!r} is no filter expression of mitmproxy's"
        raise BadInputError(msg) from exc


def _sample(flow: http.HTTPFlow, place: str) -> Sample:
    """A flow as a request to label, with what was decided about it and what is known to be right.

    Raises:
        BadInputError: If its right label is given and is no label.
    """
    request = flow.request
    # `raw_content`, not `content`: nothing is decoded here, so a body cannot blow up. It is None if
    # the body passed as it came.
    body = request.raw_content
    sample = sample_of(
        place,
        request.method,
        request.path,
        request.headers.items(multi=True),
        body or b"",
        body_bytes=-1 if body is None else len(body),
        peer=next(map(str, flow.client_conn.peername or ()), ""),
    )
    recorded = _recorded(flow.metadata.get(_DECISION_METADATA))
    return replace(sample, truth=_truth(flow, place), recorded=recorded)


def _truth(flow: http.HTTPFlow, place: str) -> Label | None:
    """The right label, as noted in metadata, in the comment, or by a worker in a header."""
    noted = flow.metadata.get(TRUTH_METADATA)
    if not noted and (in_comment := _TRUTH_COMMENT.search(flow.comment)):
        noted = in_comment[1]
    if not noted and flow.response is not None:
        noted = flow.response.headers.get(TRUTH_HEADER)
    try:
        return Label(str(noted)) if noted else None
    except ValueError as exc:
        msg = f"{place}: {exc}"
        raise BadInputError(msg) from exc


def _recorded(noted: object) -> Classification | None:
    """What the proxy noted about its decision; None if there is nothing usable."""
    if not isinstance(noted, Mapping):
        return None
    try:
        return Classification(
            label=Label(str(noted["label"])),
            confidence=min(1.0, max(0.0, float(noted.get("confidence", 0.0)))),
            source=Source(noted.get("source", Source.FALLBACK)),
            reason=str(noted.get("reason", "")),
            cached=bool(noted.get("cached")),
            code=ReasonCode(noted.get("code", ReasonCode.UNCLEAR)),
        )
    except (KeyError, TypeError, ValueError):
        return None
