"""Asking the classifier service: one async call with one tree of errors.

The answer of a service is not trusted: its size is bounded while it is read, and its shape is
checked against the contract.
"""

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Self

import httpx
from pydantic import ValidationError

from classifier.contracts import (
    LABELS,
    Classification,
    ClassifyRequest,
    ClassifyResponse,
    ExplainResponse,
    Label,
    RequestView,
)

MAX_ANSWER_BYTES = 65_536

# Shorter than any server's, uvicorn's 5 seconds among them: a question must not meet a connection
# that is just being closed.
IDLE_CONNECTION_SECONDS = 2.0


class ClassifierError(Exception):
    """The classifier gave no usable answer."""

    reason = "error"
    """Closed set, used as a metric label."""


class ClassifierTimeoutError(ClassifierError):
    """No answer in time."""

    reason = "timeout"


class ClassifierUnreachableError(ClassifierError):
    """No connection, or it broke before the answer was whole."""

    reason = "unreachable"


class ClassifierStatusError(ClassifierError):
    """An HTTP status other than 200."""

    reason = "bad_status"


class ClassifierAnswerError(ClassifierError):
    """An answer that breaks the contract: too long, not JSON, an unknown label."""

    reason = "bad_answer"


FAILURE_REASONS = tuple(
    error.reason
    for error in (
        ClassifierTimeoutError,
        ClassifierUnreachableError,
        ClassifierStatusError,
        ClassifierAnswerError,
    )
)


def read_answer[Answer: ClassifyResponse](text: bytes, expected: type[Answer]) -> Answer:
    """The answer of a service, checked against the contract.

    Raises:
        ClassifierAnswerError: If it breaks it.
    """
    try:
        return expected.model_validate_json(text)
    except ValidationError as exc:
        # The answer itself stays out of the message: it may repeat the payload.
        msg = f"{exc.error_count()} faults in the answer"
        raise ClassifierAnswerError(msg) from None


def check_label(answer: ClassifyResponse, labels: Collection[Label]) -> None:
    """Refuse a label that cannot be routed.

    Raises:
        ClassifierAnswerError: If it is none of `labels`.
    """
    if answer.label not in labels:
        msg = "a label without a pool"
        raise ClassifierAnswerError(msg)


class ClassifierClient:
    """A connection pool to one classifier service. Close it with `aclose` or `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_seconds: float,
        max_connections: int,
        labels: Collection[Label] | None = LABELS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare a client; nothing is connected yet.

        Args:
            base_url: Where the service listens, without a path.
            timeout_seconds: Longest time for a whole call, however slowly the answer trickles.
            max_connections: Most connections to the service at once.
            labels: Those that can be routed; any other is no usable answer. None: all are.
            transport: Stands in for the network, in tests.
        """
        self._timeout_seconds = timeout_seconds
        self._labels = None if labels is None else frozenset(labels)
        self._http = httpx.AsyncClient(
            base_url=base_url,
            # The whole call has one deadline, below; httpx's own are for single operations.
            timeout=None,  # noqa: S113
            limits=httpx.Limits(
                max_connections=max_connections,
                max_keepalive_connections=max_connections,
                keepalive_expiry=IDLE_CONNECTION_SECONDS,
            ),
            transport=transport,
            # The environment's HTTP proxies are for the outside world, not for our own service.
            trust_env=False,
        )

    async def classify(self, view: RequestView, deadline_ms: int | None = None) -> Classification:
        """Ask for the label of a request.

        Args:
            view: What the classifier may know of it.
            deadline_ms: Tells the service by when an answer is of use; this call waits longer.

        Raises:
            ClassifierError: If there is no usable answer; a subclass says why.
        """
        answer = await self._ask("/classify", view, deadline_ms, ClassifyResponse)
        if self._labels is not None:
            check_label(answer, self._labels)
        return answer.classification()

    async def explain(self, view: RequestView, deadline_ms: int | None = None) -> ExplainResponse:
        """Ask for the label of a request and all that speaks for it; see `classify`.

        Any label will do, for nothing is routed by it.

        Raises:
            ClassifierError: If there is no usable answer; a subclass says why.
        """
        return await self._ask("/explain", view, deadline_ms, ExplainResponse)

    async def _ask[Answer: ClassifyResponse](
        self, path: str, view: RequestView, deadline_ms: int | None, expected: type[Answer]
    ) -> Answer:
        question = ClassifyRequest.from_view(view, deadline_ms).model_dump_json(exclude_none=True)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                text = await self._post(path, question)
        except TimeoutError as exc:
            raise ClassifierTimeoutError(self._timeout_seconds) from exc
        except httpx.HTTPError as exc:
            raise ClassifierUnreachableError(type(exc).__name__) from exc
        return read_answer(text, expected)

    async def _post(self, path: str, question: str) -> bytes:
        # Not compressed: a small answer could become a large one.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with self._http.stream("POST", path, content=question, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise ClassifierStatusError(response.status_code)
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    raise ClassifierAnswerError(MAX_ANSWER_BYTES)
            return bytes(answer)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
