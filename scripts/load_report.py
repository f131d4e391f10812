"""What became of the requests of a load test, and what to say of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from load_shapes import FAST_PATH, GENERAL, HIGH_COMPUTE, Shape

FAULTS_SHOWN = 20
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        decided: The label that the proxy decided on; `source` says by whose word.
        went_to: Type of the worker that answered; the decided label if the worker does not tell.
        error: What went wrong, "" if nothing did.
    """

    shape: Shape
    elapsed_ms: float
    decided: str = ""
    source: str = ""
    went_to: str = ""
    error: str = ""

    @property
    def fault(self) -> str:
        """Why the load test fails because of it; "" if it does not."""
        if self.error:
            return self.error
        if self.went_to != self.decided:
            return f"decided {self.decided}, but went to {self.went_to}"
        if self.went_to != self.shape.label:
            return f"is {self.shape.label}, but went to {self.went_to} by {self.source}"
        return ""


def report(outcomes: Sequence[Outcome], elapsed_s: float) -> None:
    """Print a line for each label, and how fast it went."""
    print(f"{'label':<14}{'sent':>6}{'errors':>8}{'p50 ms':>10}{'p99 ms':>10}   went to")
    for label in (FAST_PATH, GENERAL, HIGH_COMPUTE):
        same_label = [outcome for outcome in outcomes if outcome.shape.label == label]
        times_ms = sorted(outcome.elapsed_ms for outcome in same_label)
        errors = sum(bool(outcome.error) for outcome in same_label)
        pools = Counter(outcome.went_to for outcome in same_label if not outcome.error)
        went_to = ", ".join(f"{pool} {count}" for pool, count in pools.most_common())
        print(
            f"{label:<14}{len(same_label):>6}{errors:>8}"
            f"{_quantile(times_ms, 0.5):>10.1f}{_quantile(times_ms, 0.99):>10.1f}   {went_to}"
        )
    print(
        f"{len(outcomes)} requests in {elapsed_s:.1f} s, {len(outcomes) / elapsed_s:.0f} a second"
    )


def conclude(planned: int, outcomes: Sequence[Outcome], *, ended: str) -> int:
    """Say what went wrong, and in the last line whether anything did; returns the exit code.

    Args:
        planned: How many requests there should have been.
        outcomes: Of those that were answered or failed.
        ended: Why there were no more of them, if there were less.
    """
    faults = Counter(
        f"{outcome.shape.name}: {outcome.fault}" for outcome in outcomes if outcome.fault
    )
    for line, count in faults.most_common(FAULTS_SHOWN):
        print(f"{count:>6} x  {line}")
    unanswered = planned - len(outcomes)
    if unanswered:
        print(f"{ended} with {unanswered} requests not answered")
    if faults or unanswered:
        print(
            f"FAILED: {faults.total() + unanswered} of {planned} requests "
            "failed, went astray or were not answered"
        )
        return EXIT_FAILED
    print(f"OK: all {len(outcomes)} requests reached their own pool")
    return 0


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; 0 where there is nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
