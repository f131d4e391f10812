"""What the label source does while the classifier fails, and how it finds back by itself."""

import asyncio
import time
from dataclasses import replace

import pytest

from addons.breaker import BreakerPolicy, BreakerState
from addons.classification import TRIAL_VIEW, FallbackReason, LabelSource
from classifier.client import ClassifierStatusError, ClassifierUnreachableError
from classifier.contracts import Label
from tests.test_classification import HEAVY, LIMITS, Backend, Clock, until, view, waiting_for

POLICY = BreakerPolicy(failures=3, open_seconds=0.01)
BROKEN = ClassifierStatusError(500)


def source(backend: Backend, clock: Clock | None = None, **limits) -> LabelSource:
    return LabelSource(backend, replace(LIMITS, **{"breaker": POLICY, **limits}), clock or Clock())


async def broken(labels: LabelSource, backend: Backend) -> None:
    """Have the breaker open."""
    backend.answer = BROKEN
    for number in range(POLICY.failures):
        assert (await labels.classify(view(1_000 + number))).reason == "bad_status"
    assert labels.breaker_state is BreakerState.OPEN


async def test_after_failures_in_a_row_the_label_is_general_without_asking(caplog) -> None:
    backend = Backend()
    labels = source(backend)
    await broken(labels, backend)

    answer = await labels.classify(view(1))

    assert (answer.label, answer.reason) == (Label.GENERAL, FallbackReason.BREAKER_OPEN)
    assert backend.calls == POLICY.failures
    assert caplog.text.count("the classifier fails (bad_status)") == 1
    await labels.aclose()


def test_with_the_breaker_open_nothing_is_waited_for() -> None:
    backend = Backend()
    labels = source(backend)
    asyncio.run(broken(labels, backend))

    with pytest.raises(StopIteration) as told:
        labels.classify(view(1)).send(None)
    assert told.value.value.reason == FallbackReason.BREAKER_OPEN


async def test_a_hanging_classifier_opens_it_at_the_deadline_of_its_questions() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend)

    await asyncio.gather(*await waiting_for(labels, 1, 2, 3))
    await until(lambda: labels.breaker_state is BreakerState.OPEN)

    assert (await labels.classify(view(4))).reason == FallbackReason.BREAKER_OPEN
    await labels.aclose()


async def test_labels_that_are_known_are_told_with_the_breaker_open() -> None:
    backend = Backend()
    labels = source(backend)
    await labels.classify(view(1))
    await broken(labels, backend)

    assert await labels.classify(view(1)) == replace(HEAVY, cached=True)
    await labels.aclose()


async def test_when_it_opens_nobody_waits_for_a_turn_any_more() -> None:
    backend = Backend(BROKEN, open_gate=False)
    labels = source(backend, timeout_seconds=60, max_inflight=3, max_queue=9)
    waiting = await waiting_for(labels, *range(9))

    backend.gate.set()
    answers = await asyncio.gather(*waiting)

    assert [answer.reason for answer in answers] == ["bad_status"] * 3 + ["breaker_open"] * 6
    assert backend.calls == 3
    await labels.aclose()


async def test_one_request_that_was_refused_is_the_trial_and_its_success_closes_it() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    await labels.classify(view(1))
    await labels.classify(view(2))
    backend.answer = HEAVY
    clock.now = 0.01

    await until(lambda: labels.breaker_state is BreakerState.CLOSED)

    assert backend.asked[POLICY.failures :] == [view(2)]
    assert labels.known(view(2).fingerprint()) == replace(HEAVY, cached=True)
    assert (await labels.classify(view(1))).label is Label.HIGH_COMPUTE


async def test_it_recovers_without_any_traffic_by_a_question_of_its_own(caplog) -> None:
    caplog.set_level("INFO")
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    backend.answer = HEAVY
    clock.now = 0.01

    await until(lambda: labels.breaker_state is BreakerState.CLOSED)

    assert backend.asked[-1] == TRIAL_VIEW
    assert "the classifier answers again" in caplog.text


async def test_there_is_no_trial_before_its_time() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    backend.answer = HEAVY

    await asyncio.sleep(0.05)

    assert backend.calls == POLICY.failures
    await labels.aclose()


async def test_no_request_waits_for_the_trial_not_even_an_equal_one() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock, timeout_seconds=60)
    await broken(labels, backend)
    await labels.classify(view(1))
    backend.gate.clear()
    clock.now = 0.01
    await until(lambda: labels.breaker_state is BreakerState.HALF_OPEN)

    answers = [await labels.classify(view(number)) for number in (1, 2)]

    assert {answer.reason for answer in answers} == {FallbackReason.BREAKER_OPEN}
    assert labels.inflight == 1
    await labels.aclose()


async def test_a_trial_that_fails_keeps_it_open_for_longer() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    clock.now = 0.01

    await until(lambda: backend.calls > POLICY.failures)
    await until(lambda: labels.breaker_state is BreakerState.OPEN)

    assert labels._breaker.trial_in_seconds == pytest.approx(0.02)
    await labels.aclose()


async def test_a_trial_that_hangs_ends_at_its_deadline() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    backend.gate.clear()
    clock.now = 0.01
    await until(lambda: labels.breaker_state is BreakerState.HALF_OPEN)

    await until(lambda: labels.breaker_state is BreakerState.OPEN)

    await labels.aclose()


async def test_when_it_closes_failures_are_forgotten() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    assert (await labels.classify(view(1_000))).reason == "bad_status"
    backend.answer = HEAVY
    clock.now = 0.01

    await until(lambda: labels.breaker_state is BreakerState.CLOSED)

    assert (await labels.classify(view(1_000))).label is Label.HIGH_COMPUTE


async def test_questions_that_hang_take_no_place_after_recovery() -> None:
    backend, clock = Backend(open_gate=False), Clock()
    labels = source(backend, clock)
    await asyncio.gather(*await waiting_for(labels, *range(4)))
    await until(lambda: labels.breaker_state is BreakerState.OPEN)
    assert labels.inflight == 4
    backend.gate = asyncio.Event()  # they hang on, new ones do not
    backend.gate.set()
    clock.now = 0.01

    await until(lambda: labels.breaker_state is BreakerState.CLOSED)
    await until(lambda: labels.inflight == 0)

    assert (await labels.classify(view(0))).label is Label.HIGH_COMPUTE
    assert backend.most_inflight == 4


async def test_an_answer_that_comes_while_it_is_open_is_kept() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend)
    await asyncio.gather(*await waiting_for(labels, 1, 2, 3))
    await until(lambda: labels.breaker_state is BreakerState.OPEN)

    backend.gate.set()
    await labels.drain()

    assert await labels.classify(view(1)) == replace(HEAVY, cached=True)
    assert labels.breaker_state is BreakerState.OPEN


async def test_a_long_queue_is_no_fault_of_the_classifier() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, timeout_seconds=0.1, max_inflight=1, max_queue=50)

    waiting = await waiting_for(labels, *range(50))
    answers = await asyncio.gather(*waiting)
    backend.gate.set()
    await labels.drain()

    assert {answer.reason for answer in answers} == {"timeout", "queue"}
    assert labels.breaker_state is BreakerState.CLOSED


async def test_a_question_that_waited_for_its_turn_is_judged_by_the_time_since_then() -> None:
    backend = Backend(open_gate=False)
    labels = source(
        backend, timeout_seconds=0.4, max_inflight=1, max_queue=1, breaker=BreakerPolicy(2, 60)
    )
    await waiting_for(labels, 0)
    await asyncio.sleep(0.2)
    second = await waiting_for(labels, 1)
    assert (await second[0]).reason == FallbackReason.TIMEOUT
    assert labels._breaker.state is BreakerState.CLOSED

    await until(lambda: labels.breaker_state is BreakerState.OPEN)

    assert backend.calls == 2
    await labels.aclose()


async def test_an_answer_that_our_own_loop_was_too_busy_to_read_is_no_failure() -> None:
    backend = Backend(open_gate=False)
    labels = source(backend, breaker=BreakerPolicy(1, 60))
    waiting = await waiting_for(labels, 0)
    # It comes in time, but when it is looked at, the deadline is over as well.
    asyncio.get_running_loop().call_later(0.04, backend.gate.set)

    time.sleep(0.1)  # noqa: ASYNC251 - that is what is tested
    answers = await asyncio.gather(*waiting)
    await until(lambda: not labels.inflight)

    assert [answer.label for answer in answers] in ([Label.GENERAL], [Label.HIGH_COMPUTE])
    assert labels.breaker_state is BreakerState.CLOSED
    assert labels.cache_entries == 1


async def test_a_service_that_is_gone_and_comes_back_under_eager_tasks() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    backend, clock = Backend(ClassifierUnreachableError("ConnectError")), Clock()
    labels = source(backend, clock)
    for number in range(5):
        await labels.classify(view(number))
    assert backend.calls == 3
    backend.answer = HEAVY
    clock.now = 0.01

    await until(lambda: labels.breaker_state is BreakerState.CLOSED)

    assert (await labels.classify(view(0))).label is Label.HIGH_COMPUTE
    await until(lambda: not labels.inflight)


async def test_a_source_that_has_been_closed_makes_no_more_trials() -> None:
    backend, clock = Backend(), Clock()
    labels = source(backend, clock)
    await broken(labels, backend)
    await labels.aclose()
    clock.now = 1

    await asyncio.sleep(0.05)

    assert backend.calls == POLICY.failures
