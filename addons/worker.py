"""A worker: what settings say of it, what the proxy has seen of it, and how operators see it.

Three types on purpose: configuration (`Worker`, frozen), state (`WorkerState`, one owner: its pool)
and a picture of both at one time (`WorkerView`, frozen).
"""

import re
from dataclasses import dataclass, field
from typing import override
from urllib.parse import urlsplit

from addons.health import Health, HealthPolicy, State
from classifier.redaction import shown_url

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_WEIGHT = 1_000
_WEIGHT = re.compile(r"\s*weight=([1-9][0-9]{0,3})\s*")


@dataclass(frozen=True, slots=True)
class Worker:
    """One upstream endpoint.

    Attributes:
        weight: Its share of the pool's requests, relative to the other workers'. It is no part of
            what a worker is: with another weight it keeps its state.
        name: `host:port`, as metrics, comments and the decision feed show it.
    """

    scheme: str
    host: str
    port: int
    weight: int = field(default=1, compare=False)
    name: str = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host
        object.__setattr__(self, "name", f"{host}:{self.port}")
        # It is a key of tables that each request looks into.
        object.__setattr__(self, "_hash", hash((self.scheme, self.host, self.port)))

    @override
    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def parse(cls, upstream: str) -> "Worker":
        """Read `http://host:port` or `http://host:port;weight=3`.

        Raises:
            ValueError: If it is anything else.
        """
        url, semicolon, parameter = upstream.partition(";")
        weight = _weight_of(upstream, parameter) if semicolon else 1
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise ValueError(_not_an_upstream(url)) from None
        bare = parts.path in {"", "/"} and not parts.query and not parts.fragment
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or parts.username or not bare:
            raise ValueError(_not_an_upstream(url))
        if port == 0 or any(char.isspace() for char in parts.netloc):
            raise ValueError(_not_an_upstream(url))
        return cls(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], weight)

    @property
    def url(self) -> str:
        """The base URL, without a path."""
        return f"{self.scheme}://{self.name}"


def _not_an_upstream(url: str) -> str:
    return f"{shown_url(url)!r} is not an upstream; write scheme, host and port, like http://localhost:9001"


def _weight_of(upstream: str, parameter: str) -> int:
    match = _WEIGHT.fullmatch(parameter)
    weight = int(match[1]) if match else 0
    if not 0 < weight <= MAX_WEIGHT:
        shown = shown_url(upstream)
        msg = (
            f"{shown!r} has no usable weight; write 1 to {MAX_WEIGHT},"
            " like http://localhost:9001;weight=3"
        )
        raise ValueError(msg)
    return weight


def parse_workers(upstreams: str) -> tuple[Worker, ...]:
    """Read a comma-separated list of upstreams.

    Raises:
        ValueError: If the list is empty, an entry is malformed, or one is named twice.
    """
    workers = tuple(Worker.parse(part) for part in upstreams.split(",") if part.strip())
    if not workers:
        msg = "the pool is empty; write at least one upstream, like http://localhost:9001"
        raise ValueError(msg)
    names = [worker.name for worker in workers]
    for worker in workers:
        # One name is one worker to operators and metrics, whatever its scheme.
        if names.count(worker.name) > 1:
            msg = f"{worker.name} is named twice; name each worker once"
            raise ValueError(msg)
    return workers


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as operators see it.

    Attributes:
        reachable: Whether it could be connected to when it was last tried.
        slow_start: It was readmitted a short while ago and gets less than its full share.
        share: Its weight as it counts now.
        ejected_seconds: How much longer it is ejected.
        ejections: How often it was ejected, less what has been forgiven.
    """

    name: str
    url: str
    weight: int
    inflight: int
    requests: int
    errors: int
    health: State
    reachable: bool
    draining: bool
    slow_start: bool
    share: float
    ejected_seconds: float
    ejections: int


@dataclass(slots=True)
class WorkerState:
    """What the proxy has seen of a worker. Owned by its pool.

    Attributes:
        requests: How often it was tried.
        errors: How many of these tries brought no whole answer, by its fault.
        draining: It gets no new requests, healthy or not.
        share: Its weight, less while it starts slowly.
        turn: Where it stands in the round.
    """

    worker: Worker
    inflight: int = 0
    requests: int = 0
    errors: int = 0
    draining: bool = False
    health: Health = field(default_factory=Health)
    share: float = 1.0
    turn: float = 0.0

    @override
    def __str__(self) -> str:
        health = "" if self.health.state is State.UP else f" {self.health.state}"
        draining = " draining" if self.draining else ""
        return f"{self.worker.name}: {self.inflight}{health}{draining}"

    def view(self, policy: HealthPolicy, now: float) -> WorkerView:
        """How operators see it at `now`, in monotonic seconds."""
        worker, health = self.worker, self.health
        ramp = health.ramp(policy, now) if health.state is State.UP else 1.0
        ejected = health.state is State.EJECTED
        return WorkerView(
            name=worker.name,
            url=worker.url,
            weight=worker.weight,
            inflight=self.inflight,
            requests=self.requests,
            errors=self.errors,
            health=health.state,
            reachable=health.reachable,
            draining=self.draining,
            slow_start=ramp < 1,
            share=round(worker.weight * ramp, 3),
            ejected_seconds=round(health.ejected_until - now, 1) if ejected else 0.0,
            ejections=health.ejections,
        )
