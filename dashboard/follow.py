"""One viewer's way through the decision log: filter, pause, and what is new to the page."""

from dataclasses import dataclass

from dashboard.decisions import Decision, DecisionLog

PAGE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Filter:
    """Which decisions a viewer wants to see.

    Attributes:
        label: Only this label; empty for all.
        words: All of these must occur, in lower case; one that begins with "-" must not.
    """

    label: str = ""
    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, label: str, text: str) -> "Filter":
        """Read what a viewer chose and typed."""
        return cls(label, tuple(word for word in text.lower().split() if word != "-"))

    def lets_through(self, decision: Decision) -> bool:
        """Whether the decision fits."""
        if self.label and decision.label != self.label:
            return False
        if not self.words:
            return True
        text = decision.search_text()
        return all(
            word[1:] not in text if word.startswith("-") else word in text for word in self.words
        )


@dataclass(frozen=True, slots=True)
class TailUpdate:
    """Rows for the page, newest first; `replace` drops what it showed before."""

    rows: tuple[tuple[int, Decision], ...]
    replace: bool = False


class Follower:
    """Follows a log for one viewer; hands out each fitting decision once."""

    def __init__(self, log: DecisionLog, rows: int = PAGE_ROWS) -> None:
        """Begin with everything that the log has; hand out at most `rows` at a time."""
        self._log = log
        self._rows = rows
        self._filter = Filter()
        self._upto = 0
        self._refill = True
        self.paused = False

    def choose(self, chosen: Filter) -> None:
        """Show what fits this filter from now on, and of what was already shown as well."""
        if chosen != self._filter:
            self._filter = chosen
            self._refill = True

    def pull(self) -> TailUpdate | None:
        """What the page does not show yet; None if nothing.

        While paused only a new filter changes the page, and nothing newer comes in.
        """
        refill, self._refill = self._refill, False
        if self.paused and not refill:
            return None
        if not self.paused:
            start, self._upto = (0 if refill else self._upto), self._log.last
        else:
            start = 0
        rows = [
            (number, decision)
            for number, decision in self._log.since(start)
            if number <= self._upto and self._filter.lets_through(decision)
        ]
        if not rows and not refill:
            return None
        return TailUpdate(tuple(reversed(rows[-self._rows :])), replace=refill)

    def waiting(self) -> int:
        """How many fitting decisions came since the pause, as far as the log reaches."""
        fitting = self._filter.lets_through
        return sum(fitting(decision) for _, decision in self._log.since(self._upto))
