"""One control port answers for processes of which some fail, hang or differ."""

from dataclasses import dataclass, field

import httpx
import pytest

from addons import gate
from addons.admin import peer_of
from addons.changes import Changes
from addons.children import Child
from addons.membership import Place
from addons.overview import Overview
from addons.ports import Ports
from tests.processes import free_port

METRICS = "# HELP slb_requests_inflight Now.\n# TYPE slb_requests_inflight gauge\n"
DRAIN = "/v1/pools/general/workers/a:1/drain"


@dataclass
class Process:
    """A process that says what it is told to; None stands for no answer in time."""

    name: str
    says: dict[str, httpx.Response | None] = field(default_factory=dict)
    code: int | None = None
    reloads: int = 0
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def get(self, path: str) -> httpx.Response | None:
        return self.says.get(path.partition("?")[0])

    async def post(self, path: str, headers: list[tuple[bytes, bytes]]) -> httpx.Response | None:
        self.asked.append((path, dict(httpx.Headers(headers))))
        return self.says.get(path)


def ok(**body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def refused(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "no"}})


def inflight(number: int) -> httpx.Response:
    return httpx.Response(200, text=f"{METRICS}slb_requests_inflight {number}\n")


def reloading(name: str, answer: httpx.Response | None = None) -> Process:
    """A process that does not hang."""
    return Process(name, {"/livez": ok(), "/v1/reload": answer or ok(changed=[], kept=[])})


async def ask(
    *processes: Process,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | list[tuple[bytes, bytes]] | None = None,
) -> httpx.Response:
    overview = Overview(lambda: processes, count=3)
    transport = httpx.ASGITransport(overview.asgi(), client=("192.0.2.7", 4000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.request(method, path, headers=headers)


async def test_a_process_that_does_not_answer_is_left_out_of_the_scrape() -> None:
    answer = await ask(
        Process("1", {"/metrics": inflight(3)}), Process("2", {"/metrics": None}), path="/metrics"
    )

    lines = answer.text.splitlines()
    assert {"slb_requests_inflight 3.0", "slb_processes 3.0", "slb_processes_up 1.0"} <= set(lines)


async def test_metrics_that_cannot_be_read_spoil_nothing() -> None:
    noise = httpx.Response(200, text="slb_requests_total{ 7")
    answer = await ask(
        Process("1", {"/metrics": inflight(3)}), Process("2", {"/metrics": noise}), path="/metrics"
    )

    assert "slb_requests_inflight 3.0" in answer.text
    assert "slb_processes_up 1.0" in answer.text


async def test_what_a_process_told_last_counts_while_it_hangs() -> None:
    process = Process("1", {"/metrics": inflight(3)})
    overview = Overview(lambda: [process], count=1)
    assert await overview.look() == 1
    process.says["/metrics"] = None

    assert await overview.look() == 0
    assert b"slb_requests_inflight 3.0" in overview._merger.render()


async def test_one_that_is_ready_is_enough() -> None:
    not_ready = httpx.Response(503, json={"status": "not ready", "reason": "shutting down"})
    ready = Process("1", {"/readyz": ok(status="ready")})
    draining = Process("2", {"/readyz": not_ready})

    answer = await ask(ready, draining, Process("3"), path="/readyz")
    assert answer.status_code == 200
    assert answer.json()["processes"] == {"ready": 1, "of": 3}

    answer = await ask(draining, Process("3"), path="/readyz")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "shutting down"


async def test_the_supervisor_lives_unless_all_its_processes_hang() -> None:
    assert (await ask(path="/livez")).status_code == 200
    assert (await ask(Process("1", {"/livez": ok()}), Process("2"), path="/livez")).is_success
    assert (await ask(Process("1"), Process("2"), path="/livez")).status_code == 503


async def test_a_change_goes_to_all_with_what_the_gate_looks_at() -> None:
    done = ok(pool="general", worker="a:1", draining=True)
    processes = [Process("1", {DRAIN: done}), Process("2", {DRAIN: done})]
    headers = {"authorization": "Bearer x", "origin": "http://evil.example"}
    forged = {gate.ON_BEHALF_OF: "127.0.0.1"}

    answer = await ask(*processes, path=DRAIN, method="POST", headers={**headers, **forged})

    assert answer.json() == {"pool": "general", "worker": "a:1", "draining": True}
    for process in processes:
        ((path, sent),) = process.asked
        assert path == DRAIN
        assert sent[gate.ON_BEHALF_OF] == "192.0.2.7"
        assert sent.items() >= headers.items()
        assert sent["host"] == "localhost"


@pytest.mark.parametrize("other", [None, refused(500, "internal"), refused(404, "unknown_worker")])
async def test_a_change_that_some_have_not_made_is_told(other) -> None:
    answer = await ask(
        Process("4", {DRAIN: ok()}), Process("7", {DRAIN: other}), path=DRAIN, method="POST"
    )

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "partly_done"
    assert "1 of 2 processes, not by 7" in answer.json()["error"]["message"]


async def test_what_all_refuse_is_refused_in_their_words() -> None:
    processes = [Process(name, {DRAIN: refused(403, "forbidden")}) for name in "12"]
    answer = await ask(*processes, path=DRAIN, method="POST")

    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"


async def test_only_what_the_gate_looks_at_is_handed_on_and_as_it_came() -> None:
    process = Process("1", {DRAIN: refused(403, "forbidden")})
    headers = [
        (b"authorization", b"Bearer \xc3\xa9"),
        (b"x-forwarded-for", b"\xe9"),
        (b"x-foo", b"\xc3\xa9"),
        (b"upgrade", b"h2c"),
    ]

    assert (await ask(process, path=DRAIN, method="POST", headers=headers)).status_code == 403
    ((_, sent),) = process.asked
    assert sent.keys() == {"authorization", "x-forwarded-for", "host", gate.ON_BEHALF_OF}


async def test_a_client_who_names_several_hosts_is_handed_on_as_none_of_this_machine() -> None:
    process = Process("1", {DRAIN: ok()})
    await ask(
        process, path=DRAIN, method="POST", headers=[(b"host", b"a"), (b"host", b"localhost")]
    )

    ((_, sent),) = process.asked
    assert sent["host"] == "a, localhost"


# Reloads


@pytest.mark.parametrize(
    ("first", "status"), [(refused(422, "settings_refused"), 422), (None, 504)]
)
async def test_settings_that_the_first_does_not_take_reach_no_other(first, status) -> None:
    others = reloading("2")
    answer = await ask(
        Process("1", {"/livez": ok(), "/v1/reload": first}),
        others,
        path="/v1/reload",
        method="POST",
    )

    assert answer.status_code == status
    assert others.asked == []


async def test_a_process_that_hangs_fails_no_reload_and_follows_when_it_answers() -> None:
    stuck, other = Process("1"), reloading("2")
    changes = Changes(lambda: [stuck, other])

    answer = await changes.reload([])
    assert answer.status_code == 502
    assert b"done by 1 of 2 processes, not by 1; they follow once they answer" in answer.body
    assert [len(one.asked) for one in (stuck, other)] == [0, 1]
    await changes.catch_up([stuck, other])
    assert stuck.asked == []

    stuck.says = reloading("1").says
    for _ in range(2):
        await changes.catch_up([stuck, other])
    assert [path for path, _ in stuck.asked] == ["/v1/reload"]
    assert len(other.asked) == 1


async def test_a_reload_that_all_hang_at_names_them() -> None:
    answer = await ask(Process("3"), Process("4"), path="/v1/reload", method="POST")

    assert answer.status_code == 504
    assert "no answer from process 3, 4" in answer.json()["error"]["message"]


async def test_who_becomes_ready_during_a_reload_gets_it_too() -> None:
    class First(Process):
        async def post(self, path, headers):
            processes.append(newcomer)
            return await super().post(path, headers)

    newcomer = reloading("2")
    processes = [First("1", reloading("1").says)]
    changes = Changes(lambda: list(processes))

    assert (await changes.reload([])).status_code == 200
    assert len(newcomer.asked) == 1
    assert changes.up_to_date(newcomer)


async def test_who_starts_during_a_reload_gets_it_before_it_is_ready() -> None:
    starting = reloading("2")
    changes = Changes(lambda: [reloading("1")])
    starting.reloads = changes.reloads
    await changes.reload([])

    assert not changes.up_to_date(starting)
    await changes.catch_up([starting])
    assert changes.up_to_date(starting)
    # The supervisor asks for itself: nobody is at the gate.
    assert starting.asked == [("/v1/reload", {})]


async def test_who_has_missed_a_reload_judges_nobody() -> None:
    late = Process("1", {**reloading("1").says, DRAIN: ok()}, reloads=-1)
    current = Process("2", {**reloading("2", refused(403, "forbidden")).says, DRAIN: ok()})

    answer = await ask(late, current, path="/v1/reload", method="POST")
    assert answer.status_code == 403
    answer = await ask(late, current, path=DRAIN, method="POST")
    assert answer.status_code == 502
    assert late.asked == []


def test_the_environment_has_no_say_in_how_a_process_is_asked(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("ALL_PROXY", "nonsense://")

    assert not Child("1", Place(0, 0, tmp_path), process=None).ready


@pytest.mark.parametrize("path", ["/v1/reload", "/v1/cache/clear", DRAIN])
async def test_without_a_process_nothing_is_done_and_that_is_told(path) -> None:
    answer = await ask(path=path, method="POST")

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "no_process"
    assert (await ask(path=path)).status_code == 405


async def test_labels_that_were_forgotten_add_up() -> None:
    path = "/v1/cache/clear"
    processes = [Process(str(number), {path: ok(forgotten=number)}) for number in (3, 4)]

    assert (await ask(*processes, path=path, method="POST")).json() == {"forgotten": 7}


@pytest.mark.parametrize("limit", ["-1", "many", "1.5"])
async def test_a_limit_that_is_no_number_is_refused(limit) -> None:
    assert (await ask(path=f"/v1/decisions?limit={limit}")).status_code == 400


def test_who_has_left_already_is_nobody() -> None:
    class Request:
        client = None

    assert peer_of(Request()) == ""
    assert gate.refusal("", [("host", "localhost")], "") == gate.NO_TOKEN


# The sockets that are shared


async def test_an_address_is_bound_once_and_stays_while_it_is_used() -> None:
    ports, address = Ports(), ("127.0.0.1", free_port())
    first = await ports.open(address, slot=0)
    assert await ports.open(address, slot=1) is first
    assert [sock.getsockname() for sock in first] == [address]

    ports.lost(0)
    ports.close_unused()
    ports.lost(1)
    assert first[0].fileno() >= 0, "dead processes close nothing: another will come"

    await ports.open(address, slot=2)
    ports.leave(address, 2)
    assert first[0].fileno() == -1
    again = await ports.open(address, slot=3)
    assert again[0].getsockname() == address
    ports.close()


async def test_who_stands_in_listens_where_the_others_do_whatever_it_asks_for() -> None:
    ports = Ports()
    old, new = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    opened = await ports.open_in_force(old, slot=0)
    assert await ports.open_in_force(new, slot=1) is opened

    # A rolling restart moves; who left, whatever it called the address, is waited for no more.
    await ports.open(new, slot=2)
    with pytest.raises(OSError, match="SIGUSR2"):
        await ports.open_in_force(("127.0.0.1", 1), slot=3)
    ports.leave(old, 0)
    assert opened[0].fileno() >= 0
    ports.leave(new, 1)
    assert opened[0].fileno() == -1
    ports.close()


async def test_an_address_that_nobody_listens_on_is_closed_when_all_are_there() -> None:
    ports = Ports()
    old = await ports.open(("127.0.0.1", free_port()), slot=0)
    new = await ports.open(("127.0.0.1", free_port()), slot=1)
    ports.lost(0)
    ports.close_unused()

    assert old[0].fileno() == -1
    assert new[0].fileno() >= 0
    ports.close()


async def test_all_interfaces_means_all_families() -> None:
    ports = Ports()
    families = {sock.family.name for sock in await ports.open(("", free_port()), slot=0)}
    ports.close()

    assert "AF_INET" in families


async def test_an_address_that_is_taken_is_refused() -> None:
    ports, others, address = Ports(), Ports(), ("127.0.0.1", free_port())
    await ports.open(address, slot=0)
    with pytest.raises(OSError, match="in use"):
        await others.open(address, slot=0)
    ports.close()
