"""A place for one process that is always to be filled: after a crash, and in a rolling restart.

Invariant: one process at a time fills a berth. Who restarts and who replaces may be at it at once,
so each looks, under the berth's lock, whether it is still needed.
"""

import asyncio
import logging
import time
from typing import Protocol

from addons.children import Child

logger = logging.getLogger(__name__)

MIN_LIFE_SECONDS = 10.0
"""A process that lived longer than this is restarted at once."""
BACK_OFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Keeper(Protocol):
    """Who has berths.

    Attributes:
        stopping: Set when no berth is to be filled any more.
    """

    stopping: asyncio.Event

    async def start(self) -> Child:
        """A new process."""
        ...

    async def until_ready(self, child: Child) -> bool:
        """Wait until it is ready; False if it ended before."""
        ...

    def lost(self, code: int) -> None:
        """A process has ended by itself; may stop all."""
        ...


class Berth:
    """A place for one process.

    Attributes:
        child: Who fills it now, or did last.
    """

    def __init__(self, child: Child, keeper: Keeper) -> None:
        """Filled with this one."""
        self.child = child
        self._keeper = keeper
        self._changing = asyncio.Lock()
        self._replaced = asyncio.Event()
        self._failures = 0

    async def keep_filled(self) -> None:
        """Start another process whenever the one in it ends, until all are to stop."""
        stopping = self._keeper.stopping
        while not stopping.is_set():
            child, began = self.child, time.monotonic()
            if not child.ready:
                await self._keeper.until_ready(child)
            code = await child.ended()
            if self.child is not child or stopping.is_set():
                continue  # it was replaced, or told to end
            self._keeper.lost(code)
            failed = time.monotonic() - began < MIN_LIFE_SECONDS
            self._failures = self._failures + 1 if failed else 0
            if not stopping.is_set():
                await self._back_off(child, code)
                await self._fill_after(child)

    async def replace(self) -> bool:
        """Put a new process in the place of the old one, without a gap; whether that was done."""
        async with self._changing:
            new = await self._keeper.start()
            if not await self._keeper.until_ready(new):
                logger.error("the new process ended with exit code %s; the old ones stay", new.code)
                return False
            old, self.child = self.child, new
            self._failures = 0
            self._replaced.set()
        await old.end()
        return True

    async def _back_off(self, child: Child, code: int) -> None:
        seconds = BACK_OFF_SECONDS[min(self._failures, len(BACK_OFF_SECONDS) - 1)]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        logger.error("process %s ended (%s); another starts in %s s", child.name, how, seconds)
        self._replaced.clear()
        ends = (self._keeper.stopping, self._replaced)
        waiting = [asyncio.ensure_future(event.wait()) for event in ends]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()

    async def _fill_after(self, child: Child) -> None:
        async with self._changing:
            # Meanwhile it may have been filled by who replaces all.
            if self.child is child and not self._keeper.stopping.is_set():
                self.child = await self._keeper.start()
                self.child.stands_in = True
