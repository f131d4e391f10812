"""Where a target spends its time: py-spy looks at it while wrk loads it."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import wrk
from tests.bench.measure import Site, lead
from tests.bench.programs import program
from tests.bench.targets import Started

SAMPLES_PER_SECOND = 400
MOST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Hot:
    """A line of code and the share of samples that were taken in it, not in what it calls."""

    line: str
    share: float


def hottest(stacks: str, count: int) -> list[Hot]:
    """The lines with most time of their own, out of collapsed stacks, one `a;b;c 3` a line."""
    own: Counter[str] = Counter()
    for stack in stacks.splitlines():
        frames, _, samples = stack.rpartition(" ")
        if frames:
            own[frames.rpartition(";")[2]] += int(samples)
    total = own.total()
    return [Hot(line, samples / total) for line, samples in own.most_common(count)]


def profile(site: Site, target: Started, cell: wrk.Cell, svg: Path, seconds: float) -> str:
    """Write a flame graph of a target under load; returns its collapsed stacks."""
    raw = site.folder / "stacks"
    with wrk.load(target.port, cell, site.cores.load, site.folder):
        lead(site, cell)
        _record(target.pid, seconds, "raw", raw)
        _record(target.pid, seconds, "flamegraph", svg)
    return raw.read_text()


def _record(pid: int, seconds: float, form: str, out: Path) -> None:
    whole = max(1, round(min(seconds, MOST_SECONDS)))
    command: Sequence[str] = [
        program("py-spy"), "record", "--pid", str(pid), "--subprocesses", "--nolineno",
        "--duration", str(whole), "--rate", str(SAMPLES_PER_SECOND), "--format", form,
        "--output", str(out),
    ]  # fmt: skip
    if form == "raw":
        command = [word for word in command if word != "--nolineno"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=whole + 60)
    if done.returncode != 0 or not out.exists():
        message = f"py-spy failed: {done.stderr.strip()[-300:]}"
        raise RuntimeError(message)
