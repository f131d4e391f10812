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
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from addons.accepting import ABSENT, create_counts
from addons.children import Channel, Child, start
from addons.control import ControlServer
from addons.membership import COUNTS_FILE, Place
from addons.overview import Overview
from addons.ports import Ports
from classifier.configuration import EXIT_CODE_BAD_SETTINGS, exit_with, listen

logger = logging.getLogger(__name__)

MIN_LIFE_SECONDS = 10.0
"""A process that lived longer than this is restarted at once."""
BACK_OFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
KEEP_METRICS_SECONDS = 5.0
"""So much of what a process has counted is lost at most if it is killed."""
CLOSE_SECONDS = 3.0
LOG_FORMAT = "[%(asctime)s.%(msecs)03d] %(message)s"
"""mitmproxy's own, for its processes write to the same place."""
MAX_PATH_BYTES = 100
"""Of a Unix socket; the system's limit is 107."""


class Berth:
    """A place for one process that is always to be filled."""

    def __init__(self, child: Child) -> None:
        """Filled with this one."""
        self.child = child


class Supervisor:
    """Keeps so many processes running."""

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
        self._stopping = asyncio.Event()
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
        first = await self._start()
        if await first.until_ready():
            self._looking = self._keep(self._keep_metrics())
            await self._keep_all(first)
        elif not self._stopping.is_set():
            self._code = await first.ended()
        await self._close()
        return self._code

    # Processes

    def _serving(self) -> Sequence[Child]:
        """All that live and were ready once, the oldest first."""
        return [child for child in self._children if child.ready and child.code is None]

    async def _start(self) -> Child:
        taken = {child.place.slot for child in self._children}
        slot = next(slot for slot in range(len(self._counts)) if slot not in taken)
        self._started += 1
        child, channel = await start(
            self._arguments,
            str(self._started),
            lambda descriptor: Place(slot, descriptor, self._directory),
        )
        self._children.append(child)
        self._keep(self._watch(child, Channel(child, channel, self._ports, self._open_control)))
        if self._stopping.is_set():
            child.send(signal.SIGTERM)
        return child

    async def _watch(self, child: Child, channel: Channel) -> None:
        """Clear up behind a process."""
        await child.ended()
        channel.close()
        self._counts.set(child.place.slot, ABSENT)
        self._ports.lost(child.place.slot)
        await self._overview.bury(child)
        await child.aclose()
        for path in self._directory.glob(f"{child.place.slot}.*"):
            path.unlink(missing_ok=True)
        self._children.remove(child)

    async def _keep_all(self, first: Child) -> None:
        self._berths = [Berth(first)]
        while len(self._berths) < self._count and not self._stopping.is_set():
            self._berths.append(Berth(await self._start()))
        await asyncio.gather(*(self._keep_filled(berth) for berth in self._berths))

    async def _keep_filled(self, berth: Berth) -> None:
        failures = 0
        while not self._stopping.is_set():
            child, began = berth.child, time.monotonic()
            if not child.ready:
                await child.until_ready()
            code = await child.ended()
            if berth.child is not child:
                continue  # it was replaced
            if self._stopping.is_set():
                return
            failures = failures + 1 if time.monotonic() - began < MIN_LIFE_SECONDS else 0
            if code == EXIT_CODE_BAD_SETTINGS and not self._serving():
                self._code = code
                self._on_stop(signal.SIGTERM)
                return
            await self._back_off(child, code, failures)
            if not self._stopping.is_set():
                berth.child = await self._start()

    async def _back_off(self, child: Child, code: int, failures: int) -> None:
        seconds = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS) - 1)]
        self._overview.restarts += 1
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        logger.error("process %s ended (%s); another starts in %s s", child.name, how, seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # What signals ask for

    def _on_stop(self, number: signal.Signals) -> None:
        """End all; a second time, hurry them."""
        if self._stopping.is_set():
            for child in self._children:
                child.send(number)
            return
        self._stopping.set()
        for child in self._children:
            self._keep(child.end(number))

    async def _reload(self) -> None:
        async with self._changing:
            answer = await self._overview.reload([])
        log = logger.info if answer.status_code < 400 else logger.error  # noqa: PLR2004 - HTTP's
        log("reload: %s", bytes(answer.body).decode())

    async def _replace_all(self) -> None:
        if self._changing.locked():
            logger.warning("processes are being changed already")
            return
        async with self._changing:
            for berth in self._berths:
                if self._stopping.is_set() or not await self._replace(berth):
                    return
            logger.info("all %d processes are new", self._count)

    async def _replace(self, berth: Berth) -> bool:
        """Put a new process in the place of an old one, without a gap."""
        new = await self._start()
        if not await new.until_ready():
            logger.error("the new process ended with exit code %s; the old ones stay", new.code)
            return False
        old, berth.child = berth.child, new
        await old.end()
        return True

    # The control port

    async def _open_control(self, host: str, port: int) -> None:
        """Serve the control port at this address, and there only.

        Raises:
            SettingsError: If that cannot be.
        """
        if self._control_address == (host, port):
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

    async def _close(self) -> None:
        self._stopping.set()
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
