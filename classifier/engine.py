"""The cascade: rules, cache, examples, local model, and the LLM when the local model is unsure.

Invariants:
* Every question gets an answer, at the latest when its deadline is over: the local model's. In the
  background mode nobody waits for the LLM at all.
* Equal questions call the LLM once, however many ask at the same time.
* What the LLM says fills the cache, whether anybody waited for it or not.
* What it says is taken only within what the local model leaves open (`classifier.plausibility`).
* A question that the LLM could not answer is not put to it again for `FAILED_QUESTION_SECONDS`;
  one whose answer was overruled is not, as long as the answer is kept.
* Nothing that was found under one policy is kept under the next.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from cachetools import TTLCache

from classifier.cache import DecisionCache
from classifier.contracts import Classification, Label, RequestView, Source
from classifier.inquiries import Inquiries, Inquiry
from classifier.llm import LlmCallError, LlmError
from classifier.metrics import Metrics
from classifier.plausibility import fault_of
from classifier.policy import BUILT_IN_POLICY, Policy
from classifier.rules import RequestFacts

logger = logging.getLogger(__name__)

FAILED_QUESTION_SECONDS = 60.0
OVERRULED_SECONDS = 3_600.0
MAX_REMEMBERED_QUESTIONS = 4_096


class LocalDecider(Protocol):
    """A model in this process: sure or not, it answers at once."""

    def classify(self, view: RequestView) -> Classification:
        """Label a request; never raises."""
        ...

    def probabilities(self, view: RequestView) -> dict[Label, float]:
        """The probability of every label that it knows; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """Whom to ask when the local model is unsure.

    Attributes:
        ask: The question. May raise `LlmError`; must end by itself.
        available: Whether asking makes sense now.
        max_inflight: Most questions at once.
        max_queue: Most that wait for that.
        waits: Whether requests wait for the answer.
        min_local_probability: What the local model must give the answer's label at least.
    """

    ask: Callable[[RequestView], Awaitable[Classification]]
    available: Callable[[], bool]
    max_inflight: int
    max_queue: int = 0
    waits: bool = True
    min_local_probability: float = 0.0


class Engine:
    """Decides about requests, one at a time or many at once, in one event loop."""

    def __init__(
        self,
        model: LocalDecider,
        *,
        min_confidence: float,
        cache: DecisionCache,
        metrics: Metrics,
        clock: Callable[[], float],
        second_opinion: SecondOpinion | None = None,
        key: Callable[[RequestView], bytes] = RequestView.fingerprint,
        policy: Policy = BUILT_IN_POLICY,
    ) -> None:
        """A cascade over the given parts.

        Args:
            model: The local model.
            min_confidence: Below it the second opinion is asked, for labels without their own.
            cache: Where answers are kept.
            metrics: Observer of cache and LLM.
            clock: Monotonic seconds.
            second_opinion: None if no LLM is configured.
            key: Requests with equal keys share an answer, and a question to the LLM.
            policy: What to go by until there is another.
        """
        self._model = model
        self._min_confidence = min_confidence
        self._cache = cache
        self._metrics = metrics
        self._clock = clock
        self._policy = policy
        self._second_opinion = second_opinion
        self._key = key
        self._inquiries: Inquiries | None = None
        if second_opinion is not None:
            self._inquiries = Inquiries(
                self._opinion(second_opinion),
                second_opinion.available,
                max_inflight=second_opinion.max_inflight,
                max_queue=second_opinion.max_queue,
                dropped=metrics.llm_skipped.inc,
            )
        self._failed: TTLCache[bytes, bool] = TTLCache(
            MAX_REMEMBERED_QUESTIONS, FAILED_QUESTION_SECONDS, timer=clock
        )
        self._overruled: TTLCache[bytes, bool] = TTLCache(
            MAX_REMEMBERED_QUESTIONS, OVERRULED_SECONDS, timer=clock
        )

    @property
    def llm_inflight(self) -> int:
        """How many questions are at the LLM now."""
        return self._inquiries.inflight if self._inquiries else 0

    @property
    def llm_queued(self) -> int:
        """How many questions wait for the LLM."""
        return self._inquiries.queued if self._inquiries else 0

    async def classify(
        self,
        view: RequestView,
        deadline_seconds: float | None,
        facts: RequestFacts | None = None,
    ) -> Classification:
        """Label a request.

        Args:
            view: The request.
            deadline_seconds: Answer within this time; None waits for the LLM to end, where
                requests wait for it.
            facts: What rules may know of the request; without them none applies.
        """
        if facts is not None and (ordered := self._policy.ordered(facts)) is not None:
            return ordered
        key = self._key(view)
        if (known := self._cache.get(key)) is not None and not self._worth_asking(key, known):
            self._metrics.cache_hits.inc()
            return known
        self._metrics.cache_misses.inc()
        inquiry = self._inquiries.find(key) if self._inquiries else None
        if inquiry is None:
            local = replace(known, cached=False) if known else self._decide(view)
            if not self._worth_asking(key, local):
                self._cache.put(key, local)
                return local
            inquiry = self._put(Inquiry(key, view, local))
        return await self._answer_of(inquiry, deadline_seconds)

    def min_confidence(self, label: Label) -> float:
        """Below which confidence a second opinion on this label is worth asking for."""
        return self._policy.min_confidence(label, self._min_confidence)

    def adopt(self, policy: Policy) -> None:
        """Go by another policy from now on, and forget what was found under the one before."""
        self._policy = policy
        self._cache.clear()
        self._failed.clear()
        self._overruled.clear()
        if self._inquiries is not None:
            self._inquiries.forget()

    async def aclose(self) -> None:
        """Drop the questions under way."""
        if self._inquiries is not None:
            await self._inquiries.aclose()

    def _decide(self, view: RequestView) -> Classification:
        """What can be told without anybody's help."""
        return self._policy.exemplified(view) or self._model.classify(view)

    def _worth_asking(self, key: bytes, decided: Classification) -> bool:
        """Whether a second opinion is both of use and to be had."""
        second = self._second_opinion
        if second is None or decided.source is not Source.LOCAL:
            return False
        least = self.min_confidence(decided.label)
        if decided.confidence >= least or key in self._failed or key in self._overruled:
            return False
        return second.available()

    def _put(self, inquiry: Inquiry) -> Inquiry:
        if self._inquiries is None:
            inquiry.give_up()
        else:
            self._inquiries.put(inquiry)
        return inquiry

    async def _answer_of(self, inquiry: Inquiry, seconds: float | None) -> Classification:
        if self._second_opinion is not None and self._second_opinion.waits:
            # wait() cancels nothing: others wait for the same answer, and the cache does.
            await asyncio.wait({inquiry.told}, timeout=seconds)
        if inquiry.told.done():
            return inquiry.told.result()
        return replace(inquiry.local, provisional=True)

    def _opinion(self, second: SecondOpinion) -> Callable[[Inquiry], Awaitable[Classification]]:
        async def ask(inquiry: Inquiry) -> Classification:
            policy = self._policy
            answer = await self._asked(second, inquiry)
            if isinstance(answer, Classification):
                answer = self._believed(answer, inquiry, policy, second.min_local_probability)
                if policy is self._policy:
                    self._cache.put(inquiry.key, answer)
                return answer
            self._metrics.llm_failed(answer)
            if policy is self._policy:
                self._failed[inquiry.key] = True
                self._cache.put(inquiry.key, inquiry.local)
            # The caller shall not keep it: the LLM may yet answer, after a while.
            return replace(inquiry.local, provisional=True)

        return ask

    async def _asked(self, second: SecondOpinion, inquiry: Inquiry) -> Classification | str:
        """The LLM's answer, or the reason why there is none."""
        self._metrics.llm_calls.inc()
        began = self._clock()
        try:
            return await second.ask(inquiry.view)
        except LlmError as exc:
            return exc.reason
        except Exception as exc:
            # Supervisor: those who wait have a good answer already, and must not lose it. The
            # error's message stays out: it may repeat a payload.
            logger.error("asking the LLM failed: %s", type(exc).__name__)
            return LlmCallError.reason
        finally:
            self._metrics.llm_seconds.observe(self._clock() - began)

    def _believed(
        self, answer: Classification, inquiry: Inquiry, policy: Policy, least: float
    ) -> Classification:
        """The LLM's answer, or the local one if it goes too far from that."""
        probabilities = self._model.probabilities(inquiry.view)
        fault = fault_of(answer.label, probabilities, least, policy.file)
        if fault is None:
            return answer
        self._metrics.llm_overruled(fault)
        self._overruled[inquiry.key] = True
        return inquiry.local
