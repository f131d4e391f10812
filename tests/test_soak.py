"""Long loads: memory, latency and metrics stay what they were. Run with `pytest --soak`."""

import random
import re
import time

import httpx
import pytest

from tests import scenarios
from tests.faulty_behaviours import PIECE
from tests.load import Answer, Load, Plan, Report, Request
from tests.targets import our_proxy
from tests.websocket_client import WebSocket, checksum
from tests.wire import Memory, growth

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.timeout(900),
]

MIXED_REQUESTS = 100_000
WARM_REQUESTS = 20_000
SAMPLES = 16
REQUESTS_OF_ONE_CLIENT = 8_000
DISTINCT_PATHS = 10_000
MOST_SERIES = 500
WEBSOCKET_BYTES = 150_000_000


def mixed(index: int) -> Request:
    """Reads and writes, short and long, well and badly answered, some of them never seen before."""
    chance = random.Random(index)
    body = b'{"name": "%d"}' % index
    json_type = (("Content-Type", "application/json"),)
    kinds = [
        Request(),
        Request(target=f"/users/{index}"),
        Request("POST", "/users", json_type, b'{"name": "Ada"}'),
        Request("POST", f"/orders/{index % 97}", json_type, body),
        Request("PUT", "/blobs/1", (), PIECE[: chance.randrange(len(PIECE))]),
        Request("HEAD", "/users"),
        Request(target="/do/stream?bytes=100000"),
        Request(target="/do/answer?status=404"),
        Request(target="/do/answer?status=500"),
        Request("DELETE", f"/users/{index}"),
    ]
    return chance.choice(kinds)


def slope(points: list[tuple[float, float]]) -> float:
    """Of the line of least squares through the points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


async def test_memory_does_not_grow_with_the_requests(tmp_path) -> None:
    # Answers 500 eject nobody here, and the cache of labels is full before it is looked at.
    settings = {"EJECT_AFTER_ERRORS": 1000, "CACHE_ENTRIES": WARM_REQUESTS // 10}
    with our_proxy(tmp_path, **settings) as ours:
        memory = Memory(ours.target.pid)
        plan = Plan(ours.target.port, mixed, connections=64, count=MIXED_REQUESTS)
        points: list[tuple[float, float]] = []
        began = time.monotonic()
        async with Load(plan) as load:
            for number in range(SAMPLES + 1):
                goal = WARM_REQUESTS + number * (MIXED_REQUESTS - WARM_REQUESTS) // SAMPLES
                await scenarios.until(lambda goal=goal: load.sent >= goal, 600)
                points.append((load.sent / 10_000, memory.now))
            await load.finished()
        took = time.monotonic() - began
    report = load.report()

    found = (
        f"{len(report.answers) / took:.0f} requests/s, "
        f"memory slope {slope(points):+.2f} MB per 10,000, "
        f"{points[0][1]:.0f} to {points[-1][1]:.0f} MB, kinds {dict(report.kinds())}"
    )
    print(found)
    assert len(report.answers) == MIXED_REQUESTS
    assert report.errors == [], found
    assert report.disconnects == 0, found
    assert slope(points) <= 1.0, found


async def test_the_last_requests_of_a_long_connection_are_as_fast_as_the_first(tmp_path) -> None:
    with our_proxy(tmp_path) as ours:
        plan = Plan(ours.target.port, connections=1, count=REQUESTS_OF_ONE_CLIENT + 500)
        async with Load(plan) as load:
            await load.finished()
    report = load.report()
    warm = sorted(report.answers, key=lambda answer: answer.at)[500:]
    first, last = warm[:1000], warm[-1000:]
    ratio = median(last) / median(first)

    found = f"median {median(first) * 1e6:.0f} to {median(last) * 1e6:.0f} us, ratio {ratio:.2f}"
    print(found)
    assert (report.errors, report.disconnects) == ([], 0)
    assert ratio <= 1.2, found


def median(answers: list[Answer]) -> float:
    return Report(tuple(answers), 0).quantile(0.5)


def test_a_long_websocket_takes_no_memory(tmp_path) -> None:
    with our_proxy(tmp_path) as ours:
        # The first messages bring what every connection needs.
        WebSocket(ours.proxy.port, "/do/websocket").close()
        messages = [PIECE] * (WEBSOCKET_BYTES // 2 // len(PIECE))
        with (
            growth(ours.target.pid) as grown,
            WebSocket(ours.proxy.port, "/do/websocket") as websocket,
        ):
            began = time.monotonic()
            for message in messages:
                websocket.send(message)
                assert websocket.message() == message
            took = time.monotonic() - began
            reason = websocket.close()

            found = f"{WEBSOCKET_BYTES / took / 1e6:.0f} MB/s, memory +{grown():.1f} MB"
            print(found)
            assert reason == checksum(messages)
            assert grown() < 20, found


async def test_distinct_paths_methods_and_labels_make_no_new_series(tmp_path) -> None:
    with our_proxy(tmp_path) as ours:
        before = await series(ours.proxy.control)

        def unlike_all_others(index: int) -> Request:
            method = f"M{index}" if index % 10 == 0 else "GET"
            label = (("X-Route-Label", f"label-{index}"), ("X-SLB-Label", f"label-{index}"))
            return Request(method, f"/p{index}/{index * 7}?q={index}", label)

        plan = Plan(ours.target.port, unlike_all_others, connections=16, count=DISTINCT_PATHS)
        async with Load(plan) as load:
            await load.finished()
        after = await series(ours.proxy.control)

    found = f"series {len(before)} to {len(after)}"
    print(found)
    assert load.report().errors == []
    assert len(load.report().answers) == DISTINCT_PATHS
    assert len(after) <= MOST_SERIES, found
    # A status class that had not been seen may come; nothing comes with each path.
    assert len(after - before) <= 20, sorted(after - before)


async def series(control: str) -> set[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{control}/metrics")).text
    return {match[0] for match in re.finditer(r"^\w+(\{.*?\})?(?= )", text, re.MULTILINE)}


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
