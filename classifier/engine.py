"""The cascade: cache, local model, and the LLM when the local model is unsure.

Invariants:
* Every question gets an answer, at the latest when its deadline is over: the local model's.
* Equal questions call the LLM once, however many ask at the same time.
* At most `llm_max_inflight` questions are at the LLM.
* What the LLM says after a deadline fills the cache all the same.
* A question that the LLM could not answer is not put to it again for `FAILED_QUESTION_SECONDS`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from cachetools import TTLCache

from classifier.cache import DecisionCache
from classifier.contracts import Classification, RequestView, Source
from classifier.llm import LlmCallError, LlmError
from classifier.metrics import Metrics

logger = logging.getLogger(__name__)

FAILED_QUESTION_SECONDS = 60.0
MAX_FAILED_QUESTIONS = 4_096


class LocalDecider(Protocol):
    """A model in this process: sure or not, it answers at once."""

    def classify(self, view: RequestView) -> Classification:
        """Label a request; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """Whom to ask when the local model is unsure.

    Attributes:
        ask: The question. May raise `LlmError`; must end by itself.
        available: Whether asking makes sense now.
        max_inflight: Most questions at once.
    """

    ask: Callable[[RequestView], Awaitable[Classification]]
    available: Callable[[], bool]
    max_inflight: int


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
    ) -> None:
        """A cascade over the given parts.

        Args:
            model: The local model.
            min_confidence: Below it the second opinion is asked.
            cache: Where answers are kept.
            metrics: Observer of cache and LLM.
            clock: Monotonic seconds.
            second_opinion: None if no LLM is configured.
            key: Requests with equal keys share an answer, and a question to the LLM.
        """
        self._model = model
        self._min_confidence = min_confidence
        self._cache = cache
        self._metrics = metrics
        self._second_opinion = second_opinion
        self._key = key
        self._questions: dict[bytes, asyncio.Task[Classification]] = {}
        self._failed: TTLCache[bytes, bool] = TTLCache(
            MAX_FAILED_QUESTIONS, FAILED_QUESTION_SECONDS, timer=clock
        )

    @property
    def llm_inflight(self) -> int:
        """How many questions are at the LLM now."""
        return len(self._questions)

    async def classify(self, view: RequestView, deadline_seconds: float | None) -> Classification:
        """Label a request.

        Args:
            view: The request.
            deadline_seconds: Answer within this time; None waits for the LLM to end.
        """
        key = self._key(view)
        if (known := self._cache.get(key)) is not None and not self._worth_asking(key, known):
            self._metrics.cache_hits.inc()
            return known
        self._metrics.cache_misses.inc()
        local = replace(known, cached=False) if known else self._model.classify(view)
        if not self._worth_asking(key, local):
            self._cache.put(key, local)
            return local
        question = self._questions.get(key) or self._ask(key, view, local)
        if question is None:
            return replace(local, provisional=True)
        # wait() cancels nothing: others wait for the same answer, and the cache does.
        done, _ = await asyncio.wait({question}, timeout=deadline_seconds)
        if not done or question.cancelled():
            return replace(local, provisional=True)
        return question.result()

    async def aclose(self) -> None:
        """Drop the questions under way."""
        questions = list(self._questions.values())
        for question in questions:
            question.cancel()
        await asyncio.gather(*questions, return_exceptions=True)

    def _worth_asking(self, key: bytes, decided: Classification) -> bool:
        """Whether a second opinion is both of use and to be had."""
        second = self._second_opinion
        if second is None or decided.source is not Source.LOCAL:
            return False
        unsure = decided.confidence < self._min_confidence
        return unsure and key not in self._failed and second.available()

    def _ask(
        self, key: bytes, view: RequestView, local: Classification
    ) -> asyncio.Task[Classification] | None:
        second = self._second_opinion
        if second is None or len(self._questions) >= second.max_inflight:
            self._metrics.llm_skipped.inc()
            return None
        question = asyncio.get_running_loop().create_task(self._question(second, key, view, local))
        self._questions[key] = question
        question.add_done_callback(lambda _: self._questions.pop(key, None))
        return question

    async def _question(
        self, second: SecondOpinion, key: bytes, view: RequestView, local: Classification
    ) -> Classification:
        self._metrics.llm_calls.inc()
        try:
            answer = await second.ask(view)
        except LlmError as exc:
            return self._left_with(local, key, exc.reason)
        except Exception as exc:
            # Supervisor: those who wait have a good answer already, and must not lose it. The
            # error's message stays out: it may repeat a payload.
            logger.error("asking the LLM failed: %s", type(exc).__name__)
            return self._left_with(local, key, LlmCallError.reason)
        self._cache.put(key, answer)
        return answer

    def _left_with(self, local: Classification, key: bytes, reason: str) -> Classification:
        self._metrics.llm_failed(reason)
        self._failed[key] = True
        self._cache.put(key, local)
        # The caller shall not keep it: the LLM may yet answer, after a while.
        return replace(local, provisional=True)
