"""Who may go now, who waits for a turn, and who makes room. Pure: it starts and stops by callback.

Invariants:
* At most `at_once` run. One that was told to make room counts until it has left.
* At most `waiting` wait, beside those for whom room is being made; they go in order.
* One that has lapsed runs on only as long as nobody needs its place: the oldest makes room first.
"""

from collections import deque
from collections.abc import Callable, Hashable


class Turns[T: Hashable]:
    """A bounded number of places and a bounded queue in front of them."""

    def __init__(
        self,
        *,
        at_once: int,
        waiting: int,
        start: Callable[[T], None],
        evict: Callable[[T], None],
    ) -> None:
        """All places are free.

        Args:
            at_once: How many places there are.
            waiting: Most that wait for a place.
            start: Called when one gets a place. It must `leave` in the end.
            evict: Called when one has to leave soon.
        """
        self._at_once = at_once
        self._waiting = waiting
        self._start = start
        self._evict = evict
        self._queue: deque[T] = deque()
        self._lapsed: dict[T, None] = {}
        self._leaving: set[T] = set()
        self.running: set[T] = set()

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._queue)

    def enter(self, one: T) -> bool:
        """Start it, or let it wait; False if there is no room for either."""
        if len(self.running) < self._at_once:
            self._begin(one)
            return True
        if len(self._queue) >= self._waiting + len(self._lapsed) + len(self._leaving):
            return False
        self._queue.append(one)
        self._make_room()
        return True

    def lapse(self, one: T) -> None:
        """Nobody waits for this one any more: it may be evicted."""
        if one in self.running and one not in self._leaving:
            self._lapsed[one] = None
            self._make_room()

    def leave(self, one: T) -> None:
        """It has ended: its place is free."""
        self.running.discard(one)
        self._lapsed.pop(one, None)
        self._leaving.discard(one)
        while self._queue and len(self.running) < self._at_once:
            self._begin(self._queue.popleft())

    def withdraw(self, one: T) -> bool:
        """Stop waiting; False if it does not wait."""
        if one not in self._queue:
            return False
        self._queue.remove(one)
        return True

    def empty_queue(self) -> list[T]:
        """Nobody waits any more; returns those who did."""
        waiting = list(self._queue)
        self._queue.clear()
        return waiting

    def evict_lapsed(self) -> None:
        """Have every lapsed one leave."""
        while self._lapsed:
            self._evict_oldest()

    def _begin(self, one: T) -> None:
        self.running.add(one)
        self._start(one)

    def _make_room(self) -> None:
        while self._lapsed and len(self._leaving) < len(self._queue):
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        oldest = next(iter(self._lapsed))
        del self._lapsed[oldest]
        self._leaving.add(oldest)
        self._evict(oldest)
