"""A worker that misbehaves on request: a real process with an HTTP/1.1 of its own, to be exact.

    python -m tests.faulty_worker --port 9001 --control-port 9101 --name a --journal FILE

Its control port tells what it saw (`GET /seen`), changes its faults (`POST /faults`, JSON) and
closes its idle connections (`POST /close-idle`). The journal gets a line for each connection,
request and abort at once: it outlives kill -9.
"""

import argparse
import asyncio
import json
import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from tests.faulty_behaviours import Exchange, Faults, perform
from tests.faulty_connection import Connection, GoneError, HangUpError, Request

BACKLOG = 1024
KEPT_HEADS = 200
# One gets in although the backlog is none; the rest make sure of it.
FILLERS = 4


class Journal:
    """A file to which each event is written at once."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, event: str, words: str = "- - -") -> None:
        line = f"{time.monotonic():.6f} {event} {words}\n"
        os.write(self._file, line.encode("latin-1"))


class Listener:
    """A port at which connections are accepted, or dropped by the kernel."""

    def __init__(self, port: int, on_socket: Any) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.setblocking(False)
        self._sock.bind(("127.0.0.1", port))
        self._on_socket = on_socket
        self._fillers: list[socket.socket] = []
        self.accept()

    def accept(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._sock.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(self._sock, self._take)

    def drop(self) -> None:
        """From now on nobody can connect: the queue of the kernel is full of our own."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._take()
        self._sock.listen(0)
        for _ in range(FILLERS):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._sock.getsockname())
            self._fillers.append(filler)

    def _take(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except BlockingIOError:
                return
            self._on_socket(sock)


class Worker:
    """Serves connections, and does wrong what its faults say."""

    def __init__(self, name: str, port: int, journal: Journal, faults: dict[str, Any]) -> None:
        self._name = name
        self._journal = journal
        self._faults = Faults()
        self._serving: dict[asyncio.Task[None], Connection] = {}
        self._idle: set[asyncio.Task[None]] = set()
        self._heads: deque[bytes] = deque(maxlen=KEPT_HEADS)
        self._connections = 0
        self._listener = Listener(port, self._start)
        self.change(faults)

    def seen(self) -> dict[str, Any]:
        heads = [head.decode("latin-1") for head in self._heads]
        return {
            "connections": self._connections,
            "open": len(self._serving),
            "idle": len(self._idle),
            "heads": heads,
        }

    def change(self, values: dict[str, Any]) -> dict[str, Any]:
        for name, value in values.items():
            if name not in {field.name for field in fields(Faults)}:
                raise KeyError(name)
            setattr(self._faults, name, value)
        if values.get("accepting") is False:
            self._listener.drop()
            self.close_idle()
        elif values.get("accepting"):
            self._listener.accept()
        return asdict(self._faults)

    def close_idle(self) -> dict[str, Any]:
        closing = [task for task in self._idle if task.cancel()]
        return {"closed": len(closing)}

    def _start(self, sock: socket.socket) -> None:
        self._connections += 1
        self._journal.write("open")
        connection = Connection(sock)
        task = asyncio.ensure_future(self._serve(connection))
        self._serving[task] = connection
        task.add_done_callback(self._serving.pop)

    async def _serve(self, connection: Connection) -> None:
        reset = False
        try:
            while await self._exchange(connection):
                pass
        except HangUpError as end:
            reset = end.reset
        except asyncio.CancelledError:
            pass  # told to close it
        except GoneError:
            pass
        finally:
            connection.close(reset=reset)

    async def _exchange(self, connection: Connection) -> bool:
        request = await self._next(connection)
        if request is None:
            return False
        self._heads.append(request.raw)
        exchange = Exchange(self._name, self._faults, connection, request, self._write)
        try:
            if request.path == "/health":
                await self._answer_health(exchange)
            else:
                await perform(exchange)
        except GoneError:
            self._write("aborted", request)
            raise
        connection.used = True
        if exchange.kept_alive and self._faults.close_on_next:
            await connection.arrival()
            return False
        return exchange.kept_alive

    async def _next(self, connection: Connection) -> Request | None:
        task = asyncio.current_task()
        if task is not None:
            self._idle.add(task)
        try:
            # As with common servers, this wait begins with the first answer.
            idle_ms = self._faults.idle_close_ms if connection.used else 0.0
            arrived = await connection.arrival(idle_ms / 1000 if idle_ms else None)
            if not arrived and connection.close_unless_arrived():
                return None
        finally:
            if task is not None:
                self._idle.discard(task)
        return await connection.head()

    async def _answer_health(self, exchange: Exchange) -> None:
        self._write("health", exchange.request)
        await exchange.send(exchange.whole(self._faults.health_status, b'{"status": "ok"}'))

    def _write(self, event: str, request: Request) -> None:
        self._journal.write(event, f"{request.id} {request.method} {request.target}")


class Control:
    """Answers on the control port."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = head.partition("content-length:")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            answer = json.dumps(self._answer(head.split(" ", 2)[1], body)).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(answer)
            )
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever asked has left
        finally:
            writer.close()

    def _answer(self, path: str, body: bytes) -> dict[str, Any]:
        match path:
            case "/faults":
                return self._worker.change(json.loads(body))
            case "/close-idle":
                return self._worker.close_idle()
            case _:
                return self._worker.seen()


async def run(arguments: argparse.Namespace) -> None:
    journal = Journal(arguments.journal)
    worker = Worker(arguments.name, arguments.port, journal, json.loads(arguments.faults))
    control = Control(worker)
    server = await asyncio.start_server(control.serve, "127.0.0.1", arguments.control_port)
    async with server:
        await server.serve_forever()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tests.faulty_worker")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--journal", default=os.devnull)
    parser.add_argument("--faults", default="{}", help="from the start on, as JSON")
    asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
