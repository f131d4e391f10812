"""Who of many processes takes the next connection from the port that they share.

The kernel wakes all who wait, and the quickest takes as many as it can get: with few connections
that live long, one process would serve nearly all. So each tells, in memory that all share, how
many it has; and one that clearly has more than another leaves the next one to the other for a
moment.

Invariant: the port is always served. Whoever has the fewest never stands back; and since it may be
stuck, nobody stands back more than `MAX_ROUNDS` times in a row, nor while no other takes anything.
"""

import mmap
import struct
from pathlib import Path

MAX_PROCESSES = 64
SLOTS = 2 * MAX_PROCESSES
"""Twice as many: in a rolling restart old and new ones live side by side."""
ABSENT = -1
STAND_BACK_SECONDS = 0.002
MAX_ROUNDS = 2
TOLERANCE_SHARE = 8
"""One eighth more is no imbalance, and waiting costs time."""


def may_accept(own: int, least: int) -> bool:
    """Whether a process takes a connection now.

    Args:
        own: How many it has.
        least: How many the process has that has the fewest.
    """
    return own <= least + 1 + least // TOLERANCE_SHARE


class Counts:
    """How many connections each process has; each writes only its own slot."""

    def __init__(self, memory: mmap.mmap) -> None:
        """Counts in memory of `SLOTS` words of 8 bytes, which other processes map as well."""
        self._memory = memory
        # Aligned words of the machine's own: nobody reads a half-written one.
        self._words = memoryview(memory).cast("q")

    def __getitem__(self, slot: int) -> int:
        return self._words[slot]

    def set(self, slot: int, count: int) -> None:
        """Tell the count of a slot; `ABSENT` if there is nobody who could serve."""
        self._words[slot] = count

    def present(self) -> list[int]:
        """The slots of all who serve, in order."""
        return [slot for slot, count in enumerate(self._words) if count != ABSENT]

    def least(self) -> int:
        """The count of who has the fewest; 0 if nobody serves."""
        return min((count for count in self._words if count != ABSENT), default=0)

    def of_others(self, slot: int) -> int:
        """How many connections all but this slot have."""
        return sum(n for one, n in enumerate(self._words) if n != ABSENT and one != slot)

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()


class Presence:
    """One process at the port: its count, and when it stands back."""

    def __init__(self, counts: Counts, slot: int) -> None:
        """Not there yet."""
        self._counts = counts
        self._slot = slot
        self._ports = 0
        self._rounds = 0
        self._others = 0
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

    def stands_back(self) -> bool:
        """Whether to leave the connection that waits to others, for `STAND_BACK_SECONDS`."""
        if may_accept(self.connections, self._counts.least()):
            return False
        others = self._counts.of_others(self._slot)
        stuck = self._rounds and others == self._others
        if stuck or self._rounds >= MAX_ROUNDS:
            return False
        self._rounds += 1
        self._others = others
        return True

    def nothing_waits(self) -> None:
        """There is no connection to be had: whoever stood back did so long enough."""
        self._rounds = 0

    def _tell(self) -> None:
        self._counts.set(self._slot, self.connections if self._ports > 0 else ABSENT)


def create_counts(path: Path) -> Counts:
    """Make a file of counts, all absent, that only this user can read."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(struct.pack("q", ABSENT) * SLOTS)
    return open_counts(path)


def open_counts(path: Path) -> Counts:
    """Map a file of counts that another process has made."""
    with path.open("r+b") as file:
        return Counts(mmap.mmap(file.fileno(), 8 * SLOTS))
