"""The cascade: cache, local model, second opinion."""

import asyncio
from dataclasses import replace

import pytest

from classifier.cache import DecisionCache, size_bytes
from classifier.contracts import Classification, Label, RequestView, Source
from classifier.engine import Engine, SecondOpinion
from classifier.llm import LlmAnswerError, LlmTimeoutError
from classifier.metrics import Metrics

SURE = Classification(Label.FAST_PATH, 0.95, Source.LOCAL, "point lookup")
UNSURE = Classification(Label.GENERAL, 0.4, Source.LOCAL, "nothing known")
SECOND = Classification(Label.HIGH_COMPUTE, 0.8, Source.LLM, "scans a table")


class Model:
    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    def classify(self, view):
        self.calls += 1
        return self.answer


class Teacher:
    """An LLM whose answer waits for `gate`."""

    def __init__(self, answer=SECOND):
        self.answer = answer
        self.calls = 0
        self.available = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, view):
        self.calls += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def opinion(self, max_inflight=4):
        return SecondOpinion(self.ask, lambda: self.available, max_inflight)


def view(number=0):
    return RequestView("POST", f"/q/{number}")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def engine(model, teacher=None, *, max_inflight=4, max_entries=100):
    clock, metrics = Clock(), Metrics()
    cascade = Engine(
        model,
        min_confidence=0.7,
        cache=DecisionCache(max_entries, 1_000_000, 3_600, clock),
        metrics=metrics,
        clock=clock,
        second_opinion=teacher.opinion(max_inflight) if teacher else None,
    )
    cascade.clock = clock
    return cascade, metrics


def count(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"slb_classifier_{name}", labels)


async def test_a_sure_local_answer_asks_nobody() -> None:
    teacher = Teacher()
    cascade, _ = engine(Model(SURE), teacher)

    assert await cascade.classify(view(), None) == SURE
    assert teacher.calls == 0


async def test_an_unsure_local_answer_asks_the_llm() -> None:
    cascade, metrics = engine(Model(UNSURE), Teacher())

    assert await cascade.classify(view(), None) == SECOND
    assert count(metrics, "llm_calls_total") == 1


async def test_without_an_llm_the_unsure_answer_stands() -> None:
    cascade, _ = engine(Model(UNSURE))

    assert await cascade.classify(view(), None) == UNSURE


async def test_an_equal_request_is_answered_from_the_cache() -> None:
    teacher, model = Teacher(), Model(UNSURE)
    cascade, metrics = engine(model, teacher)

    await cascade.classify(view(), None)
    again = await cascade.classify(view(), None)

    assert again == replace(SECOND, cached=True)
    assert (teacher.calls, model.calls) == (1, 1)
    assert count(metrics, "cache_hits_total") == 1
    assert count(metrics, "cache_hit_ratio") == 0.5


async def test_a_hundred_equal_requests_at_once_ask_the_llm_once() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, _ = engine(Model(UNSURE), teacher)

    waiting = [asyncio.ensure_future(cascade.classify(view(), None)) for _ in range(100)]
    await asyncio.sleep(0)
    teacher.gate.set()

    assert set(await asyncio.gather(*waiting)) == {SECOND}
    assert teacher.calls == 1


async def test_at_the_deadline_the_local_answer_is_given_as_provisional() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, _ = engine(Model(UNSURE), teacher)

    answer = await cascade.classify(view(), 0.01)

    assert answer == replace(UNSURE, provisional=True)
    await cascade.aclose()


async def test_what_the_llm_says_after_the_deadline_fills_the_cache() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, _ = engine(Model(UNSURE), teacher)
    await cascade.classify(view(), 0.01)

    teacher.gate.set()
    await asyncio.sleep(0.01)

    assert await cascade.classify(view(), 0.01) == replace(SECOND, cached=True)
    assert teacher.calls == 1


async def test_when_the_llm_is_busy_the_others_are_labelled_at_once() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, metrics = engine(Model(UNSURE), teacher, max_inflight=2)
    waiting = [asyncio.ensure_future(cascade.classify(view(n), None)) for n in range(2)]
    await asyncio.sleep(0)

    answer = await cascade.classify(view(99), None)

    assert answer == replace(UNSURE, provisional=True)
    assert cascade.llm_inflight == 2
    assert count(metrics, "llm_skipped_total") == 1
    teacher.gate.set()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("error", "reason"), [(LlmTimeoutError(1), "timeout"), (LlmAnswerError(1), "bad_answer")]
)
async def test_a_failing_llm_leaves_the_local_answer_and_is_counted(error, reason) -> None:
    cascade, metrics = engine(Model(UNSURE), Teacher(error))

    assert await cascade.classify(view(), None) == replace(UNSURE, provisional=True)
    assert count(metrics, "llm_failures_total", reason=reason) == 1


async def test_an_unforeseen_error_of_the_llm_leaves_the_local_answer(caplog) -> None:
    cascade, metrics = engine(Model(UNSURE), Teacher(ZeroDivisionError("canary")))

    assert await cascade.classify(view(), None) == replace(UNSURE, provisional=True)
    assert count(metrics, "llm_failures_total", reason="call_failed") == 1
    assert "asking the LLM failed: ZeroDivisionError" in caplog.text
    assert "canary" not in caplog.text


async def test_who_waits_for_the_llm_when_the_service_ends_gets_the_local_answer() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, _ = engine(Model(UNSURE), teacher)
    waiting = asyncio.ensure_future(cascade.classify(view(), None))
    await asyncio.sleep(0)

    await cascade.aclose()

    assert await waiting == replace(UNSURE, provisional=True)


async def test_a_question_that_the_llm_failed_is_put_to_it_again_only_after_a_while() -> None:
    teacher = Teacher(LlmAnswerError(1))
    cascade, _ = engine(Model(UNSURE), teacher)
    await cascade.classify(view(), None)

    assert await cascade.classify(view(), None) == replace(UNSURE, cached=True)
    assert teacher.calls == 1
    cascade.clock.now = 61
    teacher.answer = SECOND

    assert await cascade.classify(view(), None) == SECOND


async def test_an_unsure_answer_is_asked_again_once_the_llm_is_there() -> None:
    teacher = Teacher()
    teacher.available = False
    model = Model(UNSURE)
    cascade, _ = engine(model, teacher)
    assert await cascade.classify(view(), None) == UNSURE
    assert (await cascade.classify(view(), None)).cached

    teacher.available = True

    assert await cascade.classify(view(), None) == SECOND
    assert model.calls == 1


def test_the_cache_is_bounded_in_entries() -> None:
    cache = DecisionCache(3, 1_000_000, 60, lambda: 0.0)
    for number in range(10):
        cache.put(view(number).fingerprint(), SURE)

    assert len(cache) == 3
    assert cache.get(view(9).fingerprint()) == replace(SURE, cached=True)
    assert cache.get(view(0).fingerprint()) is None


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = DecisionCache(1_000, 3 * size_bytes(SURE), 60, lambda: 0.0)
    for number in range(10):
        cache.put(view(number).fingerprint(), SURE)

    assert len(cache) == 3
    assert cache.used_bytes <= 3 * size_bytes(SURE)


def test_a_label_is_forgotten_after_its_time_to_live() -> None:
    now = [0.0]
    cache = DecisionCache(10, 1_000_000, 60, lambda: now[0])
    cache.put(b"key", SURE)
    now[0] = 61

    assert cache.get(b"key") is None


@pytest.mark.parametrize(("entries", "max_bytes"), [(0, 1_000_000), (10, 0)])
def test_a_cache_without_room_keeps_nothing(entries, max_bytes) -> None:
    cache = DecisionCache(entries, max_bytes, 60, lambda: 0.0)
    cache.put(b"key", SURE)

    assert len(cache) == 0
