"""What a run was made with: versions, machine, load."""

import datetime
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench import programs
from tests.bench.cores import Cores
from tests.processes import ROOT


def facts(cores: Cores, names: Mapping[str, str], command: Sequence[str]) -> dict[str, object]:
    """All of it, at the start of a run."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "revision": _revision(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "cores_used": {
            "target": sorted(cores.target), "load": sorted(cores.load),
            "upstream": sorted(cores.upstream),
        },
        "load_at_start": os.getloadavg(),
        "python": platform.python_version(),
        "wrk": programs.version("wrk", "-v"),
        "upstream": f"nginx {programs.version('nginx', '-v')}",
        "targets": dict(names),
    }  # fmt: skip


def in_words(told: Mapping[str, object], cores: Cores) -> str:
    """For the head of the report."""
    pinned = "targets have a core of their own" if cores.apart else "all share one core"
    loads = ", ".join(f"{load:.2f}" for load in told["load_at_start"])  # type: ignore[attr-defined]
    return (
        f"`{told['command']}`\n\n{told['date']}, {told['cores']} cores ({told['processor']}), "
        f"{told['kernel']}, Python {told['python']}, wrk {told['wrk']}; {pinned}; load at the "
        f"start {loads}."
    )


def _revision() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor()
