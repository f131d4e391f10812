"""The sockets that all processes of one supervisor listen on: bound once, handed out to all.

They are opened by asyncio's own rules, as mitmproxy does, and stay open while processes come and
go: a connection that waits in the queue waits for whoever comes next. Only when the last process
says that it has left an address, and not merely dies, is it closed.
"""

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

type Address = tuple[str, int]
BACKLOG = 1_024


@dataclass(slots=True)
class _Opened:
    sockets: list[socket.socket]
    users: set[int] = field(default_factory=set)


class Ports:
    """All addresses that are listened on."""

    def __init__(self) -> None:
        """Nothing is open."""
        self._opened: dict[Address, _Opened] = {}

    async def open(self, address: Address, slot: int) -> list[socket.socket]:
        """The sockets of an address, for the process in this slot.

        Raises:
            OSError: If it cannot be listened on.
        """
        opened = self._opened.get(address)
        if opened is None:
            opened = self._opened[address] = _Opened(await _bound(*address))
        opened.users.add(slot)
        return opened.sockets

    def leave(self, address: Address, slot: int) -> None:
        """A process has left; the last one closes the door."""
        opened = self._opened.get(address)
        if opened is None:
            return
        opened.users.discard(slot)
        if not opened.users:
            del self._opened[address]
            _close(opened.sockets)

    def lost(self, slot: int) -> None:
        """A process is dead: it uses nothing any more, but another will come."""
        for opened in self._opened.values():
            opened.users.discard(slot)

    def close(self) -> None:
        """Close all."""
        for opened in self._opened.values():
            _close(opened.sockets)
        self._opened.clear()


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
