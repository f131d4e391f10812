"""Addresses of workers' names, looked up apart from connecting.

A connection is waited for much shorter than a name server that is slow: that one says nothing about
a worker.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from addons.deadlines import fair_timeout

OUR_OWN_FAULTS = frozenset({
    errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM,
})  # fmt: skip
"""Out of ports, files or memory: that says nothing about a worker."""


def is_our_own(error: Exception) -> bool:
    """Whether a failed connection is no fault of the worker's."""
    if isinstance(error, socket.gaierror):
        # Names cannot be looked up now: connections that are open may be fine.
        return error.errno == socket.EAI_AGAIN
    return isinstance(error, OSError) and error.errno in OUR_OWN_FAULTS


async def addresses_of(host: str, port: int, seconds: float) -> tuple[str, ...]:
    """The addresses of a host, in the order in which they are to be tried; at least one.

    Args:
        host: A name, or an address, which is taken as it is.
        port: The port that will be connected to.
        seconds: Longest wait for the name servers.

    Raises:
        TimeoutError: If they took too long.
        OSError: If the name is unknown, or could not be looked up.
        UnicodeError: If it is no name.
    """
    if _is_address(host):
        return (host,)
    loop = asyncio.get_running_loop()
    async with fair_timeout(seconds):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


async def first_of[T](addresses: tuple[str, ...], connect: Callable[[str], Awaitable[T]]) -> T:
    """What connecting to the first address that can be connected to gives.

    Raises:
        OSError: Why the last one could not be.
    """
    *others, last = addresses
    for address in others:
        with contextlib.suppress(OSError):
            return await connect(address)
    return await connect(last)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
