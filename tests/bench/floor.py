"""The least that a proxy in Python can do: asyncio, llhttp, connections kept on both sides.

    python -m tests.bench.floor [--uvloop] PORT WORKER_PORT ...

A yardstick and no proxy to use: it believes every byte and knows no limit, deadline or failover.
"""

import asyncio
import itertools
import sys
from collections.abc import Sequence
from typing import Self, override

import httptools

BACKLOG = 1024


class Worker(asyncio.Protocol):
    """A connection to a worker: passes an answer to its client as it comes, to the end."""

    def __init__(self, idle: "list[Worker]") -> None:
        self.idle = idle
        self.client: Client | None = None
        self.transport: asyncio.Transport
        self.parser = httptools.HttpResponseParser(self)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def carry(self, client: "Client") -> Self:
        self.client = client
        return self

    @override
    def data_received(self, data: bytes) -> None:
        if self.client is not None:
            self.client.transport.write(data)
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        if self.client is not None:
            self.client.worker = None
        self.client = None
        if self.parser.should_keep_alive():
            self.idle.append(self)
        else:
            self.transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.idle:
            self.idle.remove(self)
        if self.client is not None:
            self.client.transport.close()


class Client(asyncio.Protocol):
    """A client's connection: reads heads, writes them anew, passes bodies as they come."""

    def __init__(self, workers: "itertools.cycle[tuple[int, list[Worker]]]") -> None:
        self.workers = workers
        self.worker: Worker | None = None
        self.unsent: list[bytes] = []
        self.fields: list[bytes] = []
        self.target = b""
        self.transport: asyncio.Transport
        self.connecting: asyncio.Task[None] | None = None
        self.parser = httptools.HttpRequestParser(self)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    @override
    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        self.send()

    def on_url(self, url: bytes) -> None:
        self.target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append(b"%b: %b\r\n" % (name, value))

    def on_headers_complete(self) -> None:
        fields, self.fields = b"".join(self.fields), []
        method = self.parser.get_method()
        self.unsent.append(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self.target, fields))
        port, idle = next(self.workers)
        if idle:
            self.worker = idle.pop().carry(self)
        else:
            self.connecting = asyncio.create_task(self.connect(port, idle))

    def on_body(self, body: bytes) -> None:
        self.unsent.append(body)

    async def connect(self, port: int, idle: list[Worker]) -> None:
        loop = asyncio.get_running_loop()
        _, worker = await loop.create_connection(lambda: Worker(idle), "127.0.0.1", port)
        self.worker = worker.carry(self)
        self.send()

    def send(self) -> None:
        if self.worker is not None and self.unsent:
            self.worker.transport.write(b"".join(self.unsent))
            self.unsent.clear()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        if self.worker is not None:
            self.worker.transport.abort()


async def serve(port: int, worker_ports: Sequence[int]) -> None:
    pools: list[tuple[int, list[Worker]]] = [(each, []) for each in worker_ports]
    workers = itertools.cycle(pools)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(workers), "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def main(arguments: Sequence[str]) -> None:
    ports = [int(each) for each in arguments if each != "--uvloop"]
    factory = None
    if "--uvloop" in arguments:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(ports[0], ports[1:]))


if __name__ == "__main__":
    main(sys.argv[1:])
