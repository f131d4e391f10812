"""Runs the whole stack as local processes: `python scripts/stack.py up`, `status`, `down`.

Standard library only. What it starts keeps running; records and logs are in `.run`.
"""

import argparse
import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack_processes import Record, RunDir, spawn, start_time, stop
from stack_services import ROOT, Listener, Service, services
from stack_settings import SettingsError, read_settings, settings_in

EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2
EXIT_NOT_UP = 3
EXIT_INTERRUPTED = 130
LOG_LINES = 15
POLL_SECONDS = 0.1


class StackError(Exception):
    """The stack cannot be brought up; the message says which service and why."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The services to run and where they run.

    Attributes:
        home: Working directory of all services; `.env` and `.run` are in it.
    """

    home: Path
    run: RunDir
    settings: Mapping[str, str]
    services: tuple[Service, ...]

    def fingerprint(self, service: Service) -> str:
        """Changes with every setting, in `.env` or the environment, that a service could read."""
        file = self.home / ".env"
        known = file.read_bytes() if file.exists() else b""
        env = {**settings_in(os.environ), **service.env}
        text = json.dumps([service.command, sorted(env.items())])
        return hashlib.sha256(known + text.encode()).hexdigest()


def main(argv: Sequence[str]) -> int:
    """Run one command; its exit code says whether it did what was asked."""
    arguments = _parser().parse_args(argv)
    home: Path = arguments.home.resolve()
    run = RunDir(home / ".run")
    try:
        if arguments.command == "down":
            with _only_one(run):
                return down(run)
        settings = read_settings(home)
        stack = Stack(home, run, settings, services(settings, run.path))
        if arguments.command == "status":
            return status(stack)
        with _only_one(run):
            return up(stack, arguments.timeout)
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_BAD_SETTINGS
    except StackError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack.py", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument(
        "--home", type=Path, default=ROOT, help="directory of .env and .run (default: the checkout)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds until all must be ready (default: 60)"
    )
    return parser


def up(stack: Stack, timeout_s: float) -> int:
    """Start what does not run yet and wait until all of it is ready.

    Raises:
        SettingsError: If a service is to listen where it cannot; nothing has been started.
        StackError: If a service does not get ready; what was started has been stopped again.
    """
    running = {record.name: record for record in stack.run.records()}
    missing = [service for service in stack.services if service.name not in running]
    for service in missing:
        for listener in service.listeners:
            _refuse_taken_port(service, listener)
    started: list[tuple[Record, subprocess.Popen[bytes]]] = []
    try:
        # One by one: what has been started must be known when the next one fails.
        started.extend(_start(stack, service) for service in missing)
        _await_ready(stack, running, started, timeout_s)
    except BaseException:
        _stop_in_order(stack.run, [record for record, _ in started])
        raise
    _report(stack, running)
    return 0


def down(run: RunDir) -> int:
    """Stop everything that `up` started, the proxy before what it sends requests to."""
    records = run.records()
    if not records:
        say("nothing is running")
    for record in _stop_in_order(run, records):
        say(f"{record.name} did not end by itself and was killed")
    for record in records:
        say(f"{record.name:<22} stopped")
    for stale in run.path.glob("*.json"):
        stale.unlink()
    return 0


def status(stack: Stack) -> int:
    """Print what runs; 0 if all of it is ready."""
    running = {record.name: record for record in stack.run.records()}
    all_ready = True
    for service in stack.services:
        record = running.get(service.name)
        state = "down" if record is None else _state(record)
        all_ready &= state == "ready"
        pid = "" if record is None else f"pid {record.pid}"
        say(f"{service.name:<22} {service.listeners[0].url:<26} {state:<10} {pid}".rstrip())
    return 0 if all_ready else EXIT_NOT_UP


def _start(stack: Stack, service: Service) -> tuple[Record, subprocess.Popen[bytes]]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {**os.environ, **service.env, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        process = spawn(service.command, log=stack.run.log(service.name), cwd=stack.home, env=env)
    except OSError as exc:
        msg = f"{service.name} cannot start: {service.command[0]}: {exc.strerror}"
        raise StackError(msg) from exc
    record = Record(
        name=service.name,
        rank=service.rank,
        pid=process.pid,
        started=start_time(process.pid),
        address=service.listeners[0].url,
        ready_url=service.ready_url,
        fingerprint=stack.fingerprint(service),
    )
    stack.run.save(record)
    return record, process


def _await_ready(
    stack: Stack,
    running: Mapping[str, Record],
    started: Sequence[tuple[Record, subprocess.Popen[bytes]]],
    timeout_s: float,
) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = [*((record, None) for record in running.values()), *started]
    while waiting := [pair for pair in waiting if _state(pair[0]) != "ready"]:
        for record, process in waiting:
            if process is not None and (code := process.poll()) is not None:
                msg = f"{record.name} ended with exit code {code} before it was ready"
                raise StackError(msg + _last_lines(stack.run.log(record.name)))
        if time.monotonic() > deadline:
            record, _ = waiting[0]
            msg = f"{record.name} is not ready after {timeout_s:g} s ({record.ready_url})"
            raise StackError(msg + _last_lines(stack.run.log(record.name)))
        time.sleep(POLL_SECONDS)


def _state(record: Record) -> str:
    """`ready` if it answers so, else `not ready`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(record.ready_url, timeout=2):
            return "ready"
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return "not ready"


def _last_lines(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
    return "".join(f"\n  | {line}" for line in lines) + f"\n  (all of it: {log})"


def _refuse_taken_port(service: Service, listener: Listener) -> None:
    family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listener.host, listener.port))
        except (socket.gaierror, UnicodeError) as exc:
            msg = (
                f"{listener.host_variable}: {listener.host!r} is no address to listen on; "
                "write one like 127.0.0.1"
            )
            raise SettingsError(msg) from exc
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                msg = f"{listener.host_variable}: {listener.host} is no address of this machine"
                raise SettingsError(msg) from exc
            msg = (
                f"{service.name} cannot listen on {listener.host}:{listener.port}: {exc.strerror}; "
                f"stop what uses that port, or change {listener.variable} in .env"
            )
            raise StackError(msg) from exc


def _stop_in_order(run: RunDir, records: Sequence[Record]) -> list[Record]:
    killed: list[Record] = []
    for rank in sorted({record.rank for record in records}, reverse=True):
        same_rank = [record for record in records if record.rank == rank]
        killed += stop(same_rank)
        for record in same_rank:
            run.forget(record)
    return killed


def _report(stack: Stack, running: Mapping[str, Record]) -> None:
    wanted = {service.name: service for service in stack.services}
    for record in sorted(stack.run.records(), key=lambda record: record.rank):
        service = wanted.get(record.name)
        note = "already up" if record.name in running else "ready"
        if service is None or record.fingerprint != stack.fingerprint(service):
            note = "already up, with older settings: scripts/dev-down.sh ends it"
        say(f"{record.name:<22} {record.address:<26} {note}")
    say("")
    for name, url in (page for service in stack.services for page in service.pages):
        say(f"{name:<22} {url}")


@contextlib.contextmanager
def _only_one(run: RunDir) -> Iterator[None]:
    """Hold off other runs of this script on the same directory."""
    run.path.mkdir(parents=True, exist_ok=True)
    with (run.path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(line: str) -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
