"""The sockets that all processes of one supervisor listen on: bound once, handed out to all.

They are opened by asyncio's own rules, as mitmproxy does, and stay open while processes come and
go: a connection that waits in the queue waits for whoever comes next. An address is closed when the
last process says that it has left it, and does not merely die; or when all that shall run do, and
none of them listens there.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

type Address = tuple[str, int]
BACKLOG = 1_024


@dataclass(slots=True)
class _Opened:
    """Sockets of an address, and who listens there: slots, with the address that each asked for."""

    sockets: list[socket.socket]
    users: dict[int, Address] = field(default_factory=dict)


class Ports:
    """All addresses that are listened on."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._opened: dict[Address, _Opened] = {}
        self._opening = asyncio.Lock()

    async def open(self, address: Address, slot: int) -> list[socket.socket]:
        """The sockets of an address, for the process in this slot.

        Raises:
            OSError: If it cannot be listened on.
        """
        return await self._open(address, address, slot)

    async def open_in_force(self, address: Address, slot: int) -> list[socket.socket]:
        """The same, for a process that stands in: if nobody listens there, those of the others.

        Raises:
            OSError: If it cannot be listened on, or it is not clear which of several is meant.
        """
        if not self._opened or address in self._opened:
            return await self._open(address, address, slot)
        if len(self._opened) > 1:
            raise OSError(errno.EADDRNOTAVAIL, "another address takes SIGUSR2")
        in_force = next(iter(self._opened))
        logger.warning("the port stays at %s:%d until SIGUSR2", *in_force)
        return await self._open(in_force, address, slot)

    async def _open(self, address: Address, asked: Address, slot: int) -> list[socket.socket]:
        async with self._opening:
            opened = self._opened.get(address)
            if opened is None:
                opened = self._opened[address] = _Opened(await _bound(*address))
            opened.users[slot] = asked
        return opened.sockets

    def leave(self, asked: Address, slot: int) -> None:
        """A process has left the address that it asked for; the last one closes the door."""
        for address, opened in list(self._opened.items()):
            if opened.users.get(slot) == asked:
                del opened.users[slot]
                if not opened.users:
                    self._close(address)

    def lost(self, slot: int) -> None:
        """A process is dead: it uses nothing any more, but another will come."""
        for opened in self._opened.values():
            opened.users.pop(slot, None)

    def close_unused(self) -> None:
        """Close what nobody listens on: all are there, and no other will come."""
        for address in [address for address, opened in self._opened.items() if not opened.users]:
            self._close(address)

    def close(self) -> None:
        """Close all."""
        for address in list(self._opened):
            self._close(address)

    def _close(self, address: Address) -> None:
        _close(self._opened.pop(address).sockets)


async def _bound(host: str, port: int) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        asyncio.Protocol, host or None, port, start_serving=False, backlog=BACKLOG
    )
    try:
        sockets = [sock.dup() for sock in server.sockets]
    finally:
        server.close()
    try:
        for sock in sockets:
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError:
        _close(sockets)
        raise
    return sockets


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.close()
