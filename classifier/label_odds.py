"""How sure an LLM is of its label: by the probabilities of its tokens, not by what it says.

A model that is asked for its confidence answers 0.9 whatever it sees; the share that the label's
tokens had among those of all labels is a measurement.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from classifier.contracts import Label

_BEFORE_LABEL = re.compile(r'"label"\s*:\s*"')


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        text: The token that was taken.
        choices: Log-probabilities of those that could stand here, of the taken one as well.
    """

    text: str
    choices: Mapping[str, float]


def label_share(tokens: Sequence[Token], label: Label, labels: Iterable[Label]) -> float | None:
    """The probability of a label among all labels, 0 to 1; None if the tokens do not tell.

    Where several labels begin alike, the tokens are followed until they part.
    """
    text = "".join(token.text for token in tokens)
    if (found := _BEFORE_LABEL.search(text)) is None:
        return None
    head = text[: found.end()]
    mass = {str(name): 0.0 for name in labels}
    before, reached = "", 1.0
    for token in tokens:
        if len(before) + len(token.text) > len(head):
            _add(mass, token.choices, before, head, reached)
            if len(_fitting(before + token.text, head, mass)) <= 1:
                break
            reached *= _probability(token.choices.get(token.text, -math.inf))
        before += token.text
    own, total = mass.get(label, 0.0), sum(mass.values())
    return own / total if own else None


def _add(
    mass: dict[str, float], choices: Mapping[str, float], before: str, head: str, reached: float
) -> None:
    """Give each label what the choices at one place say for it alone."""
    for choice, logprob in choices.items():
        fitting = _fitting(before + choice, head, mass)
        if len(fitting) == 1:
            mass[fitting[0]] += reached * _probability(logprob)


def _fitting(text: str, head: str, names: Iterable[str]) -> list[str]:
    """The labels that an answer may still say which begins with this text."""
    if len(text) <= len(head) or not text.startswith(head):
        return []
    begun = text[len(head) :]
    return [name for name in names if f'{name}"'.startswith(begun) or begun.startswith(f'{name}"')]


def _probability(logprob: float) -> float:
    # Backends write the impossible as None, -9999 or nothing at all; none is above certainty.
    return math.exp(min(logprob, 0.0)) if logprob == logprob else 0.0  # noqa: PLR0124 - NaN
