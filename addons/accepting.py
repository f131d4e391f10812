"""Who of many processes takes the next connection from the port that they share.

The kernel wakes all who wait, and the quickest takes as many as it can get: with few connections
that live long, one process would serve nearly all. So each tells, in memory that all share, how
many it has; and one that clearly has more than another leaves the next one to the other for a
moment.

Invariant: the port is always served. Whoever has the fewest never stands back; and since it may be
stuck, nobody stands back for longer than `PATIENCE_SECONDS`.
"""

import mmap
import struct
from pathlib import Path

MAX_PROCESSES = 64
SLOTS = 2 * MAX_PROCESSES
"""Twice as many: in a rolling restart old and new ones live side by side."""
ABSENT = -1
PATIENCE_SECONDS = 0.004
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

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()


def create_counts(path: Path) -> Counts:
    """Make a file of counts, all absent, that only this user can read."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(struct.pack("q", ABSENT) * SLOTS)
    return open_counts(path)


def open_counts(path: Path) -> Counts:
    """Map a file of counts that another process has made."""
    with path.open("r+b") as file:
        return Counts(mmap.mmap(file.fileno(), 8 * SLOTS))
