"""Real processes of the product on free loopback ports, for tests."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
OBSERVER = ROOT / "tests" / "observer.py"
START_SECONDS = 30.0
STOP_SECONDS = 15.0
LABELS = ("fast-path", "general", "high-compute")
GIVEN: set[int] = set()
PROXIES = {"program": "mitmdump"}
"""How the proxy is started where a test does not say; `pytest --slb` changes it."""


def free_port() -> int:
    """A port that nothing listens on now, given out once.

    It is below those that the kernel gives to clients, or one of them might take it before whoever
    asked for it does.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_768)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            if port not in GIVEN:
                GIVEN.add(port)
                return port


def clean_env(**variables: object) -> dict[str, str]:
    """An environment with nothing of the developer's settings, and the given variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    given = {name: str(value) for name, value in variables.items()}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OLLAMA_BASE_URL": "",
        "PYTHONUNBUFFERED": "1",
        **given,
    }


def until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> bool:
    """Poll until a condition holds; False if it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def answers(url: str) -> bool:
    """Whether a URL answers 200 now."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass
class Started:
    """A process under test and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(STOP_SECONDS)


@contextmanager
def running(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    ready_url: str,
    name: str = "process",
) -> Iterator[Started]:
    """A process that answers at `ready_url` while the context lasts."""
    log = cwd / f"{name}-{free_port()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env=dict(env), stdout=out, stderr=out
        )
    started = Started(process, log)
    try:
        alive = until(lambda: process.poll() is not None or answers(ready_url))
        assert alive, f"{name} is not ready:\n{started.output()}"
        assert process.poll() is None, f"{name} ended:\n{started.output()}"
        yield started
    finally:
        started.stop()


@contextmanager
def worker(cwd: Path, label: str, port: int, *flags: str) -> Iterator[Started]:
    """A demo worker without delay that echoes the headers it gets."""
    command = [sys.executable, "-m", "workers", "--type", label, "--port", str(port)]
    command += ["--delay-ms", "0", "--echo-headers", *flags]
    with running(command, cwd, clean_env(), f"http://127.0.0.1:{port}/health", label) as started:
        yield started


@contextmanager
def classifier(cwd: Path, port: int, **variables: object) -> Iterator[Started]:
    """The classifier service, without an LLM unless `variables` name one."""
    env = clean_env(CLASSIFIER_PORT=port, **variables)
    command = [sys.executable, "-m", "classifier"]
    with running(command, cwd, env, f"http://127.0.0.1:{port}/ready", "classifier") as started:
        yield started


@dataclass
class Proxy:
    """A running proxy and where it answers."""

    started: Started
    port: int
    metrics_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def control(self) -> str:
        return f"http://127.0.0.1:{self.metrics_port}"

    def metric(self, sample: str) -> float:
        """The value of one sample, written as in the exposition format."""
        text = httpx.get(f"{self.control}/metrics", trust_env=False).text
        for line in text.splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        message = f"{sample} is not exported"
        raise AssertionError(message)

    def decisions(self) -> list[dict]:
        answer = httpx.get(f"{self.control}/v1/decisions?limit=100000", trust_env=False)
        return answer.json()["decisions"]


@contextmanager
def proxy(
    cwd: Path,
    *flags: str,
    program: str | None = None,
    script: Path | None = None,
    target: str = "http://unrouted.invalid:9",
    ports: tuple[int, int] | None = None,
    seen: bool = True,
    **variables: object,
) -> Iterator[Proxy]:
    """The proxy as users run it; `target` is where nothing may ever go.

    With a script in the router's place it is not `slb`, which has the router built in. An addon
    looks on, for without one no request becomes a flow; unless it is not `seen`.
    """
    port, metrics_port = ports or (free_port(), free_port())
    program = program or ("mitmdump" if script else PROXIES["program"])
    command = [*program_with_router(program, script), "--mode", f"reverse:{target}"]
    command += ["--listen-host", "127.0.0.1", "--listen-port", str(port), *flags]
    if seen:
        command += ["-s", OBSERVER]
    command += ["--set", f"confdir={cwd / 'mitmproxy'}"]
    env = clean_env(METRICS_PORT=metrics_port, **variables)
    ready = f"http://127.0.0.1:{metrics_port}/readyz"
    with running(command, cwd, env, ready, program) as started:
        yield Proxy(started, port, metrics_port)


def program_with_router(program: str, script: Path | None = None) -> list[str | Path]:
    """A command that runs the router, as `slb` or as a script of one of mitmproxy's programs."""
    if program == "slb":
        return [sys.executable, "-m", "addons.launcher"]
    return [BIN / program, "-s", script or ROOT / "addons" / "router.py"]


@dataclass
class Stack:
    """A whole product: three pools, classifier, proxy."""

    proxy: Proxy
    classifier_port: int
    classifier: Started
    worker_ports: dict[str, list[int]] = field(default_factory=dict)


@contextmanager
def stack(
    cwd: Path,
    *,
    workers_per_pool: int = 1,
    classifier_env: Mapping[str, object] | None = None,
    **proxy_env: object,
) -> Iterator[Stack]:
    """Workers, classifier and proxy, wired together."""
    with ExitStack() as contexts:
        ports = {label: [free_port() for _ in range(workers_per_pool)] for label in LABELS}
        for label, pool in ports.items():
            for port in pool:
                contexts.enter_context(worker(cwd, label, port))
        classifier_port = free_port()
        service = contexts.enter_context(classifier(cwd, classifier_port, **(classifier_env or {})))
        variables = {**pool_variables(ports), **proxy_env}
        variables.setdefault("CLASSIFIER_URL", f"http://127.0.0.1:{classifier_port}")
        started = contexts.enter_context(proxy(cwd, **variables))
        yield Stack(started, classifier_port, service, ports)


def pool_variables(ports: Mapping[str, Sequence[int]]) -> dict[str, object]:
    """The settings that name these workers."""
    return {
        f"{label.upper().replace('-', '_')}_POOL": ",".join(
            f"http://127.0.0.1:{port}" for port in pool
        )
        for label, pool in ports.items()
    }
