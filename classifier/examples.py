"""Labels by example: requests that an operator wrote down, and what is like them.

Likeness is the smaller of two cosines. One is over the features that the local model weighs, each
as heavy as it can move a label: it tells whether the work is alike. But requests of all APIs that
look up one object are alike in that, so the other is over names (words of the path, of fields, of
query text; never values): it tells whether the same thing is asked of the same place. Method,
media type and protocol are no names: to have them in common is to have nothing in common.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from classifier.contracts import Classification, Label, ReasonCode, RequestView, Source
from classifier.features import extract
from classifier.labels_file import LabelsFile
from classifier.local_model import Weights, packaged_weights
from classifier.redaction import excerpt, shown_path

MIN_LIKENESS: Final = 0.9
MAX_OF_LABEL: Final = 50
MAX_IN_ALL: Final = 500
_MAX_NAMES: Final = 200
# A path tells more of what is asked than one of many fields does.
_PATH_WEIGHT: Final = 2.0
_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*")
_ID: Final = re.compile(r"\d+|[0-9a-f-]{16,}|\*{3}", re.IGNORECASE)

type Vector = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What of one request is compared; both vectors have length 1.

    Attributes:
        place: Method and depth of the path: what differs in them is not alike, and need not be
            looked at any further.
        work: Features of the local model.
        names: Words of path and body.
    """

    place: tuple[str, int]
    work: Vector
    names: Vector


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples of a labels file, worked out once.

    Attributes:
        known: Each with its label.
        left_out: How many the file has beyond the bounds.
    """

    known: tuple[tuple[Label, Likeness], ...]
    left_out: int

    @classmethod
    def of(cls, file: LabelsFile) -> Self:
        """The examples of a file: of each label, and in all, the first of too many."""
        given = [
            (name, view)
            for name, spec in file.labels.items()
            for view in spec.examples[:MAX_OF_LABEL]
        ][:MAX_IN_ALL]
        number = sum(len(spec.examples) for spec in file.labels.values())
        known = tuple((name, likeness_of(view)) for name, view in given)
        return cls(known, number - len(known))

    def match(self, view: RequestView) -> Classification | None:
        """The label of what the request is most like; None if it is like nothing here."""
        place = _place(view)
        if not any(example.place == place for _, example in self.known):
            return None
        asked = likeness_of(view)
        label, best = max(
            ((label, alike(asked, example)) for label, example in self.known),
            key=lambda found: found[1],
        )
        if best < MIN_LIKENESS:
            return None
        return Classification(
            label, best, Source.EXAMPLE, "like an example of the label", code=ReasonCode.EXAMPLE
        )


def alike(one: Likeness, other: Likeness) -> float:
    """How alike two requests are, 0 to 1."""
    if one.place != other.place:
        return 0.0
    names = _cosine(one.names, other.names)
    return min(names, _cosine(one.work, other.work)) if names >= MIN_LIKENESS else names


def likeness_of(view: RequestView) -> Likeness:
    """What of a request is compared."""
    weights = packaged_weights()
    bag = extract(view)
    work = {name: value * _reach(weights[name]) for name, value in bag.items() if name in weights}
    return Likeness(_place(view), _unit(work), _unit(_names(view)))


def _place(view: RequestView) -> tuple[str, int]:
    return view.method, view.path.partition("?")[0].count("/")


def _reach(weights: Weights) -> float:
    """How far a feature can move one label from another."""
    return max(weights) - min(weights)


def _names(view: RequestView) -> dict[str, float]:
    path, _, query = shown_path(view.path).partition("?")
    found: defaultdict[str, float] = defaultdict(float)
    for depth, segment in enumerate(path.split("/")[1:]):
        # An id says only that there is one; that another path has none counts.
        found[f"/{depth}:{'' if _ID.fullmatch(segment) else segment.lower()}"] = _PATH_WEIGHT
    parameters = (parameter.partition("=")[0] for parameter in query.split("&"))
    for name in (*parameters, *_words(excerpt(view))):
        if name:
            found[name] = 1.0
    return found


def _words(text: str) -> Iterable[str]:
    return [found.lower() for found in _NAME.findall(text)][:_MAX_NAMES]


def _unit(vector: Mapping[str, float]) -> dict[str, float]:
    length = math.sqrt(sum(value * value for value in vector.values()))
    return {name: value / length for name, value in vector.items()} if length else {}


def _cosine(one: Vector, other: Vector) -> float:
    few, many = (one, other) if len(one) <= len(other) else (other, one)
    return min(1.0, sum(value * many.get(name, 0.0) for name, value in few.items()))
