"""The port that many processes serve, as mitmproxy sees it in each of them.

mitmproxy opens a socket of its own where it is told to listen. In a process that has a supervisor
the one function that does so is replaced by one that takes the supervisor's socket: it was bound
once, and lives longer than any process, so what waits in its queue outlives a crash. A test holds
the digest of the function.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, override

from mitmproxy.proxy.mode_servers import AsyncioServerInstance

from addons.accepting import STAND_BACK_SECONDS, Presence
from addons.classification import failure_text
from addons.membership import Membership

logger = logging.getLogger(__name__)

ACCEPTS_A_TURN = 16
OUT_OF_DESCRIPTORS_SECONDS = 1.0
"""How long nothing is accepted after the system would not give a connection: asyncio's own time."""


class _CountedSocket(socket.socket):
    """A connection that tells when it is closed, whoever holds it by then."""

    __slots__ = ("on_close",)
    on_close: Callable[[], None] | None

    @override
    def close(self) -> None:
        super().close()
        if self.on_close is not None:
            tell, self.on_close = self.on_close, None
            tell()


class SharedServer:
    """Stands where mitmproxy has an `asyncio.Server`; accepts in turn with other processes.

    Attributes:
        sockets: The shared sockets.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        presence: Presence,
        factory: Callable[[], asyncio.BaseProtocol],
        on_closed: Callable[[], None],
    ) -> None:
        """Accept from now on; needs the running loop.

        Args:
            sockets: Listening ones, which do not block.
            presence: This process at the port.
            factory: Makes the protocol of each new connection, until `accept_with` brings another.
            on_closed: Called once, when it is closed.
        """
        self.sockets = tuple(sockets)
        self._factory = self._own_factory = factory
        self._presence = presence
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._handing: set[asyncio.Task[Any]] = set()
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        presence.begin()
        for sock in self.sockets:
            self._listen(sock)

    def accept_with(self, factory: Callable[[], asyncio.BaseProtocol] | None) -> None:
        """Have new connections get other protocols from now on; None brings the first ones back."""
        self._factory = factory or self._own_factory

    def close(self) -> None:
        """Accept no more; connections go on, and so do the other processes."""
        if not self._open:
            return
        self._open = False
        self._presence.end()
        for timer in self._paused.values():
            timer.cancel()
        self._paused.clear()
        for sock in self.sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._on_closed()

    # Parts

    def _listen(self, sock: socket.socket) -> None:
        self._paused.pop(sock, None)
        self._loop.add_reader(sock, self._accept, sock)

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock)
        self._paused[sock] = self._loop.call_later(seconds, self._listen, sock)

    def _left(self) -> None:
        """A connection is closed: what this process had too many of may be in order now."""
        self._presence.leave()
        for sock, timer in list(self._paused.items()):
            timer.cancel()
            self._listen(sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            if self._presence.stands_back():
                self._pause(sock, STAND_BACK_SECONDS)
                return
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._presence.nothing_waits()
                return
            except OSError as exc:
                logger.error("no connection can be accepted now: %s", exc.strerror)
                self._pause(sock, OUT_OF_DESCRIPTORS_SECONDS)
                return
            self._hand_over(accepted)

    def _hand_over(self, accepted: socket.socket) -> None:
        family, kind, proto = accepted.family, accepted.type, accepted.proto
        connection = _CountedSocket(family, kind, proto, fileno=accepted.detach())
        connection.on_close = self._left
        connection.setblocking(False)
        self._presence.enter()
        handing = self._loop.connect_accepted_socket(self._factory, connection)
        task = self._loop.create_task(handing)
        self._handing.add(task)
        task.add_done_callback(lambda done: self._handed(done, connection))

    def _handed(self, task: asyncio.Task[Any], connection: socket.socket) -> None:
        self._handing.discard(task)
        exc = None if task.cancelled() else task.exception()
        if isinstance(exc, Exception):
            logger.error("a connection could not be taken: %s", failure_text(exc))
        if task.cancelled() or exc is not None:
            connection.close()


def share_port(membership: Membership) -> None:
    """Have mitmproxy listen, in this process, on sockets of the supervisor's."""

    async def listen(instance: Any, host: str, port: int) -> list[SharedServer]:  # noqa: ANN401
        loop = asyncio.get_running_loop()

        def stream() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(loop=loop)
            return asyncio.StreamReaderProtocol(reader, instance.handle_stream, loop=loop)

        if instance.mode.transport_protocol != "tcp":
            msg = f"{instance.mode.full_spec} cannot be served by several processes"
            raise OSError(msg)
        sockets = membership.listen(host, port)
        return [
            SharedServer(sockets, membership.presence, stream, lambda: membership.leave(host, port))
        ]

    AsyncioServerInstance.listen = listen  # type: ignore[method-assign, assignment]
