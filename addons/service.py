"""The classifier service as the proxy asks it: on connections of the proxy's own kind.

For the wire it is `classifier.client`'s `ClassifierClient`, which is for everybody else: the same
question, errors and bounds, at a fraction of the CPU time, for it is asked once for each request
that is not known yet.
"""

import asyncio
import ssl
from collections.abc import Callable, Collection

import httpx

from addons import http1
from addons.bounds import Timeouts
from addons.deadlines import Deadlines
from addons.upstream import Fault, UpstreamConnection, UpstreamError, UpstreamPool
from addons.worker import DEFAULT_PORTS, Worker
from classifier.client import (
    IDLE_CONNECTION_SECONDS,
    MAX_ANSWER_BYTES,
    ClassifierAnswerError,
    ClassifierStatusError,
    ClassifierTimeoutError,
    ClassifierUnreachableError,
    check_label,
    read_answer,
)
from classifier.contracts import (
    LABELS,
    Classification,
    ClassifyRequest,
    ClassifyResponse,
    Label,
    RequestView,
)

CLOSED_WHILE_IDLE = frozenset({Fault.STALE, Fault.CLOSED})
OK = 200


class ClassifierService:
    """Asks one classifier service. How many questions are open at once is the asker's to bound."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float,
        labels: Collection[Label] = LABELS,
        tls: Callable[[], ssl.SSLContext] = lambda: httpx.create_ssl_context(trust_env=False),
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            base_url: Where the service listens; it may have a path.
            timeout_seconds: Longest time for a whole call, however slowly the answer trickles.
            labels: Those that can be routed; any other is no usable answer.
            tls: Makes the context for a service that speaks TLS. The environment has no say in it.
        """
        url = httpx.URL(base_url)
        self._worker = Worker(
            url.scheme, url.raw_host.decode(), url.port or DEFAULT_PORTS[url.scheme]
        )
        self._timeout_seconds = timeout_seconds
        self._labels = frozenset(labels)
        fields = [
            (b"Host", url.netloc),
            (b"Content-Type", b"application/json"),
            # Not compressed: a small answer could become a large one.
            (b"Accept-Encoding", b"identity"),
        ]
        target = url.raw_path.rstrip(b"/") + b"/classify"
        self._request = http1.make_request_head(b"POST", target, 1, fields)
        whole = http1.serialise(b"POST %b HTTP/1.1" % target, fields)
        self._head = whole.removesuffix(b"\r\n") + b"Content-Length: "
        # A call has one deadline, its own: nobody runs the clock of these.
        timeouts = Timeouts(
            connect=timeout_seconds,
            first_byte=timeout_seconds,
            idle=timeout_seconds,
            keepalive=IDLE_CONNECTION_SECONDS,
        )
        self._connections = UpstreamPool(timeouts, Deadlines(), tls)

    async def classify(self, view: RequestView, deadline_ms: int | None = None) -> Classification:
        """Ask for the label of a request.

        Args:
            view: What the classifier may know of it.
            deadline_ms: Tells the service by when an answer is of use; this call waits longer.

        Raises:
            ClassifierError: If there is no usable answer; a subclass says why.
        """
        question = ClassifyRequest.from_view(view, deadline_ms).model_dump_json(exclude_none=True)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                text = await self._post(question.encode())
        except TimeoutError as exc:
            raise ClassifierTimeoutError(self._timeout_seconds) from exc
        except UpstreamError as exc:
            if exc.fault is Fault.CONNECT_TIMEOUT:
                raise ClassifierTimeoutError(self._timeout_seconds) from exc
            raise ClassifierUnreachableError(exc.fault.value) from exc
        answer = read_answer(text, ClassifyResponse)
        check_label(answer, self._labels)
        return answer.classification()

    def close(self) -> None:
        """Close the connections on which nothing is asked; the others end with their questions."""
        self._connections.close()

    async def _post(self, question: bytes) -> bytes:
        self._connections.close_idle(asyncio.get_running_loop().time())
        connection = self._connections.take(self._worker)
        if connection is not None:
            try:
                return await self._ask(connection, question)
            except UpstreamError as exc:
                # The service may have closed it in this very moment. A question may be asked twice.
                if exc.fault not in CLOSED_WHILE_IDLE:
                    raise
        return await self._ask(await self._connections.open(self._worker), question)

    async def _ask(self, connection: UpstreamConnection, question: bytes) -> bytes:
        """Put a question on a connection, which is kept if the answer is whole."""
        reusable = False
        try:
            connection.begin(self._request, lambda _: None)
            connection.write(b"%b%d\r\n\r\n%b" % (self._head, len(question), question))
            head = await connection.head()
            if head.status != OK:
                raise ClassifierStatusError(head.status)
            answer = await _read(connection, head)
            reusable = connection.reusable(head)
        finally:
            if not reusable:
                connection.drop()
        self._connections.give_back(connection)
        return answer


async def _read(connection: UpstreamConnection, head: http1.ResponseHead) -> bytes:
    """The body of an answer.

    Raises:
        ClassifierAnswerError: If it is too long; no more of it is read than that shows.
        UpstreamError: If it breaks off.
    """
    answer = bytearray()

    def take(part: bytes) -> None:
        answer.extend(part)
        if len(answer) > MAX_ANSWER_BYTES:
            connection.stop()

    error = await connection.relay(head, take)
    if len(answer) > MAX_ANSWER_BYTES:
        raise ClassifierAnswerError(MAX_ANSWER_BYTES)
    if error is not None:
        raise error
    return bytes(answer)
