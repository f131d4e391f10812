"""Burns CPU time in child processes, so that the worker's event loop stays free.

`python -m workers.cpu` is such a child: each line in is a number of seconds, each line out says
that they are burnt. It ends with its input, so also when its parent was killed.
"""

import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable

type Work = Callable[[float], Awaitable[None]]
"""What a request costs: takes that many seconds, of time or of CPU."""

type _Job = tuple[float, asyncio.Future[None]]


def burn(cpu_seconds: float) -> None:
    """Use that much CPU time of this process; takes longer when the CPU is shared."""
    end = time.process_time() + cpu_seconds
    while time.process_time() < end:
        pass


@contextlib.asynccontextmanager
async def cpu_burner(processes: int) -> AsyncIterator[Work]:
    """A `Work` that burns CPU in `processes` children at the same time; the others queue."""
    jobs: asyncio.Queue[_Job] = asyncio.Queue()

    async def burn_elsewhere(seconds: float) -> None:
        done = asyncio.get_running_loop().create_future()
        jobs.put_nowait((seconds, done))
        await done

    async with asyncio.TaskGroup() as group:
        keepers = [group.create_task(_keep_child(jobs)) for _ in range(processes)]
        try:
            yield burn_elsewhere
        finally:
            for keeper in keepers:
                keeper.cancel()


async def _keep_child(jobs: asyncio.Queue[_Job]) -> None:
    """Give jobs to a child, and start another one should it be killed."""
    while True:
        # In a session of its own, Ctrl-C reaches the parent only: it decides when children end.
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "workers.cpu"), stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        try:
            while await _do_next(jobs, child):
                pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _do_next(jobs: asyncio.Queue[_Job], child: Process) -> bool:
    """Have `child` do one job; False if it is dead, and the job back in the queue."""
    assert child.stdin is not None  # noqa: S101 - for the type checker: both are pipes
    assert child.stdout is not None  # noqa: S101
    seconds, done = await jobs.get()
    # uvloop raises RuntimeError for a write to a pipe that it knows to be closed.
    if not child.stdin.is_closing():
        child.stdin.write(f"{seconds}\n".encode())
    if not await child.stdout.readline():
        jobs.put_nowait((seconds, done))
        return False
    if not done.done():
        done.set_result(None)
    return True


def main() -> None:
    """Be the child."""
    for line in sys.stdin:
        burn(float(line))
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
