"""A whole run: everything is started once, and each target has each load once in each round.

Targets are loaded one after the other, in an order that changes, with the same load side by side:
what the machine does meanwhile falls on all of them. Those that wait sleep.
"""

import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import processes
from tests.bench import cpu, idle, wrk
from tests.bench.cores import Cores, share_out, started_on
from tests.bench.measure import Measurement, Site, measure
from tests.bench.targets import TARGETS, Ground, Started
from tests.bench.upstream import upstream
from tests.bench.wrk import Cell

MOST_BYTES_AT_ONCE = 32_000_000
"""Loads with more in flight are left out: slow targets would finish no request in time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        seconds: At least, of one measurement.
        most_seconds: No further round is begun that would not have ended by then.
    """

    targets: Sequence[str]
    cells: Sequence[Cell]
    rounds: int
    seconds: float
    idle_connections: int
    most_seconds: float = float("inf")


@dataclass
class Results:
    """What was measured.

    Attributes:
        skipped: Why a target was left out, or given up.
        measured: By target and load, one for each round.
        idle_bytes: Memory for one idle client.
        resident_bytes: Memory at the end.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    measured: dict[str, dict[Cell, list[Measurement]]] = field(default_factory=dict)
    idle_bytes: dict[str, float] = field(default_factory=dict)
    resident_bytes: dict[str, int] = field(default_factory=dict)


def cells(clients: Sequence[int], bodies: Sequence[int]) -> list[Cell]:
    """All loads, without those that hold too much in flight."""
    both = [Cell(count, size) for size in bodies for count in clients]
    return [cell for cell in both if cell.clients * cell.body_bytes <= MOST_BYTES_AT_ONCE]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def left_out(targets: Sequence[str]) -> dict[str, str]:
    """Which of these targets cannot run here, and why."""
    reasons = {key: TARGETS[key].missing() for key in targets}
    return {key: reason for key, reason in reasons.items() if reason}


@contextmanager
def site(folder: Path, seconds: float) -> Iterator[Site]:
    """The upstream, and who runs where."""
    cores = share_out(sorted(os.sched_getaffinity(0)))
    with upstream(folder, cores.upstream) as running:
        yield Site(running, cores, folder, seconds)


@contextmanager
def ground_of(place: Site, folder: Path, targets: Sequence[str]) -> Iterator[Ground]:
    """What these targets are started on, with a classifier if one of them asks it."""
    port = processes.free_port()
    ground = Ground(folder, place.upstream.ports, f"http://127.0.0.1:{port}")
    if not any(TARGETS[key].asks for key in targets):
        yield ground
        return
    with started_on(place.cores.load, processes.classifier(folder, port)):
        yield ground


def start(key: str, ground: Ground, cores: Cores, stack: ExitStack) -> Started:
    """Start a target in a folder of its own."""
    folder = ground.folder / key
    folder.mkdir()
    own = Ground(folder, ground.ports, ground.classifier_url)
    return stack.enter_context(started_on(cores.target, TARGETS[key].start(own)))


def check(target: Started, bodies: Sequence[int]) -> None:
    """Ask each question once: the upstream answers it, and this product has labelled it.

    Raises:
        RuntimeError: If not.
    """
    with httpx.Client(base_url=f"http://127.0.0.1:{target.port}", trust_env=False) as client:
        for size in bodies:
            cell = Cell(1, size)
            method = "POST" if cell.body else "GET"
            headers = {"content-type": "application/json"} if cell.body else {}
            # wrk sends none of the fields that httpx adds, and a label hangs on some of them.
            client.headers.clear()
            answer = client.request(method, cell.path, content=cell.body or None, headers=headers)
            if answer.status_code != 200 or not answer.text.startswith('{"answer"'):
                message = f"{cell.name} is answered {answer.status_code}"
                raise RuntimeError(message)
            if answer.headers.get("x-slb-source") == "fallback":
                message = f"{cell.name} gets no label"
                raise RuntimeError(message)


def run(plan: Plan, folder: Path) -> Results:
    """Measure what is planned."""
    results = Results(left_out(plan.targets))
    for key, reason in results.skipped.items():
        say(f"skipped: {key}: {reason}")
    began = time.monotonic()
    with ExitStack() as stack:
        place = stack.enter_context(site(folder, plan.seconds))
        ground = stack.enter_context(ground_of(place, folder, plan.targets))
        running = _start_all(plan, ground, place, results, stack)
        _rounds(plan, place, running, results, began)
        for key, target in running.items():
            results.resident_bytes[key] = cpu.resident_bytes(target.pid)
    return results


def _start_all(
    plan: Plan, ground: Ground, place: Site, results: Results, stack: ExitStack
) -> dict[str, Started]:
    """Start the targets, and see what idle clients cost them while they are fresh."""
    running = {}
    bodies = sorted({cell.body_bytes for cell in plan.cells})
    for key in plan.targets:
        if key in results.skipped:
            continue
        try:
            target = start(key, ground, place.cores, stack)
            check(target, bodies)
            if plan.idle_connections:
                results.idle_bytes[key] = idle.bytes_per_connection(target, plan.idle_connections)
        except (AssertionError, OSError, RuntimeError, httpx.HTTPError) as exc:
            # Supervisor: that one does not run must not cost the others.
            results.skipped[key] = f"{type(exc).__name__}: {str(exc).strip()[:300]}"
            say(f"skipped: {key}: {results.skipped[key]}")
            continue
        running[key] = target
    results.measured = {key: {cell: [] for cell in plan.cells} for key in running}
    return running


def _rounds(
    plan: Plan, place: Site, running: Mapping[str, Started], results: Results, began: float
) -> None:
    for number in range(plan.rounds):
        start = time.monotonic()
        _round(number, plan, place, running, results)
        end = time.monotonic()
        load = os.getloadavg()[0]
        say(f"round {number + 1} of {plan.rounds}: {end - start:.0f} s, load {load:.1f}")
        if number + 1 < plan.rounds and end + (end - start) > began + plan.most_seconds:
            say(f"that took long: no more than {number + 1} rounds")
            return


def _round(
    number: int, plan: Plan, place: Site, running: Mapping[str, Started], results: Results
) -> None:
    rng = random.Random(number)
    order = list(plan.cells)
    rng.shuffle(order)
    for cell in order:
        keys = list(running)
        rng.shuffle(keys)
        for key in keys:
            results.measured[key][cell].append(measure(place, running[key], cell))


def warm_and_start(key: str, place: Site, folder: Path, stack: ExitStack) -> Started:
    """One target alone, ready for load."""
    ground = stack.enter_context(ground_of(place, folder, [key]))
    target = start(key, ground, place.cores, stack)
    check(target, [0, wrk.Cell(1, 200).body_bytes])
    return target
