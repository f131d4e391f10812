"""Admission: from a label to a worker, by way of queue and spill, or to a refusal.

In this order: a worker of the label's pool; a place in that pool's queue, if all its workers are
full; the same at the pool that it spills to, if none can be used at all; else a refusal.

Invariants:
* Who comes first gets the first worker: it is handed over in the very step that frees it. Only a
  worker that has failed a request already is left to those behind it.
* A waiter that is cancelled or out of time leaves nothing behind, and no worker is lost with it.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from addons.health import Outcome
from addons.pool import Lease, Pool, Worker
from addons.routing import NO_WORKER, Rejection
from classifier.contracts import LABELS, Label

POOL_FULL = Rejection(503, "pool_full", "All workers are busy. Try again.", retry_after_seconds=1)


class Observer(Protocol):
    """Who is told of requests that another pool takes over; metrics are one."""

    def spilled(self, origin: Label, target: Label) -> None:
        """A request of one pool was given to a worker of another."""
        ...


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What happens to requests that find no worker.

    Attributes:
        queue_requests: Most requests that wait for one pool; 0 lets none wait.
        queue_seconds: Longest wait.
        spill: The pool that serves in another's place when that one has nobody.
        shares: For a label without a pool of its own, the label whose pool it shares.
    """

    queue_requests: int = 128
    queue_seconds: float = 1.0
    spill: Mapping[Label, Label] = field(default_factory=dict)
    shares: Mapping[Label, Label] = field(default_factory=dict)


type _Waiter = asyncio.Future[Lease | Rejection | None]
type _Queue = dict[_Waiter, Collection[Worker]]


class Admission:
    """The door to all pools. It outlives them: those who wait stay in line over a change."""

    def __init__(self, observer: Observer) -> None:
        """A door without pools; `take_over` brings them."""
        self._observer = observer
        self._policy = AdmissionPolicy()
        self._routes: dict[Label, tuple[Pool, ...]] = {}
        self._queues: dict[Label, _Queue] = {label: {} for label in LABELS}
        self._serving: set[Label] = set()

    def take_over(self, pools: Mapping[Label, Pool], policy: AdmissionPolicy) -> None:
        """Use these pools from now on, also for those who wait."""
        self._policy = policy
        self._routes = {label: _route(label, pools, policy.spill) for label in pools}
        for label in pools:
            self._queues.setdefault(label, {})
        for label, queue in self._queues.items():
            if label in pools:
                self.wake(label)
            else:
                _dismiss(queue)

    def waiting(self, label: Label) -> int:
        """How many requests wait for a worker of the label's pool."""
        return len(self._queues[label])

    def routes(self) -> dict[Label, tuple[Label, ...]]:
        """The pools that may serve each label, the first choice first."""
        own = {label: tuple(pool.label for pool in pools) for label, pools in self._routes.items()}
        return {**own, **{label: own[owner] for label, owner in self._policy.shares.items()}}

    def lease_now(self, label: Label) -> Lease | None:
        """Take a worker of the label's own pool if one is free; else `lease` knows what to do."""
        return self._route_of(label)[0].lease()

    async def lease(self, label: Label, exclude: Collection[Worker] = ()) -> Lease | Rejection:
        """Take a worker for a request, or refuse it.

        Args:
            label: What the request was labelled.
            exclude: Workers that must not be taken.
        """
        position = 0
        # While it waits, other pools may take over: each step looks at those of now.
        while position < len(route := self._route_of(label)):
            pool = route[position]
            lease: Lease | Rejection | None = pool.lease(exclude)
            if lease is None and pool.is_crowded(exclude):
                lease = await self._wait(pool.label, exclude)
            if lease is not None:
                return self._counted(route[0].label, lease)
            # Without the pool that it waited for it begins anew.
            position = position + 1 if pool.label in self._routes else 0
        return NO_WORKER

    def _route_of(self, label: Label) -> tuple[Pool, ...]:
        """The pools to try; those of `general` if the label has been taken out meanwhile."""
        label = self._policy.shares.get(label, label)
        return self._routes.get(label) or self._routes[Label.GENERAL]

    async def second(self, lease: Lease, exclude: Collection[Worker]) -> Lease | None:
        """Another worker for a request that a worker has failed; it may wait like a first one.

        Args:
            lease: What it held at its first try; release it before.
            exclude: Workers that must not be taken.
        """
        second = await self.lease(lease.pool.label, exclude)
        return second if isinstance(second, Lease) else None

    def wake(self, label: Label) -> None:
        """Hand out what has become available to those who wait for it."""
        queue = self._queues[label]
        # Taking a worker may itself tell of one that is back: whoever serves here goes on anyway.
        if not queue or label in self._serving:
            return
        self._serving.add(label)
        try:
            self._serve(self._routes[label][0], queue)
        finally:
            self._serving.discard(label)

    @staticmethod
    def _serve(pool: Pool, queue: _Queue) -> None:
        passed = 0
        while (waiter := next(islice(queue, passed, None), None)) is not None:
            # Cancelled or out of time, but has not had its turn in the loop since.
            if not waiter.done():
                exclude = queue[waiter]
                lease = pool.lease(exclude)
                if lease is None and pool.is_crowded(exclude):
                    if not exclude:
                        return
                    # Those behind may take the worker that this one must not.
                    passed += 1
                    continue
                # With nobody left to wait for (None) it looks for another pool.
                waiter.set_result(lease)
            del queue[waiter]

    async def _wait(self, label: Label, exclude: Collection[Worker]) -> Lease | Rejection | None:
        """Stand in line; None means that the pool has nobody to wait for any more."""
        queue = self._queues[label]
        if len(queue) >= self._policy.queue_requests:
            return POOL_FULL
        loop = asyncio.get_running_loop()
        waiter: _Waiter = loop.create_future()
        queue[waiter] = exclude
        timer = loop.call_later(self._policy.queue_seconds, _give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            # It may have been served in the same moment.
            if not waiter.cancelled() and isinstance(lease := waiter.result(), Lease):
                lease.release(Outcome.ABANDONED)
            raise
        finally:
            timer.cancel()
            queue.pop(waiter, None)

    def _counted(self, origin: Label, lease: Lease | Rejection) -> Lease | Rejection:
        if isinstance(lease, Lease) and lease.pool.label != origin:
            self._observer.spilled(origin, lease.pool.label)
        return lease


def _dismiss(queue: _Queue) -> None:
    """Have those who wait look elsewhere: their pool is no more."""
    for waiter in queue:
        if not waiter.done():
            waiter.set_result(None)
    queue.clear()


def _give_up(waiter: _Waiter) -> None:
    if not waiter.done():
        waiter.set_result(POOL_FULL)


def _route(
    label: Label, pools: Mapping[Label, Pool], spill: Mapping[Label, Label]
) -> tuple[Pool, ...]:
    """The label's pool, the one that it spills to, the one that this spills to; each once."""
    route = [pools[label]]
    while (following := spill.get(label)) is not None and pools[following] not in route:
        route.append(pools[following])
        label = following
    return tuple(route)
