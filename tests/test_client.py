"""The public client of the classifier and the proxy's own, against services that misbehave."""

import asyncio
import contextlib
import socket

import pytest

from addons.service import ClassifierService
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


@contextlib.asynccontextmanager
async def public(url, timeout_seconds):
    async with ClassifierClient(url, timeout_seconds=timeout_seconds, max_connections=2) as client:
        yield client


@contextlib.asynccontextmanager
async def own(url, timeout_seconds, **how):
    service = ClassifierService(url, timeout_seconds=timeout_seconds, **how)
    try:
        yield service
    finally:
        service.close()
        # The loop closes what was given up, and servers wait for that.
        await asyncio.sleep(0)


@pytest.fixture(params=[public, own])
def asking(request):
    """Makes something that asks the service at a URL."""
    return request.param


async def ask(asking, url, timeout_seconds=2.0):
    async with asking(url, timeout_seconds) as client:
        return await client.classify(VIEW, deadline_ms=100)


async def test_an_answer_becomes_a_classification(asking) -> None:
    with serving(Classifier().app()) as url:
        answer = await ask(asking, url)

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
async def test_a_misbehaving_service_is_an_error_that_says_how(asking, mode, error) -> None:
    with serving(Classifier(mode).app()) as url, pytest.raises(error):
        await ask(asking, url, timeout_seconds=0.3 if error is ClassifierTimeoutError else 5)


@pytest.mark.parametrize(
    "view",
    [
        RequestView("GET", "/\udcff\udcfe?q=\udce4"),
        RequestView("POST", "/", "text/\udce4", (("accept", "\udce4" * 2_000),)),
        RequestView("M" * 100, "/" + "x" * 100_000, "c" * 5_000),
    ],
)
async def test_any_request_of_any_client_can_be_asked_about(asking, view) -> None:
    with serving(Classifier().app()) as url:
        async with asking(url, 5) as client:
            assert (await client.classify(view)).label is Label.FAST_PATH


async def test_a_service_that_is_not_there_is_unreachable(asking) -> None:
    with pytest.raises(ClassifierUnreachableError):
        await ask(asking, f"http://127.0.0.1:{free_port()}")


async def test_calls_that_are_cancelled_leave_their_connections_to_others(asking) -> None:
    service = Classifier("hang")
    with serving(service.app()) as url:
        async with asking(url, 5) as client:
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


async def test_no_answer_is_unpacked(asking) -> None:
    with serving(Classifier("gzip").app()) as url, pytest.raises(ClassifierAnswerError):
        await ask(asking, url)


# The proxy's own


ANSWER = (
    b'{"label": "general", "confidence": 1, "source": "local", "reasoning": "", "latency_ms": 0}'
)


class Scripted:
    """A service that answers each question on a connection by what its script says next."""

    def __init__(self, *script) -> None:
        self.script = list(script)
        self.questions = []
        self.connections = 0

    async def serve(self, reader, writer) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.questions.append((head, await reader.readexactly(length)))
                answer = self.script.pop(0) if self.script else response()
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                if b"Connection: close" in answer:
                    return


def response(body=ANSWER, status=b"200 OK", *fields) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@contextlib.asynccontextmanager
async def scripted(*script, tls=None):
    service = Scripted(*script)
    listener = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=tls)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        yield service, f"http{'s' if tls else ''}://127.0.0.1:{port}"


async def test_the_question_is_one_whole_request_at_the_path_of_the_url() -> None:
    async with scripted() as (service, url), own(f"{url}/label%20s/", 5) as client:
        await client.classify(RequestView("GET", "/users/1"), 90)
    ((head, question),) = service.questions
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /label%20s/classify HTTP/1.1"
    assert f"Host: {url.removeprefix('http://')}" in lines
    assert "Content-Type: application/json" in lines
    assert "Accept-Encoding: identity" in lines
    assert b'"path":"/users/1"' in question
    assert b'"deadline_ms":90' in question


async def test_one_connection_serves_one_question_after_the_other() -> None:
    async with scripted() as (service, url), own(url, 5) as client:
        for _ in range(5):
            await client.classify(VIEW)
    assert (service.connections, len(service.questions)) == (1, 5)


async def test_a_connection_that_the_service_closes_while_it_is_idle_costs_no_answer() -> None:
    # The second question finds the connection closed, or meets the end of it.
    async with scripted(response(), None) as (service, url), own(url, 5) as client:
        await client.classify(VIEW)
        assert (await client.classify(VIEW)).label is Label.GENERAL
    assert (service.connections, len(service.questions)) == (2, 3)


async def test_a_new_connection_that_breaks_is_not_tried_again() -> None:
    async with scripted(None) as (service, url), own(url, 5) as client:
        with pytest.raises(ClassifierUnreachableError):
            await client.classify(VIEW)
    assert len(service.questions) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (response(b"", b"302 Found", b"Location: /elsewhere"), ClassifierStatusError),
        (response(b"x" * 65_537), ClassifierAnswerError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000, ClassifierAnswerError),
        (response(b"", b"200 OK", b"Content-Length: 6"), ClassifierUnreachableError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ClassifierUnreachableError),
    ],
)  # fmt: skip
async def test_after_a_bad_answer_the_next_question_has_a_connection_of_its_own(
    answer, error
) -> None:
    async with scripted(answer) as (service, url), own(url, 5) as client:
        with pytest.raises(error):
            await client.classify(VIEW)
        assert (await client.classify(VIEW)).label is Label.GENERAL
    assert service.connections == 2


async def test_an_answer_may_end_with_its_connection() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + ANSWER
    async with scripted(answer, answer) as (service, url), own(url, 5) as client:
        for _ in range(2):
            assert (await client.classify(VIEW)).label is Label.GENERAL
    assert service.connections == 2


async def test_a_service_that_accepts_no_connection_is_a_timeout() -> None:
    with socket.socket() as sock, contextlib.ExitStack() as held:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            full = held.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(sock.getsockname())
        with pytest.raises(ClassifierTimeoutError):
            await ask(own, f"http://127.0.0.1:{sock.getsockname()[1]}", 0.1)


async def test_questions_pass_through_tls(certified) -> None:
    server, trusting = certified
    async with scripted(tls=server) as (service, url):
        async with own(url, 5, tls=lambda: trusting) as client:
            assert (await client.classify(VIEW)).label is Label.GENERAL
        async with own(url, 5) as client:
            with pytest.raises(ClassifierUnreachableError):
                await client.classify(VIEW)
    assert len(service.questions) == 1
