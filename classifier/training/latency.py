"""How long one classification takes: `python -m classifier.training.latency`.

Median, 99th percentile and maximum in microseconds over the recorded rows, over the same rows
with bodies grown to 64 KB as clients grow them, and over 64 KB made to hurt; each figure also as
a multiple of the median of an empty request measured in the same run. Processor time of the
thread is measured: a classification waits for nothing, and what else runs beside it does not count.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from statistics import median, quantiles
from typing import Final

from classifier.contracts import RequestView
from classifier.local_model import LocalModel
from classifier.training.growth import grown
from classifier.training.hurtful import hurtful
from classifier.training.rows import RECORDED, read_rows

_EMPTY: Final = RequestView("GET", "/")
_EMPTY_CALLS: Final = 2_000
_ROUNDS: Final = 5
_SLOWEST: Final = 5

type Case = tuple[str, RequestView]


def main() -> None:
    """Measure and print."""
    model = LocalModel.load()
    recorded = [(row.api, row.view) for row in read_rows() if row.file == RECORDED]
    for _, view in recorded:
        model.classify(view)
    empty = median(_once(model, _EMPTY) for _ in range(_EMPTY_CALLS))
    sys.stdout.write(f"{'empty call':28} median {empty:7.0f} us\n")
    natural = [(f"{kind} {name}", view) for name, seed in recorded for kind, view in grown(seed)]
    for name, cases in (
        ("recorded rows", recorded),
        ("natural 64 KB", natural),
        ("hurtful 64 KB", list(hurtful())),
    ):
        for line in _report(name, cases, model, empty):
            sys.stdout.write(f"{line}\n")


def _once(model: LocalModel, view: RequestView) -> float:
    start = time.thread_time()
    model.classify(view)
    return (time.thread_time() - start) * 1e6


def _report(name: str, cases: Sequence[Case], model: LocalModel, empty: float) -> Iterable[str]:
    """One line of figures and the slowest cases.

    The figure of a case is its best of some rounds: what it costs, not what cooled the caches.
    Between two rounds of a case all others have their turn, as in traffic.
    """
    rounds = [[_once(model, view) for _, view in cases] for _ in range(_ROUNDS)]
    taken = [min(calls) for calls in zip(*rounds, strict=True)]
    cuts = quantiles(taken, n=100)
    figures = (("median", cuts[49]), ("p99", cuts[98]), ("max", max(taken)))
    said = "  ".join(f"{what} {us:7.0f} us ({us / empty:5.1f} x)" for what, us in figures)
    yield f"{name:14} n={len(cases):5}  {said}"
    slowest = sorted(zip(taken, cases, strict=True), key=lambda pair: -pair[0])[:_SLOWEST]
    for us, (case, _) in slowest:
        yield f"    {us:7.0f} us  {case}"


if __name__ == "__main__":
    main()
