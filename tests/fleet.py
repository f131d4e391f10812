"""Handles of faulty workers: start, kill, freeze, change their faults, read what they saw."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import processes


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a worker's journal; `at` is in monotonic seconds."""

    at: float
    event: str
    id: str
    method: str
    target: str


class FaultyWorker:
    """A faulty worker as its test sees it."""

    def __init__(self, name: str, folder: Path, **faults: Any) -> None:
        self.name = name
        self.port = processes.free_port()
        self.control_port = processes.free_port()
        self._folder = folder
        self._journal = folder / f"{name}-{self.port}.journal"
        self._journal.touch()
        self._faults = faults
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faulty_worker", "--name", self.name]
        command += ["--port", str(self.port), "--control-port", str(self.control_port)]
        command += ["--journal", str(self._journal), "--faults", json.dumps(self._faults)]
        with (self._folder / f"{self.name}-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=processes.ROOT, env=processes.clean_env(), stdout=log, stderr=log
            )
        assert processes.until(lambda: listens(self.control_port)), self.log()

    def log(self) -> str:
        return (self._folder / f"{self.name}-{self.port}.log").read_text(errors="replace")

    def kill(self) -> None:
        """As if its machine lost power, but that its kernel resets its connections."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(processes.STOP_SECONDS)

    def freeze(self) -> None:
        """It does nothing more, while its kernel still accepts connections."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    async def fault(self, **changes: Any) -> None:
        await ask(self.control_port, "/faults", changes)

    async def close_idle(self) -> int:
        answer = await ask(self.control_port, "/close-idle")
        return int(answer["closed"])

    async def seen(self) -> dict[str, Any]:
        return await ask(self.control_port, "/seen")

    def entries(self, event: str = "request", since: float = 0.0) -> list[Entry]:
        """What its journal tells since a time in monotonic seconds."""
        entries = []
        for line in self._journal.read_text().splitlines():
            at, kind, request_id, method, target = line.split(" ", 4)
            if kind == event and float(at) >= since:
                entries.append(Entry(float(at), kind, request_id, method, target))
        return entries

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def executions(workers: tuple[FaultyWorker, ...], since: float = 0.0) -> Counter[str]:
    """How often each request was read to its end, by its id."""
    return Counter(entry.id for worker in workers for entry in worker.entries("request", since))


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


async def ask(port: int, path: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask a control port."""
    body = b"" if values is None else json.dumps(values).encode()
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(writer):
            head = f"POST {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.read()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@contextlib.contextmanager
def fleet(folder: Path, *names: str) -> Iterator[tuple[FaultyWorker, ...]]:
    """Running faulty workers."""
    workers = tuple(FaultyWorker(name, folder) for name in names)
    try:
        for worker in workers:
            worker.start()
        yield workers
    finally:
        for worker in workers:
            worker.kill()


@contextlib.contextmanager
def label_source(folder: Path, label: str) -> Iterator[str]:
    """A classifier that says the same of every request; yields its URL."""
    answer = {"label": label, "confidence": 0.9, "source": "local", "latency_ms": 0.1}
    worker = FaultyWorker(
        "classifier", folder, body=json.dumps({**answer, "reasoning": "the test says so"})
    )
    try:
        worker.start()
        yield f"http://{worker.address}"
    finally:
        worker.kill()


class Grave:
    """Listens where a dead worker was, and counts what is still sent there, checks apart."""

    def __init__(self, port: int, health_path: str = "/health") -> None:
        self._port = port
        self._health_path = health_path
        self.requests = 0
        self.checks = 0

    @contextlib.asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._bury, "127.0.0.1", self._port)
        async with server:
            yield self

    async def _bury(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n")
            if head.split(b" ")[1] == self._health_path.encode():
                self.checks += 1
            else:
                self.requests += 1
        writer.close()
