"""How much counters grew over the last seconds, whatever happened to their process.

Invariants:
* An increase is never negative: after a restart, counting goes on from what was known.
* No increase reaches across a gap: after a failed scrape `clear` forgets what was before.
"""

from collections import deque
from dataclasses import dataclass

from dashboard.scrape import Labels, Samples, Scrape

type _Counts = dict[str, dict[Labels, float]]


@dataclass(frozen=True, slots=True)
class Increase:
    """Growth of counters over a length of time; `seconds` is above zero."""

    seconds: float
    samples: Samples


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    counts: _Counts


class Window:
    """Remembers the scrapes of one endpoint for a while."""

    def __init__(self, keep_seconds: float) -> None:
        """Remember enough to answer for the last `keep_seconds`."""
        self._keep_seconds = keep_seconds
        self._marks: deque[_Mark] = deque()
        self._last: Scrape | None = None
        # What the counters that began anew had reached before, added up.
        self._base: _Counts = {}

    def add(self, at: float, scrape: Scrape) -> None:
        """Take in a scrape; `at` is monotonic seconds and grows from call to call."""
        if self._last is not None:
            for name in _begun_anew(self._last, scrape):
                self._base[name] = self._marks[-1].counts[name]
        self._last = scrape
        self._marks.append(_Mark(at, _sum(self._base, scrape.counters)))
        while len(self._marks) > 2 and self._marks[1].at <= at - self._keep_seconds:  # noqa: PLR2004
            self._marks.popleft()

    def clear(self) -> None:
        """Forget everything: the next scrape is a first one."""
        self._marks.clear()
        self._last = None
        self._base = {}

    def increase(self, over_seconds: float) -> Increase | None:
        """Growth since the newest scrape that is at least that old, or the oldest there is.

        None until two scrapes are there.
        """
        if len(self._marks) < 2:  # noqa: PLR2004 - a growth has two ends
            return None
        now = self._marks[-1]
        old = self._marks[0]
        for mark in self._marks:
            if mark.at > now.at - over_seconds:
                break
            old = mark
        return Increase(now.at - old.at, _grown(old.counts, now.counts))


def _begun_anew(before: Scrape, after: Scrape) -> set[str]:
    """Names of the counters that count from zero again: all after a restart, or only some.

    A hot reload gives the proxy new workers and caches but keeps its process. All series of one
    metric start together, the parts of a histogram too, so one that shrank or went tells for all.
    """
    if before.started != after.started:
        return set(before.counters)
    shrunk = {
        _metric(name)
        for name, series in before.counters.items()
        for labels, value in series.items()
        if after.counters.get(name, {}).get(labels, -1.0) < value
    }
    return {name for name in before.counters if _metric(name) in shrunk}


def _metric(name: str) -> str:
    for part in ("_bucket", "_count", "_sum"):
        name = name.removesuffix(part)
    return name


def _sum(base: Samples, counters: Samples) -> _Counts:
    counts = {name: dict(series) for name, series in counters.items()}
    for name, series in base.items():
        mine = counts.setdefault(name, {})
        for labels, value in series.items():
            mine[labels] = mine.get(labels, 0.0) + value
    return counts


def _grown(old: _Counts, now: _Counts) -> Samples:
    grown: _Counts = {}
    for name, series in now.items():
        before = old.get(name, {})
        # A series that is new counts from zero: it was not there because nothing had happened.
        grown[name] = {
            labels: max(0.0, value - before.get(labels, 0.0)) for labels, value in series.items()
        }
    return grown
