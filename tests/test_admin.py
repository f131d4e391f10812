"""What operators may have done while the proxy serves, and who may ask for it."""

import asyncio
import ssl
import subprocess
import time
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from mitmproxy import exceptions
from mitmproxy.test import taddons
from starlette.applications import Starlette

from addons import gate
from addons.admin import Admin, Operations
from addons.fleet import Fleet, UnknownPoolError
from addons.pool import Lease, UnknownWorkerError
from addons.reload import Reloaded
from addons.router import SemanticRouter
from addons.routing import NO_WORKER
from addons.settings import RouterSettings
from classifier.configuration import SettingsError
from classifier.contracts import Label
from tests import processes, scenarios
from tests.load import Load
from tests.targets import our_proxy

TOKEN = "0123456789abcdef-token"
OURSELVES = [("host", "127.0.0.1:9090")]
BEARER = [("authorization", f"Bearer {TOKEN}")]


# Who may ask


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090"])
def test_a_program_on_this_machine_may(peer, host) -> None:
    assert gate.refusal(peer, [("host", host), ("user-agent", "curl")], token="") is None


@pytest.mark.parametrize(
    "peer", ["10.0.0.1", "192.168.0.7", "2001:db8::1", "0.0.0.0", "", "nobody"]
)
@pytest.mark.parametrize("token", ["", TOKEN])
def test_another_machine_may_not(peer, token) -> None:
    assert gate.refusal(peer, OURSELVES, token) == gate.NO_TOKEN


@pytest.mark.parametrize(
    "field",
    [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://localhost:3000"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-site", "none"),
        ("sec-fetch-mode", "no-cors"),
        ("referer", "http://evil.example/"),
    ],
)
def test_a_page_in_a_browser_on_this_machine_may_not(field) -> None:
    assert gate.refusal("127.0.0.1", [*OURSELVES, field], token="") == gate.NO_BROWSER


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "10.0.0.1"])
def test_once_there_is_a_token_everybody_needs_it(peer) -> None:
    """For whoever comes by way of a forwarder on this machine seems to be on it."""
    assert gate.refusal(peer, OURSELVES, TOKEN) == gate.NO_TOKEN


@pytest.mark.parametrize(
    "name",
    [
        *("forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"),
        *("x-forwarded-prefix", "x-envoy-external-address", "x-envoy-expected-rq-timeout-ms"),
    ],
)
def test_who_comes_through_a_proxy_on_this_machine_may_not(name) -> None:
    assert gate.refusal("127.0.0.1", [*OURSELVES, (name, "127.0.0.1")], "") == gate.NO_PROXY


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example:9090"],
        ["localhost.evil.example"],
        ["127.0.0.1.evil.example"],
        ["evil.example@localhost"],
        ["localhost:9090", "evil.example"],
        ["10.0.0.1:9090"],
    ],
)
def test_a_name_that_somebody_points_at_this_machine_is_not_taken(hosts) -> None:
    headers = [("host", host) for host in hosts]

    assert gate.refusal("127.0.0.1", headers, token="") == gate.NO_NAME


@pytest.mark.parametrize("headers", [[], OURSELVES, [("host", "proxy.example")]])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_who_has_the_token_may_from_anywhere(headers, scheme) -> None:
    given = ("authorization", f"{scheme} {TOKEN}")

    assert gate.refusal("10.0.0.1", [*headers, given], TOKEN) is None


@pytest.mark.parametrize(
    "given",
    [
        [f"Bearer {TOKEN}x"],
        [f"Bearer {TOKEN[:-1]}"],
        ["Bearer "],
        ["Bearer"],
        [""],
        [TOKEN],
        [f"Basic {TOKEN}"],
        [f"Bearer {TOKEN} {TOKEN}"],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        ["Bearer t\xf6ken"],
    ],
)
@pytest.mark.parametrize("peer", ["10.0.0.1", "127.0.0.1"])
def test_a_wrong_token_is_worse_than_none(given, peer) -> None:
    headers = [*OURSELVES, *(("authorization", value) for value in given)]

    assert gate.refusal(peer, headers, TOKEN) == gate.WRONG_TOKEN


@pytest.mark.parametrize("given", ["Bearer ", "Bearer", "Bearer x"])
def test_without_a_token_none_is_right(given) -> None:
    assert gate.refusal("10.0.0.1", [("authorization", given)], token="") == gate.WRONG_TOKEN


# What is answered


class Doing:
    """Remembers what it is told to do."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def drain(self, pool: str, worker: str) -> None:
        if pool != "general":
            message = "no pool; there are general"
            raise UnknownPoolError(message)
        if worker == "nobody:1":
            message = "no worker; there are a:1"
            raise UnknownWorkerError(message)
        self.done.append(("drain", pool, worker))

    def undrain(self, pool: str, worker: str) -> None:
        self.done.append(("undrain", pool, worker))

    def reload(self) -> Reloaded:
        self.done.append(("reload",))
        return Reloaded(("GENERAL_POOL",))

    def clear_cache(self) -> int:
        self.done.append(("clear",))
        return 7

    def operations(self) -> Operations:
        return Operations(self.drain, self.undrain, self.reload, self.clear_cache, lambda: TOKEN)


def client_of(operations: Operations, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Starlette(routes=Admin(operations).routes()), client=(peer, 1))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:9090")


WRITES = (
    "/v1/pools/general/workers/a:1/drain",
    "/v1/pools/general/workers/[::1]:9001/undrain",
    "/v1/reload",
    "/v1/cache/clear",
)


async def test_each_write_does_one_thing_and_tells_it() -> None:
    doing = Doing()
    async with client_of(doing.operations()) as client:
        answers = [await client.post(path, headers=dict(BEARER)) for path in WRITES]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.json() for answer in answers] == [
        {"pool": "general", "worker": "a:1", "draining": True},
        {"pool": "general", "worker": "[::1]:9001", "draining": False},
        {"changed": ["GENERAL_POOL"], "kept": []},
        {"forgotten": 7},
    ]
    assert doing.done == [
        ("drain", "general", "a:1"),
        ("undrain", "general", "[::1]:9001"),
        ("reload",),
        ("clear",),
    ]


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_only_post_writes(path, method) -> None:
    doing = Doing()
    async with client_of(doing.operations()) as client:
        answer = await client.request(method, path, headers=dict(BEARER))

    assert (answer.status_code, answer.headers["allow"], doing.done) == (405, "POST", [])


@pytest.mark.parametrize("path", [*WRITES, "/v1/pools/no/workers/nobody:1/drain"])
async def test_who_may_not_is_told_so_in_json_and_nothing_else(path) -> None:
    doing = Doing()
    async with client_of(doing.operations(), peer="10.0.0.1") as client:
        answer = await client.post(path)
        allowed = await client.post("/v1/reload", headers=dict(BEARER))

    assert answer.status_code == 403
    assert answer.json() == {"error": {"code": "forbidden", "message": gate.NO_TOKEN}}
    assert (allowed.status_code, doing.done) == (200, [("reload",)])


@pytest.mark.parametrize(
    ("pool", "worker", "code", "known"),
    [
        ("genral", "a:1", "unknown_pool", "there are general"),
        ("general", "nobody:1", "unknown_worker", "there are a:1"),
    ],
)
async def test_an_unknown_name_is_told_with_those_that_are_known(pool, worker, code, known) -> None:
    async with client_of(Doing().operations()) as client:
        path = f"/v1/pools/{pool}/workers/{worker}/drain"
        answer = await client.post(path, headers=dict(BEARER))

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)
    assert known in answer.json()["error"]["message"]


async def test_settings_that_are_refused_are_told_in_their_line() -> None:
    def refuse() -> Reloaded:
        message = "GENERAL_POOL: the pool is empty"
        raise SettingsError(message)

    async with client_of(replace(Doing().operations(), reload=refuse)) as client:
        answer = await client.post("/v1/reload", headers=dict(BEARER))

    assert answer.status_code == 422
    assert answer.json() == {
        "error": {"code": "settings_refused", "message": "GENERAL_POOL: the pool is empty"}
    }


# What is done


class Unobserved:
    def ejected(self, pool, reason) -> None:
        pass

    def spilled(self, origin, target) -> None:
        pass


def a_fleet(**settings) -> Fleet:
    fleet = Fleet(Unobserved(), tls=ssl.create_default_context)
    fleet.take_over(
        RouterSettings(_env_file=None, general_pool="http://a:1,http://b:1", **settings)
    )
    return fleet


async def workers_of(fleet: Fleet, count: int = 4) -> list[str]:
    leases = [await fleet.admission.lease(Label.GENERAL) for _ in range(count)]
    return [lease.worker.name for lease in leases if isinstance(lease, Lease)]


async def test_a_draining_worker_gets_nothing_until_it_drains_no_more() -> None:
    fleet = a_fleet()
    fleet.drain("general", "a:1")
    assert set(await workers_of(fleet)) == {"b:1"}

    fleet.undrain("general", "a:1")
    assert set(await workers_of(fleet)) == {"a:1", "b:1"}


async def test_a_drain_holds_in_one_pool_and_outlives_new_settings(caplog) -> None:
    caplog.set_level("INFO")
    fleet = a_fleet(fast_path_pool="http://a:1")
    fleet.drain("general", "a:1")

    fleet.take_over(RouterSettings(_env_file=None, general_pool="http://a:1;weight=5,http://c:1"))

    assert {view.name: view.draining for view in fleet.pools[Label.GENERAL].views()} == {
        "a:1": True,
        "c:1": False,
    }
    assert not any(view.draining for view in fleet.pools[Label.FAST_PATH].views())
    assert caplog.messages == ["general: a:1 is draining; 1 in turn"]


async def test_who_waits_for_the_last_worker_does_not_wait_for_one_that_drains() -> None:
    fleet = a_fleet(worker_max_inflight=1, queue_timeout_ms=60_000)
    await workers_of(fleet, 2)
    waiting = asyncio.ensure_future(fleet.admission.lease(Label.GENERAL))
    await asyncio.sleep(0)
    assert fleet.admission.waiting(Label.GENERAL) == 1

    fleet.drain("general", "a:1")
    assert fleet.admission.waiting(Label.GENERAL) == 1
    fleet.drain("general", "b:1")

    assert await waiting is NO_WORKER


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    fleet = a_fleet()

    with pytest.raises(UnknownPoolError, match="'x'; there are fast-path, general, high-compute"):
        fleet.drain("x", "a:1")
    with pytest.raises(UnknownWorkerError, match="'c:1' in pool general; there are a:1, b:1"):
        fleet.undrain("general", "c:1")


class Reloading:
    """Stands in for what reads environment and `.env`."""

    def __init__(self, answer: Reloaded | SettingsError) -> None:
        self.answer = answer

    def reload(self, in_force) -> Reloaded:
        if isinstance(self.answer, SettingsError):
            raise self.answer
        return self.answer


@pytest.fixture
def router():
    """A router that has a fleet, something to reload, and nothing else."""
    router = SemanticRouter()
    router._fleet = a_fleet()
    router._reloader = Reloading(Reloaded(("GENERAL_POOL",)))
    return router


@pytest.fixture
def commands(router):
    """mitmproxy's commands, with those of the router."""
    with taddons.context() as context:
        context.master.commands.collect_commands(router)
        yield context.master.commands


def test_the_commands_drain_and_undrain(commands) -> None:
    assert commands.execute("router.drain general a:1") == "a:1 of general is draining"
    assert "<Pool general [a:1: 0 draining, b:1: 0]>" in commands.execute("router.pools")

    assert commands.execute("router.undrain general a:1") == "a:1 of general drains no more"
    assert "<Pool general [a:1: 0, b:1: 0]>" in commands.execute("router.pools")


@pytest.mark.parametrize("name", ["drain", "undrain"])
def test_the_commands_refuse_unknown_names(commands, name) -> None:
    with pytest.raises(exceptions.CommandError, match="there are fast-path, general"):
        commands.execute(f"router.{name} nope a:1")
    with pytest.raises(exceptions.CommandError, match="there are a:1, b:1"):
        commands.execute(f"router.{name} general nope:1")


def test_the_command_reloads_or_tells_why_not(commands, router) -> None:
    assert commands.execute("router.reload") == "GENERAL_POOL changed"

    router._reloader.answer = SettingsError("GENERAL_POOL: the pool is empty")
    with pytest.raises(exceptions.CommandError, match="GENERAL_POOL: the pool is empty"):
        commands.execute("router.reload")


def test_a_proxy_that_ends_takes_no_new_settings(commands, router) -> None:
    router.draining = True

    with pytest.raises(exceptions.CommandError, match="the proxy is shutting down"):
        commands.execute("router.reload")


# The proxy, as it runs


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("admin")
    with our_proxy(folder) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    with our_proxy(folder, ADMIN_TOKEN=TOKEN) as running:
        yield running


def post(ours, path: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{ours.proxy.control}{path}", headers=headers, trust_env=False)


def states(ours) -> dict[str, dict]:
    pools = httpx.get(f"{ours.proxy.control}/v1/pools", trust_env=False).json()["pools"]
    return {w["name"]: w for pool in pools if pool["label"] == "general" for w in pool["workers"]}


@pytest.mark.integration
async def test_a_worker_drains_under_load_without_an_error_and_comes_back(ours) -> None:
    victim = ours.target.workers[0]
    worker = f"/v1/pools/general/workers/{victim.address}"
    await ours.target.fault(delay_ms=20)
    assert await scenarios.all_in_use(ours.target)
    async with Load(ours.target.plan("GET and POST", rate=400, connections=16)) as load:
        await asyncio.sleep(0.3)
        assert (await asyncio.to_thread(post, ours, f"{worker}/drain")).status_code == 200
        drained = time.monotonic()
        await asyncio.sleep(0.7)
        shown = (await asyncio.to_thread(states, ours))[victim.address]
        undrained = time.monotonic()
        assert (await asyncio.to_thread(post, ours, f"{worker}/undrain")).status_code == 200
        await asyncio.sleep(0.5)
    await ours.target.fault(delay_ms=0)
    report = load.report()

    late = [e for e in victim.entries(since=drained) if e.at < undrained]
    print(report.per_worker(), [round(entry.at - drained, 3) for entry in late])
    assert (report.kinds(), report.disconnects) == (Counter(), 0)
    assert report.between(0, drained).per_worker()["a"] > 0
    assert [entry for entry in late if entry.at > drained + 0.5] == []
    assert len(late) <= 16
    assert (shown["draining"], shown["inflight"]) == (True, 0)
    assert report.between(undrained).per_worker()["a"] > 0


@pytest.mark.integration
@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Origin": "http://evil.example"}, gate.NO_BROWSER),
        ({"Sec-Fetch-Site": "cross-site"}, gate.NO_BROWSER),
        ({"Host": "evil.example"}, gate.NO_NAME),
        # Who asks is who is connected: not who this says it is.
        ({"X-Forwarded-For": "10.0.0.1"}, gate.NO_PROXY),
        ({"Authorization": "Bearer wrong"}, gate.WRONG_TOKEN),
    ],
)
def test_the_running_proxy_asks_the_gate(ours, headers, message) -> None:
    answer = post(ours, "/v1/cache/clear", **headers)

    assert answer.status_code == 403
    assert answer.json()["error"]["message"] == message


@pytest.mark.integration
def test_the_token_alone_opens_the_gate_and_is_shown_nowhere(guarded, tmp_path) -> None:
    given = {"Authorization": f"Bearer {TOKEN}", "Host": "proxy.example"}
    assert post(guarded, "/v1/cache/clear").status_code == 403
    assert post(guarded, "/v1/cache/clear", **given).json()["forgotten"] >= 0
    assert post(guarded, "/v1/reload", **given).status_code == 200

    for path in ("/metrics", "/v1/pools", "/v1/decisions"):
        assert TOKEN not in httpx.get(f"{guarded.proxy.control}{path}", trust_env=False).text
    assert TOKEN not in guarded.proxy.started.output()
    assert TOKEN not in options_shown(tmp_path)


def options_shown(folder) -> str:
    return subprocess.run(
        [processes.BIN / "mitmdump", "-s", processes.ROOT / "addons" / "router.py", "--options"],
        capture_output=True,
        text=True,
        cwd=folder,
        env=processes.clean_env(ADMIN_TOKEN=TOKEN),
        timeout=30,
        check=True,
    ).stdout
