"""Pools of interchangeable workers: who may be taken, who is next, and who is busy.

Nothing here does I/O. All calls come from one event loop, so there is no lock.

A request gets a worker in two steps. First, who may be taken: those in turn by their health and not
draining; in *panic*, if these are too few, also those that can at least be reached; of them those
that are not full. Second, which of these: that is the balancing policy's choice.
"""

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, override

from addons.balancing import Balancing, policy_of
from addons.health import Check, HealthPolicy, Outcome, Reason, State
from addons.worker import Worker, WorkerState, WorkerView, parse_workers
from classifier.contracts import Label

__all__ = ["Lease", "Pool", "PoolPolicy", "Worker", "WorkerState", "WorkerView", "parse_workers"]

type Pick = Callable[[Sequence[WorkerState], random.Random], WorkerState]


class UnknownWorkerError(LookupError):
    """A pool has no worker of that name."""


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """How a pool treats its workers.

    Attributes:
        max_inflight: Most requests of the pool that one worker serves at once; 0 sets no bound.
        panic_percent: Share of the workers (those that drain left out) that has to be in turn; with
            fewer the pool panics. With 0 it does so only if there is none.
    """

    balancing: Balancing = Balancing.ROUND_ROBIN
    max_inflight: int = 0
    panic_percent: int = 30
    health: HealthPolicy = field(default_factory=HealthPolicy)


class Watcher(Protocol):
    """Who acts on what a pool sees. It is told when the pool's own state is right again."""

    def suspected(self, worker: Worker, why: Reason) -> None:
        """A try failed, perhaps by the worker's fault: a check has to verify it."""
        ...

    def changed(self, pool: "Pool", state: WorkerState, why: Reason | None) -> None:
        """A worker was taken out of turn for a reason, or is back (None)."""
        ...

    def freed(self, label: Label) -> None:
        """A worker of the label's pool may have become available."""
        ...


class Unwatched:
    """Nobody acts."""

    def suspected(self, worker: Worker, why: Reason) -> None:
        """Do nothing."""

    def changed(self, pool: "Pool", state: WorkerState, why: Reason | None) -> None:
        """Do nothing."""

    def freed(self, label: Label) -> None:
        """Do nothing."""


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

    def release(self, outcome: Outcome = Outcome.OK) -> None:
        """Give the worker back, and say how the try ended; a second call does nothing."""
        if self.released:
            return
        self.released = True
        self.pool.take_back(self.state, outcome)


class Pool:
    """Interchangeable workers for one label."""

    def __init__(
        self,
        label: Label,
        workers: Sequence[Worker],
        *,
        policy: PoolPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        before: "Pool | None" = None,
        watcher: Watcher | None = None,
    ) -> None:
        """A pool of at least one worker.

        Args:
            label: The label whose requests it serves.
            workers: Its workers, in the order in which they are served.
            policy: How it treats them.
            clock: Monotonic seconds.
            rng: Source of chance, for policies that need one.
            before: The pool that this one replaces; workers that stay keep their state.
            watcher: Who is told of what the pool sees.

        Raises:
            ValueError: If there is no worker.
        """
        if not workers:
            msg = f"pool {label} has no worker"
            raise ValueError(msg)
        self.label = label
        self.policy = policy or PoolPolicy()
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - balancing is no secret
        self._watcher = watcher or Unwatched()
        self._pick: Pick = policy_of(self.policy.balancing)
        self._max_inflight = self.policy.max_inflight
        self._panic_percent = self.policy.panic_percent
        self._successor: Pool | None = None
        known = {state.worker: state for state in before.states} if before else {}
        self.states: tuple[WorkerState, ...] = tuple(
            known.get(worker) or WorkerState(worker) for worker in workers
        )
        new_round = before is not None and _weights(before.workers) != _weights(workers)
        for state, worker in zip(self.states, workers, strict=True):
            state.worker = worker
            state.share = worker.weight
            if new_round:
                # Turns are sums of weights: those of other weights would let workers starve.
                state.turn = 0.0
        if before is not None:
            before._successor = self  # noqa: SLF001 - one of its own kind

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers, in the order in which they are served."""
        return tuple(state.worker for state in self.states)

    @override
    def __repr__(self) -> str:
        return f"<Pool {self.label} [{', '.join(str(state) for state in self.states)}]>"

    # What a request does with it

    def lease(self, exclude: Collection[Worker] = ()) -> Lease | None:
        """Take a worker, if one is available now.

        Args:
            exclude: Workers that must not be taken.
        """
        candidates = self._candidates(self._clock(), exclude)
        if self._max_inflight:
            candidates = [one for one in candidates if one.inflight < self._max_inflight]
        if not candidates:
            return None
        state = self._pick(candidates, self._rng)
        state.inflight += 1
        state.requests += 1
        return Lease(self, state)

    def is_crowded(self, exclude: Collection[Worker] = ()) -> bool:
        """Whether a `lease` that got nothing only has to wait: there are workers, but full ones."""
        return bool(self._candidates(self._clock(), exclude))

    def take_back(self, state: WorkerState, outcome: Outcome) -> None:
        """Take back a worker whose lease is released, perhaps when another pool has taken over."""
        state.inflight -= 1
        state.health.take_outcome(outcome)
        match outcome:
            case Outcome.OK | Outcome.ABANDONED:
                pass
            case Outcome.SERVER_ERROR:
                self._newest()._eject_outlier(state, Reason.SERVER_ERRORS)  # noqa: SLF001 - ditto
            case Outcome.CONNECT_FAILED | Outcome.RESPONSE_FAILED:
                why = Reason(outcome.value)
                state.errors += 1
                self._watcher.suspected(state.worker, why)
                if why is Reason.RESPONSE_FAILED:
                    self._newest()._eject_outlier(state, why)  # noqa: SLF001 - ditto
        self._watcher.freed(self.label)

    # What checks and operators do with it

    def take_check(self, worker: Worker, check: Check, why: Reason) -> None:
        """Take a health check's finding into account; other pools' workers are ignored.

        Args:
            worker: Whom it was made on.
            check: What it found.
            why: Why it was made: it was a regular HEALTH_CHECK, or it verified a failed request.
        """
        now = self._clock()
        for state in self.states:
            self._is_settled(state, now)
            if state.worker == worker:
                changed = state.health.take_check(check, why, self.policy.health, now)
                if changed:
                    self._tell(state, None if state.health.state is State.UP else why)

    def drain(self, name: str) -> None:
        """Give a worker no new requests; those under way go on.

        Raises:
            UnknownWorkerError: If there is no such worker.
        """
        self._state_of(name).draining = True

    def undrain(self, name: str) -> None:
        """Give a worker requests again.

        Raises:
            UnknownWorkerError: If there is no such worker.
        """
        self._state_of(name).draining = False
        self._watcher.freed(self.label)

    @property
    def in_turn(self) -> int:
        """How many workers get requests by their health and are not draining."""
        now = self._clock()
        return sum(self._is_settled(one, now) and not one.draining for one in self.states)

    @property
    def in_panic(self) -> bool:
        """Whether it uses workers that are failing their checks or ejected."""
        in_turn, serving = self.in_turn, [one for one in self.states if not one.draining]
        others = any(one.health.state is not State.UP and one.health.reachable for one in serving)
        return others and (not in_turn or self._are_too_few(in_turn, len(serving)))

    def views(self) -> tuple[WorkerView, ...]:
        """The workers as operators see them."""
        now = self._clock()
        for state in self.states:
            self._is_settled(state, now)
        return tuple(state.view(self.policy.health, now) for state in self.states)

    # Parts

    def _candidates(self, now: float, exclude: Collection[Worker]) -> Sequence[WorkerState]:
        """The workers that a request may be given to, full ones included."""
        candidates, in_turn, serving = [], 0, 0
        for state in self.states:
            health = state.health
            settled = health.state is State.UP or self._is_settled(state, now)
            if state.draining:
                continue
            serving += 1
            if not settled:
                continue
            in_turn += 1
            if exclude and state.worker in exclude:
                continue
            if health.slow_until:
                self._ramp(state, now)
            candidates.append(state)
        if candidates and (in_turn == serving or not self._are_too_few(in_turn, serving)):
            return candidates
        return self._last_resort(exclude)

    def _are_too_few(self, in_turn: int, serving: int) -> bool:
        return in_turn * 100 < self._panic_percent * serving

    def _last_resort(self, exclude: Collection[Worker]) -> Sequence[WorkerState]:
        """In panic: the workers in turn, and those that can at least be reached."""
        found = []
        for state in self.states:
            usable = state.health.reachable or state.health.state is State.UP
            if usable and not state.draining and state.worker not in exclude:
                found.append(state)
        if any(state.health.state is not State.UP for state in found):
            # Slow starts make way for panic.
            for state in found:
                state.share = state.worker.weight
        return found

    def _is_settled(self, state: WorkerState, now: float) -> bool:
        """Whether a worker is in turn by its health; ends its ejection if that is over."""
        if state.health.settle(self.policy.health, now):
            self._tell(state, None)
        return state.health.state is State.UP

    def _ramp(self, state: WorkerState, now: float) -> None:
        """Let a worker that was readmitted get more than before."""
        state.share = state.worker.weight * state.health.ramp(self.policy.health, now)
        if now >= state.health.slow_until:
            state.health.slow_until = 0.0

    def _newest(self) -> "Pool":
        """The pool that has taken over from this one, or else this one."""
        newest = self
        while newest._successor is not None:
            newest = newest._successor
        return newest

    def _eject_outlier(self, state: WorkerState, why: Reason) -> None:
        """Eject a worker for what it answers, if that leaves enough of the pool.

        At most half of the pool is ejected, for the errors may be the requests' fault; and never
        the last one in turn, for there would be nobody to take its place. Answers that fail are the
        requests' fault as well if most others fail at them.
        """
        others = [one for one in self.states if one is not state]
        is_mine = len(others) < len(self.states)
        if not is_mine or not state.health.is_outlier(self.policy.health):
            return
        now = self._clock()
        in_turn = [one for one in others if self._is_settled(one, now) and not one.draining]
        ejected = sum(one.health.state is State.EJECTED for one in others)
        if not in_turn or ejected >= len(self.states) // 2:
            return
        fine = sum(not one.health.failures_in_row for one in in_turn)
        if why is Reason.RESPONSE_FAILED and fine * 2 < len(in_turn):
            return
        state.health.eject(self.policy.health, now)
        self._tell(state, why)

    def _tell(self, state: WorkerState, why: Reason | None) -> None:
        self._watcher.changed(self, state, why)

    def _state_of(self, name: str) -> WorkerState:
        for state in self.states:
            if state.worker.name == name:
                return state
        known = ", ".join(worker.name for worker in self.workers)
        msg = f"no worker {name!r} in pool {self.label}; there are {known}"
        raise UnknownWorkerError(msg)


def _weights(workers: Sequence[Worker]) -> dict[Worker, int]:
    return {worker: worker.weight for worker in workers}
