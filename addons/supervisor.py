"""Many proxy processes at one port: started, watched, restarted, replaced, reloaded and ended.

Signals: SIGTERM and SIGINT end all processes after the requests under way, a second one hurries
them; SIGHUP reloads the settings, in one process first; SIGUSR2 replaces all, one after another.

Invariants:
* The first process starts alone: a bad setting is told once, and with its exit code.
* What one process suffers, the others do not notice: they hold the same sockets.
* If the supervisor dies, so do the processes, after the requests under way: they see the end of
  their channels.
"""

import asyncio
import logging
import shutil
import signal
import socket
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from addons.accepting import ABSENT, create_counts
from addons.berths import Berth
from addons.children import Channel, Child, start
from addons.control import ControlServer
from addons.membership import COUNTS_FILE, Place
from addons.overview import Overview
from addons.ports import Ports
from classifier.configuration import EXIT_CODE_BAD_SETTINGS, exit_with, listen

logger = logging.getLogger(__name__)

KEEP_METRICS_SECONDS = 5.0
"""So much of what a process has counted is lost at most if it is killed."""
CLOSE_SECONDS = 3.0
LOG_FORMAT = "[%(asctime)s.%(msecs)03d] %(message)s"
"""mitmproxy's own, for its processes write to the same place."""
MAX_PATH_BYTES = 100
"""Of a Unix socket; the system's limit is 107."""


class Supervisor:
    """Keeps so many processes running.

    Attributes:
        stopping: Set when all are to end.
    """

    def __init__(self, arguments: Sequence[str], count: int, directory: Path) -> None:
        """Nothing runs yet.

        Args:
            arguments: Command line of each process.
            count: How many there shall be.
            directory: For their sockets; this user's alone, and empty.
        """
        self._arguments = arguments
        self._count = count
        self._directory = directory
        self._counts = create_counts(directory / COUNTS_FILE, 2 * count)
        self._ports = Ports()
        self._children: list[Child] = []
        self._berths: list[Berth] = []
        self._started = 0
        self._slots: set[int] = set()
        self.stopping = asyncio.Event()
        self._code = 0
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[Any] | None = None
        self._overview = Overview(self._serving, count)
        self._control: ControlServer | None = None
        self._control_address: tuple[str, int] | None = None

    async def run(self) -> int:
        """Run until a signal ends it; the answer is the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._keep(self._reload()))
        loop.add_signal_handler(signal.SIGUSR2, lambda: self._keep(self._replace_all()))
        first = await self.start()
        if await self.until_ready(first):
            self._looking = self._keep(self._keep_metrics())
            await self._keep_all(first)
        elif not self.stopping.is_set():
            self._code = await first.ended()
        await self._close()
        return self._code

    # Processes

    def _serving(self) -> Sequence[Child]:
        """All that live and were ready once, the oldest first."""
        return [child for child in self._children if child.ready and child.code is None]

    async def start(self) -> Child:
        """A new process."""
        slot = next(slot for slot in range(len(self._counts)) if slot not in self._slots)
        self._slots.add(slot)
        self._started += 1
        reloads = self._overview.changes.reloads
        child, channel = await start(
            self._arguments,
            str(self._started),
            lambda descriptor: Place(slot, descriptor, self._directory),
        )
        child.reloads = reloads
        self._children.append(child)
        self._keep(self._watch(child, Channel(child, channel, self._ports, self._open_control)))
        if self.stopping.is_set():
            child.send(signal.SIGTERM)
        return child

    async def until_ready(self, child: Child) -> bool:
        """Wait until a process serves, with the settings of the last reload; False if it ended."""
        if not await child.until_serving():
            return False
        await self._overview.changes.catch_up([child])
        child.ready = child.code is None
        self._close_unused()
        return child.ready

    def lost(self, code: int) -> None:
        """A process has ended by itself: another is to start, unless none can."""
        if code == EXIT_CODE_BAD_SETTINGS and not self._serving():
            self._code = code
            self._on_stop(signal.SIGTERM)
            return
        self._overview.restarts += 1

    async def _watch(self, child: Child, channel: Channel) -> None:
        """Clear up behind a process."""
        await child.ended()
        channel.close()
        self._counts.set(child.place.slot, ABSENT)
        self._ports.lost(child.place.slot)
        self._close_unused()
        await self._overview.bury(child)
        await child.aclose()
        for path in self._directory.glob(f"{child.place.slot}.*"):
            path.unlink(missing_ok=True)
        self._children.remove(child)
        self._slots.discard(child.place.slot)

    def _close_unused(self) -> None:
        """Nobody shall wait at an address that no process listens on, and none will."""
        if all(berth.child.ready and berth.child.code is None for berth in self._berths):
            self._ports.close_unused()

    async def _keep_all(self, first: Child) -> None:
        self._berths = [Berth(first, self)]
        while len(self._berths) < self._count and not self.stopping.is_set():
            child = await self.start()
            child.stands_in = True
            self._berths.append(Berth(child, self))
        await asyncio.gather(*(berth.keep_filled() for berth in self._berths))

    # What signals ask for

    def _on_stop(self, number: signal.Signals) -> None:
        """End all; a second time, hurry them."""
        if self.stopping.is_set():
            for child in self._children:
                child.send(number)
            return
        self.stopping.set()
        for child in self._children:
            self._keep(child.end(number))

    async def _reload(self) -> None:
        answer = await self._overview.changes.reload([])
        log = logger.info if answer.status_code < 400 else logger.error  # noqa: PLR2004 - HTTP's
        log("reload: %s", bytes(answer.body).decode())

    async def _replace_all(self) -> None:
        if self._changing.locked():
            logger.warning("processes are being changed already")
            return
        async with self._changing:
            for berth in self._berths:
                if self.stopping.is_set() or not await berth.replace():
                    return
            logger.info("all %d processes are new", self._count)

    # The control port

    async def _open_control(self, child: Child, host: str, port: int) -> None:
        """Serve the control port where a process asks for it, and there only.

        Raises:
            SettingsError: If that cannot be.
        """
        if self._control_address == (host, port):
            return
        if child.stands_in and self._control_address is not None:
            logger.warning("the control port stays at %s:%d until SIGUSR2", *self._control_address)
            return
        sock = listen(host, port, "METRICS")
        before, self._control = self._control, ControlServer(self._overview, sock)
        self._control_address = (host, port)
        if before is not None:
            before.close()
        self._keep(self._control.serve())
        shown: tuple[Any, ...] = sock.getsockname()
        logger.info("Routing. Metrics: http://%s:%d/metrics", *shown[:2])

    async def _keep_metrics(self) -> None:
        while True:
            await asyncio.sleep(KEEP_METRICS_SECONDS)
            await self._overview.look()
            await self._overview.changes.catch_up(self._serving())

    async def _close(self) -> None:
        self.stopping.set()
        await asyncio.gather(*(child.ended() for child in self._children))
        self._ports.close()
        if self._control is not None:
            self._control.close()
        if self._looking is not None:
            self._looking.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)

    def _keep(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def supervise(arguments: Sequence[str], count: int) -> int:
    """Run so many processes with this command line until a signal ends them.

    Returns:
        The exit code.
    """
    if not hasattr(socket, "SOCK_SEQPACKET") or not hasattr(socket, "send_fds"):
        exit_with("PROXY_PROCESSES: several processes need Linux; set it to 1")
    logging.basicConfig(format=LOG_FORMAT, datefmt="%H:%M:%S", level=logging.INFO)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        directory = Path(tempfile.mkdtemp(prefix="slb-"))
    except OSError as exc:
        exit_with(f"TMPDIR: no directory can be made ({exc.strerror}); set one that can be written")
    try:
        if len(str(directory)) > MAX_PATH_BYTES - len("/000.control"):
            exit_with(
                f"TMPDIR: {directory.parent} is too long a path for sockets; set a shorter one"
            )
        return asyncio.run(Supervisor(arguments, count, directory).run())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
