"""The embedded model: a linear model over named features, read from a packaged file.

It needs nothing but the standard library, answers in well under a millisecond and never raises.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Self

from classifier.contracts import Classification, Label, RequestView, Source
from classifier.features import extract
from classifier.features.phrases import explain

_ARTIFACT: Final = "model.json"
_MAX_CONFIDENCE: Final = 0.999

type Weights = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Decides from the request alone, in this process.

    Attributes:
        labels: In the order of the weights.
        bias: One number a label.
        weights: By feature name, one number a label; unknown features weigh nothing.
        sharpness: What scores are multiplied with so that confidence means what it says.
        min_confidence: Below it, a second opinion is worth asking for.
    """

    labels: tuple[Label, ...]
    bias: Weights
    weights: Mapping[str, Weights]
    sharpness: float
    min_confidence: float

    @classmethod
    def load(cls) -> Self:
        """The packaged model.

        Raises:
            OSError, ValueError: If the packaged file is missing or broken.
        """
        text = resources.files("classifier").joinpath(_ARTIFACT).read_text(encoding="utf-8")
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A model from the text of an artifact.

        Raises:
            ValueError: If the text is no such artifact.
        """
        try:
            raw = json.loads(text)
            scale = float(raw["scale"])
            return cls(
                labels=tuple(Label(name) for name in raw["labels"]),
                bias=tuple(number / scale for number in raw["bias"]),
                weights={
                    name: tuple(number / scale for number in numbers)
                    for name, numbers in raw["weights"].items()
                },
                sharpness=float(raw["sharpness"]),
                min_confidence=float(raw["min_confidence"]),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            msg = f"not a model artifact: {exc!r}"
            raise ValueError(msg) from exc

    def classify(self, view: RequestView) -> Classification:
        """Label a request; takes bounded time and never raises."""
        features = extract(view)
        scores = self._scores(features)
        best = max(range(len(scores)), key=scores.__getitem__)
        return Classification(
            label=self.labels[best],
            confidence=min(_MAX_CONFIDENCE, self._probability(scores, best)),
            source=Source.LOCAL,
            reason=explain(features, self._contributions(features, best)),
        )

    def probabilities(self, view: RequestView) -> dict[Label, float]:
        """The calibrated probability of every label."""
        scores = self._scores(extract(view))
        return {label: self._probability(scores, at) for at, label in enumerate(self.labels)}

    def _scores(self, features: Mapping[str, float]) -> list[float]:
        scores = list(self.bias)
        for name, value in features.items():
            numbers = self.weights.get(name)
            if numbers is not None:
                for at, number in enumerate(numbers):
                    scores[at] += number * value
        return scores

    def _probability(self, scores: list[float], at: int) -> float:
        top = max(scores)
        shares = [math.exp(self.sharpness * (score - top)) for score in scores]
        return shares[at] / sum(shares)

    def _contributions(self, features: Mapping[str, float], best: int) -> dict[str, float]:
        """How much each feature spoke for the label against the mean of the others."""
        found: dict[str, float] = {}
        for name, value in features.items():
            numbers = self.weights.get(name)
            if numbers is not None:
                found[name] = value * (numbers[best] - sum(numbers) / len(numbers))
        return found


@cache
def packaged_weights() -> Mapping[str, Weights]:
    """The packaged model's weights by feature, read once."""
    return LocalModel.load().weights
