"""What a process and its descendants have cost, as the operating system counts it."""

import os
import time
from pathlib import Path

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    found, open_pids = [], [pid]
    while open_pids:
        parent = open_pids.pop()
        found.append(parent)
        for task in _tasks(parent):
            open_pids += map(int, _read(task / "children").split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants, those included that have ended.

    The clocks of the living count nanoseconds; `/proc/PID/stat` has the same in ticks of 10 ms,
    which is all there is for descendants that have been waited for.
    """
    return sum(_own_seconds(each) + _ended_seconds(each) for each in tree(pid))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; what they share counts each time."""
    total = 0
    for each in tree(pid):
        for line in _read(Path(f"/proc/{each}/status")).splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) * 1024
    return total


def _own_seconds(pid: int) -> float:
    try:
        # clock_getcpuclockid(3), which Python does not have: CPUCLOCK_SCHED of a process.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return _stat_seconds(pid, 11)


def _ended_seconds(pid: int) -> float:
    return _stat_seconds(pid, 13)


def _stat_seconds(pid: int, first: int) -> float:
    """Two fields in a row of `/proc/PID/stat`, user and system time, counted from the state."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[first : first + 2])) / CLOCK_TICKS


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    """A file of /proc; empty if its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
