"""The line to the other proxy processes of this machine: datagrams, never waited for.

Invariants:
* Telling costs the teller the same whatever the others do: what does not fit into a sibling's
  buffer is dropped. Nothing here is needed for a request to be served well, only for it to be
  served as well as by one process.
* Hearing is bounded too: so many datagrams a turn, so many bytes each.
"""

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Protocol

from addons.accepting import Counts
from addons.hearsay import MAX_BYTES, Greeting, Message, pack, unpack

BATCH_SECONDS = 0.002
"""What is told within this time is told at once: the kernel's queue of datagrams is short."""
MAX_UNTOLD = 1_024
DATAGRAMS_A_TURN = 16
BUFFER_BYTES = 1_048_576


class Listener(Protocol):
    """Who takes what siblings tell."""

    def hear(self, message: Message) -> None:
        """Take it into account, if it is of any use."""
        ...

    def known(self) -> list[Message]:
        """What a new sibling has to be told."""
        ...


class Siblings:
    """All processes but this one.

    Attributes:
        dropped: Messages that were not told: some sibling had no room, or there were too many.
        refused: Lines heard that were no messages.
    """

    def __init__(self, directory: Path, slot: int, counts: Counts, listener: Listener) -> None:
        """A line that `open` opens.

        Args:
            directory: Where all have their sockets; only this user may look into it.
            slot: Which of them is ours.
            counts: Tell who is there.
            listener: Takes what is heard.
        """
        self._directory = directory
        self._slot = slot
        self._counts = counts
        self._listener = listener
        self._socket: socket.socket | None = None
        self._untold: list[Message] = []
        self._flushing: asyncio.TimerHandle | None = None
        self.dropped = 0
        self.refused = 0

    def open(self) -> None:
        """Hear from now on, and ask the others for what they know.

        Raises:
            OSError: If the socket cannot be had.
        """
        path = address(self._directory, self._slot)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        path.unlink(missing_ok=True)
        try:
            sock.bind(str(path))
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        except OSError:
            sock.close()
            raise
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._on_readable)
        self.tell(Greeting(slot=self._slot))

    def turn(self) -> tuple[int, int]:
        """Which of those who are there this one is, counted from 0, and how many there are."""
        present = self._counts.present()
        if self._slot not in present:
            return 0, 1
        return present.index(self._slot), len(present)

    def tell(self, message: Message) -> None:
        """Tell all siblings, very soon."""
        if self._socket is None:
            return
        if len(self._untold) >= MAX_UNTOLD:
            self.dropped += 1
            return
        self._untold.append(message)
        if self._flushing is None:
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(BATCH_SECONDS, self._flush)

    def close(self) -> None:
        """Tell the rest, and neither tell nor hear anything more."""
        if self._socket is None:
            return
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        address(self._directory, self._slot).unlink(missing_ok=True)

    @property
    def lost(self) -> int:
        """Messages that were not told, or not understood."""
        return self.dropped + self.refused

    # Parts

    def _flush(self) -> None:
        self._flushing = None
        messages, self._untold = self._untold, []
        others = [slot for slot in self._counts.present() if slot != self._slot]
        if others:
            for datagram in pack(messages):
                for slot in others:
                    self._send(datagram, slot)

    def _send(self, datagram: bytes, slot: int) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(datagram, str(address(self._directory, slot)))
        except (FileNotFoundError, ConnectionRefusedError):
            pass  # it is gone, or not there yet and will ask for what it has to know
        except OSError:
            self.dropped += 1

    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            if self._socket is None:
                return
            try:
                datagram = self._socket.recv(MAX_BYTES)
            except OSError:
                return
            self._take(datagram)

    def _take(self, datagram: bytes) -> None:
        heard = unpack(datagram)
        self.refused += heard.refused
        for message in heard.messages:
            if isinstance(message, Greeting):
                self._answer(message)
            else:
                self._listener.hear(message)

    def _answer(self, greeting: Greeting) -> None:
        for datagram in pack(self._listener.known()):
            self._send(datagram, greeting.slot)


def address(directory: Path, slot: int) -> Path:
    """The socket of a process's line."""
    return directory / f"{slot}.line"
