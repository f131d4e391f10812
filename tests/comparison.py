"""The rows of the comparison: a fault, what is expected, and how a proxy's figures read.

The experiments are those of tests/scenarios.py; the rows of hostile clients have their own module.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any

from tests import scenarios, wire
from tests.peers import Proxied
from tests.scenarios import Target
from tests.targets import FIRST_BYTE_MS

DEADLINE_SECONDS = FIRST_BYTE_MS / 1000
FROZEN_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Bench:
    """A proxy, ready for one experiment.

    Attributes:
        recorder: The only worker, if the row asks for one that keeps what it gets.
    """

    proxied: Proxied
    target: Target
    recorder: wire.Recorder | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """What came of one row with one proxy.

    Attributes:
        met: Whether it is as expected.
        figures: All that was measured, for those who want more than the text.
    """

    text: str
    met: bool
    figures: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One fault.

    Attributes:
        recorded: It wants one recording worker instead of three faulty ones.
        together: It takes so long, and so little CPU, that all proxies have it at once.
        first_byte_ms: How long the proxy waits for an answer.
    """

    fault: str
    expected: str
    run: Callable[[Bench], Awaitable[Cell]]
    recorded: bool = False
    together: bool = False
    first_byte_ms: int = FIRST_BYTE_MS


type Experiment = Callable[[Bench], Awaitable[Cell]]


def rows_of(
    rows: dict[str, Row],
) -> Callable[..., Callable[[Experiment], Experiment]]:
    """A decorator that makes an experiment a row, under its name."""

    def row(fault: str, expected: str, **values: Any) -> Callable[[Experiment], Experiment]:
        def add(run: Experiment) -> Experiment:
            key = getattr(run, "__name__", "").replace("_", "-")
            rows[key] = Row(fault, expected, run, **values)
            return run

        return add

    return row


ROWS: dict[str, Row] = {}
row = rows_of(ROWS)


def figures(result: Any) -> dict[str, Any]:
    """The fields of an experiment's result."""
    return {each.name: getattr(result, each.name) for each in fields(result)}


def listed(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3)) or "none"


def seconds(value: float) -> str:
    return "never" if value == float("inf") else f"{max(0.0, value):.2f} s"


@row("kill -9 1 of 3, GET", "0 errors, 0 disconnects, 0 tried on it after 1 s")
async def kill_get(bench: Bench) -> Cell:
    killed = await scenarios.kill_one(bench.target, "GET")
    text = (
        f"{killed.errors} errors of {killed.requests}, {killed.disconnects} disconnects, "
        f"{killed.late_attempts} tried"
    )
    met = killed.errors + killed.disconnects + killed.late_attempts == 0
    return Cell(text, met, figures(killed))


@row("kill -9 1 of 3, POST", "errors only of those in flight on it, none executed twice")
async def kill_post(bench: Bench) -> Cell:
    killed = await scenarios.kill_one(bench.target, "POST")
    # What lay unread in its kernel was in flight on it, too, and the worker cannot tell of that.
    text = (
        f"{killed.errors} errors of {killed.requests}, {killed.in_flight} were being executed, "
        f"{killed.unrelated_errors} came later, executed {killed.most_executions}x at most"
    )
    met = killed.unrelated_errors == 0 and killed.most_executions == 1
    return Cell(text, met, figures(killed))


@row("kill -9 1 of 3, POST with Idempotency-Key", "0 errors")
async def kill_keyed(bench: Bench) -> Cell:
    killed = await scenarios.kill_one(bench.target, "POST with Idempotency-Key")
    text = f"{killed.errors} errors of {killed.requests}"
    return Cell(text, killed.errors == 0 and killed.most_executions <= 2, figures(killed))


@row(
    "restart it",
    "0 errors, back <= 2 s, slow start (early < 25 %), fair share (late >= 30 %)",
    together=True,
)
async def restart(bench: Bench) -> Cell:
    back = await scenarios.restart_one(bench.target)
    text = (
        f"{back.errors} errors, back {seconds(back.back_seconds)}, "
        f"early {back.early_share:.0%}, late {back.late_share:.0%}"
    )
    met = back.errors == 0 and back.back_seconds <= 2.0
    return Cell(text, met and back.early_share < 0.25 and back.late_share >= 0.3, figures(back))


@row("SYN-dropping worker", "0 errors, none over 0.3 s, none delayed after 1 s")
async def drop_syns(bench: Bench) -> Cell:
    dropped = await scenarios.drop_syns(bench.target)
    text = (
        f"{dropped.errors} errors, slowest {seconds(dropped.slowest_seconds)}, "
        f"{dropped.delayed} delayed, last at {seconds(dropped.last_delay_seconds)}"
    )
    met = dropped.errors == 0 and dropped.slowest_seconds <= 0.3
    return Cell(text, met and dropped.last_delay_seconds <= 1.0, figures(dropped))


@row("SIGSTOP a worker, GET", "0 errors, ejected, back <= 3 s after SIGCONT")
async def freeze_get(bench: Bench) -> Cell:
    frozen = await scenarios.freeze_one(bench.target, "GET", frozen_seconds=FROZEN_SECONDS)
    text = (
        f"{frozen.errors} errors of {frozen.requests}, last stuck at "
        f"{seconds(frozen.last_stuck_seconds)}, back {seconds(frozen.back_seconds)}"
    )
    # Whoever meets the deadline asks for a check, and that takes a second.
    ejected = frozen.last_stuck_seconds <= DEADLINE_SECONDS + 1.2
    met = frozen.errors == 0 and ejected and frozen.back_seconds <= 3.0
    return Cell(text, met, figures(frozen))


@row("SIGSTOP a worker, POST", "504 at the deadline +-0.2 s, once each, back <= 3 s")
async def freeze_post(bench: Bench) -> Cell:
    frozen = await scenarios.freeze_one(bench.target, "POST", frozen_seconds=FROZEN_SECONDS)
    first, last = (took - DEADLINE_SECONDS for took in frozen.error_seconds)
    text = (
        f"{listed(frozen.kinds)}, {first:+.2f} to {last:+.2f} s, "
        f"executed {frozen.most_executions}x at most, back {seconds(frozen.back_seconds)}"
    )
    met = all(kind.startswith("504") for kind in frozen.kinds) and frozen.most_executions == 1
    in_time = max(abs(first), abs(last)) <= 0.2 and frozen.back_seconds <= 3.0
    return Cell(text, met and in_time, figures(frozen))


@row("1 of 3 always answers 500", "ejected after 5 in a row, bodies unchanged")
async def one_500(bench: Bench) -> Cell:
    failing = await scenarios.always_500(bench.target, bad=1)
    text = (
        f"asked {failing.asked[0]}x of {failing.requests}, {failing.changed_bodies} bodies changed"
    )
    met = failing.asked[0] <= 5 and not failing.changed_bodies + failing.own_errors
    return Cell(text, met, figures(failing))


@row("2 of 3 always answer 500", "only 1 ejected")
async def two_500(bench: Bench) -> Cell:
    failing = await scenarios.always_500(bench.target, bad=2)
    ejected = len(failing.without_traffic)
    text = (
        f"{ejected} without requests at last, asked {' and '.join(map(str, failing.asked))}x "
        f"of {failing.requests}, {failing.own_errors} errors"
    )
    met = ejected == 1 and not failing.changed_bodies + failing.own_errors
    return Cell(text, met, figures(failing))


@row("whole pool down, then back", "503 with Retry-After within 0.3 s, recovery <= 2 s")
async def lose_pool(bench: Bench) -> Cell:
    lost = await scenarios.lose_pool(bench.target)
    kinds = Counter({kind.split()[0]: 0 for kind in lost.settled_kinds})
    for kind, count in lost.settled_kinds.items():
        kinds[kind.split()[0]] += count
    text = (
        f"{listed(kinds)}, {lost.without_retry_after} of the 503 without Retry-After, "
        f"slowest {seconds(lost.slowest_seconds)}, "
        f"recovery {seconds(lost.recovery_seconds)}, {lost.errors_after} errors later"
    )
    met = set(kinds) == {"503"} and not lost.without_retry_after and lost.slowest_seconds <= 0.3
    return Cell(text, met and lost.recovery_seconds <= 2.0 and not lost.errors_after, figures(lost))


@row("all health checks fail, data path fine", "0 errors")
async def fail_checks(bench: Bench) -> Cell:
    served = await scenarios.fail_all_checks(bench.target, seconds=2.5)
    text = f"{served.errors} errors of {served.requests}"
    return Cell(text, served.errors == 0, figures(served))


@row("worker closes idle connections as requests arrive", "0 errors, GET and POST")
async def close_idle(bench: Bench) -> Cell:
    get = await scenarios.close_idle_in_crossing(bench.target, "GET")
    # Who ejected workers for it had the time to let them in again.
    await scenarios.all_in_use(bench.target)
    post = await scenarios.close_idle_in_crossing(bench.target, "POST")
    text = f"GET {get.errors}, POST {post.errors} errors of {post.requests} each"
    return Cell(text, get.errors + post.errors == 0, {"get": figures(get), "post": figures(post)})


@row("all workers reset after reading, 200 GET/s", "attempts / requests <= 1.25")
async def reset_all(bench: Bench) -> Cell:
    amplified = await scenarios.reset_all(bench.target, seconds=4.0)
    return Cell(f"{amplified.ratio:.2f}", amplified.ratio <= 1.25, figures(amplified))


async def _poison(bench: Bench, method: str) -> Cell:
    poisoned = await scenarios.poison(bench.target, method)
    text = (
        f"{poisoned.errors} errors of {poisoned.requests}, {poisoned.most_without_traffic} ejected "
        f"at most, poison tried {poisoned.most_attempts}x"
    )
    tries = 2 if method == "GET" else 1
    met = poisoned.errors == 0 and poisoned.most_without_traffic <= 1
    return Cell(text, met and poisoned.most_attempts <= tries, figures(poisoned))


@row("poison GET that makes workers hang up, 100x", "others 0 errors, <= 1 ejected, tried <= 2x")
async def poison_get(bench: Bench) -> Cell:
    return await _poison(bench, "GET")


@row("poison POST that makes workers hang up, 100x", "others 0 errors, <= 1 ejected, tried once")
async def poison_post(bench: Bench) -> Cell:
    return await _poison(bench, "POST")


@row("told to end with 32 requests of 2 s in flight", "0 lost", first_byte_ms=10_000)
async def drain(bench: Bench) -> Cell:
    drained = await scenarios.drain(bench.target, bench.proxied.drain)
    return Cell(f"{drained.lost} lost of {drained.requests}", drained.lost == 0, figures(drained))
