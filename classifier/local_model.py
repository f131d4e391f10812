"""The embedded model: a linear model over named features, read from a packaged file.

It needs nothing but the standard library, answers in well under a millisecond and never raises.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from math import sumprod
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

type Weights = tuple[float, ...]
type Spoken = tuple[str, float, Weights]
"""A feature of a request that the model knows: name, value, weights."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Decides from the request alone, in this process.

    Attributes:
        labels: In the order of the weights.
        bias: One number a label.
        weights: By feature name, one number a label; unknown features weigh nothing.
        margins: By feature name, what speaks for each label against the mean of all labels.
        sharpness: What scores are multiplied with so that confidence means what it says.
        min_confidence: Below it, a second opinion is worth asking for.
    """

    labels: tuple[Label, ...]
    bias: Weights
    weights: Mapping[str, Weights]
    margins: Mapping[str, Weights]
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
            weights = {
                # Interned, for decisions that are kept for long name their features.
                sys.intern(name): tuple(number / scale for number in numbers)
                for name, numbers in raw["weights"].items()
            }
            return cls(
                labels=tuple(Label(name) for name in raw["labels"]),
                bias=tuple(number / scale for number in raw["bias"]),
                weights=weights,
                margins={name: _margins(numbers) for name, numbers in weights.items()},
                sharpness=float(raw["sharpness"]),
                min_confidence=float(raw["min_confidence"]),
            )
        except (KeyError, TypeError, AttributeError) as exc:
            msg = f"not a model artifact: {exc!r}"
            raise ValueError(msg) from exc

    def classify(self, view: RequestView) -> Classification:
        """Label a request; takes bounded time and never raises."""
        features = extract(view)
        spoken = self._spoken(features)
        return self._decided(features, spoken, self._scores(spoken), _TOLD_WITH_EACH)

    def explain(self, view: RequestView) -> Explained:
        """Label a request as `classify` does, and tell all about it."""
        features = extract(view)
        spoken = self._spoken(features)
        scores = self._scores(spoken)
        return Explained(
            self._decided(features, spoken, scores, MAX_WEIGHED_FEATURES),
            {label: self._probability(scores, at) for at, label in enumerate(self.labels)},
        )

    def probabilities(self, view: RequestView) -> dict[Label, float]:
        """The calibrated probability of every label."""
        scores = self._scores(self._spoken(extract(view)))
        return {label: self._probability(scores, at) for at, label in enumerate(self.labels)}

    def _decided(
        self, features: Mapping[str, float], spoken: list[Spoken], scores: list[float], told: int
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

    def _spoken(self, features: Mapping[str, float]) -> list[Spoken]:
        known = self.weights.get
        return [
            (name, value, numbers)
            for name, value in features.items()
            if (numbers := known(name)) is not None
        ]

    def _scores(self, spoken: list[Spoken]) -> list[float]:
        if not spoken:
            return list(self.bias)
        _, values, rows = zip(*spoken, strict=True)
        columns = zip(*rows, strict=True)
        # Exact sums: the order in which features were found decides no last bit.
        return [
            bias + sumprod(values, column) for bias, column in zip(self.bias, columns, strict=True)
        ]

    def _probability(self, scores: list[float], at: int) -> float:
        top = max(scores)
        shares = [math.exp(self.sharpness * (score - top)) for score in scores]
        return shares[at] / sum(shares)

    def _weighty(self, spoken: list[Spoken], best: int) -> list[tuple[float, str]]:
        """Features that spoke for the label loudly enough to be told of, loudest first.

        With how much, negated: so that plain sorting puts the loudest first, equals by name.
        """
        margins = self.margins
        weighty = [
            (-weight, name)
            for name, value, _ in spoken
            if (weight := value * margins[name][best]) >= MIN_WEIGHT
        ]
        weighty.sort()
        return weighty


def _margins(numbers: Weights) -> Weights:
    mean = sum(numbers) / len(numbers)
    return tuple(number - mean for number in numbers)
