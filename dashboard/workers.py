"""The workers of each pool, as the proxy's control port tells of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from dashboard.health import EndpointError
from dashboard.scrape import Labels, Scrape, total
from dashboard.window import Increase

REQUESTS = "requests"

type Count = Annotated[int, Field(ge=0, le=2**53)]
"""What a browser's numbers can hold: a greater one could not be shown."""


class _Worker(BaseModel):
    name: str
    url: str
    inflight: Count
    requests: Count
    errors: Count


class _Pool(BaseModel):
    label: str
    workers: list[_Worker]


class PoolsAnswer(BaseModel):
    """Body of `GET /v1/pools`."""

    pools: list[_Pool]

    def as_scrape(self) -> Scrape:
        """The request counts as counters, so that a `Window` can tell how they grew."""
        counts: dict[Labels, float] = {
            frozenset({("pool", pool.label), ("worker", worker.name)}): worker.requests
            for pool in self.pools
            for worker in pool.workers
        }
        return Scrape({}, {REQUESTS: counts})


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """One worker now.

    Attributes:
        per_second: Requests sent to it; None while that is not known.
        share: Its part of its pool's requests of late, 0 to 1; None if there were none.
    """

    pool: str
    name: str
    url: str
    inflight: int
    requests: int
    errors: int
    per_second: float | None
    share: float | None


def parse_pools(body: bytes) -> PoolsAnswer:
    """Read the answer of `GET /v1/pools`.

    Raises:
        EndpointError: If it is something else.
    """
    try:
        return PoolsAnswer.model_validate_json(body)
    except ValidationError as exc:
        msg = "unreadable"
        raise EndpointError(msg) from exc


def worker_figures(answer: PoolsAnswer, recent: Increase | None) -> tuple[WorkerFigures, ...]:
    """All workers in the order of the answer."""
    return tuple(_figures(answer.pools, recent))


def _figures(pools: Iterable[_Pool], recent: Increase | None) -> Iterable[WorkerFigures]:
    for pool in pools:
        whole = total(recent.samples, REQUESTS, pool=pool.label) if recent else None
        for worker in pool.workers:
            key = {"pool": pool.label, "worker": worker.name}
            sent = total(recent.samples, REQUESTS, **key) if recent else None
            yield WorkerFigures(
                pool=pool.label,
                name=worker.name,
                url=worker.url,
                inflight=worker.inflight,
                requests=worker.requests,
                errors=worker.errors,
                per_second=sent / recent.seconds if recent and sent is not None else None,
                share=sent / whole if sent is not None and whole else None,
            )
