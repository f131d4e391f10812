"""The command `slb`: the router with what it needs of mitmproxy, and nothing else.

    slb --listen-port 8080

is `mitmdump -s addons/router.py` without the addons that a load balancer never uses; from a
checkout it is `python -m addons.launcher`. Options, hooks and safety are the same.

House rule: nothing here imports mitmproxy before it is needed. That takes half a second and 60 MB,
which a process that only starts others shall not pay.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from addons.accepting import MAX_PROCESSES
from addons.membership import VARIABLE
from addons.settings import ProcessSettings
from classifier.configuration import SettingsError, exit_with, load

OPTION = "--processes"
SHOW_ONLY = frozenset({"-h", "--help", "--version", "--options", "--commands"})
"""Arguments that have something told and nothing served."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the router until it is told to end.

    Args:
        arguments: The command line without the name of the program; that of the process if None.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    if VARIABLE in os.environ:
        serve(given)
        return
    count, rest = processes_of(given)
    if count > 1:
        from addons.supervisor import supervise  # noqa: PLC0415 - one process needs none

        sys.exit(supervise(rest, count))
    serve(rest)


def processes_of(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """How many processes there shall be, and the command line of each.

    A number that cannot be ends the program.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(OPTION)
    try:
        given, rest = parser.parse_known_args(arguments)
        if SHOW_ONLY & set(rest):
            return 1, rest
        if given.processes is None:
            count = load(ProcessSettings).proxy_processes
        else:
            count = load(ProcessSettings, proxy_processes=given.processes).proxy_processes
    except (SettingsError, argparse.ArgumentError) as exc:
        exit_with(str(exc))
    return min(count or os.process_cpu_count() or 1, MAX_PROCESSES), rest


def serve(arguments: Sequence[str]) -> None:
    """Run one router in this process, until it is told to end."""
    from addons.lean import run  # noqa: PLC0415 - see the house rule above

    run_in_loop(run(arguments))


def run_in_loop(program: Coroutine[Any, Any, None]) -> None:
    """Run the program in an event loop of its own: the one place where the loop is made."""
    with asyncio.Runner() as runner:
        runner.run(program)


if __name__ == "__main__":
    main()
