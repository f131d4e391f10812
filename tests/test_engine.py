"""The cascade: cache, local model, second opinion."""

import asyncio
from dataclasses import replace

import pytest

from classifier.cache import DecisionCache, size_bytes
from classifier.contracts import (
    LABELS,
    Classification,
    Label,
    ReasonCode,
    RequestView,
    Source,
)
from classifier.engine import Engine, SecondOpinion
from classifier.labels_file import parse_labels_file
from classifier.llm import LlmAnswerError, LlmTimeoutError
from classifier.metrics import Metrics
from classifier.policy import BUILT_IN_POLICY, Policy
from classifier.rules import RequestFacts

SURE = Classification(Label.FAST_PATH, 0.95, Source.LOCAL, "point lookup")
UNSURE = Classification(Label.GENERAL, 0.4, Source.LOCAL, "nothing known")
SECOND = Classification(Label.HIGH_COMPUTE, 0.8, Source.LLM, "scans a table")

EVEN = dict.fromkeys(LABELS, 1 / 3)


class Model:
    def __init__(self, answer, shares=EVEN):
        self.answer = answer
        self.shares = shares
        self.calls = 0

    def classify(self, view):
        self.calls += 1
        return self.answer

    def probabilities(self, view):
        return self.shares


class Teacher:
    """An LLM whose answer waits for `gate`."""

    def __init__(self, answer=SECOND):
        self.answer = answer
        self.calls = 0
        self.asked = []
        self.available = True
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, view):
        self.calls += 1
        self.asked.append(view)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def opinion(self, **bounds):
        return SecondOpinion(
            self.ask,
            lambda: self.available,
            **{"max_inflight": 4, "min_local_probability": 0.1, **bounds},
        )


def view(number=0):
    return RequestView("POST", f"/q/{number}")


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def engine(model, teacher=None, *, max_entries=100, policy=BUILT_IN_POLICY, **bounds):
    clock, metrics = Clock(), Metrics()
    cascade = Engine(
        model,
        min_confidence=0.7,
        cache=DecisionCache(max_entries, 1_000_000, 3_600, clock),
        metrics=metrics,
        clock=clock,
        second_opinion=teacher.opinion(**bounds) if teacher else None,
        policy=policy,
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


async def test_in_the_background_nobody_waits_and_the_next_one_gets_the_label_of_the_llm() -> None:
    teacher, model = Teacher(), Model(UNSURE)
    teacher.gate.clear()
    cascade, _ = engine(model, teacher, waits=False)

    first = [await cascade.classify(view(), None) for _ in range(3)]
    assert set(first) == {replace(UNSURE, provisional=True)}
    assert (cascade.llm_inflight, model.calls) == (1, 1)

    teacher.gate.set()
    await asyncio.sleep(0.01)

    assert await cascade.classify(view(), None) == replace(SECOND, cached=True)
    assert teacher.calls == 1


async def test_questions_wait_for_their_turn_and_the_newest_is_asked_first() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, metrics = engine(Model(UNSURE), teacher, max_inflight=1, max_queue=3, waits=False)
    for number in (0, 1, 2, 3, 1):
        await cascade.classify(view(number), None)
    assert (cascade.llm_inflight, cascade.llm_queued) == (1, 3)
    await asyncio.sleep(0)

    teacher.gate.set()
    await asyncio.sleep(0.01)

    # 1 was asked again, and so counts as new.
    assert [asked.path for asked in teacher.asked] == ["/q/0", "/q/1", "/q/3", "/q/2"]
    assert count(metrics, "llm_skipped_total") == 0


async def test_a_full_queue_drops_the_oldest_whose_requests_get_the_local_label() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, metrics = engine(Model(UNSURE), teacher, max_inflight=1, max_queue=2)
    waiting = [asyncio.ensure_future(cascade.classify(view(n), None)) for n in range(4)]
    await asyncio.sleep(0)

    assert await waiting[1] == replace(UNSURE, provisional=True)
    assert count(metrics, "llm_skipped_total") == 1
    teacher.gate.set()
    assert [await waiting[n] for n in (0, 2, 3)] == [SECOND] * 3


async def test_one_shape_that_keeps_coming_gets_through_a_flood_of_others() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, _ = engine(Model(UNSURE), teacher, max_inflight=1, max_queue=4, waits=False)
    await cascade.classify(view(-1), None)
    for number in range(100):
        await cascade.classify(view(number), None)
        await cascade.classify(view("hot"), None)
    teacher.gate.set()
    await asyncio.sleep(0.01)

    assert teacher.asked[1].path == "/q/hot"


async def test_what_waits_is_dropped_once_the_llm_is_gone() -> None:
    teacher = Teacher(LlmTimeoutError(1))
    teacher.gate.clear()
    cascade, metrics = engine(Model(UNSURE), teacher, max_inflight=1, max_queue=9)
    waiting = [asyncio.ensure_future(cascade.classify(view(n), None)) for n in range(5)]
    await asyncio.sleep(0)
    teacher.available = False
    teacher.gate.set()

    answers = await asyncio.gather(*waiting)

    assert set(answers) == {replace(UNSURE, provisional=True)}
    assert (teacher.calls, cascade.llm_queued) == (1, 0)
    assert count(metrics, "llm_skipped_total") == 4


async def test_a_label_that_the_local_model_rules_out_is_not_taken_from_the_llm() -> None:
    shares = {Label.FAST_PATH: 0.45, Label.GENERAL: 0.5, Label.HIGH_COMPUTE: 0.05}
    teacher = Teacher()
    cascade, metrics = engine(Model(UNSURE, shares), teacher)

    assert await cascade.classify(view(), None) == UNSURE
    assert count(metrics, "llm_overruled_total", reason="improbable") == 1
    # It is settled: neither asked again nor provisional.
    assert await cascade.classify(view(), None) == replace(UNSURE, cached=True)
    assert teacher.calls == 1


OWN_LABELS = """
[labels.reports]
description = "Nightly reports"
pool = "general"
min_confidence = 0.3
examples = [{ method = "POST", path = "/reports/run", body = '{"range": "2020"}' }]
[labels.bare]
pool = "general"
[labels.general]
min_confidence = 0.3
[[rules]]
name = "exports"
label = "high-compute"
path = "/v1/*/export"
header = { x-tenant = "big-*" }
"""


def policy(text=OWN_LABELS):
    return Policy.of(parse_labels_file(text.encode()))


@pytest.mark.parametrize(
    ("label", "source", "overruled"), [("reports", Source.LLM, 0), ("bare", Source.LOCAL, 1)]
)
async def test_an_own_label_is_believed_if_the_file_describes_it(label, source, overruled) -> None:
    answer = replace(SECOND, label=Label(label))
    unsure = replace(UNSURE, label=Label.FAST_PATH)
    cascade, metrics = engine(Model(unsure), Teacher(answer), policy=policy())

    assert (await cascade.classify(view(), None)).source is source
    assert count(metrics, "llm_overruled_total", reason="undescribed") == overruled


async def test_a_label_has_a_threshold_of_its_own() -> None:
    teacher = Teacher()
    cascade, _ = engine(Model(UNSURE), teacher, policy=policy())

    assert await cascade.classify(view(), None) == UNSURE
    assert teacher.calls == 0


async def test_a_rule_wins_over_cache_and_model() -> None:
    cascade, _ = engine(Model(SURE), policy=policy())
    asked = RequestView("GET", "/v1/x/export?a=1")
    facts = RequestFacts("GET", asked.path, (("x-tenant", "big-one"),))
    await cascade.classify(asked, None)

    ordered = await cascade.classify(asked, None, facts)

    assert (ordered.label, ordered.source, ordered.reason, ordered.code) == (
        Label.HIGH_COMPUTE,
        Source.RULE,
        "exports",
        ReasonCode.RULE,
    )
    others = replace(facts, headers=())
    assert (await cascade.classify(asked, None, others)).source is Source.LOCAL


async def test_what_is_like_an_example_gets_its_label() -> None:
    model = Model(SURE)
    cascade, _ = engine(model, policy=policy())
    body = b'{"range": "1999..2001"}'

    alike = await cascade.classify(
        RequestView("POST", "/reports/run", "application/json", (), body, len(body)), None
    )

    assert (alike.label, alike.source, alike.code) == (
        Label("reports"),
        Source.EXAMPLE,
        ReasonCode.EXAMPLE,
    )
    assert model.calls == 0


async def test_under_a_new_policy_nothing_of_the_old_one_is_kept() -> None:
    teacher = Teacher()
    teacher.gate.clear()
    cascade, _ = engine(Model(UNSURE), teacher, waits=False)
    await cascade.classify(view(), None)
    await asyncio.sleep(0)

    cascade.adopt(policy())
    teacher.gate.set()
    await asyncio.sleep(0.01)

    assert await cascade.classify(view(), None) == UNSURE


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
