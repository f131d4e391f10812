"""The live decision feeds of all processes as one. Nobody follows while nobody reads."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence

import httpx

from addons.children import Child
from addons.feed import (
    MAX_SUBSCRIBERS,
    SUBSCRIBER_BACKLOG,
    DecisionEvent,
    TooManySubscribersError,
)

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How soon a new process, or one whose feed broke off, is followed."""
BEGIN_SECONDS = 1.0
DATA = "data: "


class Following:
    """Reads the feeds of all processes while there is a reader of its own."""

    def __init__(self, serving: Callable[[], Sequence[Child]]) -> None:
        """Follows the processes that `serving` returns, whenever it looks."""
        self._serving = serving
        self._readers: set[asyncio.Queue[DecisionEvent]] = set()
        self._task: asyncio.Task[None] | None = None
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, asyncio.Event] = {}

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Queue[DecisionEvent]]:
        """New decisions of all processes while the context lasts.

        Raises:
            TooManySubscribersError: If there are as many readers as are served.
        """
        if len(self._readers) >= MAX_SUBSCRIBERS:
            raise TooManySubscribersError(MAX_SUBSCRIBERS)
        queue: asyncio.Queue[DecisionEvent] = asyncio.Queue(SUBSCRIBER_BACKLOG)
        self._readers.add(queue)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow_all())
        try:
            yield queue
        finally:
            self._readers.discard(queue)
            if not self._readers:
                self._stop()

    async def begun(self) -> None:
        """Wait until all that can be followed are: what is decided from then on is told."""
        self._follow_new()
        waiting = [event.wait() for event in self._begun.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_SECONDS):
                await asyncio.gather(*waiting)

    def _publish(self, event: DecisionEvent) -> None:
        for queue in self._readers:
            if queue.full():
                # Who does not keep up loses the oldest.
                queue.get_nowait()
            queue.put_nowait(event)

    def _stop(self) -> None:
        for task in (self._task, *self._followed.values()):
            if task is not None:
                task.cancel()
        self._task = None
        self._followed.clear()
        self._begun.clear()

    async def _follow_all(self) -> None:
        while True:
            self._follow_new()
            await asyncio.sleep(LOOK_SECONDS)

    def _follow_new(self) -> None:
        for name in [name for name, task in self._followed.items() if task.done()]:
            del self._followed[name], self._begun[name]
        for child in self._serving():
            if child.name not in self._followed:
                begun = self._begun[child.name] = asyncio.Event()
                work = self._follow(child, begun)
                self._followed[child.name] = asyncio.get_running_loop().create_task(work)

    async def _follow(self, child: Child, begun: asyncio.Event) -> None:
        try:
            async with child.stream("/events?history=0") as answer:
                async for line in answer.aiter_lines():
                    begun.set()
                    if line.startswith(DATA):
                        self._publish(DecisionEvent(**json.loads(line.removeprefix(DATA))))
        except (httpx.HTTPError, ValueError, TypeError) as exc:
            logger.debug("the feed of process %s broke off: %s", child.name, type(exc).__name__)
        finally:
            begun.set()
