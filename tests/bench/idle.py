"""Memory of clients that keep their connection and send nothing."""

import contextlib
import resource
import socket

from tests.bench import cpu, wrk
from tests.bench.targets import Started

FIRST = 100
"""Connections opened before the first look: what is only made once shall be there by then."""

_REQUEST = f"GET {wrk.GET_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def bytes_per_connection(target: Started, connections: int) -> float:
    """How much more memory the target holds for each of so many clients that wait.

    Each has had one answer, so that all is in place that a kept connection has.

    Raises:
        ConnectionError: If one did not get its answer.
    """
    _allow_files(connections + FIRST + 200)
    with contextlib.ExitStack() as stack:
        _open(stack, target.port, FIRST)
        before = cpu.resident_bytes(target.pid)
        _open(stack, target.port, connections)
        return (cpu.resident_bytes(target.pid) - before) / connections


def _open(stack: contextlib.ExitStack, port: int, count: int) -> None:
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        connection.sendall(_REQUEST)
        answer = connection.recv(65_536)
        if not answer.startswith(b"HTTP/1.1 200"):
            message = f"an idle connection got {answer[:40]!r}"
            raise ConnectionError(message)


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
