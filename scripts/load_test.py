"""Sends a mixed workload through the proxy and checks that each request reaches its own pool."""

import argparse
import asyncio
import math
import random
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Never, override

import httpx
from load_report import EXIT_FAILED, Outcome, conclude, report
from load_shapes import FAST_PATH, GENERAL, HIGH_COMPUTE, SHAPES, Shape
from stack_settings import SettingsError, address_of, is_loopback, port_setting, read_settings
from tqdm import tqdm  # type: ignore[import-untyped]

MAX_REQUESTS = 100_000
MAX_CONCURRENCY = 512
MAX_SECONDS = 86_400.0
CONNECT_SECONDS = 5.0
EXIT_BAD_SETTINGS = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to send, where, and for how long at most."""

    url: str
    address: tuple[str, int]
    requests: int
    concurrency: int
    max_seconds: float
    timeout_s: float
    seed: int


class NoProxyError(Exception):
    """Nothing listens where the proxy should; the message says why."""


def main(argv: Sequence[str]) -> int:
    """Run the load test; 1 if a request failed, went astray or was not answered."""
    try:
        plan = _plan(argv)
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return EXIT_BAD_SETTINGS
    outcomes: list[Outcome] = []
    ended = f"stopped after {plan.max_seconds:g} s"
    started = time.perf_counter()
    try:
        _ensure_somebody_listens(plan)
        asyncio.run(_run(plan, outcomes))
    except NoProxyError as exc:
        sys.stderr.write(f"error: no proxy at {plan.url} ({exc}); run scripts/dev-up.sh\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        ended = "interrupted"
    report(outcomes, time.perf_counter() - started)
    code = conclude(plan.requests, outcomes, ended=ended)
    return EXIT_INTERRUPTED if ended == "interrupted" else code


def _ensure_somebody_listens(plan: Plan) -> None:
    try:
        socket.create_connection(plan.address, min(plan.timeout_s, CONNECT_SECONDS)).close()
    except OSError as exc:
        raise NoProxyError(exc.strerror or exc) from exc


def _plan(argv: Sequence[str]) -> Plan:
    settings = read_settings(Path(__file__).resolve().parent.parent)
    default_url = f"http://127.0.0.1:{port_setting(settings, 'PROXY_PORT', 8080)}"
    parser = _OneLineParser(prog="scripts/load-test.sh", description=__doc__)
    parser.add_argument("--requests", type=_up_to(MAX_REQUESTS), default=300, metavar="N")
    parser.add_argument("--concurrency", type=_up_to(MAX_CONCURRENCY), default=16, metavar="N")
    parser.add_argument("--url", default=default_url, help=f"the proxy (default: {default_url})")
    parser.add_argument(
        "--max-seconds", type=_seconds, default=300.0, help="stop after this time (default: 300)"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=30.0, help="seconds for one request (default: 30)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order and the ids (default: 1)")
    parser.add_argument(
        "--allow-remote", action="store_true", help="the proxy may be on another machine"
    )
    arguments = parser.parse_args(argv)
    host, port = address_of("--url", arguments.url, like="http://localhost:8080")
    if not is_loopback(host) and not arguments.allow_remote:
        msg = f"{host} is not this machine; --allow-remote sends load to it all the same"
        raise SettingsError(msg)
    return Plan(
        url=arguments.url.rstrip("/"),
        address=(host, port),
        requests=arguments.requests,
        concurrency=arguments.concurrency,
        max_seconds=arguments.max_seconds,
        timeout_s=arguments.timeout,
        seed=arguments.seed,
    )


class _OneLineParser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> Never:
        raise SettingsError(message)


def _up_to(limit: int) -> Callable[[str], int]:
    """An argument type: a whole number from 1 to `limit`."""

    def number_in(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = 0
        if not 1 <= number <= limit:
            msg = f"must be from 1 to {limit}, not {text!r}"
            raise argparse.ArgumentTypeError(msg)
        return number

    return number_in


def _seconds(text: str) -> float:
    """An argument type: a length of time above 0."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MAX_SECONDS:
        msg = f"must be seconds above 0 and up to {MAX_SECONDS:.0f}, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return seconds


async def _run(plan: Plan, outcomes: list[Outcome]) -> None:
    """Send what is planned; the outcomes come one by one, for it may be interrupted."""
    rng = random.Random(plan.seed)  # noqa: S311 - a workload, not a secret
    waiting = _workload(plan, rng)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
