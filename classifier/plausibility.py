"""Whether to believe an LLM: its label is a second opinion, within what the request allows.

A small LLM errs, and one that was talked into something errs on purpose. The local model is unsure
when the LLM is asked, but seldom clueless: a label that it all but rules out is not taken from
anybody. So whatever an LLM says, a request moves between labels that its own build leaves open.
"""

from collections.abc import Mapping
from enum import StrEnum

from classifier.contracts import LABELS, Label
from classifier.labels_file import LabelsFile


class Overruled(StrEnum):
    """Why the LLM's label was not taken."""

    IMPROBABLE = "improbable"
    """The local model rules it out."""
    UNDESCRIBED = "undescribed"
    """It is an operator's own label, of which the LLM was told nothing but the name."""


def fault_of(
    label: Label, local: Mapping[Label, float], least: float, file: LabelsFile
) -> Overruled | None:
    """Why a label of the LLM is not to be believed; None if it is.

    Args:
        label: What the LLM said. It is asked only when the local model is unsure.
        local: The local model's probability of each label that it knows.
        least: The probability below which a label is ruled out.
        file: Holds all labels.
    """
    if label in local or label in LABELS:
        return Overruled.IMPROBABLE if local.get(label, 0.0) < least else None
    spec = file.labels.get(label)
    return None if spec is not None and spec.description else Overruled.UNDESCRIBED
