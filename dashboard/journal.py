"""A bounded list that many readers follow, each from where it left off."""

from collections import deque
from itertools import islice


class Journal[T]:
    """The last entries, numbered from 1 in the order they came."""

    def __init__(self, limit: int) -> None:
        """Keep at most `limit` entries; the oldest go first."""
        self._entries: deque[T] = deque(maxlen=limit)
        self.last = 0
        """Number of the newest entry; 0 if none ever came."""

    def append(self, entry: T) -> None:
        """Add the newest entry."""
        self._entries.append(entry)
        self.last += 1

    def since(self, number: int) -> list[tuple[int, T]]:
        """Numbered entries after that number, oldest first."""
        first = self.last - len(self._entries) + 1
        skip = max(0, number + 1 - first)
        return list(enumerate(islice(self._entries, skip, None), first + skip))
