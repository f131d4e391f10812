"""The capacities as a picture: bars on a logarithmic scale, stock mitmdump is 1."""

from collections.abc import Mapping
from pathlib import Path

from tests.bench.summary import Summary
from tests.bench.targets import STOCK
from tests.bench.wrk import Cell

LOADS = (Cell(64, 0), Cell(16, 10_000), Cell(1, 0))
COLOURS = ("#1f6feb", "#2da44e", "#bf8700")
BAR = 0.26


def is_installed() -> bool:
    try:
        import matplotlib  # noqa: F401 - whether it is there
    except ImportError:
        return False
    return True


def draw(summary: Summary, names: Mapping[str, str], file: Path) -> None:
    """Write an SVG, the same bytes for the same figures."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 10})
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    cells = [cell for cell in LOADS if cell in summary.cells] or [summary.main_cell]
    keys = summary.keys[::-1]
    figure, axes = plt.subplots(figsize=(8.5, 0.6 + 0.55 * len(keys)), layout="constrained")
    for index, cell in enumerate(cells):
        shift = ((len(cells) - 1) / 2 - index) * BAR
        for row, key in enumerate(keys):
            capacity = summary.capacity(key, STOCK, cell)
            if capacity is None:
                continue
            label = cell.name if row == 0 else None
            errors = [[capacity.median - capacity.low], [capacity.high - capacity.median]]
            axes.barh(row + shift, capacity.median, BAR, xerr=errors, label=label,
                      color=COLOURS[index], error_kw={"lw": 0.8, "ecolor": "#444"})  # fmt: skip
            axes.text(capacity.high * 1.06, row + shift, f"{capacity.median:.3g}",
                      va="center", fontsize=7.5)  # fmt: skip
    axes.set_yticks(range(len(keys)), [names[key] for key in keys])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
    axes.axvline(1, color="#444", lw=0.8)
    axes.set_xlabel("requests for the same CPU time; stock mitmdump = 1")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)
