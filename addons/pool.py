"""Pools of interchangeable workers: who is next, and who is busy.

Configuration (`Worker`, frozen) and state (`WorkerState`, one owner: its pool) are different types.
Nothing here does I/O. All calls come from one event loop, so there is no lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import override
from urllib.parse import urlsplit

from classifier.contracts import Label
from classifier.redaction import shown_url

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Worker:
    """One upstream endpoint."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> "Worker":
        """Read `http://host:port`.

        Raises:
            ValueError: If it is anything but scheme, host and port.
        """
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
        return cls(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme])

    @property
    def name(self) -> str:
        """`host:port`, as metrics, comments and the decision feed show it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The base URL, without a path."""
        return f"{self.scheme}://{self.name}"


def _not_an_upstream(url: str) -> str:
    return f"{shown_url(url)!r} is not an upstream; write scheme, host and port, like http://localhost:9001"


def parse_workers(upstreams: str) -> tuple[Worker, ...]:
    """Read a comma-separated list of upstreams.

    Raises:
        ValueError: If the list is empty, an entry is malformed, or one is named twice.
    """
    workers = tuple(Worker.parse(part) for part in upstreams.split(",") if part.strip())
    if not workers:
        msg = "the pool is empty; write at least one upstream, like http://localhost:9001"
        raise ValueError(msg)
    for worker in workers:
        if workers.count(worker) > 1:
            msg = f"{worker.url} is named twice; name each worker once"
            raise ValueError(msg)
    return workers


@dataclass(slots=True)
class WorkerState:
    """What the proxy has seen of a worker. Owned by its pool."""

    worker: Worker
    inflight: int = 0
    requests: int = 0
    errors: int = 0


@dataclass(slots=True)
class Lease:
    """One request's hold on a worker; give it back exactly once, by `release`."""

    pool: "Pool"
    state: WorkerState
    released: bool = field(default=False, init=False)

    @property
    def worker(self) -> Worker:
        """The worker that is held."""
        return self.state.worker

    def release(self, *, failed: bool = False) -> None:
        """Give the worker back; a second call does nothing.

        Args:
            failed: The worker's fault: no connection, no or a broken answer.
        """
        if self.released:
            return
        self.released = True
        self.state.inflight -= 1
        self.state.errors += failed


class Pool:
    """Interchangeable workers for one label, served in turn (round robin)."""

    def __init__(
        self, label: Label, workers: Sequence[Worker], before: "Pool | None" = None
    ) -> None:
        """A pool of at least one worker.

        Args:
            label: The label whose requests it serves.
            workers: Its workers, in the order in which they are served.
            before: The pool that this one replaces; workers that stay keep their state.

        Raises:
            ValueError: If there is no worker.
        """
        if not workers:
            msg = f"pool {label} has no worker"
            raise ValueError(msg)
        self.label = label
        known = {state.worker: state for state in before.states} if before else {}
        self.states: tuple[WorkerState, ...] = tuple(
            known.get(worker) or WorkerState(worker) for worker in workers
        )
        self._next = 0

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers, in the order in which they are served."""
        return tuple(state.worker for state in self.states)

    @override
    def __repr__(self) -> str:
        busy = ", ".join(f"{state.worker.name}: {state.inflight}" for state in self.states)
        return f"<Pool {self.label} [{busy}]>"

    def lease(self) -> Lease:
        """Take the next worker in turn."""
        state = self.states[self._next]
        self._next = (self._next + 1) % len(self.states)
        state.inflight += 1
        state.requests += 1
        return Lease(self, state)
