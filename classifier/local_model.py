"""The embedded model: a linear model over named features, read from a packaged file.

It needs nothing but the standard library, answers in well under a millisecond and never raises.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final, Self

from classifier.contracts import (
    MAX_WEIGHED_FEATURES,
    Classification,
    Explained,
    Label,
    RequestView,
    Source,
)
from classifier.features import extract
from classifier.features.phrases import MIN_WEIGHT, explain

_ARTIFACT: Final = "model.json"
_MAX_CONFIDENCE: Final = 0.999
_TOLD_WITH_EACH: Final = 3
"""How many features come with every label; an explanation has `MAX_WEIGHED_FEATURES`."""

type Weights = tuple[float, float, float]
"""One number a label, in the order of `LocalModel.labels`."""

type Spoken = tuple[str, float, Weights]
"""A feature of a request that the model knows: name, value, margins."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Decides from the request alone, in this process.

    Attributes:
        labels: In the order of the weights.
        bias: Where the scores start.
        weights: By feature name its weights, and its margins: what speaks for each label
            against the mean of all labels. Unknown features weigh nothing.
        sharpness: What scores are multiplied with so that confidence means what it says.
        min_confidence: Below it, a second opinion is worth asking for.
    """

    labels: tuple[Label, ...]
    bias: Weights
    weights: Mapping[str, tuple[Weights, Weights]]
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
                bias=_scaled(raw["bias"], scale),
                weights={
                    # Interned, for decisions that are kept for long name their features.
                    sys.intern(name): _with_margins(_scaled(numbers, scale))
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
        scores, spoken = self._judged(features)
        return self._decided(features, scores, spoken, _TOLD_WITH_EACH)

    def explain(self, view: RequestView) -> Explained:
        """Label a request as `classify` does, and tell all about it."""
        features = extract(view)
        scores, spoken = self._judged(features)
        return Explained(
            self._decided(features, scores, spoken, MAX_WEIGHED_FEATURES),
            {label: self._probability(scores, at) for at, label in enumerate(self.labels)},
        )

    def probabilities(self, view: RequestView) -> dict[Label, float]:
        """The calibrated probability of every label."""
        scores, _ = self._judged(extract(view))
        return {label: self._probability(scores, at) for at, label in enumerate(self.labels)}

    def _decided(
        self, features: Mapping[str, float], scores: list[float], spoken: list[Spoken], told: int
    ) -> Classification:
        best = max(range(len(scores)), key=scores.__getitem__)
        weighty = self._weighty(spoken, best)
        label = self.labels[best]
        sentence, code = explain(features, [name for _, name in weighty], label)
        return Classification(
            label=label,
            confidence=min(_MAX_CONFIDENCE, self._probability(scores, best)),
            source=Source.LOCAL,
            reason=sentence,
            code=code,
            weighed=tuple(
                (sys.intern(name), -self.sharpness * weight) for weight, name in weighty[:told]
            ),
        )

    def _judged(self, features: Mapping[str, float]) -> tuple[list[float], list[Spoken]]:
        """The score of every label, and the features that had a say."""
        known = self.weights.get
        spoken: list[Spoken] = []
        first, second, third = self.bias
        for name, value in features.items():
            found = known(name)
            if found is not None:
                (to_first, to_second, to_third), margins = found
                first += to_first * value
                second += to_second * value
                third += to_third * value
                spoken.append((name, value, margins))
        return [first, second, third], spoken

    def _probability(self, scores: list[float], at: int) -> float:
        top = max(scores)
        shares = [math.exp(self.sharpness * (score - top)) for score in scores]
        return shares[at] / sum(shares)

    @staticmethod
    def _weighty(spoken: list[Spoken], best: int) -> list[tuple[float, str]]:
        """Features that spoke for the label loudly enough to be told of, loudest first.

        With how much, negated: so that plain sorting puts the loudest first, equals by name.
        """
        weighty = [
            (-weight, name)
            for name, value, margins in spoken
            if (weight := value * margins[best]) >= MIN_WEIGHT
        ]
        weighty.sort()
        return weighty


def _scaled(numbers: list[float], scale: float) -> Weights:
    first, second, third = numbers
    return first / scale, second / scale, third / scale


def _with_margins(weights: Weights) -> tuple[Weights, Weights]:
    first, second, third = weights
    mean = sum(weights) / len(weights)
    return weights, (first - mean, second - mean, third - mean)


@cache
def packaged_weights() -> Mapping[str, Weights]:
    """The packaged model's weights by feature, read once."""
    return {name: weights for name, (weights, _) in LocalModel.load().weights.items()}
