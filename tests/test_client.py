"""The classifier's client against services that misbehave."""

import asyncio

import pytest

from classifier.client import (
    ClassifierAnswerError,
    ClassifierClient,
    ClassifierStatusError,
    ClassifierTimeoutError,
    ClassifierUnreachableError,
)
from classifier.contracts import Classification, Label, RequestView, Source
from tests.processes import free_port
from tests.servers import Classifier, serving

VIEW = RequestView("POST", "/query", body=b"\xff\x00", body_bytes=2)


async def ask(url, timeout_seconds=2.0):
    async with ClassifierClient(url, timeout_seconds=timeout_seconds, max_connections=2) as client:
        return await client.classify(VIEW, deadline_ms=100)


async def test_an_answer_becomes_a_classification() -> None:
    with serving(Classifier().app()) as url:
        answer = await ask(url)

    assert answer == Classification(Label.FAST_PATH, 0.9, Source.LOCAL, "point lookup")


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("500", ClassifierStatusError),
        ("unknown label", ClassifierAnswerError),
        ("fallback", ClassifierAnswerError),
        ("not json", ClassifierAnswerError),
        ("empty", ClassifierAnswerError),
        ("huge", ClassifierAnswerError),
        ("hang", ClassifierTimeoutError),
        ("trickle", ClassifierTimeoutError),
    ],
)
async def test_a_misbehaving_service_is_an_error_that_says_how(mode, error) -> None:
    with serving(Classifier(mode).app()) as url, pytest.raises(error):
        await ask(url, timeout_seconds=0.3 if error is ClassifierTimeoutError else 5)


@pytest.mark.parametrize(
    "view",
    [
        RequestView("GET", "/\udcff\udcfe?q=\udce4"),
        RequestView("POST", "/", "text/\udce4", (("accept", "\udce4" * 2_000),)),
        RequestView("M" * 100, "/" + "x" * 100_000, "c" * 5_000),
    ],
)
async def test_any_request_of_any_client_can_be_asked_about(view) -> None:
    with serving(Classifier().app()) as url:
        async with ClassifierClient(url, timeout_seconds=5, max_connections=1) as client:
            assert (await client.classify(view)).label is Label.FAST_PATH


async def test_a_service_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(ClassifierUnreachableError):
        await ask(f"http://127.0.0.1:{free_port()}")


async def test_calls_that_are_cancelled_leave_their_connections_to_others() -> None:
    service = Classifier("hang")
    with serving(service.app()) as url:
        async with ClassifierClient(url, timeout_seconds=5, max_connections=2) as client:
            for number in range(10):
                hung = [asyncio.ensure_future(client.classify(VIEW)) for _ in range(2)]
                async with asyncio.timeout(5):
                    while service.questions < 2 * (number + 1):  # noqa: ASYNC110 - another thread
                        await asyncio.sleep(0.002)
                for call in hung:
                    call.cancel()
                await asyncio.wait(hung)
            service.mode = "ok"

            assert (await client.classify(VIEW)).label is Label.FAST_PATH


async def test_no_answer_is_unpacked() -> None:
    with serving(Classifier("gzip").app()) as url, pytest.raises(ClassifierAnswerError):
        await ask(url)
