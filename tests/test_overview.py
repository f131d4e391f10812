"""One control port answers for processes of which some fail, hang or differ."""

from dataclasses import dataclass, field

import httpx
import pytest

from addons import gate
from addons.admin import peer_of
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
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def get(self, path: str) -> httpx.Response | None:
        return self.says.get(path.partition("?")[0])

    async def post(self, path: str, headers: list[tuple[str, str]]) -> httpx.Response | None:
        self.asked.append((path, dict(headers)))
        return self.says.get(path)


def ok(**body: object) -> httpx.Response:
    return httpx.Response(200, json=body)


def refused(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "no"}})


def inflight(number: int) -> httpx.Response:
    return httpx.Response(200, text=f"{METRICS}slb_requests_inflight {number}\n")


async def ask(
    *processes: Process, path: str, method: str = "GET", headers: dict[str, str] | None = None
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


@pytest.mark.parametrize(
    ("first", "status"), [(refused(422, "settings_refused"), 422), (None, 504)]
)
async def test_settings_that_the_first_does_not_take_reach_no_other(first, status) -> None:
    others = Process("2", {"/v1/reload": ok()})
    answer = await ask(
        Process("1", {"/v1/reload": first}), others, path="/v1/reload", method="POST"
    )

    assert answer.status_code == status
    assert others.asked == []


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
    ports.lost(1)
    assert first[0].fileno() >= 0, "dead processes close nothing: another will come"

    await ports.open(address, slot=2)
    ports.leave(address, 2)
    assert first[0].fileno() == -1
    again = await ports.open(address, slot=3)
    assert again[0].getsockname() == address
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
