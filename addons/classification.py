"""How the proxy gets a label: cache, single flight, deadline, fallback.

Invariants:
* `LabelSource.classify` always answers, within the deadline, whatever the classifier does.
* A fallback is never cached, and neither is a provisional answer.
* An answer that comes too late for its own request still fills the cache.
* At most `max_inflight` questions are open at any time; each ends by itself.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from enum import StrEnum

from cachetools import TTLCache

from classifier.client import FAILURE_REASONS, ClassifierError
from classifier.contracts import Classification, Label, RequestView, Source

logger = logging.getLogger(__name__)

type Ask = Callable[[RequestView], Awaitable[Classification]]


class FallbackReason(StrEnum):
    """Why there was no decision, beside the failures that `classifier.client` names."""

    TIMEOUT = "timeout"
    SATURATED = "saturated"
    INTERNAL = "internal"


FALLBACK_REASONS = tuple(dict.fromkeys((*FAILURE_REASONS, *FallbackReason)))
"""Every value that the reason of a fallback can take."""


def fallback(reason: str) -> Classification:
    """The decision that stands in for one: general, known to be no more than a default."""
    return Classification(Label.GENERAL, 0.0, Source.FALLBACK, reason)


def failure_text(error: Exception) -> str:
    """Type and place of an unforeseen error. Its message stays out: it may repeat a payload."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a `LabelSource`.

    Attributes:
        timeout_seconds: Longest wait of one request for its label.
        max_inflight: Most open questions to the classifier.
        cache_entries: Most labels kept; 0 keeps none.
        cache_ttl_seconds: How long a label is kept.
    """

    timeout_seconds: float
    max_inflight: int
    cache_entries: int
    cache_ttl_seconds: float


class LabelSource:
    """Answers every request with a label, and remembers answers."""

    def __init__(self, ask: Ask, limits: Limits, clock: Callable[[], float]) -> None:
        """A label source with an empty cache.

        Args:
            ask: The question to the classifier. May raise `ClassifierError`; must end by itself.
            limits: Its bounds.
            clock: Monotonic seconds, for the cache.
        """
        self._ask = ask
        self._limits = limits
        self._cache: MutableMapping[bytes, Classification] = TTLCache(
            limits.cache_entries, limits.cache_ttl_seconds, timer=clock
        )
        self._inflight: dict[bytes, asyncio.Task[Classification]] = {}
        self.cache_hits = 0
        self.cache_misses = 0

    @property
    def cache_entries(self) -> int:
        """How many labels are kept now."""
        return len(self._cache)

    @property
    def inflight(self) -> int:
        """How many questions are open now."""
        return len(self._inflight)

    async def classify(self, view: RequestView) -> Classification:
        """The label of a request: decided, remembered or, in the end, `general` as a fallback."""
        key = view.fingerprint()
        remembered = self._cache.get(key)
        if remembered is not None:
            self.cache_hits += 1
            return replace(remembered, cached=True)
        self.cache_misses += 1
        task = self._inflight.get(key)
        if task is None:
            if len(self._inflight) >= self._limits.max_inflight:
                return fallback(FallbackReason.SATURATED)
            task = self._start(key, view)
        # wait() neither cancels the question nor hands on our own cancellation: followers and
        # the cache still want the answer.
        done, _ = await asyncio.wait({task}, timeout=self._limits.timeout_seconds)
        if not done:
            return fallback(FallbackReason.TIMEOUT)
        return fallback(FallbackReason.INTERNAL) if task.cancelled() else task.result()

    def clear(self) -> int:
        """Forget all labels; return how many there were."""
        entries = len(self._cache)
        self._cache.clear()
        return entries

    async def drain(self) -> None:
        """Wait until no question is open; they end by themselves."""
        await asyncio.gather(*self._inflight.values(), return_exceptions=True)

    async def aclose(self) -> None:
        """Drop the open questions; those who wait for them get a fallback."""
        tasks = list(self._inflight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: bytes, view: RequestView) -> asyncio.Task[Classification]:
        task = asyncio.get_running_loop().create_task(self._question(key, view), name="classify")
        # mitmproxy's loop starts tasks eagerly, so it may be done already: the callback, which
        # runs from the loop, comes after the entry all the same.
        self._inflight[key] = task
        task.add_done_callback(lambda _: self._inflight.pop(key, None))
        return task

    async def _question(self, key: bytes, view: RequestView) -> Classification:
        try:
            answer = await self._ask(view)
        except ClassifierError as exc:
            return fallback(exc.reason)
        except Exception as exc:
            # Supervisor of a background task: nothing above it would see the error.
            logger.error("asking the classifier failed: %s", failure_text(exc))
            return fallback(FallbackReason.INTERNAL)
        if self._limits.cache_entries and not answer.provisional:
            self._cache[key] = answer
        return answer
