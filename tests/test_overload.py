"""How late the loop is, when that turns requests away, how many, and what they are told."""

import asyncio
import gc
import time

import httpx
import pytest

from addons import options
from addons.looplag import SAMPLE_SECONDS, LoopLag
from addons.overload import INTERVAL_SECONDS, LEAST_SHARE, OVERLOADED, Overload
from tests import processes

LIMIT = 0.5
LATE, EARLY = LIMIT * 2, LIMIT / 10


class Loop:
    """A loop that is as late as it is told to be, and reports that."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.overload = Overload(limit)
        self.now = 100.0

    def run(self, seconds: float, lag: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += SAMPLE_SECONDS + lag
            self.overload.lagged(lag, self.now)

    def admitted(self, requests: int = 1_000) -> float:
        return sum(self.overload.admit() is None for _ in range(requests)) / requests


def test_everybody_is_admitted_while_the_loop_is_in_time() -> None:
    loop = Loop()
    loop.run(60, EARLY)
    assert loop.admitted() == 1


def test_one_long_turn_is_no_overload() -> None:
    loop = Loop()
    loop.run(5, EARLY)
    loop.run(0, LATE)
    loop.now += 60
    loop.overload.lagged(60, loop.now)
    loop.run(5, EARLY)
    assert loop.admitted() == 1


def test_bursts_are_none_either_if_the_loop_is_in_time_between_them() -> None:
    loop = Loop()
    for _ in range(50):
        loop.run(INTERVAL_SECONDS * 0.4, LATE / 4)
        loop.run(0.1, EARLY)
    assert loop.admitted() == 1


def test_a_lag_that_stands_turns_more_and_more_away() -> None:
    loop = Loop()
    shares = []
    for _ in range(5):
        loop.run(2, LATE)
        shares.append(loop.admitted())
    assert shares == sorted(shares, reverse=True)
    assert shares[0] < 1
    assert shares[-1] < shares[0] / 2


def test_some_are_always_admitted() -> None:
    loop = Loop()
    loop.run(600, LATE)
    assert loop.admitted() == pytest.approx(LEAST_SHARE, abs=0.002)


def test_those_that_are_admitted_are_spread_evenly() -> None:
    overload = Overload(LIMIT)
    overload.share = 0.25
    told = [overload.admit() for _ in range(12)]
    assert [index for index, answer in enumerate(told) if answer is None] == [3, 7, 11]


def test_when_the_lag_is_over_all_are_admitted_again_by_and_by() -> None:
    loop = Loop()
    loop.run(600, LATE)
    loop.run(1, EARLY)
    little = loop.admitted()
    assert LEAST_SHARE < little < 0.5
    loop.run(20, EARLY)
    assert loop.admitted() == 1


def test_without_a_limit_nobody_is_turned_away() -> None:
    loop = Loop(limit=0)
    loop.run(600, LATE)
    assert loop.admitted() == 1


def test_a_limit_that_is_taken_away_lets_all_in_again() -> None:
    loop = Loop()
    loop.run(600, LATE)
    loop.overload.limit_seconds = 0
    loop.run(30, LATE)
    assert loop.admitted() == 1


async def test_a_turn_of_the_loop_that_is_long_shows_as_lag() -> None:
    lags: list[float] = []
    long_one = asyncio.Event()

    def told(lag: float, now: float) -> None:
        assert now > 0
        lags.append(lag)
        if lag > 3 * SAMPLE_SECONDS:
            long_one.set()

    sampler = LoopLag(told)
    sampler.start()
    time.sleep(5 * SAMPLE_SECONDS)  # noqa: ASYNC251 - a long turn is what is wanted
    await long_one.wait()
    sampler.stop()
    seen = len(lags)
    await asyncio.sleep(2 * SAMPLE_SECONDS)
    assert len(lags) == seen


def test_the_garbage_collector_does_not_look_at_what_stays() -> None:
    stays = [["one of many"]]
    try:
        options.shorten_collections()
        looked_at = {id(each) for each in gc.get_objects()}
        assert id(stays) not in looked_at
        assert len(looked_at) < gc.get_freeze_count()
    finally:
        gc.unfreeze()


BUSY = '''
"""From the first request on, each turn of the loop takes long."""

import asyncio
import time


class Busy:
    def __init__(self):
        self.begun = False

    def client_connected(self, client):
        if not self.begun:
            self.begun = True
            self.work()

    def work(self):
        time.sleep(0.07)
        asyncio.get_running_loop().call_soon(self.work)


addons = [Busy()]
'''


@pytest.mark.integration
def test_a_proxy_whose_loop_is_late_turns_requests_away_at_the_head(tmp_path) -> None:
    (tmp_path / "busy.py").write_text(BUSY)
    # Nobody answers: what is admitted is told so.
    pools = processes.pool_variables({name: [processes.free_port()] for name in processes.LABELS})
    settings = {**pools, "MAX_LOOP_LAG_MS": 10}
    settings["CLASSIFIER_URL"] = f"http://127.0.0.1:{processes.free_port()}"
    with (
        processes.proxy(tmp_path, "-s", tmp_path / "busy.py", **settings) as proxy,
        httpx.Client(base_url=proxy.url, timeout=30, trust_env=False) as client,
    ):
        for _ in range(100):
            # A body of which nothing has been read is no reason to wait.
            answer = client.post("/users", content=b"x" * 100)
            if answer.json()["error"]["code"] == OVERLOADED.code:
                break
        assert answer.json()["error"] == {"code": "overloaded", "message": OVERLOADED.message}
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert proxy.metric('slb_rejections_total{code="overloaded"}') >= 1
        assert proxy.metric("slb_event_loop_lag_seconds_count") > 0
        assert len(proxy.decisions()) > 0, "none was admitted"
