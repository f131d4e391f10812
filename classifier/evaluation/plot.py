"""Findings as a picture: how far confidence can be trusted, and what is taken for what.

matplotlib is an optional dependency: it is imported when a picture is asked for.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from classifier.evaluation.findings import Findings
from classifier.evaluation.samples import BadInputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES: Final = frozenset((".png", ".svg"))
_INCHES: Final = (11, 4.6)
_SALT: Final = "semantic-load-balancer"


def require_plottable(path: Path) -> None:
    """Check, before anything is measured, that a picture can be made.

    Raises:
        BadInputError: If matplotlib is missing or the suffix is none of `SUFFIXES`.
    """
    if path.suffix.lower() not in SUFFIXES:
        msg = f"{path}: a plot is written as {' or '.join(sorted(SUFFIXES))}"
        raise BadInputError(msg)
    if importlib.util.find_spec("matplotlib") is None:
        msg = "--plot needs matplotlib: pip install matplotlib"
        raise BadInputError(msg)


def draw(found: Findings, path: Path) -> None:
    """Write the picture.

    Raises:
        BadInputError: If it cannot be written.
    """
    from matplotlib import rc_context  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    # Without it, ids in an SVG differ from run to run.
    with rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none"}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_reliability(left, found)
        _draw_confusion(right, found)
        figure.suptitle(f"{Path(found.file).name}, source {found.source}")
        try:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as exc:
            msg = f"{path}: cannot be written ({exc.strerror})"
            raise BadInputError(msg) from exc


def _draw_reliability(axes: "Axes", found: Findings) -> None:
    score = found.slices[0].score
    said = [one.confidence for one in found.reliability]
    right = [one.accuracy for one in found.reliability]
    axes.plot([0, 1], [0, 1], linestyle="--", color="grey", linewidth=1, label="calibrated")
    sizes = [20 + 400 * one.rows / score.rows for one in found.reliability]
    axes.scatter(said, right, s=sizes, alpha=0.5, label="rows, by confidence")
    axes.plot(said, right, linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    axes.set_title(
        f"calibration error {score.calibration_error.value:.3f},"
        f" accuracy {score.accuracy.value:.3f}, macro-F1 {score.macro_f1.value:.3f}",
        fontsize=9,
    )
    axes.legend(loc="upper left", fontsize=8)


def _draw_confusion(axes: "Axes", found: Findings) -> None:
    labels = found.confusion_labels
    shares = [[count / max(1, sum(row)) for count in row] for row in found.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for at, row in enumerate(found.confusion):
        for column, count in enumerate(row):
            colour = "white" if shares[at][column] > 0.5 else "black"  # noqa: PLR2004
            axes.text(column, at, str(count), ha="center", va="center", color=colour)
    places = range(len(labels))
    axes.set_xticks(places, labels, rotation=20, fontsize=8)
    axes.set_yticks(places, labels, fontsize=8)
    axes.set(xlabel="label given", ylabel="right label")
    axes.set_title(f"{found.judged} requests", fontsize=9)
