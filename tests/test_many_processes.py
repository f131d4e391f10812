"""`slb --processes 2`: two processes at one port are as one, and outlive one another."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from addons.accepting import open_counts
from addons.membership import COUNTS_FILE, VARIABLE, Place
from tests import processes
from tests.fleet import FaultyWorker, fleet
from tests.load import Client, Load, Plan, Request, connect, exchange
from tests.processes import LABELS, Proxy, until

pytestmark = pytest.mark.integration

NAMES = ("a", "b", "c")
ANSWER = {
    "label": "general", "confidence": 0.9, "source": "local", "reasoning": "the test says so",
    "latency_ms": 0.1,
}  # fmt: skip
SETTINGS = {
    "PROXY_PROCESSES": 2,
    "CLASSIFY_TIMEOUT_MS": 10_000,
    "CONNECT_TIMEOUT_MS": 5_000,
    "HEALTH_TIMEOUT_MS": 10_000,
    "EJECT_SECONDS": 2,
    "EJECT_AFTER_ERRORS": 5,
    "SLOW_START_SECONDS": 0,
}


@dataclass
class Site:
    proxy: Proxy
    folder: Path
    workers: tuple[FaultyWorker, ...]
    classifier: FaultyWorker
    sent: int = field(default=0)

    @property
    def pid(self) -> int:
        return self.proxy.started.process.pid

    def places(self) -> dict[int, Place]:
        """The processes that run, by their ids."""
        return {pid: place_of(pid) for pid in children_of(self.pid)}

    def ready(self) -> int:
        return httpx.get(f"{self.proxy.control}/readyz").json()["processes"]["ready"]

    def each(self, path: str) -> list[dict]:
        """What each process says itself."""
        return [ask(place, path).json() for place in self.places().values()]

    def connections(self) -> list[int]:
        """How many connections each process has."""
        place = next(iter(self.places().values()))
        with contextlib.closing(open_counts(place.directory / COUNTS_FILE)) as counts:
            return [counts[slot] for slot in counts.present()]

    def health(self, worker: FaultyWorker) -> list[dict]:
        """What each process says of a worker."""
        return [
            one
            for told in self.each("/v1/pools")
            for pool in told["pools"]
            for one in pool["workers"]
            if pool["label"] == "general" and one["name"] == worker.address
        ]

    def post(self, path: str) -> httpx.Response:
        return httpx.post(f"{self.proxy.control}{path}")


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def place_of(pid: int) -> Place:
    """Where a process stands: what its supervisor has told it."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    prefix = f"{VARIABLE}=".encode()
    return Place.parse(
        next(one for one in environment if one.startswith(prefix)).removeprefix(prefix).decode()
    )


def ask(place: Place, path: str) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(place.control))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=10) as client:
        return client.get(path)


@contextlib.contextmanager
def site_in(folder: Path, **settings: object) -> Iterator[Site]:
    with fleet(folder, *NAMES) as workers, fleet(folder, "classifier", "spill") as (service, spill):
        ports = {label: [spill.port] for label in LABELS}
        pools = processes.pool_variables({**ports, "general": [one.port for one in workers]})
        asyncio.run(service.fault(body=json.dumps(ANSWER)))
        variables = {**SETTINGS, **pools, "CLASSIFIER_URL": f"http://{service.address}", **settings}
        with processes.proxy(folder, program="slb", **variables) as proxy:
            site = Site(proxy, folder, workers, service)
            assert until(lambda: site.ready() == 2), proxy.started.output()
            yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with site_in(tmp_path_factory.mktemp("many")) as site:
        yield site


@contextlib.asynccontextmanager
async def connected(site: Site, count: int):
    """Connections that are open at once."""
    async with AsyncExitStack() as stack:
        clients = [await connect(site.proxy.port) for _ in range(count)]
        for client in clients:
            stack.callback(client.close)
        yield clients


async def get(site: Site, client: Client, target: str):
    site.sent += 1
    request_id = f"many-{site.sent}"
    plan = Plan(port=site.proxy.port)
    answer, _ = await exchange(client, plan, Request(target=target), request_id)
    return answer


async def test_connections_are_shared_and_their_requests_summed(site) -> None:
    before = site.proxy.metric(REQUESTS)
    async with AsyncExitStack() as stack:
        for number in range(16):
            (client,) = await stack.enter_async_context(connected(site, 1))
            for turn in range(5):
                answer = await get(site, client, f"/users/{number}{turn}")
                assert answer.status == 200
        shares = site.connections()

    assert sum(shares) >= 16
    # They are even on a machine that has a core for each.
    assert min(shares) >= 4
    assert site.proxy.metric(REQUESTS) - before == 80
    own = [metric(ask(place, "/metrics").text, REQUESTS) for place in site.places().values()]
    assert len(own) == 2
    assert all(own)
    assert sum(own) == site.proxy.metric(REQUESTS)
    assert len(site.proxy.decisions()) == site.proxy.metric(REQUESTS)


REQUESTS = 'slb_requests_total{label="general",pool="general",status_class="2xx"}'


def metric(text: str, sample: str) -> float:
    return next(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(f"{sample} ")
    )


async def test_a_label_that_one_has_learnt_is_a_hit_for_the_other(site) -> None:
    entries = 'slb_cache_entries{layer="exact"}'
    asked = len(site.classifier.entries("request"))
    before = site.proxy.metric(entries)
    async with connected(site, 8) as clients:
        await get(site, clients[0], "/invoices/overdue/summary")
        assert until(lambda: site.proxy.metric(entries) == before + 2)
        for client in clients:
            await get(site, client, "/invoices/overdue/summary")

    assert len(site.classifier.entries("request")) == asked + 1
    last = site.proxy.decisions()[-8:]
    assert {(one["source"], one["cached"]) for one in last} == {("local", True)}


async def test_live_decisions_of_all_processes_come_on_one_feed(site) -> None:
    async with (
        httpx.AsyncClient(trust_env=False, timeout=20) as http,
        http.stream("GET", f"{site.proxy.control}/events") as feed,
        connected(site, 8) as clients,
    ):
        lines = feed.aiter_lines()
        told = [await read_decision(lines)]  # at least one is remembered
        for number, client in enumerate(clients):
            await get(site, client, f"/live/{number}")
        while sum(one["path"].startswith("/live/") for one in told) < len(clients):
            told.append(await read_decision(lines))

    ids = [one["id"] for one in told]
    assert len(ids) == len(set(ids))
    assert sorted(one["id"] for one in told) == sorted(
        one["id"] for one in site.proxy.decisions()[-len(told) :]
    )


async def read_decision(lines) -> dict:
    async for line in lines:
        if line.startswith("data: "):
            return json.loads(line.removeprefix("data: "))
    pytest.fail("the feed has ended")


def test_what_operators_change_is_changed_in_all(site) -> None:
    worker = site.workers[2]
    path = f"/v1/pools/general/workers/{worker.address}"

    assert site.post(f"{path}/drain").json()["draining"] is True
    assert [one["draining"] for one in site.health(worker)] == [True, True]
    assert site.post(f"{path}/undrain").status_code == 200
    assert [one["draining"] for one in site.health(worker)] == [False, False]

    unknown = site.post("/v1/pools/general/workers/nobody:1/drain")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["code"] == "unknown_worker"
    assert site.post("/v1/cache/clear").json()["forgotten"] > 0
    assert site.proxy.metric('slb_cache_entries{layer="exact"}') == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer nothing-of-the-kind"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
    ids=str,
)
def test_the_gate_looks_at_the_client_and_not_at_the_supervisor(site, headers) -> None:
    for forged in ({}, {"X-SLB-On-Behalf-Of": "127.0.0.1"}):
        answer = httpx.post(f"{site.proxy.control}/v1/cache/clear", headers={**headers, **forged})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "forbidden"


async def test_an_ejection_is_shared_and_counted_once(site) -> None:
    victim = site.workers[0]
    counter = 'slb_ejections_total{pool="general",reason="server_errors"}'
    before = site.proxy.metric(counter)
    await victim.fault(status=500)
    async with connected(site, 1) as (client,):
        while not any(one["health"] == "ejected" for one in site.health(victim)):
            await get(site, client, "/users/1")
        assert until(
            lambda: [one["health"] for one in site.health(victim)] == ["ejected", "ejected"]
        )
    await victim.fault(status=200)

    assert site.proxy.metric(counter) == before + 1
    assert until(lambda: [one["health"] for one in site.health(victim)] == ["up", "up"])


def test_a_reload_reaches_all_or_none(site) -> None:
    dotenv = site.folder / ".env"

    def intervals() -> list[str]:
        log = site.proxy.started.output()
        return [line for line in log.splitlines() if "Settings reloaded" in line]

    os.kill(site.pid, signal.SIGHUP)
    assert until(lambda: len(intervals()) == 2)
    dotenv.write_text("CLIENT_HEADERS=perhaps\n")
    os.kill(site.pid, signal.SIGHUP)
    assert until(lambda: "CLIENT_HEADERS: 'perhaps'" in site.proxy.started.output())
    refused = site.post("/v1/reload")
    assert refused.status_code == 422
    # Only the first was asked: by the signal, and by the request.
    told = site.proxy.started.output().count("Settings not reloaded")
    assert len(intervals()) == 2

    dotenv.write_text("CLIENT_HEADERS=false\n")
    assert site.post("/v1/reload").json() == {"changed": ["CLIENT_HEADERS"], "kept": []}
    assert len(intervals()) == 4
    assert site.proxy.started.output().count("Settings not reloaded") == told
    with httpx.Client() as client:
        assert "x-slb-label" not in client.get(f"{site.proxy.url}/users/1").headers
    dotenv.unlink()
    dotenv.write_text("\n")
    site.post("/v1/reload")


async def test_a_killed_process_takes_nobody_with_it(site) -> None:
    worker = site.workers[1]
    site.post(f"/v1/pools/general/workers/{worker.address}/drain")
    before = site.places()
    async with connected(site, 16) as clients:
        for client in clients:
            await get(site, client, "/users/1")
        requests = site.proxy.metric(REQUESTS)
        victim = next(iter(before))
        os.kill(victim, signal.SIGKILL)
        answers = [await get(site, client, "/users/1") for client in clients]
        left = sum(not answer.fault for answer in answers)
        async with connected(site, 8) as others:
            again = [await get(site, client, "/users/1") for client in others]

    assert 16 - left <= 16 // 2 + 2
    assert {answer.status for answer in answers if not answer.fault} == {200}
    assert [answer.status for answer in again] == [200] * 8
    assert site.proxy.metric(REQUESTS) == requests + left + 8
    assert until(lambda: site.ready() == 2)
    assert site.proxy.metric("slb_process_restarts_total") == 1
    assert site.proxy.metric("slb_processes_up") == 2
    assert site.proxy.metric(REQUESTS) == requests + left + 8
    # The new one was told by the other.
    assert until(lambda: [one["draining"] for one in site.health(worker)] == [True, True])
    site.post(f"/v1/pools/general/workers/{worker.address}/undrain")


def test_a_process_that_hangs_does_not_hang_the_scrape(site) -> None:
    before = site.proxy.metric(REQUESTS)
    reloaded = site.proxy.started.output().count("Settings reloaded")
    stuck = next(iter(site.places()))
    os.kill(stuck, signal.SIGSTOP)
    try:
        assert site.proxy.metric("slb_processes_up") == 1
        assert site.proxy.metric(REQUESTS) == before
        assert site.ready() == 1
        assert httpx.get(f"{site.proxy.control}/livez").status_code == 200
        # And the port is served, whoever has the fewest connections.
        for _ in range(4):
            with httpx.Client(timeout=10) as client:
                assert client.get(f"{site.proxy.url}/users/1").status_code == 200
        # Nor the reload of the other, which it follows later.
        partly = site.post("/v1/reload")
        assert (partly.status_code, partly.json()["error"]["code"]) == (502, "partly_done")
    finally:
        os.kill(stuck, signal.SIGCONT)
    assert until(lambda: site.ready() == 2)
    assert until(lambda: site.proxy.started.output().count("Settings reloaded") == reloaded + 2)


async def test_a_rolling_restart_loses_nothing(site) -> None:
    before = set(children_of(site.pid))
    requests = site.proxy.metric(REQUESTS)
    async with Load(Plan(port=site.proxy.port, connections=8, rate=200)) as load:
        os.kill(site.pid, signal.SIGUSR2)
        new = await asyncio.to_thread(
            until, lambda: len(now := set(children_of(site.pid))) == 2 and not now & before
        )
    report = load.report()

    assert new, site.proxy.started.output()
    assert report.errors == []
    assert site.ready() == 2
    assert site.proxy.metric(REQUESTS) == requests + len(report.answers)


async def test_sigterm_drains_all(site) -> None:
    """The last one: it ends the site."""
    for worker in site.workers:
        await worker.fault(delay_ms=500)
    async with connected(site, 8) as clients:
        asking = [asyncio.create_task(get(site, client, "/users/1")) for client in clients]
        assert await asyncio.to_thread(
            until, lambda: site.proxy.metric("slb_requests_inflight") == 8
        )
        site.proxy.started.process.terminate()
        answers = await asyncio.gather(*asking)
    code = await asyncio.to_thread(site.proxy.started.process.wait, 20)

    assert [answer.status for answer in answers] == [200] * 8
    assert code == 0


# Starts of their own


def test_a_bad_setting_is_told_once(tmp_path) -> None:
    command = [*processes.program_with_router("slb"), "--processes", "3"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=processes.clean_env(GENERAL_POOL="nowhere", METRICS_PORT=processes.free_port()),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.count("GENERAL_POOL: 'nowhere' is not an upstream") == 1
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", ["-1", "65", "many"])
def test_a_number_of_processes_that_cannot_be_is_refused(number) -> None:
    code = "import sys; from addons.launcher import processes_of; processes_of(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, f"--processes={number}"],
        cwd=processes.ROOT / "tests",
        env=processes.clean_env(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: PROXY_PROCESSES: ")


def test_without_their_supervisor_processes_drain_and_leave_nothing_behind(tmp_path) -> None:
    pools = processes.pool_variables({label: [processes.free_port()] for label in LABELS})
    with processes.proxy(tmp_path, program="slb", PROXY_PROCESSES=2, **pools) as proxy:
        pid = proxy.started.process.pid
        assert until(lambda: len(children_of(pid)) == 2)
        children = children_of(pid)
        directory = place_of(children[0]).directory
        assert until(lambda: httpx.get(f"{proxy.control}/readyz").json()["processes"]["ready"] == 2)
        proxy.started.process.kill()

        assert until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert not directory.exists()
