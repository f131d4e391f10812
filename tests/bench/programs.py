"""Programs that the benchmark runs: where they are, which version, with which configuration."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.peers import PATH, Config

CONFIGS = Path(__file__).parent / "configs"


def is_installed(name: str) -> bool:
    return shutil.which(name, path=PATH) is not None


def program(name: str) -> str:
    """The path of a program.

    Raises:
        FileNotFoundError: If it is not installed.
    """
    path = shutil.which(name, path=PATH)
    if path is None:
        message = f"{name} is not installed"
        raise FileNotFoundError(message)
    return path


def version(name: str, *flags: str) -> str:
    """The version that a program tells of itself; empty if it tells none."""
    told = subprocess.run([program(name), *flags], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", told.stdout + told.stderr)
    return found[0] if found else ""


def configured(name: str, folder: Path, **values: object) -> str:
    """Write the configuration of that name into the folder; returns its path."""
    path = folder / name
    config = Config((CONFIGS / name).read_text())
    path.write_text(config.substitute(values, folder=folder))
    return str(path)


def as_root() -> list[str]:
    """What nginx needs as root, for it would serve as a user who may not write to the folder."""
    return ["-g", "user root;"] if os.geteuid() == 0 else []
