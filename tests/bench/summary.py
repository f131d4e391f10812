"""What the rounds come to: medians with spread, ratios, and who may be compared at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.figures import Stat, paired, ratio, stat
from tests.bench.measure import Measurement
from tests.bench.rounds import Results
from tests.bench.wrk import Cell

FEW_CLIENTS = 16
MAIN_CLIENTS = 64


def _distance(cell: Cell) -> tuple[int, int, int]:
    """How far a load is from the one that speaks for all."""
    return abs(cell.body_bytes), -cell.body_bytes, abs(cell.clients - MAIN_CLIENTS)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Many clients to few: requests a second, and the 99th percentile of waiting."""

    many: int
    throughput: float
    p99: float


class Summary:
    """Reads results; knows which figures may not be ranked."""

    def __init__(self, results: Results, cells: Sequence[Cell]) -> None:
        """Of all rounds."""
        self.results = results
        self.cells = cells

    @property
    def keys(self) -> list[str]:
        """Targets that were measured."""
        return list(self.results.measured)

    @property
    def main_cell(self) -> Cell:
        """The load that speaks for all: 64 clients that GET, or what comes nearest."""
        return min(self.cells, key=_distance)

    def rounds(self, key: str, cell: Cell) -> list[Measurement]:
        return self.results.measured.get(key, {}).get(cell, [])

    def errors(self, key: str, cell: Cell) -> dict[str, int]:
        """How many of each kind, over all rounds."""
        total: dict[str, int] = {}
        for each in self.rounds(key, cell):
            for kind, count in each.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def figure(
        self, key: str, cell: Cell, read: Callable[[Measurement], float | None]
    ) -> Stat | None:
        """The median of some figure over the rounds."""
        return stat([read(each) for each in self.rounds(key, cell)])

    def capacity(self, key: str, base: str, cell: Cell) -> Stat | None:
        """Requests for the same CPU time, as a multiple of another target's.

        None if one of them was not measured, or had errors.
        """
        mine, theirs = self.rounds(key, cell), self.rounds(base, cell)
        if not mine or not theirs or self.errors(key, cell) or self.errors(base, cell):
            return None
        return paired([each.cpu_us for each in theirs], [each.cpu_us for each in mine])

    def scaling(self, key: str) -> Scaling | None:
        """Of the most clients that GET to 16; None if one of both was not measured."""
        counts = {cell.clients for cell in self.cells if cell.body_bytes == 0}
        if FEW_CLIENTS not in counts or (most := max(counts)) == FEW_CLIENTS:
            return None
        many, few = Cell(most, 0), Cell(FEW_CLIENTS, 0)
        if self.errors(key, many) or self.errors(key, few):
            return None
        throughput = paired(
            *([each.rps for each in self.rounds(key, cell)] for cell in (many, few))
        )
        p99 = paired(*([each.p99_ms for each in self.rounds(key, cell)] for cell in (many, few)))
        return (
            None
            if throughput is None or p99 is None
            else Scaling(most, throughput.median, p99.median)
        )

    def connections(self, key: str, cell: Cell) -> tuple[int, int]:
        """Connections opened to the upstream, and the requests that they carried."""
        all_rounds = self.rounds(key, cell)
        opened = sum(each.connections for each in all_rounds)
        return opened, sum(each.connection_requests for each in all_rounds)

    def hit_ratio(self, key: str) -> float | None:
        """Share of measured requests whose label was in this product's cache."""
        every = [each for cell in self.cells for each in self.rounds(key, cell)]
        hits = sum(each.hits or 0 for each in every)
        return ratio(hits, hits + sum(each.misses or 0 for each in every))

    def idle_ratio(self, key: str, base: str) -> float | None:
        return ratio(self.results.idle_bytes.get(key), self.results.idle_bytes.get(base))
