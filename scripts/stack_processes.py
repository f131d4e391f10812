"""Processes that outlive the script which started them, and the records by which to find them.

A record names a process by its id and its start time: an id alone may belong to another program
by the time somebody wants to end it, so nothing is signalled whose start time differs.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# More than DRAIN_TIMEOUT_SECONDS, 25 unless set, and what it takes to close after that.
STOP_SECONDS = 40.0
KILL_SECONDS = 5.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Record:
    """A process of ours.

    Attributes:
        started: Its start time as the system tells it; only ever compared.
        fingerprint: Digest of the settings it was started with.
    """

    name: str
    rank: int
    pid: int
    started: str
    address: str
    ready_url: str
    fingerprint: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.started != "" and start_time(self.pid) == self.started


def start_time(pid: int) -> str:
    """When process `pid` started, in the system's own notation; "" if there is none."""
    try:
        # The name, in parentheses, may hold blanks; state is the first field after it.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _start_time_by_ps(pid)
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _start_time_by_ps(pid: int) -> str:
    command = ["/bin/ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    state, _, started = result.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


class RunDir:
    """A directory with a record and a log for each process."""

    def __init__(self, path: Path) -> None:
        """Records live in `path`, which is made as soon as there is something to write."""
        self.path = path

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self.path / f"{name}.log"

    def records(self) -> list[Record]:
        """The processes that still run, those to be stopped first in front."""
        found: list[Record] = []
        for file in sorted(self.path.glob("*.json")):
            try:
                record = Record(**json.loads(file.read_text("utf-8")))
            except (ValueError, TypeError):
                continue
            if record.alive:
                found.append(record)
        return sorted(found, key=lambda record: (-record.rank, record.name))

    def save(self, record: Record) -> None:
        """Remember a process; whole or not at all."""
        draft = self.path / f"{record.name}.json.new"
        draft.write_text(json.dumps(asdict(record)), "utf-8")
        draft.replace(self.path / f"{record.name}.json")

    def forget(self, record: Record) -> None:
        """Remove what `save` wrote."""
        (self.path / f"{record.name}.json").unlink(missing_ok=True)


def spawn(
    command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own: it survives this one and its terminal.

    Raises:
        OSError: If the program cannot be started.
    """
    with log.open("wb") as output:
        return subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )


def stop(records: Iterable[Record]) -> list[Record]:
    """Ask processes to end, wait, and kill those that do not; returns the killed ones."""
    waiting = list(records)
    for record in waiting:
        _signal(record, signal.SIGTERM)
    waiting = _wait(waiting, STOP_SECONDS)
    for record in waiting:
        # Its children are in its group; without it nobody would end them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(record.pid, signal.SIGKILL)
    _wait(waiting, KILL_SECONDS)
    return waiting


def _signal(record: Record, number: signal.Signals) -> None:
    if record.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, number)


def _wait(records: list[Record], seconds: float) -> list[Record]:
    deadline = time.monotonic() + seconds
    while records := [record for record in records if record.alive]:
        if time.monotonic() > deadline:
            break
        time.sleep(POLL_SECONDS)
    return records
