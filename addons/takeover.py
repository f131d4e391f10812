"""Where mitmproxy's connections become ours: the one place that knows its insides.

mitmproxy listens, knows its clients and speaks TLS with them; the bytes of HTTP are read by
`addons.downstream` alone. A plain connection changes hands as a whole, before mitmproxy has read a
byte of it. A TLS connection stays with mitmproxy's TLS layer, above which `TransportLayer` stands
where mitmproxy's own `HttpLayer` would.

House rule: what is used here beyond mitmproxy's public hooks is guarded by a test that fails when a
mitmproxy release changes it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, override

from mitmproxy import ctx
from mitmproxy.connection import Client
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.mode_specs import ReverseMode
from mitmproxy.proxy.server import ConnectionHandler

from addons.classification import failure_text
from addons.deadlines import NEVER
from addons.downstream import WRITE_BUFFER_BYTES, ClientConnection, Clients, State
from addons.flowview import CLIENT_LEFT
from addons.forwarding import Peer

logger = logging.getLogger(__name__)

TLS_RECORD = b"\x16"
# Ours are the deadlines of a connection; this is mitmproxy's own, in whole seconds.
NO_TIMEOUT_SECONDS = 10**9

type MakePeer = Callable[[str, str], Peer]
"""Address and scheme to what is known of a client."""


class Doorman:
    """Takes connections over, as long as it is open."""

    def __init__(self, clients: Clients, peer: MakePeer) -> None:
        """A doorman for one addon.

        Args:
            clients: Where taken connections go.
            peer: Tells who a client is.
        """
        self.clients = clients
        self.peer = peer
        self.handshakes: dict[str, Handshake] = {}

    def client_connected(self, client: Client) -> None:
        """Take a new connection over; called from the hook of this name."""
        handler = handler_of(client)
        if handler is None or not is_ours(client):
            return
        handler.timeout_watchdog.timeout = NO_TIMEOUT_SECONDS
        writer = handler.transports[client].writer
        reader = handler.transports[client].reader
        if not isinstance(writer, asyncio.StreamWriter) or not isinstance(
            reader, asyncio.StreamReader
        ):
            return
        if writer.transport.is_closing() or reader._eof:  # type: ignore[attr-defined]  # noqa: SLF001
            # It left while an addon's hook before ours took its time.
            client.error = CLIENT_LEFT
            return
        try:
            PlainConnection(self, client, writer.transport, reader)
        except Exception as exc:
            # Supervisor: a connection that nobody serves must not stay open.
            logger.error("a connection could not be taken over: %s", failure_text(exc))
            writer.transport.abort()

    def client_disconnected(self, client: Client) -> None:
        """Forget a connection; called from the hook of this name."""
        if (handshake := self.handshakes.pop(client.id, None)) is not None:
            self.clients.leave(handshake)

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Put our layer in the place of mitmproxy's `HttpLayer`; called from the hook."""
        # Scripts are asked before mitmproxy's own choice: have it choose now.
        ctx.master.addons.get("nextlayer").next_layer(nextlayer)
        if not is_ours(nextlayer.context.client):
            return
        parent: Any = None
        chosen: Any = nextlayer.layer
        while chosen is not None and not isinstance(chosen, HttpLayer):
            parent, chosen = chosen, getattr(chosen, "child_layer", None)
        if chosen is None:
            return
        chosen.context.layers.remove(chosen)
        ours = TransportLayer(chosen.context, self)
        if parent is None:
            nextlayer.layer = ours
        else:
            parent.child_layer = ours


def is_ours(client: Client) -> bool:
    """Whether a client came to the reverse proxy, and not to another of mitmproxy's modes."""
    return isinstance(client.proxy_mode, ReverseMode) and client.transport_protocol == "tcp"


def handler_of(client: Client) -> ConnectionHandler | None:
    """Mitmproxy's handler of a client connection."""
    connections: dict[str, ConnectionHandler] = ctx.master.addons.get("proxyserver").connections
    return connections.get(client.id)


class PlainConnection(ClientConnection):
    """A client connection whose transport is ours; with TLS on it, it goes back to mitmproxy."""

    def __init__(
        self,
        doorman: Doorman,
        client: Client,
        transport: asyncio.WriteTransport,
        reader: asyncio.StreamReader,
    ) -> None:
        """Take a transport over from the protocol that it has."""
        if not isinstance(
            transport, asyncio.Transport
        ):  # pragma: no cover - asyncio gives no other
            raise TypeError(transport)
        self._doorman = doorman
        self._former: Any = transport.get_protocol()
        self._knocked = False
        peer = doorman.peer(client.peername[0], "http")
        super().__init__(doorman.clients, peer, self._tell_mitmproxy)
        self.owner = client
        transport.set_protocol(self)
        self.connection_made(transport)
        # What came before the hook ran is in the reader already.
        buffered: bytearray = reader._buffer  # type: ignore[attr-defined]  # noqa: SLF001
        if buffered:
            data = bytes(buffered)
            buffered.clear()
            self.data_received(data)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._knocked:
            self._knocked = True
            if data.startswith(TLS_RECORD) and self.state is State.IDLE and not self.closed:
                self._hand_back(data)
                return
        super().data_received(data)

    def _hand_back(self, data: bytes) -> None:
        client = self.owner
        if not isinstance(client, Client):
            return
        self.let_go()
        self._doorman.handshakes[client.id] = Handshake(
            self._doorman.clients, self.peer, self.transport
        )
        self.transport.set_protocol(self._former)
        self._former.data_received(data)

    def _tell_mitmproxy(self) -> None:
        """Let mitmproxy see the end of the connection: its handler then ends, hooks included."""
        client = self.owner
        if isinstance(client, Client) and (handler := handler_of(client)) is not None:
            io = handler.transports.get(client)
            if io is not None and io.handler is None:
                # Hooks still look at the new connection: mitmproxy shall not even begin to read.
                client.error = CLIENT_LEFT
        self._former.connection_lost(None)


class Handshake:
    """The wait for a client's TLS handshake."""

    def __init__(self, clients: Clients, peer: Peer, transport: asyncio.Transport) -> None:
        """Wait from now on; it counts as a connection."""
        self.peer = peer
        self._transport = transport
        clients.enter(self)
        self.deadline = time.monotonic() + clients.limits.head_seconds

    def expire(self, now: float) -> None:
        """It took too long."""
        del now
        self.abort()

    def drain(self) -> None:
        """Go on: a request may follow, which is then the last one."""

    def abort(self) -> None:
        """Close the connection at once."""
        self.deadline = NEVER
        self._transport.abort()


class Outgoing(events.Event):
    """There is something to send: has the layer look."""


class TransportLayer(layer.Layer):
    """Our client connection above mitmproxy's TLS layer."""

    def __init__(self, context: Any, doorman: Doorman) -> None:  # noqa: ANN401 - mitmproxy's Context
        """A layer that gets its connection with the `Start` event."""
        super().__init__(context)
        self._doorman = doorman
        self._transport: LayerTransport | None = None
        self._connection: ClientConnection | None = None

    @override
    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        client = self.context.client
        try:
            self._take(event, client)
        except Exception as exc:
            # Supervisor: a connection that nobody serves must not stay open.
            logger.error("a TLS connection failed: %s", failure_text(exc))
            self._lost()
            yield commands.CloseConnection(client)
            return
        if isinstance(event, events.ConnectionClosed) and event.connection is client:
            yield commands.CloseConnection(client)
        transport = self._transport
        if transport is None:
            return
        if data := transport.take():
            yield commands.SendData(client, data)
        if transport.is_closing() and not transport.ended:
            transport.ended = True
            self._lost()
            yield commands.CloseConnection(client)

    def _take(self, event: events.Event, client: Client) -> None:
        if isinstance(event, events.Start):
            self._start(client)
        elif isinstance(event, events.DataReceived) and self._connection is not None:
            if event.connection is client and not self._connection.closed:
                self._connection.data_received(event.data)
        elif isinstance(event, events.ConnectionClosed) and event.connection is client:
            self._lost()

    def _start(self, client: Client) -> None:
        self._doorman.client_disconnected(client)
        handler = handler_of(client)
        if handler is None:
            return
        handler.timeout_watchdog.timeout = NO_TIMEOUT_SECONDS
        self._transport = LayerTransport(handler, client)
        scheme = "https" if client.tls else "http"
        peer = self._doorman.peer(client.peername[0], scheme)
        self._connection = ClientConnection(self._doorman.clients, peer, lambda: None)
        self._connection.owner = client
        self._transport.set_protocol(self._connection)
        self._connection.connection_made(self._transport)

    def _lost(self) -> None:
        if self._connection is not None and not self._connection.closed:
            self._connection.connection_lost(None)


class LayerTransport(asyncio.Transport):
    """What a client connection writes to when mitmproxy's TLS layer is below it."""

    def __init__(self, handler: ConnectionHandler, client: Client) -> None:
        """A transport over the connection of a handler."""
        io = handler.transports[client]
        writer = io.writer
        if not isinstance(writer, asyncio.StreamWriter):  # pragma: no cover - TCP has no other
            raise TypeError(writer)
        super().__init__()
        self.ended = False
        self._handler = handler
        self._writer = writer
        self._raw: Any = writer.transport
        self._unsent: list[bytes] = []
        self._closing = False
        self._may_read = asyncio.Event()
        self._may_read.set()
        # mitmproxy reads on once all writers are drained: there it waits for us as well.
        self._drain_writers = handler.drain_writers
        handler.drain_writers = self._wait_until_wanted  # type: ignore[method-assign]
        self._flushing: asyncio.Task[None] | None = None
        self._protocol: ClientConnection | None = None

    def take(self) -> bytes:
        """What is to be sent now."""
        data = b"".join(self._unsent)
        self._unsent.clear()
        return data

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if isinstance(protocol, ClientConnection):
            self._protocol = protocol

    @override
    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:
        self._unsent.append(bytes(data))
        self._flush_soon()

    @override
    def close(self) -> None:
        self._closing = True
        self._may_read.set()
        self._flush_soon()

    @override
    def abort(self) -> None:
        self._closing = self.ended = True
        self._may_read.set()
        self._raw.abort()

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def can_write_eof(self) -> bool:
        return False

    @override
    def pause_reading(self) -> None:
        # Not the raw transport's: mitmproxy's stream reader resumes that one by itself.
        self._may_read.clear()

    @override
    def resume_reading(self) -> None:
        self._may_read.set()

    async def _wait_until_wanted(self) -> None:
        await self._drain_writers()  # type: ignore[no-untyped-call]  # it has no types
        await self._may_read.wait()

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        # mitmproxy's own limits stay; `_flush` looks at the buffer.
        return

    @override
    def get_write_buffer_size(self) -> int:
        return int(self._raw.get_write_buffer_size()) + sum(map(len, self._unsent))

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._raw.get_extra_info(name, default)

    def _flush_soon(self) -> None:
        if self._flushing is None or self._flushing.done():
            # Not at once: the caller may be inside an event of the very layer that will be asked.
            loop = asyncio.get_running_loop()
            self._flushing = asyncio.Task(self._flush(), loop=loop, eager_start=False)

    async def _flush(self) -> None:
        protocol = self._protocol
        while self._unsent or (self._closing and not self.ended):
            await self._handler.server_event(Outgoing())
            if protocol is not None and self._raw.get_write_buffer_size() > WRITE_BUFFER_BYTES:
                protocol.pause_writing()
                try:
                    await self._writer.drain()
                except OSError:
                    return
                protocol.resume_writing()
