"""How much, and for how long: the bounds of the data path, as its parts want them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what clients may do; times in seconds.

    Attributes:
        head_bytes: Longest request head.
        head_fields: Most fields of it.
        body_bytes: Longest request body.
        head_seconds: For a head to come, from the connection's start or from its first byte.
        progress_seconds: Without progress, while a body is read or an answer is written.
        keepalive_seconds: How long a connection may be idle between requests.
        connections: Most connections.
        connections_per_client: Most connections from one address; 0 is no limit.
    """

    head_bytes: int
    head_fields: int
    body_bytes: int
    head_seconds: float
    progress_seconds: float
    keepalive_seconds: float
    connections: int
    connections_per_client: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one exchange; times in seconds.

    Attributes:
        classify_body_bytes: How much of a body the classifier reads.
        total_seconds: For everything, from the request's head to the end of the answer.
        client_headers: Tell the client what was decided.
    """

    classify_body_bytes: int
    total_seconds: float
    client_headers: bool


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for a worker, all in seconds.

    Attributes:
        connect: For a connection.
        first_byte: From the end of the request to the end of the answer's head.
        idle: Between two pieces of the answer.
        keepalive: How long an idle connection is kept.
    """

    connect: float
    first_byte: float
    idle: float
    keepalive: float
