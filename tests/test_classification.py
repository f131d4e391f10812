"""Cache, single flight, deadline and fallback of the proxy's label source."""

import asyncio
from dataclasses import replace

import pytest

from addons.classification import FALLBACK_REASONS, FallbackReason, LabelSource, Limits
from classifier.client import (
    ClassifierAnswerError,
    ClassifierStatusError,
    ClassifierTimeoutError,
    ClassifierUnreachableError,
)
from classifier.contracts import Classification, Label, RequestView, Source

HEAVY = Classification(Label.HIGH_COMPUTE, 0.9, Source.LOCAL, "aggregation")
LIMITS = Limits(timeout_seconds=0.05, max_inflight=4, cache_entries=10, cache_ttl_seconds=60)


def view(number: int = 0) -> RequestView:
    return RequestView("POST", f"/query/{number}", body=b"x", body_bytes=1)


class Backend:
    """A classifier whose answers wait for `gate`."""

    def __init__(self, answer: Classification | Exception = HEAVY, *, open_gate: bool = True):
        self.answer = answer
        self.calls = 0
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()

    async def __call__(self, _: RequestView) -> Classification:
        self.calls += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def source(backend: Backend, clock: Clock | None = None, **limits) -> LabelSource:
    return LabelSource(backend, replace(LIMITS, **limits), clock or Clock())


async def test_a_second_equal_request_is_answered_from_the_cache() -> None:
    backend = Backend()
    labels = source(backend)

    first, second = await labels.classify(view()), await labels.classify(view())

    assert (first.cached, second.cached) == (False, True)
    assert second == replace(HEAVY, cached=True)
    assert backend.calls == 1
    assert (labels.cache_hits, labels.cache_misses) == (1, 1)


async def test_a_hundred_equal_requests_at_once_ask_once() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=5)

    waiting = [asyncio.ensure_future(labels.classify(view())) for _ in range(100)]
    await asyncio.sleep(0)
    backend.gate.set()

    assert {answer.label for answer in await asyncio.gather(*waiting)} == {Label.HIGH_COMPUTE}
    assert backend.calls == 1


async def test_a_label_is_forgotten_after_its_time_to_live() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)

    await labels.classify(view())
    clock.now = 61
    await labels.classify(view())

    assert backend.calls == 2


async def test_the_cache_is_bounded() -> None:
    labels = source(Backend())

    for number in range(50):
        await labels.classify(view(number))

    assert labels.cache_entries == 10


async def test_a_cache_of_no_entries_keeps_nothing() -> None:
    labels = source(Backend(), cache_entries=0)

    await labels.classify(view())

    assert labels.cache_entries == 0


async def test_without_an_answer_in_time_the_label_is_general() -> None:
    labels = source(Backend(open_gate=False))

    answer = await labels.classify(view())

    assert (answer.label, answer.source, answer.reason) == (
        Label.GENERAL,
        Source.FALLBACK,
        "timeout",
    )
    await labels.aclose()


async def test_an_answer_that_comes_too_late_fills_the_cache() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend)

    await labels.classify(view())
    backend.gate.set()
    await labels.drain()

    assert await labels.classify(view()) == replace(HEAVY, cached=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClassifierTimeoutError(1), "timeout"),
        (ClassifierUnreachableError("ConnectError"), "unreachable"),
        (ClassifierStatusError(500), "bad_status"),
        (ClassifierAnswerError("1 fault"), "bad_answer"),
    ],
)
async def test_a_failure_falls_back_with_its_reason_and_is_not_kept(error, reason) -> None:
    backend = Backend(error)
    labels = source(backend)

    answers = [await labels.classify(view()) for _ in range(2)]

    assert {(answer.source, answer.reason) for answer in answers} == {(Source.FALLBACK, reason)}
    assert backend.calls == 2
    assert reason in FALLBACK_REASONS


async def test_an_unforeseen_error_falls_back_and_is_logged(caplog) -> None:
    labels = source(Backend(ZeroDivisionError()))

    answer = await labels.classify(view())

    assert answer.reason == FallbackReason.INTERNAL
    assert "asking the classifier failed" in caplog.text


async def test_beyond_the_most_open_questions_nothing_waits() -> None:
    labels = source(Backend(open_gate=False), timeout_seconds=60)
    waiting = [asyncio.ensure_future(labels.classify(view(number))) for number in range(4)]
    await asyncio.sleep(0)

    answer = await labels.classify(view(99))

    assert answer.reason == FallbackReason.SATURATED
    await labels.aclose()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_provisional_answer_is_used_but_not_kept() -> None:
    backend = Backend(replace(HEAVY, provisional=True))
    labels = source(backend)

    assert (await labels.classify(view())).label is Label.HIGH_COMPUTE
    await labels.classify(view())

    assert backend.calls == 2


async def test_a_cancelled_leader_does_not_fail_its_followers() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=5)
    leader = asyncio.ensure_future(labels.classify(view()))
    follower = asyncio.ensure_future(labels.classify(view()))
    await asyncio.sleep(0)

    leader.cancel()
    backend.gate.set()

    assert (await follower).label is Label.HIGH_COMPUTE
    assert backend.calls == 1


async def test_questions_end_with_the_eager_tasks_that_mitmproxy_uses() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    backend = Backend()
    labels = source(backend)

    assert (await labels.classify(view())).label is Label.HIGH_COMPUTE
    await asyncio.sleep(0)

    assert labels.inflight == 0


async def test_clearing_forgets_every_label() -> None:
    labels = source(Backend())
    await labels.classify(view())

    assert labels.clear() == 1
    assert labels.cache_entries == 0
