"""One proxy process as its supervisor sees it: started, asked, told to end, and gone."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from addons.membership import MAX_MESSAGE_BYTES, VARIABLE, Place
from addons.ports import Ports
from classifier.configuration import SettingsError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
START_SECONDS = 60.0
"""Longest time from the start of a process to its being ready."""
ANSWER_SECONDS = 1.0
"""Longest wait for a process's control port: one that hangs must not hang the others' scrape."""
ORDER_SECONDS = 10.0
"""Longest wait for a change that an operator has asked for."""
PATIENCE_SECONDS = 60.0
"""Longest time for a process to end that has not said how long it takes."""
GRACE_SECONDS = 5.0

COMMAND = (sys.executable, "-P", "-m", "addons.launcher")
"""Not from the working directory: something called `addons` may be there as well."""

type Fields = list[tuple[bytes, bytes]]
type OpenControl = Callable[["Child", str, int], Awaitable[None]]
"""Serves the control port at the address that a process asks for, or raises a SettingsError."""


class Child:
    """A process of this supervisor's.

    Attributes:
        name: Its number, which no other process ever has.
        ready: Whether it has been ready to serve, with the settings of the last reload.
        reloads: How many reloads there had been when its settings were new.
        stands_in: Whether it listens where others do, whatever its settings say by now.
    """

    def __init__(self, name: str, place: Place, process: asyncio.subprocess.Process) -> None:
        """A process that has been started."""
        self.name = name
        self.place = place
        self.ready = False
        self.reloads = 0
        self.stands_in = False
        self._process = process
        self._patience_seconds = PATIENCE_SECONDS
        self._client = httpx.AsyncClient(
            # The environment has no say in it, and there is no TLS on a Unix socket.
            transport=httpx.AsyncHTTPTransport(
                uds=str(place.control),
                verify=False,
                trust_env=False,
            ),
            base_url="http://localhost",
            timeout=ORDER_SECONDS,
            trust_env=False,
        )

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.returncode

    async def until_serving(self) -> bool:
        """Wait until it serves; False if it ended, or had to be ended, before."""
        try:
            async with asyncio.timeout(START_SECONDS):
                while self.code is None:
                    if (answer := await self.get("/readyz")) is not None and answer.is_success:
                        return True
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            logger.error("process %s is not ready in time", self.name)
            self.send(signal.SIGKILL)
            await self.ended()
        return False

    async def get(self, path: str) -> httpx.Response | None:
        """What its control port answers; None if it does not, in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._client.get(path)
        except (TimeoutError, httpx.HTTPError):
            return None

    async def post(self, path: str, headers: Fields) -> httpx.Response | None:
        """Have it do something; None if it does not answer, in time."""
        try:
            async with asyncio.timeout(ORDER_SECONDS):
                return await self._client.post(path, headers=headers)
        except (TimeoutError, httpx.HTTPError):
            return None

    def stream(self, path: str) -> contextlib.AbstractAsyncContextManager[httpx.Response]:
        """An answer of its control port that goes on."""
        return self._client.stream("GET", path, timeout=httpx.Timeout(ORDER_SECONDS, read=60.0))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the answer is its exit code."""
        return await self._process.wait()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Have it end after the requests under way; if it does not, end it."""
        self.send(number)
        try:
            async with asyncio.timeout(self._patience_seconds + GRACE_SECONDS):
                await self.ended()
        except TimeoutError:
            logger.error("process %s does not end; killed", self.name)
            self.send(signal.SIGKILL)
            await self.ended()

    async def aclose(self) -> None:
        """Close the connections to it."""
        await self._client.aclose()

    def take_patience(self, seconds: float) -> None:
        """It has said how long its end may take."""
        self._patience_seconds = seconds


class Channel:
    """The supervisor's end of a process's channel: answers what it asks."""

    def __init__(
        self, child: Child, sock: socket.socket, ports: Ports, control: OpenControl
    ) -> None:
        """Listen to it from now on; needs the running loop."""
        self._child = child
        self._socket = sock
        self._ports = ports
        self._open_control = control
        self._tasks: set[asyncio.Task[None]] = set()
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    def close(self) -> None:
        """Hear no more: the process is gone."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._tasks:
            task.cancel()

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            return
        self._take(json.loads(data))

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"ask": "port", "host": str(host), "port": int(port)}:
                self._keep(self._answer_port(host, port))
            case {"ask": "control", "host": str(host), "port": int(port)}:
                self._keep(self._answer_control(host, port))
            case {"tell": "left", "host": str(host), "port": int(port)}:
                self._ports.leave((host, port), self._child.place.slot)
            case {"tell": "patience", "seconds": int(seconds) | float(seconds)}:
                self._child.take_patience(seconds)
            case _:
                logger.warning("process %s says what nobody knows", self._child.name)

    async def _answer_port(self, host: str, port: int) -> None:
        try:
            # What one that is ready opens later is its own affair.
            stands_in = self._child.stands_in and not self._child.ready
            open_ = self._ports.open_in_force if stands_in else self._ports.open
            sockets = await open_((host, port), self._child.place.slot)
        except OSError as exc:
            self._answer({"errno": exc.errno or 0, "text": exc.strerror or str(exc)})
            return
        self._answer({}, [sock.fileno() for sock in sockets])

    async def _answer_control(self, host: str, port: int) -> None:
        try:
            await self._open_control(self._child, host, port)
        except SettingsError as exc:
            self._answer({"error": str(exc)})
            return
        self._answer({})

    def _answer(self, answer: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        with contextlib.suppress(OSError):
            socket.send_fds(self._socket, [json.dumps(answer).encode()], descriptors)

    def _keep(self, work: Any) -> None:  # noqa: ANN401 - any coroutine of this class
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _path() -> str:
    """Where this very code is found, whether it is installed or a checkout."""
    root = str(Path(__file__).resolve().parent.parent)
    before = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{before}" if before else root


async def start(
    arguments: Sequence[str], name: str, place_at: Callable[[int], Place]
) -> tuple[Child, socket.socket]:
    """Start a process; the second part of the answer is this end of its channel.

    Args:
        arguments: Its command line.
        name: The process's number.
        place_at: Its place, given the file descriptor of its channel.

    Raises:
        OSError: If it cannot be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        place = place_at(theirs.fileno())
        try:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                *arguments,
                env={**os.environ, "PYTHONPATH": _path(), VARIABLE: place.as_text()},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # Ctrl-C in a terminal is for the supervisor, which hands it on once.
                process_group=0,
            )
        except OSError:
            ours.close()
            raise
    return Child(name, place, process), ours
