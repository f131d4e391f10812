"""Questions to the LLM under way: each once, so many at the LLM, so many in the queue before it.

Invariants:
* Equal questions are one, however many ask, whether it is at the LLM or waits for it.
* At most `max_inflight` are at the LLM; at most `max_queue` wait.
* Whoever is told of a question is told an answer: the local one, if the question is dropped.

The newest goes first, and one that is asked again counts as new; when the queue is full the oldest
is dropped. In the background an answer is worth the requests that will come, and what was asked a
moment ago is the best guess at those: a shape that keeps coming stays in front of any flood of
those that come once. Who waits for an answer is served while there is time left. In the order of
arrival, a queue that is too long gives every question an answer that nobody needs any more; and
with the newest refused, whoever floods it first keeps all others out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from classifier.contracts import Classification, RequestView


@dataclass(slots=True, eq=False)
class Inquiry:
    """One question, shared by all requests that are equal.

    Attributes:
        local: The answer until there is a better one.
        told: What those who wait are told. Wait for it without cancelling it.
    """

    key: bytes
    view: RequestView
    local: Classification
    told: asyncio.Future[Classification] = field(default_factory=asyncio.Future)

    def give_up(self) -> None:
        """Tell those who wait the local answer, which they shall not keep."""
        if not self.told.done():
            self.told.set_result(replace(self.local, provisional=True))


class Inquiries:
    """All questions under way."""

    def __init__(
        self,
        ask: Callable[[Inquiry], Awaitable[Classification]],
        available: Callable[[], bool],
        *,
        max_inflight: int,
        max_queue: int,
        dropped: Callable[[], None],
    ) -> None:
        """None yet.

        Args:
            ask: Gets the answer; must end by itself and not raise.
            available: Whether asking makes sense now.
            max_inflight: Most questions that are asked at once.
            max_queue: Most that wait for that.
            dropped: Told of each question that is given up unasked.
        """
        self._ask = ask
        self._available = available
        self._max_inflight = max_inflight
        self._max_queue = max_queue
        self._dropped = dropped
        self._asking: dict[bytes, Inquiry] = {}
        # The oldest first: dicts keep their order.
        self._waiting: dict[bytes, Inquiry] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def inflight(self) -> int:
        """How many are asked now."""
        return len(self._tasks)

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def find(self, key: bytes) -> Inquiry | None:
        """The question with this key; it is asked again, and so counts as new."""
        if (waiting := self._waiting.pop(key, None)) is not None:
            self._waiting[key] = waiting
            return waiting
        return self._asking.get(key)

    def put(self, inquiry: Inquiry) -> None:
        """Ask now, or when it is its turn; it may be dropped at once."""
        if self.inflight < self._max_inflight:
            self._start(inquiry)
            return
        self._waiting[inquiry.key] = inquiry
        while len(self._waiting) > self._max_queue:
            self._drop(next(iter(self._waiting)))

    def forget(self) -> None:
        """Nobody wants these answers any more: drop what waits, ask equal ones anew."""
        self._drop_waiting()
        self._asking.clear()

    async def aclose(self) -> None:
        """End all; those who wait get the local answer."""
        self._drop_waiting()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, inquiry: Inquiry) -> None:
        self._asking[inquiry.key] = inquiry
        task = asyncio.get_running_loop().create_task(self._run(inquiry), name="llm")
        self._tasks.add(task)
        # A task that is cancelled before its first step never runs: a `finally` in it would not.
        task.add_done_callback(lambda task: self._ended(inquiry, task))

    async def _run(self, inquiry: Inquiry) -> None:
        answer = await self._ask(inquiry)
        if not inquiry.told.done():
            inquiry.told.set_result(answer)

    def _ended(self, inquiry: Inquiry, task: asyncio.Task[None]) -> None:
        inquiry.give_up()
        self._tasks.discard(task)
        if self._asking.get(inquiry.key) is inquiry:
            del self._asking[inquiry.key]
        if self._waiting and not self._available():
            self._drop_waiting()
        if self._waiting and self.inflight < self._max_inflight:
            _, newest = self._waiting.popitem()
            self._start(newest)

    def _drop_waiting(self) -> None:
        for key in list(self._waiting):
            self._drop(key)

    def _drop(self, key: bytes) -> None:
        self._waiting.pop(key).give_up()
        self._dropped()
