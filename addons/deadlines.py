"""Deadlines of connections, kept by one coarse clock instead of a timer for each wait.

A connection that waits for something writes the time until which it will wait into its `deadline`;
nothing else has to be done, which makes a deadline cost one assignment on the hot path.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator
from typing import Protocol

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.05
FAIR_TURNS = 10
"""Turns of our own loop that a wait has at least; a connection with TLS takes about seven."""
ONE_MORE_TURN_SECONDS = 0.005
NEVER = math.inf


@contextlib.asynccontextmanager
async def fair_timeout(seconds: float) -> AsyncIterator[None]:
    """Like `asyncio.timeout`, but not for what our own loop was late to notice.

    A connection is not one event: it takes several turns of the loop until it is there, and with
    many requests in each of them these turns alone can last longer than `seconds`. So the time is
    counted in slices, each begun when the loop has seen the end of the one before: however busy
    the loop is, whoever is waited for gets `FAIR_TURNS` turns, and then one more, for timer and
    awaited event may come due in the same turn and asyncio would let the timer win.

    Raises:
        TimeoutError: If the time is over.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as scope:
        slices = FAIR_TURNS
        timer: asyncio.TimerHandle

        def begin_slice() -> None:
            nonlocal slices, timer
            slices -= 1
            if slices >= 0:
                timer = loop.call_later(seconds / FAIR_TURNS, begin_slice)
            else:
                scope.reschedule(loop.time() + ONE_MORE_TURN_SECONDS)

        begin_slice()
        try:
            yield
        finally:
            timer.cancel()


class Expiring(Protocol):
    """Something that waits.

    Attributes:
        deadline: Monotonic seconds; `NEVER` while it does not wait.
    """

    deadline: float

    def expire(self, now: float) -> None:
        """The deadline has passed: give up, or set a later one."""
        ...


class Deadlines:
    """All that wait now. Deadlines are met within `TICK_SECONDS` and the loop's own delay."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: set[Expiring] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiting: Expiring) -> None:
        """Watch over its deadline from now on."""
        self._waiting.add(waiting)

    def discard(self, waiting: Expiring) -> None:
        """Stop watching; unknown ones are ignored."""
        self._waiting.discard(waiting)

    async def run(self) -> None:
        """Expire what is over, until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.tick(time.monotonic())

    def tick(self, now: float) -> None:
        """Expire what is over by `now` (monotonic seconds)."""
        for waiting in [one for one in self._waiting if one.deadline <= now]:
            try:
                waiting.expire(now)
            except Exception as exc:
                # Supervisor: one broken connection must not take the clock from all others.
                logger.error("a deadline could not be kept: %s", type(exc).__name__)
                self._waiting.discard(waiting)
