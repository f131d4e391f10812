"""Proxies in front of three faulty workers, to which the scenarios are put."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import processes
from tests.fleet import FaultyWorker, fleet, label_source
from tests.processes import Proxy
from tests.scenarios import Target

NAMES = ("a", "b", "c")
LABEL = "general"
"""Of every request here; a classifier that fails says the same."""

SPILL_NAME = "spill"

FIRST_BYTE_MS = 1500
SETTINGS = {"FIRST_BYTE_TIMEOUT_MS": FIRST_BYTE_MS, "CLASSIFY_TIMEOUT_MS": 10_000}
"""Faults are waited for less than in production; a slow machine is no fault of the classifier."""


@dataclass(frozen=True, slots=True)
class OurTarget:
    """The product in front of three workers; a fourth one makes up the other pools."""

    proxy: Proxy
    target: Target
    spill: FaultyWorker


@contextmanager
def our_proxy(folder: Path, **settings: Any) -> Iterator[OurTarget]:
    """The product, with the three workers in the pool that all requests belong to."""
    with fleet(folder, *NAMES) as workers, fleet(folder, SPILL_NAME) as (spill,):
        ports = {label: [spill.port] for label in processes.LABELS}
        pools = processes.pool_variables({**ports, LABEL: [worker.port for worker in workers]})
        with label_source(folder, LABEL) as url:
            variables = {**SETTINGS, **pools, "CLASSIFIER_URL": url, **settings}
            with processes.proxy(folder, **variables) as proxy:
                target = Target(proxy.port, workers, proxy.started.process.pid)
                yield OurTarget(proxy, target, spill)
