"""mitmproxy's listening sockets, accepted from by ourselves: a plain connection is ours at once.

mitmproxy opens and closes the sockets of its reverse proxies. What it would then build for each
connection (a handler with its tasks, streams, layers and a watchdog) is most of the memory and of
the time of a connection that our data path serves alone. So connections get our own protocol right
away. They become mitmproxy's, with all of its hooks, if they speak TLS or if an addon wants to be
told of connections; a flow gets a `Client` when there is a flow.

House rule as in `addons.takeover`: what is used here beyond public interfaces is guarded by tests.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, override

from mitmproxy import addonmanager, ctx
from mitmproxy.addons.block import Block
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import ReverseMode

from addons.downstream import ClientConnection, State
from addons.forwarding import Peer
from addons.shared_port import SharedServer
from addons.takeover import TLS_RECORD, Doorman

logger = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 100
CONNECTION_HOOKS = ("client_connected", "client_disconnected")
NOBODY = Peer("", "http")


class Listeners:
    """Accepts from the sockets of mitmproxy's reverse proxies, as long as it has taken them."""

    def __init__(self, doorman: Doorman, ours: object) -> None:
        """Accepts from nothing yet.

        Args:
            doorman: Knows clients, and takes over what mitmproxy has accepted.
            ours: The addon whose own hooks need not be fired.
        """
        self.doorman = doorman
        self._ours = ours
        self._taken: dict[asyncio.Server | SharedServer, AsyncioServerInstance[Any]] = {}
        self._addons: list[object] = []
        self._watched = self._may_block = False
        self.given_back = False

    def follow(self) -> None:
        """Take the sockets that are open now, and those that mitmproxy will open."""
        servers = ctx.master.addons.get("proxyserver").servers
        servers.changed.connect(self.take)
        self.take()

    def take(self) -> None:
        """Take the sockets that are open now."""
        # uvloop has no such function: there each connection is taken over from mitmproxy.
        if not hasattr(asyncio.get_running_loop(), "_start_serving"):
            return
        open_now = dict(_reverse_servers())
        self._taken = {
            server: instance for server, instance in self._taken.items() if server in open_now
        }
        for server, instance in open_now.items():
            if server not in self._taken:
                self._taken[server] = instance
                _accept_with(server, partial(NewConnection, self, instance))

    def give_back(self) -> None:
        """Let mitmproxy accept again from what it has open."""
        ctx.master.addons.get("proxyserver").servers.changed.disconnect(self.take)
        open_now = dict(_reverse_servers())
        for server in self._taken:
            if server in open_now:
                _accept_with(server, None)
        self._taken = {}
        # asyncio, out of files, may have planned to accept with our protocol again.
        self.given_back = True

    def is_watched(self) -> bool:
        """Whether an addon other than ours wants to be told of connections."""
        manager = ctx.master.addons
        # Every addon that comes or goes changes this table.
        now = list(manager.lookup.values())
        if now != self._addons:
            self._addons = now
            # The command `slb` leaves it out.
            self._may_block = any(isinstance(addon, Block) for addon in now)
            self._watched = any(
                callable(getattr(addon, hook, None))
                for addon in addonmanager.traverse(manager.chain)
                if addon is not self._ours and not isinstance(addon, Block)
                for hook in CONNECTION_HOOKS
            )
        # This one of mitmproxy's own looks at every connection, and does nothing but by these.
        if not self._may_block:
            return self._watched
        return bool(self._watched or ctx.options.block_global or ctx.options.block_private)


def _reverse_servers() -> Iterable[
    tuple[asyncio.Server | SharedServer, AsyncioServerInstance[Any]]
]:
    for instance in ctx.master.addons.get("proxyserver").servers:
        if isinstance(instance, AsyncioServerInstance) and isinstance(instance.mode, ReverseMode):
            for server in instance._servers:  # noqa: SLF001 - nothing public tells them
                if isinstance(server, asyncio.Server | SharedServer):
                    yield server, instance


def _accept_with(server: asyncio.Server | SharedServer, factory: Any) -> None:  # noqa: ANN401 - asyncio's own
    """Have connections to a server's sockets get these protocols from now on; None: its own."""
    if isinstance(server, SharedServer):
        server.accept_with(factory)
        return
    factory = factory or server._protocol_factory  # type: ignore[attr-defined]  # noqa: SLF001
    loop: Any = asyncio.get_running_loop()
    for sock in server._sockets or ():  # type: ignore[attr-defined]  # noqa: SLF001 - those that accept
        loop._start_serving(factory, sock, None, server, ACCEPTED_AT_ONCE)  # noqa: SLF001


class NewConnection(ClientConnection):
    """A connection that nobody but us knows of."""

    __slots__ = ("_instance", "_knocked", "_listeners")

    def __init__(self, listeners: Listeners, instance: AsyncioServerInstance[Any]) -> None:
        """A connection that asyncio is about to make."""
        super().__init__(listeners.doorman.clients, NOBODY, _nothing)
        self._listeners = listeners
        self._instance = instance
        self._knocked = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = transport.get_extra_info("peername")
        if address is None or not isinstance(transport, asyncio.Transport):
            # It has left already.
            self.closed = True
            transport.close()
            return
        self.peer = self._listeners.doorman.peer(address[0], "http")
        if self._listeners.given_back or self._listeners.is_watched():
            self.transport = transport
            self._hand_over(b"")
        else:
            super().connection_made(transport)

    @override
    def data_received(self, data: bytes) -> None:
        if not self._knocked:
            self._knocked = True
            if data.startswith(TLS_RECORD) and self.state is State.IDLE and not self.closed:
                self.let_go()
                self._hand_over(data)
                return
        super().data_received(data)

    @override
    def introduce(self) -> object:
        if self.owner is None:
            self.owner = Client(
                peername=self.transport.get_extra_info("peername"),
                sockname=self.transport.get_extra_info("sockname"),
                timestamp_start=time.time(),
                proxy_mode=self._instance.mode,
                state=ConnectionState.OPEN,
            )
        return self.owner

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(client := self.owner, Client):
            client.state = ConnectionState.CLOSED
            client.timestamp_end = time.time()
        super().connection_lost(exc)

    def _hand_over(self, data: bytes) -> None:
        """Make it a connection of mitmproxy's, as if that had accepted it."""
        self.closed = True
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        if data:
            # First: whoever takes it over looks there for what has come.
            reader.feed_data(data)
        protocol = asyncio.StreamReaderProtocol(reader, self._instance.handle_stream, loop=loop)
        self.transport.set_write_buffer_limits()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)


def _nothing() -> None:
    """Nobody but us has to be told of its end."""
