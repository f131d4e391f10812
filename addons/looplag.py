"""How late the event loop is: what is due waits until the loop has done all that is before it.

A loop that is late makes everybody wait, whatever they ask for, and no other figure shows it: time
that a request spends unread in a socket is in no request's duration.
"""

import asyncio
from collections.abc import Callable

SAMPLE_SECONDS = 0.05

type Told = Callable[[float, float], None]
"""Is told a lag, in seconds, and the time in the loop's seconds."""


class LoopLag:
    """Samples by how much a timer is late, every `SAMPLE_SECONDS` or as often as the loop allows.

    Between requests it is about a millisecond, for the kernel's clocks are as coarse as that.
    """

    def __init__(self, *told: Told) -> None:
        """A sampler that `start` starts.

        Args:
            told: Who is told of each sample.
        """
        self._told = told
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sample from now on, on the running loop."""
        self._plan(asyncio.get_running_loop())

    def stop(self) -> None:
        """Sample no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not a task that sleeps: it would be woken one turn later still.
        due = loop.time() + SAMPLE_SECONDS
        self._timer = loop.call_at(due, self._sample, loop, due)

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._plan(loop)
        now = loop.time()
        # The loop's clock has a resolution, by which a timer may come early.
        lag = max(0.0, now - due)
        for told in self._told:
            told(lag, now)
