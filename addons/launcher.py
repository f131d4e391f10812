"""The command `slb`: the router with what it needs of mitmproxy, and nothing else.

    slb --listen-port 8080

is `mitmdump -s addons/router.py` without the addons that a load balancer never uses; from a
checkout it is `python -m addons.launcher`. Options, hooks and safety are the same.

House rule: nothing here imports mitmproxy before it is needed. That takes half a second and 60 MB,
which a process that only starts others shall not pay.
"""

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the router until it is told to end.

    Args:
        arguments: The command line without the name of the program; that of the process if None.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    serve(given)


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
