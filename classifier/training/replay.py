"""How often a label is known already: recorded requests replayed, as clients would send them.

    python -m classifier.training.replay [--requests 20000] [--seed 1]

Recorded requests are templates. A few are popular and most are rare (Zipf), and so are the objects
that each is sent for: ids, texts, dates and pages differ from one object to the next. Compared are
the cache of exact requests alone and that of shapes behind it. Whatever a shape tells is held
against what the local model says of the request itself.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from classifier.contracts import Label, RequestView
from classifier.local_model import LocalModel
from classifier.shape import shape_key
from classifier.training.rows import RECORDED, read_rows
from classifier.training.variants import Variation

REQUESTS: Final = 20_000
OBJECTS: Final = 1_000
EXPONENT: Final = 1.0


@dataclass(slots=True)
class Replay:
    """What came of a replay.

    Attributes:
        shapeless: Requests that no exact label was known of and that have no shape.
        wrong: Labels out of the cache of shapes that the local model does not give.
    """

    requests: int = 0
    exact_hits: int = 0
    shape_hits: int = 0
    shapeless: int = 0
    wrong: int = 0
    exact: dict[bytes, Label] = field(default_factory=dict)
    shapes: dict[bytes, Label] = field(default_factory=dict)

    @property
    def exact_ratio(self) -> float:
        """Share of requests that the exact cache alone knows."""
        return self.exact_hits / self.requests if self.requests else 0.0

    @property
    def ratio(self) -> float:
        """Share that both together know."""
        return (self.exact_hits + self.shape_hits) / self.requests if self.requests else 0.0

    def take(self, view: RequestView, decide: Callable[[RequestView], Label]) -> None:
        """One request, the way the proxy looks it up."""
        self.requests += 1
        exact = view.fingerprint()
        if exact in self.exact:
            self.exact_hits += 1
            return
        shape = shape_key(view)
        self.shapeless += shape is None
        known = self.shapes.get(shape) if shape else None
        decided = decide(view)
        if known is not None:
            self.shape_hits += 1
            self.wrong += known != decided
        elif shape:
            self.shapes[shape] = decided
        self.exact[exact] = known or decided

    def told(self) -> str:
        """The figures, for people."""
        return (
            f"{self.requests} requests, {len(self.exact)} different ones\n"
            f"exact requests alone: {self.exact_ratio:.1%} known\n"
            f"with their shapes:    {self.ratio:.1%} known\n"
            f"shapes: {len(self.shapes)}; requests without one: {self.shapeless}\n"
            f"labels out of a shape that the local model does not give: "
            f"{self.wrong} of {self.shape_hits}"
        )


def traffic(templates: list[RequestView], requests: int, seed: int) -> Iterator[RequestView]:
    """Requests of a few popular templates and many rare ones, and so with their objects.

    Args:
        templates: Their order has no meaning.
        requests: How many.
        seed: All that is chance follows from it.
    """
    rng = random.Random(seed)
    templates = rng.sample(templates, len(templates))
    popular, objects = zipf(len(templates)), zipf(OBJECTS)
    for _ in range(requests):
        at = rng.choices(range(len(templates)), cum_weights=popular)[0]
        about = rng.choices(range(OBJECTS), cum_weights=objects)[0]
        chance = random.Random(f"{seed}/{at}/{about}")
        yield Variation(chance).view(templates[at]) if about else templates[at]


def zipf(number: int) -> list[float]:
    """Cumulative weights: the second is half as likely as the first, the third a third."""
    return list(accumulate(1 / (rank + 1) ** EXPONENT for rank in range(number)))


def replay(requests: int = REQUESTS, seed: int = 1) -> Replay:
    """Replay recorded requests through both caches."""
    model = LocalModel.load()
    found = Replay()
    templates = [row.view for row in read_rows() if row.file == RECORDED]
    for view in traffic(templates, requests, seed):
        found.take(view, lambda asked: model.classify(asked).label)
    return found


def main() -> None:
    """Read the command line, replay, print."""
    parser = argparse.ArgumentParser(description="Hit ratios of the caches on replayed requests.")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(replay(given.requests, given.seed).told())


if __name__ == "__main__":
    main()
