"""Labels shared between requests of one shape, in the proxy and in the service."""

import asyncio
from dataclasses import replace

import pytest

from addons.breaker import BreakerPolicy, BreakerState
from addons.classification import FallbackReason, LabelSource
from addons.labels import ServiceLabels
from addons.settings import RouterSettings
from addons.telemetry import Gauges, Telemetry
from classifier.cache import DecisionCache
from classifier.client import ClassifierStatusError
from classifier.contracts import LABELS, Classification, Label, RequestView, Source
from classifier.engine import Engine, SecondOpinion
from classifier.llm import LlmCallError
from classifier.metrics import Metrics
from classifier.shape import shared_key
from classifier.training.replay import Replay, traffic
from tests.test_classification import HEAVY, LIMITS, Backend, Clock, until

SHAPES = replace(LIMITS, cache_shapes=True, cache_entries=1_000)
SHAPELESS = RequestView("BREW", "/pot")


def user(number: int) -> RequestView:
    body = f'{{"query": "{{ user(id: {number}) {{ name }} }}"}}'.encode()
    return RequestView("POST", "/graphql", "application/json", (), body, len(body))


def source(backend: Backend, clock: Clock | None = None, **limits) -> LabelSource:
    return LabelSource(backend, replace(SHAPES, **limits), clock or Clock())


class TestProxy:
    async def test_ten_thousand_users_are_one_question_and_one_entry(self) -> None:
        backend = Backend()
        labels = source(backend)

        answers = [await labels.classify(user(number)) for number in range(1_000, 11_000)]

        assert {answer.label for answer in answers} == {Label.HIGH_COMPUTE}
        assert [answer.cached for answer in answers] == [False] + [True] * 9_999
        assert backend.calls == 1
        assert (labels.shape_entries, labels.cache_entries) == (1, 1_000)
        assert (labels.cache_hits, labels.cache_misses) == (0, 10_000)
        assert (labels.shape_hits, labels.shape_misses) == (9_999, 1)

    async def test_what_a_shape_has_told_is_known_of_the_request_from_then_on(self) -> None:
        labels = source(Backend())
        await labels.classify(user(1_001))
        await labels.classify(user(1_002))

        assert labels.known(user(1_002).fingerprint()) == replace(HEAVY, cached=True)
        assert (labels.cache_hits, labels.shape_hits) == (1, 1)

    async def test_requests_of_one_shape_at_once_ask_once(self) -> None:
        backend = Backend(open_gate=False)
        labels = source(backend, timeout_seconds=5)

        waiting = [asyncio.ensure_future(labels.classify(user(1_000 + at))) for at in range(100)]
        await asyncio.sleep(0)
        backend.gate.set()

        assert {answer.label for answer in await asyncio.gather(*waiting)} == {Label.HIGH_COMPUTE}
        assert backend.calls == 1

    async def test_another_shape_is_another_question(self) -> None:
        backend = Backend()
        labels = source(backend)

        await labels.classify(RequestView("GET", "/users/7"))
        await labels.classify(RequestView("GET", "/users/7/export"))

        assert backend.calls == 2

    async def test_requests_without_a_shape_are_kept_as_themselves(self) -> None:
        backend = Backend()
        labels = source(backend)

        for view in (SHAPELESS, SHAPELESS, replace(SHAPELESS, path="/other")):
            await labels.classify(view)

        assert backend.calls == 2
        assert (labels.cache_entries, labels.shape_entries) == (2, 0)
        assert (labels.shape_hits, labels.shape_misses) == (0, 0)

    async def test_shapes_can_be_switched_off(self) -> None:
        backend = Backend()
        labels = source(backend, cache_shapes=False)

        for number in range(10):
            await labels.classify(user(1_000 + number))

        assert backend.calls == 10
        assert (labels.shape_entries, labels.shape_misses) == (0, 0)

    async def test_the_label_of_a_shape_is_forgotten_after_its_time_to_live(self) -> None:
        backend, clock = Backend(), Clock()
        labels = source(backend, clock)

        await labels.classify(user(1_001))
        clock.now = 61
        await labels.classify(user(1_002))

        assert backend.calls == 2

    async def test_both_caches_are_bounded(self) -> None:
        labels = source(Backend(), cache_entries=10)

        for number in range(50):
            await labels.classify(RequestView("GET", f"/{'a' * (number + 1)}"))

        assert (labels.cache_entries, labels.shape_entries) == (10, 10)

    async def test_without_entries_no_shape_is_kept(self) -> None:
        backend = Backend()
        labels = source(backend, cache_entries=0)

        for number in (1_001, 1_002):
            await labels.classify(user(number))

        assert (backend.calls, labels.shape_entries) == (2, 0)

    async def test_a_provisional_label_is_shared_for_its_moment_only(self) -> None:
        backend, clock = Backend(replace(HEAVY, provisional=True)), Clock()
        labels = source(backend, clock, provisional_ttl_seconds=1)

        for number in (1_001, 1_002):
            await labels.classify(user(number))
        assert (backend.calls, labels.shape_entries) == (1, 0)
        clock.now = 1.5
        await labels.classify(user(1_003))

        assert (backend.calls, labels.shape_entries) == (2, 0)

    async def test_what_a_rule_of_the_service_says_holds_for_that_request_alone(self) -> None:
        backend = Backend(replace(HEAVY, source=Source.RULE), open_gate=False)
        labels = source(backend, timeout_seconds=5)

        at_once = [asyncio.ensure_future(labels.classify(user(1_000 + at))) for at in range(2)]
        await asyncio.sleep(0)
        backend.gate.set()
        await asyncio.gather(*at_once)
        await labels.classify(user(1_002))

        assert backend.calls == 3
        assert (labels.cache_entries, labels.shape_entries) == (3, 0)

    async def test_a_failure_is_remembered_of_the_request_and_not_of_its_shape(self) -> None:
        backend = Backend(ClassifierStatusError(500))
        labels = source(backend)

        poisonous = await labels.classify(user(1_001))
        assert poisonous.reason == "bad_status"
        backend.answer = HEAVY

        assert (await labels.classify(user(1_001))).reason == "bad_status"
        assert (await labels.classify(user(1_002))).label is Label.HIGH_COMPUTE
        assert backend.calls == 2

    async def test_a_late_answer_serves_the_shape(self) -> None:
        backend = Backend(open_gate=False)
        labels = source(backend, timeout_seconds=0.02)

        assert (await labels.classify(user(1_001))).reason == FallbackReason.TIMEOUT
        # It is asked about already: nobody waits for it a second time.
        assert (await labels.classify(user(1_002))).reason == FallbackReason.TIMEOUT
        backend.gate.set()
        await until(lambda: labels.inflight == 0)

        assert (await labels.classify(user(1_003))).cached
        assert backend.calls == 1

    async def test_while_the_breaker_is_open_labels_of_shapes_are_still_told(self) -> None:
        backend = Backend()
        labels = source(backend, breaker=BreakerPolicy(failures=1, open_seconds=60))
        await labels.classify(user(1_001))
        backend.answer = ClassifierStatusError(500)
        await labels.classify(SHAPELESS)
        assert labels.breaker_state is BreakerState.OPEN

        assert (await labels.classify(user(1_002))).cached
        await labels.aclose()

    async def test_clearing_and_sharing_hold_for_both_caches(self) -> None:
        old, backend = source(Backend()), Backend()
        await old.classify(user(1_001))
        new = source(backend)
        new.share_cache(old)

        assert (await new.classify(user(1_002))).cached
        assert new.clear() == 2
        assert (old.cache_entries, old.shape_entries) == (0, 0)
        await new.classify(user(1_003))
        assert backend.calls == 1

    def test_the_setting_decides(self) -> None:
        on, off = RouterSettings(), RouterSettings(cache_shapes=False)
        labels = ServiceLabels(on)

        assert labels._limits.cache_shapes
        assert not ServiceLabels(off)._limits.cache_shapes
        assert not labels.serves(off)
        # What came out of a shape is not trusted by whoever wants none.
        assert not labels.keeps_labels_as(off)

    def test_both_layers_are_counted(self) -> None:
        telemetry = Telemetry()
        telemetry.watch(
            Gauges(
                pools=tuple,
                cache_hits=lambda: 1,
                cache_misses=lambda: 2,
                cache_entries=lambda: 3,
                shape_hits=lambda: 4,
                shape_misses=lambda: 5,
                shape_entries=lambda: 6,
                classify_inflight=int,
                requests_inflight=int,
            )
        )

        def sample(name: str, layer: str) -> float | None:
            return telemetry.registry.get_sample_value(name, {"layer": layer})

        names = ("slb_cache_hits_total", "slb_cache_misses_total", "slb_cache_entries")
        assert [sample(name, "exact") for name in names] == [1, 2, 3]
        assert [sample(name, "shape") for name in names] == [4, 5, 6]


UNSURE = Classification(Label.GENERAL, 0.4, Source.LOCAL, "unsure")
SECOND = Classification(Label.HIGH_COMPUTE, 0.9, Source.LLM, "a scan")


class Unsure:
    def classify(self, view: RequestView) -> Classification:
        return UNSURE

    def probabilities(self, view: RequestView) -> dict[Label, float]:
        return dict.fromkeys(LABELS, 1 / 3)


class Asked:
    """An LLM that counts its questions."""

    def __init__(self, answer: Classification | Exception = SECOND) -> None:
        self.answer = answer
        self.calls = 0

    async def __call__(self, view: RequestView) -> Classification:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def engine(asked: Asked, key=shared_key) -> Engine:
    clock = Clock()
    return Engine(
        Unsure(),
        min_confidence=0.6,
        cache=DecisionCache(1_000, 10_000_000, 60, clock),
        metrics=Metrics(),
        clock=clock,
        key=key,
        second_opinion=SecondOpinion(asked, lambda: True, 4),
    )


class TestService:
    async def test_one_answer_of_the_llm_serves_a_shape(self) -> None:
        asked = Asked()
        service = engine(asked)

        answers = [await service.classify(user(1_000 + at), None) for at in range(50)]

        assert {answer.source for answer in answers} == {Source.LLM}
        assert asked.calls == 1

    async def test_a_shape_that_the_llm_could_not_answer_is_not_put_to_it_again(self) -> None:
        asked = Asked(LlmCallError("no"))
        service = engine(asked)

        answers = [await service.classify(user(1_000 + at), None) for at in range(50)]

        assert {answer.label for answer in answers} == {Label.GENERAL}
        assert asked.calls == 1

    async def test_by_exact_requests_each_is_a_question(self) -> None:
        asked = Asked()
        service = engine(asked, RequestView.fingerprint)

        for at in range(5):
            await service.classify(user(1_000 + at), None)

        assert asked.calls == 5


class TestReplay:
    def test_it_is_the_same_each_time(self) -> None:
        templates = [user(7), RequestView("GET", "/users/7?page=2"), RequestView("GET", "/health")]

        assert list(traffic(templates, 200, 3)) == list(traffic(templates, 200, 3))
        assert list(traffic(templates, 200, 3)) != list(traffic(templates, 200, 4))

    def test_shapes_know_more_than_exact_requests(self) -> None:
        found = Replay()
        for view in traffic([user(7), RequestView("GET", "/users/7")], 500, 1):
            found.take(view, lambda _: Label.FAST_PATH)

        assert found.exact_ratio < 0.9
        assert found.ratio > 0.98
        assert (found.wrong, found.requests) == (0, 500)
        assert "500 requests" in found.told()

    def test_a_label_that_the_model_does_not_give_is_counted(self) -> None:
        found = Replay()
        said = iter([Label.FAST_PATH, Label.GENERAL])
        for number in (1_001, 1_002):
            found.take(user(number), lambda _: next(said))

        assert found.wrong == 1

    def test_nothing_replayed_is_no_ratio(self) -> None:
        assert Replay().ratio == Replay().exact_ratio == pytest.approx(0)
