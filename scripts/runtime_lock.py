"""Prints the part of requirements.lock that the product needs to run, without its tests and tools.

The lock says under each package who asked for it (`# via`): kept is what the project itself asked
for, and what the kept packages asked for.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = "semantic-load-balancer"
_NAME = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.MULTILINE)
_VIA = re.compile(r"#\s+(?:via\s+)?([a-z0-9][a-z0-9._-]*)\s*$", re.MULTILINE)


def entries(lock: str) -> Mapping[str, str]:
    """Each package's lines, hashes and comments included, by its name."""
    starts = [*_NAME.finditer(lock)]
    ends = [*(start.start() for start in starts[1:]), len(lock)]
    return {start[1]: lock[start.start() : end] for start, end in zip(starts, ends, strict=True)}


def runtime_part(lock: str) -> str:
    """The entries that `PROJECT` needs, in the order of the lock."""
    packages = entries(lock)
    asked_by = {name: set(_VIA.findall(text)) for name, text in packages.items()}
    kept = {PROJECT}
    while True:
        more = {name for name, askers in asked_by.items() if askers & kept} - kept
        if not more:
            return "".join(text for name, text in packages.items() if name in kept)
        kept |= more


if __name__ == "__main__":
    sys.stdout.write(runtime_part(Path(sys.argv[1]).read_text("utf-8")))
