"""How the proxy gets a label: cache, single flight, deadline, breaker, fallback.

Invariants:
* `LabelSource.classify` always answers, within the deadline, whatever the classifier does.
* What is known of one request is told to all of its shape: looked up are the exact request, then
  its shape (`classifier.shape`). Requests of one shape share one question.
* A fallback is never kept as a label, and a provisional answer only for `provisional_ttl_seconds`:
  no longer does a better one wait that the classifier has by then. That a question has failed is
  remembered for a few seconds, or until the classifier has recovered.
* An answer that comes too late for its own request still fills the cache.
* At most `max_inflight` questions are open at any time; each ends by itself.
* While the classifier keeps failing, no request waits for it: one question at a time finds out,
  in the background, whether it answers again.
"""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace

from cachetools import TTLCache

from addons.breaker import Breaker, BreakerPolicy, BreakerState
from addons.questions import (
    FALLBACK_REASONS,
    Ask,
    FallbackReason,
    Question,
    Questions,
    failure_text,
    fallback,
)
from classifier.contracts import Classification, RequestView, Source
from classifier.shape import shape_key

__all__ = [
    "FALLBACK_REASONS",
    "Ask",
    "FallbackReason",
    "LabelSource",
    "Limits",
    "failure_text",
    "fallback",
]

logger = logging.getLogger(__name__)

MAX_FAILED_QUESTIONS = 4_096
MAX_PROVISIONAL_LABELS = 4_096

# Asked when no request has come since the last trial: never a question that failed, for it may be
# one that always does.
TRIAL_VIEW = RequestView("GET", "/health")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a `LabelSource`.

    Attributes:
        timeout_seconds: Longest wait of one request for its label.
        max_inflight: Most open questions to the classifier.
        max_queue: Most questions that wait for their turn.
        cache_entries: Most labels kept, by request and by shape each; 0 keeps none.
        cache_ttl_seconds: How long a label is kept.
        fallback_ttl_seconds: How long a question that failed is not asked again.
        breaker: When the classifier is not asked for a while.
        cache_shapes: Whether requests of one shape share a label.
        provisional_ttl_seconds: How long a provisional label is used before it is asked for again.
    """

    timeout_seconds: float
    max_inflight: int
    max_queue: int
    cache_entries: int
    cache_ttl_seconds: float
    fallback_ttl_seconds: float
    breaker: BreakerPolicy
    provisional_ttl_seconds: float = 1.0
    cache_shapes: bool = False


class LabelSource:
    """Answers every request with a label, and remembers answers.

    Attributes:
        on_kept: Told of each answer of the classifier that is kept: the request's fingerprint, the
            key of its shape (None if the label is the request's alone), and the answer.
    """

    def __init__(self, ask: Ask, limits: Limits, clock: Callable[[], float]) -> None:
        """A label source with an empty cache.

        Args:
            ask: The question to the classifier. May raise `ClassifierError`; must end by itself.
            limits: Its bounds.
            clock: Monotonic seconds, for what is remembered and for the breaker.
        """
        self._limits = limits
        self._cache: MutableMapping[bytes, Classification] = TTLCache(
            limits.cache_entries, limits.cache_ttl_seconds, timer=clock
        )
        self._shapes: MutableMapping[bytes, Classification] = TTLCache(
            limits.cache_entries, limits.cache_ttl_seconds, timer=clock
        )
        self._failures: MutableMapping[bytes, Classification] = TTLCache(
            MAX_FAILED_QUESTIONS, limits.fallback_ttl_seconds, timer=clock
        )
        self._provisional: MutableMapping[bytes, Classification] = TTLCache(
            MAX_PROVISIONAL_LABELS, limits.provisional_ttl_seconds, timer=clock
        )
        self._breaker = Breaker(limits.breaker, clock)
        self._questions = Questions(
            ask,
            self,
            timeout_seconds=limits.timeout_seconds,
            max_inflight=limits.max_inflight,
            max_queue=limits.max_queue,
        )
        self._refused: RequestView | None = None
        self._trial: asyncio.TimerHandle | None = None
        self._ending = False
        self.on_kept: Callable[[bytes, bytes | None, Classification], None] | None = None
        self.cache_hits = 0
        self.cache_misses = 0
        self.shape_hits = 0
        self.shape_misses = 0

    @property
    def cache_entries(self) -> int:
        """How many labels of requests are kept now."""
        return len(self._cache)

    @property
    def shape_entries(self) -> int:
        """How many labels of shapes are kept now."""
        return len(self._shapes)

    @property
    def inflight(self) -> int:
        """How many questions are open now."""
        return self._questions.inflight

    @property
    def queued(self) -> int:
        """How many questions wait for their turn now."""
        return self._questions.queued

    @property
    def breaker_state(self) -> BreakerState:
        """Whether the classifier is asked."""
        return self._breaker.state

    def known(self, key: bytes) -> Classification | None:
        """What can be told at once of a request with this fingerprint: a label, or a failure."""
        try:
            label = self._cache[key]
        except KeyError:
            provisional = self._provisional.get(key)
            if provisional is None:
                return self._known_failure(key)
            label = provisional
        self.cache_hits += 1
        return label

    async def classify(self, view: RequestView, key: bytes | None = None) -> Classification:
        """The label of a request: decided, remembered or, in the end, `general` as a fallback.

        Args:
            view: The request.
            key: Its fingerprint, if the caller has worked it out already.
        """
        key = view.fingerprint() if key is None else key
        if (known := self.known(key)) is not None:
            return known
        self.cache_misses += 1
        shape = shape_key(view) if self._limits.cache_shapes else None
        if shape is not None and (known := self._known_shape(shape, key)) is not None:
            return known
        if self._breaker.state is not BreakerState.CLOSED:
            self._refused = view
            return fallback(FallbackReason.BREAKER_OPEN)
        return await self._asked(shape or key, view, key)

    def share_cache(self, other: "LabelSource") -> None:
        """Keep labels in the cache of another source, with those that are there.

        Its bounds and clock have to be the same.
        """
        self._cache, self._shapes = other._cache, other._shapes  # noqa: SLF001 - of the same class

    def clear(self) -> int:
        """Forget all labels; return of how many requests they were."""
        entries = len(self._cache)
        self._cache.clear()
        self._shapes.clear()
        self._provisional.clear()
        return entries

    async def drain(self) -> None:
        """Wait until no question is open; they end by themselves. There are no more trials."""
        self._end_trials()
        await self._questions.drain()

    async def aclose(self) -> None:
        """Drop the open questions; those who wait for them get a fallback."""
        self._end_trials()
        await self._questions.aclose()

    # What questions tell

    def answered(self, question: Question, answer: Classification) -> None:
        """Keep an answer, in time or late."""
        self._failures.pop(question.exact, None)
        if not self._limits.cache_entries:
            return
        # A hit shall cost no more than looking it up: it is kept as it will be told.
        kept = replace(answer, cached=True)
        exact = self._provisional if answer.provisional else self._cache
        exact[question.exact] = kept
        shared = question.key != question.exact and answer.source is not Source.RULE
        if shared:
            shapes = self._provisional if answer.provisional else self._shapes
            shapes[question.key] = kept
        if self.on_kept is not None and not answer.provisional:
            self.on_kept(question.exact, question.key if shared else None, answer)

    def keep(self, exact: bytes, shape: bytes | None, answer: Classification) -> None:
        """Keep an answer that another process has got, as if it had been given here.

        Args:
            exact: Fingerprint of the request.
            shape: Key of its shape; None if the label is the request's alone.
            answer: The answer, already marked as out of a cache.
        """
        if not self._limits.cache_entries:
            return
        self._failures.pop(exact, None)
        self._cache[exact] = answer
        if shape is not None and self._limits.cache_shapes:
            self._shapes[shape] = answer

    def failed(self, question: Question, failure: Classification) -> None:
        """Do not ask again for a while.

        Only this very request: what failed may be its literals, and others of its shape are well.
        """
        self._failures[question.exact] = failure

    def judged(self, question: Question, fault: str | None) -> None:
        """Have the breaker count it."""
        if fault is None:
            if self._breaker.succeeded(question.generation):
                self._recovered()
            return
        was_closed = self._breaker.state is BreakerState.CLOSED
        if not self._breaker.failed(question.generation):
            return
        if was_closed:
            logger.warning("the classifier fails (%s): labels are general for now", fault)
        self._questions.dismiss_queue(FallbackReason.BREAKER_OPEN)
        self._plan_trial()

    # Recovery

    def _recovered(self) -> None:
        logger.info("the classifier answers again")
        self._failures.clear()
        # Asked while it failed: what has not been answered by now is stuck.
        self._questions.drop_late()

    def _plan_trial(self) -> None:
        if not self._ending:
            loop = asyncio.get_running_loop()
            self._trial = loop.call_later(self._breaker.trial_in_seconds, self._try_again)

    def _try_again(self) -> None:
        if not self._breaker.try_again():
            self._plan_trial()
            return
        view, self._refused = self._refused or TRIAL_VIEW, None
        trial = self._questions.put(view.fingerprint(), view, self._breaker.generation)
        if trial is None:
            self._breaker.failed(self._breaker.generation)
            self._plan_trial()
            return
        # It may end without having been asked: then nothing else would judge it.
        trial.told.add_done_callback(lambda told: self._trial_told(trial, told.result()))

    def _trial_told(self, trial: Question, answer: Classification) -> None:
        self.judged(trial, answer.reason if answer.source is Source.FALLBACK else None)

    def _end_trials(self) -> None:
        self._ending = True
        if self._trial is not None:
            self._trial.cancel()

    async def _asked(self, shared: bytes, view: RequestView, key: bytes) -> Classification:
        """The answer to a question that is shared with all that have the same to share."""
        question = self._questions.find(shared)
        if question is None:
            question = self._questions.put(shared, view, self._breaker.generation, key)
        if question is None:
            return fallback(FallbackReason.SATURATED)
        # Our own cancellation is not handed on: followers and the cache still want the answer.
        answer = await asyncio.shield(question.told)
        if answer.source is Source.RULE and question.exact != key:
            # A rule of the service's may go by a literal, and this request has others.
            return await self._asked(key, view, key)
        return answer

    def _known_shape(self, shape: bytes, key: bytes) -> Classification | None:
        """The label of a request's shape; it is the request's own from now on."""
        label = self._shapes.get(shape)
        if label is not None:
            self._cache[key] = label
        else:
            label = self._provisional.get(shape)
        if label is None:
            self.shape_misses += 1
        else:
            self.shape_hits += 1
        return label

    def _known_failure(self, key: bytes) -> Classification | None:
        """Why there will be no label: it failed a moment ago, or it is late and still asked."""
        failure = self._failures.get(key) if self._failures else None
        if failure is None:
            question = self._questions.find(key)
            failure = question.told.result() if question and question.told.done() else None
        if failure is not None:
            self.cache_misses += 1
        return failure
