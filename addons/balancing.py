"""Balancing: which of the workers that are available gets the next request. Pure.

Each policy respects shares (a worker's weight, scaled down while it starts slowly) and treats equal
workers alike. It sees only workers that may be taken; at least one.
"""

import math
import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol


class Candidate(Protocol):
    """A worker that may be taken.

    Attributes:
        inflight: Requests that it serves now.
        share: Its part of the requests, relative to the other candidates'; above 0.
        turn: Where it stands in the round; belongs to `round_robin`.
    """

    inflight: int
    share: float
    turn: float


def round_robin[C: Candidate](candidates: Sequence[C], rng: random.Random) -> C:
    """The candidate whose turn it is; turns of heavy ones are spread, not in a row.

    nginx' smooth weighted round robin: all move ahead by their share, and who is taken goes back by
    the sum of all. Weights 5, 1, 1 give a a b a c a a.
    """
    del rng
    total, first = 0.0, candidates[0]
    ahead = -math.inf
    for candidate in candidates:
        share = candidate.share
        total += share
        candidate.turn = turn = candidate.turn + share
        if turn > ahead:
            first, ahead = candidate, turn
    first.turn -= total
    return first


def least_inflight[C: Candidate](candidates: Sequence[C], rng: random.Random) -> C:
    """The candidate that serves the fewest requests for its share; equal ones take turns."""
    least = min(candidate.inflight / candidate.share for candidate in candidates)
    equal = [one for one in candidates if one.inflight / one.share <= least]
    return equal[0] if len(equal) == 1 else round_robin(equal, rng)


def two_choices[C: Candidate](candidates: Sequence[C], rng: random.Random) -> C:
    """The less busy of two candidates that chance has picked.

    Nearly as even as `least_inflight`, and several proxies that do not know of each other do not
    all run to the same worker.
    """
    count = len(candidates)
    if count == 1:
        return candidates[0]
    one = int(rng.random() * count)
    other = int(rng.random() * (count - 1))
    a, b = candidates[one], candidates[other + (other >= one)]
    load_a, load_b = a.inflight / a.share, b.inflight / b.share
    if load_a == load_b:
        return a if rng.random() * (a.share + b.share) < a.share else b
    return a if load_a < load_b else b


class Balancing(StrEnum):
    """The policies, as settings name them."""

    ROUND_ROBIN = "round-robin"
    LEAST_INFLIGHT = "least-inflight"
    TWO_CHOICES = "two-choices"


def policy_of[C: Candidate](
    balancing: Balancing,
) -> Callable[[Sequence[C], random.Random], C]:
    """The function of that name."""
    match balancing:
        case Balancing.ROUND_ROBIN:
            return round_robin
        case Balancing.LEAST_INFLIGHT:
            return least_inflight
        case Balancing.TWO_CHOICES:
            return two_choices
