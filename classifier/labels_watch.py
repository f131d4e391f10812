"""Keeps up with the labels file while the service runs: re-read on SIGHUP and when it has changed.

A file that cannot be used is refused as a whole, with one line; what was in force stays so.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from classifier.configuration import SettingsError
from classifier.labels_file import LabelsFile, read_labels_file
from classifier.policy import Policy

logger = logging.getLogger(__name__)

WATCH_SECONDS = 2.0

type Stamp = tuple[int, int, int]


class LabelsWatch:
    """Looks at one file every few seconds."""

    def __init__(
        self,
        path: str,
        in_force: LabelsFile,
        adopt: Callable[[Policy], None],
        told: Callable[[str], None],
    ) -> None:
        """Nothing is watched until `run`.

        Args:
            path: The file; "" for none.
            in_force: What it said when it was read first.
            adopt: Puts a changed file in force; called in the event loop.
            told: Told `adopted` or `refused` for each changed file.
        """
        self._path = path
        self._digest = in_force.digest
        self._adopt = adopt
        self._told = told
        self._asked = asyncio.Event()

    async def run(self, interval_seconds: float = WATCH_SECONDS) -> None:
        """Watch until cancelled."""
        if not self._path:
            return
        loop = asyncio.get_running_loop()
        # Only the main thread may; elsewhere the clock alone serves.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(signal.SIGHUP, self._asked.set)
        seen: Stamp | None = None
        while True:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if self._asked.is_set() or stamp != seen:
                self._asked.clear()
                seen = stamp
                await self._read()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_seconds):
                    await self._asked.wait()

    async def _read(self) -> None:
        try:
            policy = await asyncio.to_thread(_worked_out, self._path, self._digest)
        except SettingsError as exc:
            logger.warning("%s; the labels in force stay", exc)
            self._told("refused")
            return
        except Exception as exc:
            # Supervisor: nobody awaits this task, and without it no change is ever seen.
            logger.error("reading the labels file failed: %r; the labels in force stay", exc)
            self._told("refused")
            return
        if policy is None:
            return
        self._digest = policy.file.digest
        self._adopt(policy)
        self._told("adopted")
        count = len(policy.file.labels)
        logger.info("labels file: %d labels, %d rules in force", count, len(policy.file.rules))


def _worked_out(path: str, digest: str) -> Policy | None:
    """The file's policy; None if it says what is in force already."""
    file = read_labels_file(path)
    return None if file.digest == digest else Policy.of(file)


def _stamp(path: str) -> Stamp | None:
    """What changes when the file does, or the link that leads to it; None without one."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
