"""Sends a mixed workload through the proxy and checks that each request reaches its own pool."""

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
from load_shapes import FAST_PATH, GENERAL, HIGH_COMPUTE, SHAPES, Shape
from stack_settings import SettingsError, address_of, is_loopback, port_setting, read_settings
from tqdm import tqdm  # type: ignore[import-untyped]

MAX_REQUESTS = 100_000
MAX_CONCURRENCY = 512
FAULTS_SHOWN = 20
EXIT_FAILED = 1
EXIT_BAD_SETTINGS = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        decided: The label that the proxy decided on; `source` says by whose word.
        went_to: Type of the worker that answered; the decided label if the worker does not tell.
        error: What went wrong, "" if nothing did.
    """

    shape: Shape
    elapsed_ms: float
    decided: str = ""
    source: str = ""
    went_to: str = ""
    error: str = ""

    @property
    def fault(self) -> str:
        """Why the load test fails because of it; "" if it does not."""
        if self.error:
            return self.error
        if self.went_to != self.decided:
            return f"decided {self.decided}, but went to {self.went_to}"
        if self.went_to != self.shape.label:
            return f"is {self.shape.label}, but went to {self.went_to} by {self.source}"
        return ""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to send, where, and for how long at most."""

    url: str
    requests: int
    concurrency: int
    max_seconds: float
    timeout_s: float
    seed: int


def main(argv: Sequence[str]) -> int:
    """Run the load test; 1 if a request failed or went astray."""
    try:
        plan = _plan(argv)
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_BAD_SETTINGS
    started = time.perf_counter()
    outcomes = asyncio.run(_run(plan))
    elapsed_s = time.perf_counter() - started
    _report(outcomes, elapsed_s)
    faults = Counter(
        f"{outcome.shape.name}: {outcome.fault}" for outcome in outcomes if outcome.fault
    )
    for line, count in faults.most_common(FAULTS_SHOWN):
        print(f"{count:>6} x  {line}")
    unsent = plan.requests - len(outcomes)
    if unsent:
        print(f"stopped after {plan.max_seconds:g} s with {unsent} requests not answered")
    if faults or unsent:
        print(f"FAILED: {faults.total()} of {len(outcomes)} requests failed or went astray")
        return EXIT_FAILED
    print(f"OK: all {len(outcomes)} requests reached their own pool")
    return 0


def _plan(argv: Sequence[str]) -> Plan:
    settings = read_settings(Path(__file__).resolve().parent.parent)
    default_url = f"http://127.0.0.1:{port_setting(settings, 'PROXY_PORT', 8080)}"
    parser = argparse.ArgumentParser(prog="scripts/load-test.sh", description=__doc__)
    parser.add_argument("--requests", type=_up_to(MAX_REQUESTS), default=300, metavar="N")
    parser.add_argument("--concurrency", type=_up_to(MAX_CONCURRENCY), default=16, metavar="N")
    parser.add_argument("--url", default=default_url, help=f"the proxy (default: {default_url})")
    parser.add_argument(
        "--max-seconds", type=float, default=300.0, help="stop after this time (default: 300)"
    )
    parser.add_argument(
        "--timeout", type=float, default=30.0, help="seconds for one request (default: 30)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order and the ids (default: 1)")
    parser.add_argument(
        "--allow-remote", action="store_true", help="the proxy may be on another machine"
    )
    arguments = parser.parse_args(argv)
    host, _ = address_of("--url", arguments.url)
    if not is_loopback(host) and not arguments.allow_remote:
        msg = f"{host} is not this machine; --allow-remote sends load to it all the same"
        raise SettingsError(msg)
    return Plan(
        url=arguments.url.rstrip("/"),
        requests=arguments.requests,
        concurrency=arguments.concurrency,
        max_seconds=arguments.max_seconds,
        timeout_s=arguments.timeout,
        seed=arguments.seed,
    )


class _up_to:  # noqa: N801 - argparse shows the name
    """An argument type: a whole number from 1 to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __call__(self, text: str) -> int:
        number = int(text)
        if not 1 <= number <= self._limit:
            msg = f"must be from 1 to {self._limit}"
            raise argparse.ArgumentTypeError(msg)
        return number


async def _run(plan: Plan) -> list[Outcome]:
    rng = random.Random(plan.seed)  # noqa: S311 - a workload, not a secret
    waiting = _workload(plan, rng)
    outcomes: list[Outcome] = []
    client = httpx.AsyncClient(
        base_url=plan.url,
        timeout=plan.timeout_s,
        limits=httpx.Limits(max_connections=plan.concurrency),
        # A proxy in the environment is not meant for a load test of one's own machine.
        trust_env=False,
    )

    async def send_all(bar: "tqdm[None]") -> None:
        for shape, number in waiting:
            outcomes.append(await _send(client, shape, number))
            bar.update()

    # disable=None: no bar where nobody looks.
    with tqdm(total=plan.requests, unit="req", disable=None) as bar:
        try:
            async with asyncio.timeout(plan.max_seconds), client, asyncio.TaskGroup() as group:
                for _ in range(min(plan.concurrency, plan.requests)):
                    group.create_task(send_all(bar))
        except TimeoutError:
            pass
    return outcomes


def _workload(plan: Plan, rng: random.Random) -> Iterator[tuple[Shape, int]]:
    """Equal shares of the three labels, each with all its shapes in turn, shuffled."""
    by_label = [
        [shape for shape in SHAPES if shape.label == label]
        for label in (FAST_PATH, GENERAL, HIGH_COMPUTE)
    ]
    shapes: list[Shape] = []
    for number in range(plan.requests):
        same_label = by_label[number % len(by_label)]
        shapes.append(same_label[number // len(by_label) % len(same_label)])
    rng.shuffle(shapes)
    for shape in shapes:
        yield shape, rng.randrange(10_000, 10_000_000)


async def _send(client: httpx.AsyncClient, shape: Shape, number: int) -> Outcome:
    headers = {"content-type": shape.content_type} if shape.content_type else {}
    started = time.perf_counter()
    try:
        response = await client.request(
            shape.method,
            shape.path.replace("#", str(number)),
            content=shape.body.replace("#", str(number)),
            headers=headers,
        )
    except httpx.HTTPError as exc:
        elapsed_ms = (time.perf_counter() - started) * 1_000
        return Outcome(shape, elapsed_ms, error=f"{type(exc).__name__} {exc}".strip())
    elapsed_ms = (time.perf_counter() - started) * 1_000
    decided = response.headers.get("x-slb-label", "")
    error = ""
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        error = f"status {response.status_code}"
    elif not decided:
        error = "no x-slb-label in the answer: is this the proxy, and are its client headers on?"
    went_to = response.headers.get("x-worker-type", decided)
    source = response.headers.get("x-slb-source", "")
    return Outcome(shape, elapsed_ms, decided, source, went_to, error)


def _report(outcomes: Sequence[Outcome], elapsed_s: float) -> None:
    print(f"{'label':<14}{'sent':>6}{'errors':>8}{'p50 ms':>10}{'p99 ms':>10}   went to")
    for label in (FAST_PATH, GENERAL, HIGH_COMPUTE):
        same_label = [outcome for outcome in outcomes if outcome.shape.label == label]
        times_ms = sorted(outcome.elapsed_ms for outcome in same_label)
        errors = sum(bool(outcome.error) for outcome in same_label)
        pools = Counter(outcome.went_to for outcome in same_label if not outcome.error)
        went_to = ", ".join(f"{pool} {count}" for pool, count in pools.most_common())
        print(
            f"{label:<14}{len(same_label):>6}{errors:>8}"
            f"{_quantile(times_ms, 0.5):>10.1f}{_quantile(times_ms, 0.99):>10.1f}   {went_to}"
        )
    print(
        f"{len(outcomes)} requests in {elapsed_s:.1f} s, {len(outcomes) / elapsed_s:.0f} a second"
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; 0 where there is nothing."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
