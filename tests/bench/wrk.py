"""Load by wrk: over connections that are kept, the same request again and again."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.cores import pinned

SCRIPT = Path(__file__).parent / "configs" / "load.lua"
LONGEST_SECONDS = 600
"""wrk takes whole seconds: it is told to end earlier."""
END_SECONDS = 20.0
MARK = "wrk-figures "

TRACED = -1
"""In place of a body's length: a GET with a browser's fields and a trace's id, new each time."""

GET_PATH = "/users/42"
POST_PATH = "/query"
_BODY_START = b'{"sql": "SELECT name FROM users WHERE id = 42", "note": "'
_BODY_END = b'"}'


@dataclass(frozen=True, slots=True)
class Cell:
    """What is sent, by how many clients at once.

    Attributes:
        body_bytes: Length of a POST's body; 0 is a GET, TRACED one whose fields are its own.
    """

    clients: int
    body_bytes: int

    @property
    def name(self) -> str:
        return f"{self.clients} {body_name(self.body_bytes)}"

    @property
    def path(self) -> str:
        return POST_PATH if self.body_bytes > 0 else GET_PATH

    @property
    def body(self) -> bytes:
        return body(self.body_bytes)


def body(length: int) -> bytes:
    """A JSON body of that length."""
    if length <= 0:
        return b""
    padding = length - len(_BODY_START) - len(_BODY_END)
    if padding < 0:
        message = f"a body has at least {len(_BODY_START) + len(_BODY_END)} bytes, not {length}"
        raise ValueError(message)
    return _BODY_START + b"x" * padding + _BODY_END


def body_name(length: int) -> str:
    if length <= 0:
        return "GET traced" if length == TRACED else "GET"
    for unit, size in (("MB", 1_000_000), ("kB", 1_000)):
        if length % size == 0:
            return f"POST {length // size} {unit}"
    return f"POST {length} B"


@dataclass(frozen=True, slots=True)
class Figures:
    """What wrk has seen.

    Attributes:
        errors: How many of each kind: connect, read, write, timeout, status.
    """

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: dict[str, int]

    @property
    def failed(self) -> bool:
        return bool(self.errors)


def parse(output: str) -> Figures:
    """What the script has made wrk print at its end.

    Raises:
        ValueError: If there is nothing of the kind.
    """
    for line in output.splitlines():
        if line.startswith(MARK):
            told: dict[str, Any] = json.loads(line.removeprefix(MARK))
            errors = {kind: count for kind, count in told.pop("errors").items() if count}
            return Figures(**told, errors=errors)
    message = f"wrk told nothing: {output.strip()[-300:]}"
    raise ValueError(message)


@dataclass
class Load:
    """A load; its figures are there once it has ended."""

    figures: Figures = field(init=False)


@contextmanager
def load(port: int, cell: Cell, cores: frozenset[int], folder: Path) -> Iterator[Load]:
    """Load on a port while the context lasts."""
    body_file = folder / f"body-{cell.body_bytes}"
    if not body_file.exists():
        body_file.write_bytes(cell.body)
    command = ["wrk", "--threads", "1", "--connections", str(cell.clients), "--timeout", "10s"]
    command += ["--duration", f"{LONGEST_SECONDS}s", "--script", str(SCRIPT)]
    command += [f"http://127.0.0.1:{port}{cell.path}", "--", str(body_file)]
    if cell.body_bytes == TRACED:
        command.append("traced")
    with pinned(cores):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    running = Load()
    try:
        yield running
        process.send_signal(signal.SIGINT)
        running.figures = parse(process.communicate(timeout=END_SECONDS)[0])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def run(port: int, cell: Cell, seconds: float, cores: frozenset[int], folder: Path) -> Figures:
    """Load for some time."""
    with load(port, cell, cores, folder) as running:
        time.sleep(seconds)
    return running.figures
