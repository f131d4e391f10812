"""All workers together: the pools, the door to them, and the checks that watch them.

This is where what one part sees reaches the others: a failed try asks for a verifying probe, a
check's finding reaches every pool that the worker is in, and a worker that is back serves those who
wait. State changes are logged here, once each.
"""

import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from addons.admission import Admission, AdmissionPolicy
from addons.balancing import Balancing
from addons.health import Check, HealthPolicy, Reason, State
from addons.hearsay import (
    MAX_EJECTED_SECONDS,
    MAX_EJECTIONS,
    Checked,
    Drained,
    Ejected,
    Message,
    Tell,
)
from addons.pool import Pool, PoolPolicy, UnknownWorkerError
from addons.probes import ProbePolicy, Probes, Turn, alone
from addons.settings import RouterSettings
from addons.worker import Worker, WorkerState
from classifier.contracts import Label
from classifier.labels_file import NO_FILE, LabelsFile

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Who is told of what happens to pools; metrics are one."""

    def ejected(self, pool: Label, reason: Reason) -> None:
        """A worker was taken out of turn."""
        ...

    def spilled(self, origin: Label, target: Label) -> None:
        """A request of one pool was given to a worker of another."""
        ...


class UnknownPoolError(LookupError):
    """There is no pool of that name."""


class Fleet:
    """The pools of all labels. One for the life of the process; settings come by `take_over`."""

    def __init__(
        self,
        observer: Observer,
        *,
        tls: Callable[[], ssl.SSLContext],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        tell: Tell | None = None,
        turn: Turn = alone,
    ) -> None:
        """A fleet without workers.

        Args:
            observer: Is told of ejections and spills.
            tls: Makes the context for workers that speak TLS; called once, when first needed.
            clock: Monotonic seconds.
            rng: Source of chance, for balancing and jitter.
            tell: Tells other proxy processes what is found out here; `hear` takes what they tell.
            turn: Whose turn it is to check the workers.
        """
        self.pools: dict[Label, Pool] = {}
        self.admission = Admission(observer)
        self._observer = observer
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - balancing is no secret
        self._tell = tell
        self._hearing = False
        self._probes = Probes(self._take_check, tls=tls, clock=clock, rng=self._rng, turn=turn)
        self._panicking: set[Label] = set()

    @property
    def workers(self) -> Iterator[Worker]:
        """Those of all pools; one that is in several comes as often."""
        return (worker for pool in self.pools.values() for worker in pool.workers)

    def take_over(self, settings: RouterSettings, labels: LabelsFile = NO_FILE) -> None:
        """Use these settings from now on; workers that stay keep their state."""
        policy = pool_policy(settings)
        pools = {
            label: Pool(
                label,
                workers,
                policy=policy,
                clock=self._clock,
                rng=self._rng,
                before=self.pools.get(label),
                watcher=self,
            )
            for label, workers in settings.workers(labels).items()
        }
        self.pools = pools
        self.admission.take_over(pools, admission_policy(settings, labels))
        self._probes.watch(self.workers, probe_policy(settings))

    def start(self) -> None:
        """Begin with the health checks; needs the running loop."""
        self._probes.start()

    async def aclose(self) -> None:
        """End the health checks."""
        await self._probes.aclose()

    # What operators do

    def drain(self, pool: str, worker: str) -> None:
        """Give a worker no new requests; those under way go on.

        Args:
            pool: Its pool's label.
            worker: Its `host:port`.

        Raises:
            UnknownPoolError: If there is no such pool.
            UnknownWorkerError: If it has no such worker.
        """
        drained = self._pool_of(pool)
        drained.drain(worker)
        logger.info("%s: %s is draining; %d in turn", pool, worker, drained.in_turn)
        # Those who wait for nobody but this worker have to look elsewhere.
        self.admission.wake(drained.label)
        self._tell_drained(drained.label, worker, draining=True)

    def undrain(self, pool: str, worker: str) -> None:
        """Give a worker requests again; for arguments and errors see `drain`."""
        undrained = self._pool_of(pool)
        undrained.undrain(worker)
        logger.info("%s: %s drains no more; %d in turn", pool, worker, undrained.in_turn)
        self._tell_drained(undrained.label, worker, draining=False)

    # What other proxy processes tell

    def hear(self, message: Message) -> None:
        """Take what another process has found out as if it had been found here.

        It is neither told on nor counted: who has found it does that. What is about workers that
        are not there is ignored, for settings may differ while they change.
        """
        self._hearing = True
        try:
            match message:
                case Checked():
                    self._hear_check(message)
                case Ejected():
                    for pool in self._named(message.pool):
                        pool.take_ejection(
                            message.worker, message.why, message.seconds, message.ejections
                        )
                case Drained():
                    self._hear_drained(message)
                case _:
                    pass
        finally:
            self._hearing = False

    def known(self) -> list[Message]:
        """What another process cannot find out by itself, or not soon."""
        now, messages = self._clock(), list[Message]()
        for pool in self.pools.values():
            for state in pool.states:
                if state.draining:
                    messages.append(
                        Drained(pool=pool.label, worker=state.worker.name, draining=True)
                    )
                if state.health.state is State.EJECTED and state.health.ejected_until > now:
                    messages.append(self._ejected(pool, state, Reason.SERVER_ERRORS))
        return messages

    # What pools tell

    def suspected(self, worker: Worker, why: Reason) -> None:
        """A try failed: verify whether that was the worker's fault."""
        self._probes.verify(worker, why)

    def changed(self, pool: Pool, state: WorkerState, why: Reason | None) -> None:
        """A worker was taken out of turn, or is back."""
        if not self._hearing:
            if why is not None:
                self._observer.ejected(pool.label, why)
            _log_change(pool, state, why)
            if self._tell and why is not None and state.health.state is State.EJECTED:
                self._tell(self._ejected(pool, state, why))
        self._log_panic(pool)
        # Also when one is gone: with the last one, those who wait have nobody to wait for.
        self.admission.wake(pool.label)

    def freed(self, label: Label) -> None:
        """Serve those who wait."""
        self.admission.wake(label)

    def _pool_of(self, name: str) -> Pool:
        for label, pool in self.pools.items():
            if label == name:
                return pool
        msg = f"no pool {name!r}; there are {', '.join(self.pools)}"
        raise UnknownPoolError(msg)

    def _take_check(self, worker: Worker, check: Check, why: Reason) -> None:
        self._spread_check(worker, check, why)
        verified = why is not Reason.HEALTH_CHECK
        # That a worker is not to blame for a failed request is of no use to others.
        if self._tell and not (verified and check is Check.PASSED):
            self._tell(Checked(worker=worker.url, check=check, why=why))

    def _spread_check(self, worker: Worker, check: Check, why: Reason) -> None:
        for pool in self.pools.values():
            pool.take_check(worker, check, why)

    def _hear_check(self, message: Checked) -> None:
        for worker in dict.fromkeys(self.workers):
            if worker.url == message.worker:
                self._spread_check(worker, message.check, message.why)

    def _hear_drained(self, message: Drained) -> None:
        for pool in self._named(message.pool):
            with contextlib.suppress(UnknownWorkerError):
                order = pool.drain if message.draining else pool.undrain
                order(message.worker)
                self.admission.wake(pool.label)

    def _tell_drained(self, pool: Label, worker: str, *, draining: bool) -> None:
        if self._tell:
            self._tell(Drained(pool=pool, worker=worker, draining=draining))

    def _ejected(self, pool: Pool, state: WorkerState, why: Reason) -> Ejected:
        health = state.health
        return Ejected(
            pool=pool.label,
            worker=state.worker.name,
            why=why,
            seconds=min(MAX_EJECTED_SECONDS, max(0.001, health.ejected_until - self._clock())),
            ejections=min(health.ejections, MAX_EJECTIONS),
        )

    def _named(self, name: str) -> Iterator[Pool]:
        return (pool for label, pool in self.pools.items() if label == name)

    def _log_panic(self, pool: Pool) -> None:
        panics = pool.in_panic
        if panics is (pool.label in self._panicking):
            return
        if panics:
            self._panicking.add(pool.label)
            logger.warning(
                "%s: too few workers are healthy; using all that can be reached", pool.label
            )
        else:
            self._panicking.discard(pool.label)


def _log_change(pool: Pool, state: WorkerState, why: Reason | None) -> None:
    name, left, count = state.worker.name, pool.in_turn, len(pool.states)
    if why is None:
        logger.info("%s: %s is back; %d of %d in turn", pool.label, name, left, count)
        return
    what = "ejected" if state.health.state is State.EJECTED else "down"
    logger.warning("%s: %s is %s (%s); %d of %d in turn", pool.label, name, what, why, left, count)


def pool_policy(settings: RouterSettings) -> PoolPolicy:
    """How pools treat their workers."""
    return PoolPolicy(
        balancing=Balancing(settings.balancing),
        max_inflight=settings.worker_max_inflight,
        panic_percent=settings.panic_percent,
        health=HealthPolicy(
            rise=settings.health_rise,
            fall=settings.health_fall,
            eject_after_errors=settings.eject_after_errors,
            eject_seconds=settings.eject_seconds,
            eject_max_seconds=settings.eject_max_seconds,
            slow_start_seconds=settings.slow_start_seconds,
        ),
    )


def admission_policy(settings: RouterSettings, labels: LabelsFile = NO_FILE) -> AdmissionPolicy:
    """Where requests go, and what happens to those that find no worker."""
    pools = {label: labels.pool_of(label) for label in labels.labels}
    return AdmissionPolicy(
        queue_requests=settings.queue_requests,
        queue_seconds=settings.queue_timeout_ms / 1000,
        spill=settings.spills(labels),
        shares={label: owner for label, owner in pools.items() if label != owner},
    )


def probe_policy(settings: RouterSettings) -> ProbePolicy:
    """How workers are checked."""
    return ProbePolicy(
        path=settings.health_path,
        interval_seconds=settings.health_interval_ms / 1000,
        timeout_seconds=settings.health_timeout_ms / 1000,
        connect_seconds=settings.connect_timeout_ms / 1000,
    )
