"""Which core does what: the proxy that is measured shares its own with nothing of the benchmark."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cores:
    """Sets of cores; on a machine with one all are the same.

    Attributes:
        target: Of the proxies that are measured.
        load: Of the load generator, and of the classifier, which has nothing to do by then.
        upstream: Of the upstream; that of the load generator if there are but two.
    """

    target: frozenset[int]
    load: frozenset[int]
    upstream: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether the target has a core to itself."""
        return not self.target & self.load


def share_out(available: Sequence[int]) -> Cores:
    """Who gets which of these cores."""
    ordered = [frozenset({core}) for core in sorted(available)]
    target, load = ordered[0], ordered[min(1, len(ordered) - 1)]
    return Cores(target, load, ordered[min(2, len(ordered) - 1)])


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """What is started in this context runs on these cores, with all that it starts itself."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def started_on[T](cores: frozenset[int], context: AbstractContextManager[T]) -> Iterator[T]:
    """What the context starts runs on these cores."""
    with ExitStack() as stack:
        with pinned(cores):
            started = stack.enter_context(context)
        yield started
