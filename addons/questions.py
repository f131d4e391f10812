"""Questions to the classifier under way: each asked once, told by its deadline, ended by itself.

Invariants:
* Those who wait for a question are told something by its deadline at the latest, whatever the
  classifier does, and whether it was asked yet or still waited for its turn.
* A question is judged once, by the time since it was asked: a long queue is no fault of the
  classifier.
* One that is late runs on, for its answer is worth keeping, until its place is needed.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from addons.deadlines import FAIR_TURNS
from addons.turns import Turns
from classifier.client import FAILURE_REASONS, ClassifierError
from classifier.contracts import Classification, Label, ReasonCode, RequestView, Source

logger = logging.getLogger(__name__)

# Far below any deadline: what a question has left that gets its turn in the last moment.
NO_TIME_SECONDS = 0.001
# When our own loop was busy, a deadline can pass while the answer lies unread in the socket, or the
# connection waits for its turns: that is no fault of the classifier either. It is as many turns of
# the loop as it is slices of this time (see `fair_timeout`).
GRACE_SECONDS = 0.05

type Ask = Callable[[RequestView, float], Awaitable[Classification]]
"""Asks the classifier; the number says in how many seconds an answer is of use."""


class FallbackReason(StrEnum):
    """Why there was no decision, beside the failures that `classifier.client` names."""

    TIMEOUT = "timeout"
    QUEUE = "queue"
    """The deadline was over before it was its turn."""
    SATURATED = "saturated"
    """The queue was full."""
    BREAKER_OPEN = "breaker_open"
    """The classifier has failed too often to be asked."""
    INTERNAL = "internal"


FALLBACK_REASONS = tuple(dict.fromkeys((*FAILURE_REASONS, *FallbackReason)))
"""Every value that the reason of a fallback can take."""


def fallback(reason: str) -> Classification:
    """The decision that stands in for one: general, known to be no more than a default."""
    return Classification(Label.GENERAL, 0.0, Source.FALLBACK, reason, code=ReasonCode(reason))


def failure_text(error: Exception) -> str:
    """Type and place of an unforeseen error. Its message stays out: it may repeat a payload."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


@dataclass(slots=True, eq=False)
class Question:
    """One question, shared by all requests that are equal, or of one shape.

    Attributes:
        key: What the requests have in common that share it.
        exact: Fingerprint of the request that is put to the classifier.
        generation: Of the breaker, when the question was put.
        deadline: By when those who wait are told something; in the loop's time, like `asked_at`.
        told: What those who wait are told. Await it shielded: others wait for it as well.
        asked_at: None while it waits for its turn.
        judged: Whether the classifier has been given credit or blame for it.
    """

    key: bytes
    exact: bytes
    view: RequestView
    generation: int
    deadline: float
    told: asyncio.Future[Classification] = field(default_factory=asyncio.Future)
    asked_at: float | None = None
    judged: bool = False
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None

    def tell(self, answer: Classification) -> None:
        """Answer those who wait, unless they have been told something already."""
        if not self.told.done():
            self.told.set_result(answer)


class Listener(Protocol):
    """Who learns from questions."""

    def answered(self, question: Question, answer: Classification) -> None:
        """There is an answer, in time or late."""
        ...

    def failed(self, question: Question, failure: Classification) -> None:
        """Those who wait are about to be told that the classifier failed them."""
        ...

    def judged(self, question: Question, fault: str | None) -> None:
        """What became of it within its time; `fault` is the reason of a failure, or None."""
        ...


class Questions:
    """All questions under way."""

    def __init__(
        self,
        ask: Ask,
        listener: Listener,
        *,
        timeout_seconds: float,
        max_inflight: int,
        max_queue: int,
    ) -> None:
        """No question yet; see `Limits` for the bounds."""
        self._ask = ask
        self._listener = listener
        self._timeout_seconds = timeout_seconds
        self._turns: Turns[Question] = Turns(
            at_once=max_inflight, waiting=max_queue, start=self._start, evict=self._evict
        )
        self._by_key: dict[bytes, Question] = {}

    @property
    def inflight(self) -> int:
        """How many are being asked now, late ones included."""
        return len(self._turns.running)

    @property
    def queued(self) -> int:
        """How many wait for their turn."""
        return self._turns.queued

    def find(self, key: bytes) -> Question | None:
        """The question with this key that has not ended."""
        return self._by_key.get(key)

    def put(
        self, key: bytes, view: RequestView, generation: int, exact: bytes | None = None
    ) -> Question | None:
        """Ask, now or when it is its turn; None if too many wait already.

        Args:
            key: What others must have to share the answer.
            view: The request.
            generation: Of the breaker.
            exact: The fingerprint, if `key` is another.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        question = Question(key, exact or key, view, generation, deadline)
        if not self._turns.enter(question):
            return None
        self._by_key[key] = question
        # With the eager tasks of mitmproxy's loop it may have been answered by now.
        if question.timer is None and not question.judged:
            question.timer = loop.call_at(question.deadline, self._overdue, question)
        return question

    def dismiss_queue(self, reason: str) -> None:
        """Tell those who wait for their turn that it will not come."""
        for question in self._turns.empty_queue():
            self._forget(question, reason)

    def drop_late(self) -> None:
        """End the questions for which nobody waits any more."""
        self._turns.evict_lapsed()

    async def drain(self) -> None:
        """Wait until none is under way; they end by themselves."""
        while tasks := [question.task for question in self._turns.running if question.task]:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # wait() returns at once if they are done; `_ended` comes next

    async def aclose(self) -> None:
        """End all; those who wait for them get a fallback."""
        self.dismiss_queue(FallbackReason.INTERNAL)
        for question in list(self._turns.running):
            self._evict(question)
        await self.drain()

    def _start(self, question: Question) -> None:
        loop = asyncio.get_running_loop()
        question.asked_at = loop.time()
        question.task = loop.create_task(self._run(question), name="classify")
        # A callback comes from the loop, after whoever has put the question is done with it.
        question.task.add_done_callback(lambda _: self._ended(question))

    async def _run(self, question: Question) -> None:
        left = question.deadline - asyncio.get_running_loop().time()
        try:
            answer = await self._ask(question.view, max(left, NO_TIME_SECONDS))
        except ClassifierError as exc:
            self._failed(question, exc.reason)
        except Exception as exc:
            # Supervisor of a background task: nothing above it would see the error.
            logger.error("asking the classifier failed: %s", failure_text(exc))
            self._failed(question, FallbackReason.INTERNAL)
        else:
            self._listener.answered(question, answer)
            question.tell(answer)
            self._judge(question, None)

    def _failed(self, question: Question, reason: str) -> None:
        if not question.told.done():
            failure = fallback(reason)
            self._listener.failed(question, failure)
            question.tell(failure)
        self._judge(question, reason)

    def _overdue(self, question: Question) -> None:
        """The deadline is over."""
        if question.asked_at is None:
            self._turns.withdraw(question)
            self._forget(question, FallbackReason.QUEUE)
            return
        failure = fallback(FallbackReason.TIMEOUT)
        self._listener.failed(question, failure)
        question.tell(failure)
        loop = asyncio.get_running_loop()
        until = question.asked_at + self._timeout_seconds
        question.timer = loop.call_at(until, self._lapse_after, question, FAIR_TURNS)

    def _lapse_after(self, question: Question, turns: int) -> None:
        """The classifier has had its time; from so many turns on the question is a late one."""
        if turns:
            loop = asyncio.get_running_loop()
            question.timer = loop.call_later(
                GRACE_SECONDS / FAIR_TURNS, self._lapse_after, question, turns - 1
            )
            return
        self._judge(question, FallbackReason.TIMEOUT)
        self._turns.lapse(question)

    def _judge(self, question: Question, fault: str | None) -> None:
        if not question.judged:
            question.judged = True
            self._listener.judged(question, fault)

    def _ended(self, question: Question) -> None:
        self._forget(question, FallbackReason.INTERNAL)
        self._turns.leave(question)

    def _evict(self, question: Question) -> None:
        # An equal one may be put from now on; this one keeps its place until its task has ended.
        self._forget(question, FallbackReason.INTERNAL)
        if question.task is not None:
            question.task.cancel()

    def _forget(self, question: Question, reason: str) -> None:
        if question.timer is not None:
            question.timer.cancel()
        if self._by_key.get(question.key) is question:
            del self._by_key[question.key]
        question.tell(fallback(reason))
