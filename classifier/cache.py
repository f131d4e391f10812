"""Labels that the service remembers, bounded in entries, in bytes and in time."""

import sys
from collections.abc import Callable
from dataclasses import replace

from cachetools import TTLCache

from classifier.contracts import Classification
from classifier.keys import MAX_PLAIN_BYTES

# Key, slots of the classification, two floats and the book-keeping of the cache's two dicts.
ENTRY_OVERHEAD_BYTES = 600 + MAX_PLAIN_BYTES


def size_bytes(decided: Classification) -> int:
    """Estimate of the memory that one remembered label takes."""
    return ENTRY_OVERHEAD_BYTES + sys.getsizeof(decided.reason)


class DecisionCache:
    """LRU cache with a time to live, keyed by what requests must share to share a label."""

    def __init__(
        self, max_entries: int, max_bytes: int, ttl_seconds: float, clock: Callable[[], float]
    ) -> None:
        """An empty cache; `clock` gives monotonic seconds."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: TTLCache[bytes, Classification] = TTLCache(
            max_bytes, ttl_seconds, timer=clock, getsizeof=size_bytes
        )

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """Estimate of the memory in use."""
        return int(self._entries.currsize)

    def get(self, key: bytes) -> Classification | None:
        """The remembered label, marked as cached."""
        decided = self._entries.get(key)
        return None if decided is None else replace(decided, cached=True)

    def clear(self) -> None:
        """Forget all labels."""
        self._entries.clear()

    def put(self, key: bytes, decided: Classification) -> None:
        """Remember a label; the least recently used ones make room."""
        if not self._max_entries or size_bytes(decided) > self._max_bytes:
            return
        while key not in self._entries and len(self._entries) >= self._max_entries:
            self._entries.popitem()
        self._entries[key] = decided
