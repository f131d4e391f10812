"""Cache, single flight, deadline, queue and fallback of the proxy's label source."""

import asyncio
from dataclasses import replace

import pytest

from addons.breaker import BreakerPolicy
from addons.classification import (
    FALLBACK_REASONS,
    MAX_PROVISIONAL_LABELS,
    FallbackReason,
    LabelSource,
    Limits,
)
from addons.labels import CurrentLabels
from classifier.client import (
    ClassifierAnswerError,
    ClassifierStatusError,
    ClassifierTimeoutError,
    ClassifierUnreachableError,
)
from classifier.contracts import Classification, Label, RequestView, Source

HEAVY = Classification(Label.HIGH_COMPUTE, 0.9, Source.LOCAL, "aggregation")
LIMITS = Limits(
    timeout_seconds=0.05,
    max_inflight=4,
    max_queue=0,
    cache_entries=10,
    cache_ttl_seconds=60,
    fallback_ttl_seconds=3,
    breaker=BreakerPolicy(failures=100, open_seconds=1),
)


def view(number: int = 0) -> RequestView:
    return RequestView("POST", f"/query/{number}", body=b"x", body_bytes=1)


class Backend:
    """A classifier whose answers wait for `gate`."""

    def __init__(self, answer: Classification | Exception = HEAVY, *, open_gate: bool = True):
        self.answer = answer
        self.calls = 0
        self.asked: list[RequestView] = []
        self.seconds = 0.0
        self.inflight = 0
        self.most_inflight = 0
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()

    async def __call__(self, view: RequestView, seconds: float) -> Classification:
        self.calls += 1
        self.asked.append(view)
        self.seconds = seconds
        self.inflight += 1
        self.most_inflight = max(self.most_inflight, self.inflight)
        try:
            await self.gate.wait()
        finally:
            self.inflight -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def source(backend: Backend, clock: Clock | None = None, **limits) -> LabelSource:
    return LabelSource(backend, replace(LIMITS, **limits), clock or Clock())


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the source has no event of its own
            await asyncio.sleep(0.001)


async def waiting_for(labels: LabelSource, *numbers: int) -> list[asyncio.Task]:
    """Requests that wait for their labels."""
    tasks = [asyncio.ensure_future(labels.classify(view(number))) for number in numbers]
    for _ in range(2):  # the requests begin, then their questions
        await asyncio.sleep(0)
    return tasks


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


def test_a_label_that_is_known_is_told_without_an_event_loop() -> None:
    labels = source(Backend())
    asyncio.run(labels.classify(view()))

    assert labels.known(view().fingerprint()) == replace(HEAVY, cached=True)
    # Nothing is waited for: the coroutine ends in its first step.
    with pytest.raises(StopIteration) as told:
        labels.classify(view()).send(None)
    assert told.value.value is labels.known(view().fingerprint())
    assert (labels.cache_hits, labels.cache_misses) == (3, 1)


async def test_labels_come_from_the_source_in_force() -> None:
    sources = [source(Backend()), source(Backend())]
    current, key = CurrentLabels(lambda: sources[-1]), view().fingerprint()

    answer = await current.classify(view(), key)

    assert current.known(key) == replace(answer, cached=True)
    sources.pop()
    assert current.known(key) is None


async def test_of_an_unknown_request_nothing_is_told_and_nothing_counted() -> None:
    labels = source(Backend())

    assert labels.known(view().fingerprint()) is None
    assert (labels.cache_hits, labels.cache_misses) == (0, 0)


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
async def test_a_question_that_failed_is_asked_again_only_after_a_while(error, reason) -> None:
    backend, clock = Backend(error), Clock()
    labels = source(backend, clock)

    answers = [await labels.classify(view()) for _ in range(2)]

    assert {(answer.source, answer.reason) for answer in answers} == {(Source.FALLBACK, reason)}
    assert reason in FALLBACK_REASONS
    assert (backend.calls, labels.cache_entries) == (1, 0)
    clock.now, backend.answer = 3.0, HEAVY
    assert (await labels.classify(view())).label is Label.HIGH_COMPUTE


async def test_a_failure_of_one_question_says_nothing_of_others() -> None:
    backend = Backend(ClassifierStatusError(500))
    labels = source(backend)
    await labels.classify(view(1))
    backend.answer = HEAVY

    assert (await labels.classify(view(2))).label is Label.HIGH_COMPUTE


async def test_without_a_time_to_live_for_failures_each_request_asks() -> None:
    backend = Backend(ClassifierStatusError(500))
    labels = source(backend, fallback_ttl_seconds=0)

    await labels.classify(view())
    await asyncio.sleep(0)
    await labels.classify(view())

    assert backend.calls == 2


async def test_memory_for_failures_is_bounded() -> None:
    labels = source(Backend(ClassifierStatusError(500)), breaker=BreakerPolicy(10_000, 1))

    for number in range(5_000):
        await labels.classify(view(number))

    assert len(labels._failures) == 4_096


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


async def test_a_question_waits_for_its_turn() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=5, max_inflight=2, max_queue=3)
    waiting = await waiting_for(labels, *range(5))
    assert (labels.inflight, labels.queued) == (2, 3)

    backend.gate.set()

    assert {answer.label for answer in await asyncio.gather(*waiting)} == {Label.HIGH_COMPUTE}
    assert backend.most_inflight == 2


async def test_beyond_the_queue_nothing_waits() -> None:
    labels = source(Backend(open_gate=False), timeout_seconds=60, max_inflight=2, max_queue=3)
    waiting = await waiting_for(labels, *range(5))

    assert (await labels.classify(view(99))).reason == FallbackReason.SATURATED
    await labels.aclose()
    assert {answer.reason for answer in await asyncio.gather(*waiting)} == {"internal"}


async def test_equal_questions_in_the_queue_wait_together() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=5, max_inflight=1, max_queue=1)
    waiting = await waiting_for(labels, 0, 1, 1, 1)
    assert labels.queued == 1

    backend.gate.set()

    assert {answer.label for answer in await asyncio.gather(*waiting)} == {Label.HIGH_COMPUTE}
    assert backend.calls == 2


async def test_the_wait_for_a_turn_is_part_of_the_deadline() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=5, max_inflight=1, max_queue=1)
    waiting = await waiting_for(labels, 0, 1)
    assert 4.9 < backend.seconds <= 5
    await asyncio.sleep(0.15)

    backend.gate.set()
    await asyncio.gather(*waiting)

    assert backend.asked == [view(0), view(1)]
    assert 0 < backend.seconds <= 4.85


async def test_whose_turn_does_not_come_in_time_is_told_so_and_was_not_asked() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, max_inflight=1, max_queue=9, timeout_seconds=0.4)
    await waiting_for(labels, 0)
    await asyncio.sleep(0.2)
    waiting = await waiting_for(labels, *range(1, 10))

    answers = await asyncio.gather(*waiting)

    # The late first one makes room for one of them, which is then late itself.
    assert [answer.reason for answer in answers] == ["timeout"] + ["queue"] * 8
    assert backend.most_inflight == 1
    assert labels.queued == 0
    await labels.aclose()


async def test_late_questions_keep_their_place_only_as_long_as_nobody_needs_it() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=0.3, max_queue=1)
    await asyncio.gather(*await waiting_for(labels, *range(4)))
    assert labels.inflight == 4

    backend.gate = asyncio.Event()
    backend.gate.set()

    assert (await labels.classify(view(99))).label is Label.HIGH_COMPUTE
    assert (backend.most_inflight, labels.inflight) == (4, 3)
    await labels.aclose()


async def test_a_late_question_is_not_asked_a_second_time_meanwhile() -> None:
    backend, clock = Backend(open_gate=False), Clock()
    labels = source(backend, clock)
    await labels.classify(view())
    clock.now = 30

    assert labels.known(view().fingerprint()).reason == FallbackReason.TIMEOUT
    assert (await labels.classify(view())).reason == FallbackReason.TIMEOUT
    assert backend.calls == 1
    await labels.aclose()


async def test_followers_are_told_by_the_deadline_of_the_question() -> None:
    labels = source(Backend(open_gate=False), timeout_seconds=0.4)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await waiting_for(labels, 0)
    await asyncio.sleep(0.2)

    assert (await labels.classify(view(0))).reason == FallbackReason.TIMEOUT
    assert loop.time() - began < 0.55
    await labels.aclose()


async def test_requests_that_go_away_leave_nothing_behind() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, max_inflight=2, max_queue=8)
    for task in await waiting_for(labels, *range(10)):
        task.cancel()

    backend.gate.set()
    await until(lambda: not labels.inflight and not labels.queued)

    assert labels.cache_entries == 10
    assert not labels._questions._by_key


async def test_a_provisional_answer_is_kept_for_a_moment_only() -> None:
    backend, clock = Backend(replace(HEAVY, provisional=True)), Clock()
    labels = source(backend, clock, provisional_ttl_seconds=1)
    first, again = await labels.classify(view()), await labels.classify(view())

    assert (first.provisional, first.cached) == (True, False)
    assert (again.provisional, again.cached) == (True, True)
    assert backend.calls == 1
    assert labels.cache_entries == 0

    clock.now = 1.01
    backend.answer = replace(HEAVY, label=Label.GENERAL, source=Source.LLM)

    better = await labels.classify(view())
    assert (better.label, better.source) == (Label.GENERAL, Source.LLM)
    clock.now = 50
    assert await labels.classify(view()) == replace(better, cached=True)
    assert backend.calls == 2


async def test_without_a_time_to_live_a_provisional_answer_is_not_kept() -> None:
    backend = Backend(replace(HEAVY, provisional=True))
    labels = source(backend, provisional_ttl_seconds=0)

    await labels.classify(view())
    await labels.classify(view())

    assert backend.calls == 2


async def test_of_provisional_answers_only_so_many_are_kept() -> None:
    labels = source(Backend(replace(HEAVY, provisional=True)))

    for number in range(MAX_PROVISIONAL_LABELS + 10):
        await labels.classify(view(number))

    assert len(labels._provisional) == MAX_PROVISIONAL_LABELS


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


async def test_labels_outlive_a_source_whose_cache_is_shared() -> None:
    old, backend = source(Backend()), Backend()
    await old.classify(view())
    new = source(backend, max_inflight=1)
    new.share_cache(old)

    assert (await new.classify(view())).cached
    assert backend.calls == 0
    # Its late answers are of use as well.
    await old.classify(view(1))
    assert (await new.classify(view(1))).cached


async def test_clearing_forgets_every_label() -> None:
    labels = source(Backend())
    await labels.classify(view())

    assert labels.clear() == 1
    assert labels.cache_entries == 0
