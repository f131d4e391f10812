"""What a proxy process knows of its supervisor: a channel, a place, a directory.

The channel is a pair of sockets that keep messages apart. By it the process asks for the sockets to
listen on, and tells that it is ready; by its end it learns that the supervisor is gone. The
directory is this user's alone: who can open what is in it could as well send signals.
"""

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addons.accepting import MAX_SLOTS, Presence, open_counts
from addons.siblings import Listener, Siblings
from classifier.configuration import SettingsError

VARIABLE = "SLB_MEMBERSHIP"
"""Of the environment of a process that has a supervisor: slot, channel and directory."""
COUNTS_FILE = "counts"
MAX_MESSAGE_BYTES = 65_536
MAX_SOCKETS = 64
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among the others.

    Attributes:
        slot: Its number; no other process that lives has it.
        channel: File descriptor of its end of the channel.
        directory: Where all have their sockets.
    """

    slot: int
    channel: int
    directory: Path

    def as_text(self) -> str:
        """For the environment."""
        return f"{self.slot}:{self.channel}:{self.directory}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Read what `as_text` wrote.

        Raises:
            ValueError: If it is anything else.
        """
        slot, channel, directory = text.split(":", 2)
        place = cls(int(slot), int(channel), Path(directory))
        if not 0 <= place.slot < MAX_SLOTS or not directory:
            raise ValueError(text)
        return place

    @property
    def control(self) -> Path:
        """The socket of the process's control port."""
        return self.directory / f"{self.slot}.control"

    @property
    def last_words(self) -> Path:
        """The file of its metrics, written at its end."""
        return self.directory / f"{self.slot}.metrics"


class Membership:
    """One process's part in it."""

    def __init__(self, place: Place) -> None:
        """Take the place.

        Raises:
            OSError: If the channel or the directory is not there.
        """
        self.place = place
        self._channel = socket.socket(fileno=place.channel)
        self._orphaned = False
        self._channel.set_inheritable(False)
        self._channel.settimeout(ANSWER_SECONDS)
        self._counts = open_counts(place.directory / COUNTS_FILE)
        self.presence = Presence(self._counts, place.slot)

    def listen(self, host: str, port: int) -> list[socket.socket]:
        """The sockets that all processes share for this address, bound and listening.

        Raises:
            OSError: If the supervisor cannot have them, or is gone.
        """
        answer, sockets = self._ask({"ask": "port", "host": host, "port": port})
        if "errno" in answer:
            raise OSError(int(answer["errno"]), str(answer.get("text", "")))
        for sock in sockets:
            sock.setblocking(False)
        return sockets

    def leave(self, host: str, port: int) -> None:
        """Tell that this process does not listen there any more."""
        self._tell({"tell": "left", "host": host, "port": port})

    def open_control(self, host: str, port: int) -> socket.socket:
        """Have the supervisor serve the control port, and take the socket it will ask.

        Raises:
            SettingsError: If that port cannot be had; the message says which setting to change.
        """
        try:
            answer, _ = self._ask({"ask": "control", "host": host, "port": port})
            if "error" in answer:
                raise SettingsError(str(answer["error"]))
            path = self.place.control
            path.unlink(missing_ok=True)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(str(path))
            sock.listen(128)
            sock.setblocking(False)
        except OSError as exc:
            msg = f"the supervisor does not answer ({exc.strerror or 'no time left'}); start anew"
            raise SettingsError(msg) from exc
        return sock

    def siblings(self, listener: Listener) -> Siblings:
        """The line to the others, to be opened."""
        return Siblings(self.place.directory, self.place.slot, self._counts, listener)

    def tell_patience(self, seconds: float) -> None:
        """Tell how long the end of this process may take, from a signal on."""
        self._tell({"tell": "patience", "seconds": seconds})

    def watch(self, on_orphaned: Callable[[], None]) -> None:
        """Call this once the supervisor is gone; needs the running loop."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            with contextlib.suppress(BlockingIOError):
                if not self._receive():
                    loop.remove_reader(self._channel)
                    self._orphaned = True
                    on_orphaned()

        self._channel.setblocking(False)
        loop.add_reader(self._channel, look)

    def end(self, last_words: bytes) -> None:
        """Clear the place, and leave metrics behind, for nobody will ask any more."""
        self.place.control.unlink(missing_ok=True)
        if not self._orphaned:
            path = self.place.last_words
            unfinished = path.with_suffix(".unfinished")
            with contextlib.suppress(OSError):
                unfinished.write_bytes(last_words)
                unfinished.rename(path)
            return
        # There is nobody else to do it. As late as can be: one that is killed takes time to die.
        atexit.register(clear_up, self.place.directory)

    # Parts

    def _receive(self) -> bytes:
        try:
            return self._channel.recv(MAX_MESSAGE_BYTES)
        except ConnectionError:
            return b""

    def _ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], list[socket.socket]]:
        was_blocking = self._channel.gettimeout()
        self._channel.settimeout(ANSWER_SECONDS)
        try:
            self._channel.send(json.dumps(question).encode())
            data, descriptors, _, _ = socket.recv_fds(self._channel, MAX_MESSAGE_BYTES, MAX_SOCKETS)
        finally:
            self._channel.settimeout(was_blocking)
        sockets = [socket.socket(fileno=one) for one in descriptors]
        if not data:
            raise ConnectionResetError
        return json.loads(data), sockets

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(message).encode())


def clear_up(directory: Path) -> None:
    """Remove the directory, also what killed processes have left there, unless one lives."""
    if not any(_is_held(path) for path in directory.glob("*.*")):
        shutil.rmtree(directory, ignore_errors=True)


def _is_held(path: Path) -> bool:
    """Whether this is the socket of a process that lives; of any kind, and nobody notices."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it is of the other kind
    return True


def take_place() -> Membership | None:
    """The membership that the environment names, taken out of it; None without a supervisor.

    Raises:
        SettingsError: If the environment names one that is not there.
    """
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    try:
        return Membership(Place.parse(text))
    except (OSError, ValueError) as exc:
        msg = f"{VARIABLE} is for processes that a supervisor has started; unset it"
        raise SettingsError(msg) from exc
