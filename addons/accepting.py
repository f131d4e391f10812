"""Who of many processes takes the next connection from the port that they share.

The kernel wakes all who wait, and the quickest takes as many as it can get: with few connections
that live long, one process would serve nearly all. So each tells, in memory that all share, how
many it has; and one that clearly has more than another leaves the next one to the other for a
moment.

Invariants:
* The port is always served. Whoever has the fewest never stands back; and since it may be stuck, it
  is waited for `MAX_ROUNDS` times at most, and then no more until it has moved.
* Standing back takes a small share of the time: where connections come and go by the thousand,
  their numbers even out by themselves, and waiting would only cost.
"""

import mmap
import struct
import time
from collections.abc import Callable
from pathlib import Path

MAX_PROCESSES = 64
MAX_SLOTS = 2 * MAX_PROCESSES
"""Twice as many: in a rolling restart old and new ones live side by side."""
ABSENT = -1
STAND_BACK_SECONDS = 0.002
MAX_ROUNDS = 10
"""20 ms in all: on a busy machine it may take so long until another process has its turn."""
ROUNDS_PER_SECOND = 32.0
SAVED_ROUNDS = 64.0
"""So much is spent at most at once: enough for a burst of many connections that will live long."""
TOLERANCE_SHARE = 8
"""One eighth more is no imbalance, and waiting costs time."""


def may_accept(own: int, least: int) -> bool:
    """Whether a process may take a connection that another could take.

    Args:
        own: How many it has.
        least: How many the other has.
    """
    return own <= least + least // TOLERANCE_SHARE


class Counts:
    """How many connections each process has; each writes only its own slot."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Counts in memory that other processes map as well, a word of 8 bytes for each slot."""
        self._memory = memory
        # Aligned words of the machine's own: nobody reads a half-written one.
        self._words = memoryview(memory).cast("q")

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, slot: int) -> int:
        return self._words[slot]

    def set(self, slot: int, count: int) -> None:
        """Tell the count of a slot; `ABSENT` if there is nobody who could serve."""
        self._words[slot] = count

    def present(self) -> list[int]:
        """The slots of all who serve, in order."""
        return [slot for slot, count in enumerate(self._words) if count != ABSENT]

    def told(self) -> list[int]:
        """The counts of all slots."""
        return self._words.tolist()

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()


class Presence:
    """One process at the port: its count, and when it stands back."""

    def __init__(
        self, counts: Counts, slot: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Not there yet.

        Args:
            counts: Those of all processes.
            slot: Which of them is this one's.
            clock: Monotonic seconds.
        """
        self._clock = clock
        self._saved = SAVED_ROUNDS
        self._saved_at = clock()
        self._counts = counts
        self._slot = slot
        self._ports = 0
        self._rounds = 0
        self._waited_for: dict[int, int] = {}
        self._stuck: dict[int, int] = {}
        self.connections = 0

    def begin(self) -> None:
        """Be there, at one port more: others count on this process from now on."""
        self._ports += 1
        self._tell()

    def end(self) -> None:
        """Be there no more, if this was the last port; connections that are left go on."""
        self._ports -= 1
        self._tell()

    def enter(self) -> None:
        """Count a connection in."""
        self.connections += 1
        self._rounds = 0
        self._tell()

    def leave(self) -> None:
        """Count a connection out."""
        self.connections -= 1
        self._tell()

    def nothing_waits(self) -> None:
        """There is no connection to be had: whoever was waited for has taken it."""
        self._rounds = 0

    def stands_back(self) -> bool:
        """Whether to leave the connection that waits to others, for `STAND_BACK_SECONDS`."""
        idler = self._idler()
        if not idler:
            return False
        if self._rounds == 0:
            self._waited_for = idler
        elif self._rounds >= MAX_ROUNDS:
            # Those who have not moved are not waited for again until they have.
            for slot, count in self._waited_for.items():
                if idler.get(slot) == count:
                    self._stuck[slot] = count
            self._rounds = 0
            return False
        if not self._spend():
            return False
        self._rounds += 1
        return True

    def _spend(self) -> bool:
        """Spend one round of waiting, if there is one left."""
        now = self._clock()
        saved = self._saved + (now - self._saved_at) * ROUNDS_PER_SECOND
        self._saved, self._saved_at = min(saved, SAVED_ROUNDS), now
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

    def _idler(self) -> dict[int, int]:
        """The processes that ought to accept before this one, and their counts."""
        idler = {}
        for slot, count in enumerate(self._counts.told()):
            if count == ABSENT or may_accept(self.connections, count):
                continue
            if self._stuck.get(slot) != count:
                self._stuck.pop(slot, None)
                idler[slot] = count
        return idler

    def _tell(self) -> None:
        self._counts.set(self._slot, self.connections if self._ports > 0 else ABSENT)


def create_counts(path: Path, slots: int) -> Counts:
    """Make a file of counts, all absent, that only this user can read."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(struct.pack("q", ABSENT) * slots)
    return open_counts(path)


def open_counts(path: Path) -> Counts:
    """Map a file of counts that another process has made."""
    with path.open("r+b") as file:
        return Counts(mmap.mmap(file.fileno(), 0))
