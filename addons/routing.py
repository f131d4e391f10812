"""The decision, pure and synchronous: a classification in, a route out."""

from collections.abc import Mapping
from dataclasses import dataclass

from addons.pool import Lease, Pool
from classifier.contracts import Classification, Label

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


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, and why."""

    classification: Classification
    lease: Lease

    def headers(self) -> tuple[tuple[str, str], ...]:
        """What the worker is told."""
        decided = self.classification
        return (
            (ROUTE_LABEL_HEADER, decided.label),
            (ROUTE_CONFIDENCE_HEADER, f"{decided.confidence:.3f}"),
            (ROUTE_SOURCE_HEADER, decided.source),
        )


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
NO_TUNNELS = Rejection(405, "connect_not_allowed", "This is a reverse proxy; CONNECT is refused.")


def decide(classification: Classification, pools: Mapping[Label, Pool]) -> Route:
    """Take a worker of the label's pool for this request."""
    return Route(classification, pools[classification.label].lease())
