"""What is written in one turn of the event loop goes out together at its end.

Each call of the system that sends wakes the other side, if that sleeps. Sent one by one, between
the reading of one connection and the next, the bytes of a busy proxy find it asleep again and
again, and waking it costs more than all else that is done for a request. Sent in a row, they find
it awake.
"""

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

SENT_AT_ONCE_BYTES = 65_536
"""More than this waits for nothing, so that little is held."""


class Sender(Protocol):
    """A connection that has something to send."""

    def flush(self) -> None:
        """Send it."""
        ...


class Outbox:
    """The connections that have something to send at the end of this turn."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        """Nobody has anything to send."""
        self._waiting: list[Sender] = []

    def add(self, sender: Sender) -> None:
        """Have it flushed at the end of this turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(sender)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for sender in waiting:
            try:
                sender.flush()
            except Exception as exc:
                # Supervisor: one broken connection must not keep what others have to send.
                logger.error("a connection could not send: %s", type(exc).__name__)


class BatchingProtocol(asyncio.Protocol):
    """A connection whose bytes go out by an outbox."""

    __slots__ = ("_outbox", "_unsent", "closed", "transport")

    transport: asyncio.Transport

    def __init__(self, outbox: Outbox) -> None:
        """A connection with nothing to send; `transport` comes later."""
        self._outbox = outbox
        self._unsent = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send bytes at the end of this turn, or at once if they are many; none if it is closed."""
        if self.closed or not data:
            return
        if self._unsent:
            self._unsent += data
        else:
            self._unsent = data
            self._outbox.add(self)
        if len(self._unsent) > SENT_AT_ONCE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Send now what there is to send: needed before the transport is closed."""
        data, self._unsent = self._unsent, b""
        if data and not self.closed:
            self.transport.write(data)
