"""Settings are read anew while the proxy serves: all that is new, or nothing."""

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mitmproxy.addons.block import Block
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from addons import options
from addons.forwarding import Peer
from addons.http1 import parse_request_head
from addons.labels import LabelsInForce
from addons.reload import Reloaded, Reloader, Sources, plan, read_again, read_sources
from addons.router import SemanticRouter
from addons.service import ClassifierService
from addons.settings import AdminSettings, RouterSettings
from classifier.configuration import SettingsError, load
from classifier.contracts import Classification, Label, RequestView, Source
from classifier.labels_file import read_labels_file
from tests import processes
from tests.fleet import FaultyWorker, fleet, label_source
from tests.load import Load, Plan, Request
from tests.processes import Proxy, until

CONNECTIONS = 16
RATE = 400.0
SOON = 0.1
"""Seconds after a reload by which requests that were under way have reached their workers."""


# What changes


def said(*, token="", has_file=True, **settings) -> Sources:
    """As if environment and `.env` said this."""
    return Sources(
        load(RouterSettings, **settings), load(AdminSettings, admin_token=token), has_file
    )


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_what_came_from_the_file_follows_it() -> None:
    known, read = said(queue_requests=5, balancing="round-robin"), said(queue_requests=7)

    planned = plan(known, read, known.settings)

    assert dict(planned.values) == {"queue_requests": 7}
    assert planned.outcome == Reloaded(changed=("QUEUE_REQUESTS",))


def test_what_was_given_on_the_command_line_stays_even_if_the_file_said_the_same() -> None:
    known, read = said(queue_requests=5), said(queue_requests=7)

    planned = plan(known, read, known.settings, given={"queue_requests"})

    assert not planned.values
    assert planned.outcome == Reloaded(kept=("QUEUE_REQUESTS",))


def test_what_was_changed_live_stays() -> None:
    known, read = said(queue_requests=5), said(queue_requests=7)

    planned = plan(known, read, load(RouterSettings, queue_requests=6))

    assert not planned.values
    assert planned.outcome.kept == ("QUEUE_REQUESTS",)


def test_what_was_changed_live_follows_again_once_the_file_says_the_same() -> None:
    live = load(RouterSettings, queue_requests=6)
    agreed = said(queue_requests=6)
    assert plan(said(queue_requests=5), agreed, live).outcome == Reloaded()

    assert dict(plan(agreed, said(queue_requests=7), live).values) == {"queue_requests": 7}


def test_a_file_that_says_the_same_changes_nothing() -> None:
    known = said(queue_requests=5)

    assert plan(known, said(queue_requests=5), known.settings).outcome.text() == "nothing changed"


def test_a_new_token_is_told_by_its_name_alone() -> None:
    known = said(token="a" * 16)

    outcome = plan(known, said(token="b" * 16), known.settings).outcome

    assert outcome.text() == "ADMIN_TOKEN changed"


def test_the_line_for_people_names_what_changed_and_what_did_not() -> None:
    outcome = Reloaded(("GENERAL_POOL", "BALANCING"), ("CACHE_ENTRIES",))

    assert (
        outcome.text() == "GENERAL_POOL, BALANCING changed; given by hand and kept: CACHE_ENTRIES"
    )


# What is refused


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("QUEUE_REQUESTS=many", "QUEUE_REQUESTS: 'many' should be a valid integer"),
        ("\n\nGENERAL_POOL http://a:1", ".env: line 3 cannot be read; write NAME=value"),
        ('BALANCING="two-choices', ".env: line 1 cannot be read; write NAME=value"),
        ("general_pool", ".env: line 1: GENERAL_POOL has no value; write GENERAL_POOL=value"),
        ("ADMIN_TOKEN", ".env: line 1: ADMIN_TOKEN has no value; write ADMIN_TOKEN=value"),
        ("EJECT_SECONDS=400", "EJECT_MAX_SECONDS: 300 is less than EJECT_SECONDS"),
    ],
)
def test_a_file_that_would_be_half_understood_is_refused(tmp_path, text, fault) -> None:
    (tmp_path / ".env").write_text(text)

    with pytest.raises(SettingsError) as caught:
        read_again(said())

    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)


def test_lines_of_other_programs_are_none_of_our_business(tmp_path) -> None:
    (tmp_path / ".env").write_text("# theirs\nTHEIRS\nexport KEY='two\nlines'\nQUEUE_REQUESTS=7\n")

    assert read_again(said()).settings.queue_requests == 7


def test_a_file_that_is_no_text_is_refused(tmp_path) -> None:
    (tmp_path / ".env").write_bytes(b"BALANCING=\xff\xfe")

    with pytest.raises(SettingsError, match=r"\.env is not UTF-8"):
        read_again(said())


def test_a_file_that_is_gone_is_refused_but_none_at_all_is_fine() -> None:
    with pytest.raises(SettingsError, match=r"\.env is gone; put it back"):
        read_again(said(has_file=True))

    assert read_again(said(has_file=False)).settings == load(RouterSettings)


@pytest.mark.parametrize("token", ["short", "with a space in it", "not-ascii-é-0123456789"])
def test_a_weak_token_is_refused_and_not_repeated(monkeypatch, token) -> None:
    monkeypatch.setenv("ADMIN_TOKEN", token)

    with pytest.raises(SettingsError, match=r"ADMIN_TOKEN: write ") as caught:
        read_sources()

    assert token not in str(caught.value)


def test_after_a_refusal_the_old_settings_and_token_stay_known(tmp_path, caplog) -> None:
    def refuse(values) -> None:
        message = "METRICS_PORT can only be set at the start"
        raise SettingsError(message)

    known = said(token="a" * 16, metrics_port=1111)
    reloader = Reloader(known, (), refuse, LabelsInForce(read_labels_file))
    (tmp_path / ".env").write_text(f"METRICS_PORT=2222\nADMIN_TOKEN={'b' * 16}\n")

    with pytest.raises(SettingsError):
        reloader.reload(known.settings)

    assert reloader.token == "a" * 16
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "METRICS_PORT can only be set" in caplog.text


# The addon


@pytest.fixture
async def addon(monkeypatch):
    """A router in mitmproxy's harness, whose classifiers answer with their address."""

    closed = set()

    async def classify(service, view, deadline_ms=None) -> Classification:
        assert service not in closed
        return Classification(Label.GENERAL, 0.9, Source.LOCAL, service._worker.url)

    def close(service) -> None:
        closed.add(service)

    monkeypatch.setattr(ClassifierService, "classify", classify)
    monkeypatch.setattr(ClassifierService, "close", close)
    addon = SemanticRouter()
    with taddons.context(Proxyserver(), Onboarding(), Block()) as context:
        context.master.addons.add(addon)
        addon.configure(set(context.options.keys()))
        yield addon


async def retired() -> None:
    """Let the label sources that were replaced close."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_cannot_be_taken_over_is_refused_and_the_old_labels_serve_on(
    addon, monkeypatch
) -> None:
    def fail(*_) -> None:
        raise RuntimeError

    labels, settings = addon._labels, addon.settings
    monkeypatch.setattr("addons.router.ServiceLabels", fail)

    with pytest.raises(SettingsError, match="the settings cannot be taken over: RuntimeError"):
        options.change({"classify_timeout_ms": 7, "queue_requests": 7})
    await retired()

    assert (addon._labels, addon.settings) == (labels, settings)
    assert (await labels.classify(RequestView("GET", "/"))).source is Source.LOCAL


def inspected(addon, path: str, *lines: str) -> bool:
    asked = parse_request_head("\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *lines]).encode(), 9)
    return addon._transport._choice.wanted(asked, Peer("10.0.0.7", "http"))


async def test_what_becomes_a_flow_can_be_changed(addon, caplog) -> None:
    assert inspected(addon, "/a")
    with caplog.at_level("WARNING"):
        options.change({"inspect": "matching"})
    assert "INSPECT=matching chooses no request; set INSPECT_FILTER" in caplog.text
    assert not inspected(addon, "/a")

    options.change({"inspect_filter": "~u /a"})
    assert (inspected(addon, "/a"), inspected(addon, "/b")) == (True, False)

    options.change({"inspect_filter": "", "inspect_header_sources": "10.0.0.0/8"})
    assert (inspected(addon, "/a"), inspected(addon, "/a", "x-slb-inspect: 1")) == (False, True)

    options.change({"inspect_sample_percent": 100.0})
    assert (addon.settings.inspect_sample_percent, inspected(addon, "/a")) == (100.0, True)

    options.change({"inspect": "off"})
    assert not inspected(addon, "/a", "x-slb-inspect: 1")


async def test_a_bad_choice_is_refused_and_the_old_one_stays(addon) -> None:
    options.change({"inspect": "matching", "inspect_filter": "~u /a"})

    for bad, fault in (
        ({"inspect_filter": "~b secret"}, "INSPECT_FILTER: ~b is about what is not known yet"),
        ({"inspect_sample_percent": 101.0}, "INSPECT_SAMPLE_PERCENT: '101.0' should be less than"),
    ):
        with pytest.raises(SettingsError, match=fault):
            options.change(bad)

    assert (inspected(addon, "/a"), inspected(addon, "/b")) == (True, False)


async def test_a_request_from_before_a_reload_asks_the_classifier_of_now(
    addon, monkeypatch
) -> None:
    backends = []
    monkeypatch.setattr(addon._transport, "use", lambda _, backend, *__: backends.append(backend))
    options.change({"queue_requests": 7})
    options.change({"classifier_url": "http://new:1"})
    await retired()

    label = await backends[0].labels.classify(RequestView("GET", "/"))

    assert label.reason.startswith("http://new:1")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"classify_timeout_ms": 400}, 1),
        ({"classify_max_inflight": 3, "breaker_failures": 9}, 1),
        ({"classifier_url": "http://new:1"}, 0),
        ({"cache_ttl_seconds": 7}, 0),
        ({"cache_entries": 7}, 0),
    ],
)
async def test_labels_are_kept_where_they_still_hold(addon, change, kept) -> None:
    await addon._labels.classify(RequestView("GET", "/"))

    options.change(change)
    await retired()

    assert addon._labels.cache_entries == kept


# The labels file

OWN = '[labels.reports]\npool = "http://localhost:9004"\n'


@pytest.fixture
async def labels_file(addon, tmp_path):
    """A file with a label of its own, which is in force."""
    file = tmp_path / "labels.toml"
    file.write_text(OWN)
    options.change({"labels_file": str(file)})
    yield file
    await retired()


def own_labels(addon) -> list[str]:
    return list(addon.labels_file.in_force.labels)[3:]


def reload_into(addon) -> Reloaded:
    reloader = Reloader(read_sources(), (), options.change, addon.labels_file)
    return reloader.reload(addon.settings)


async def test_a_file_is_read_when_it_is_named_and_no_more_when_it_is_not(
    addon, labels_file
) -> None:
    assert own_labels(addon) == ["reports"]
    assert "reports" in addon._fleet.pools

    options.change({"labels_file": ""})

    assert own_labels(addon) == []
    assert "reports" not in addon._fleet.pools


async def test_another_setting_that_changes_is_no_reason_to_read_the_file(
    addon, labels_file
) -> None:
    labels_file.write_text("half a fi")

    options.change({"queue_requests": 7})

    assert (own_labels(addon), addon.settings.queue_requests) == (["reports"], 7)


async def test_a_file_is_taken_over_with_the_settings_or_neither_is(
    addon, labels_file, monkeypatch
) -> None:
    labels_file.write_text(OWN.replace("reports", "batch"))

    reloader = Reloader(said(has_file=False), (), options.change, addon.labels_file)
    monkeypatch.setenv("DECISION_HISTORY", "7")
    with pytest.raises(SettingsError, match="DECISION_HISTORY can only be set at"):
        reloader.reload(addon.settings)
    assert own_labels(addon) == ["reports"]

    monkeypatch.delenv("DECISION_HISTORY")
    assert reload_into(addon).changed == ("LABELS_FILE",)
    assert own_labels(addon) == ["batch"]
    assert reload_into(addon) == Reloaded()


async def test_a_bad_file_leaves_settings_that_are_good_as_they_were(
    addon, labels_file, monkeypatch, caplog
) -> None:
    labels_file.write_text(OWN + "colour = 1")
    reloader = Reloader(said(has_file=False), (), options.change, addon.labels_file)
    monkeypatch.setenv("QUEUE_REQUESTS", "7")

    with pytest.raises(SettingsError, match=r"^LABELS_FILE: labels\.reports\.colour: there is no"):
        reloader.reload(addon.settings)

    assert (own_labels(addon), addon.settings.queue_requests) == (["reports"], 128)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_an_option_that_names_a_bad_file_is_refused(addon, labels_file, tmp_path) -> None:
    (tmp_path / "bad.toml").write_text("[rules")

    with pytest.raises(SettingsError, match=r"^LABELS_FILE: it is not TOML"):
        options.change({"labels_file": str(tmp_path / "bad.toml")})

    assert own_labels(addon) == ["reports"]
    assert addon.settings.labels_file == str(labels_file)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (OWN + '[[rules]]\nname = "r"\nlabel = "reports"\npath = "/"\n', 1),
        (OWN + 'description = "other"\n', 0),
        ("", 0),
    ],
)
async def test_labels_are_kept_when_only_rules_change(addon, labels_file, text, kept) -> None:
    await retired()
    await addon._labels.classify(RequestView("GET", "/"))
    labels_file.write_text(text)

    assert reload_into(addon).changed == ("LABELS_FILE",)
    await retired()

    assert addon._labels.cache_entries == kept


# The proxy, as it runs


class Running:
    """A proxy that reads its `.env`, and the workers `a`, `b` and `c` that it may be told of."""

    def __init__(self, proxy: Proxy, folder: Path, workers: tuple[FaultyWorker, ...]) -> None:
        self.proxy = proxy
        self.a, self.b, self.c = workers
        self._file = folder / ".env"

    def write(self, text: str) -> None:
        self._file.write_text(text)

    def hang_up(self) -> None:
        """Send SIGHUP and wait until the log tells what came of it."""
        before = self.told()
        self.proxy.started.process.send_signal(signal.SIGHUP)
        assert until(lambda: self.told() > before, 5), self.proxy.started.output()

    def told(self) -> int:
        return self.proxy.started.output().count("Settings ")

    def last_told(self) -> str:
        lines = self.proxy.started.output().splitlines()
        return next(line for line in reversed(lines) if "Settings " in line)

    def post(self, path: str) -> httpx.Response:
        return httpx.post(f"{self.proxy.control}{path}", trust_env=False)

    def pool(self, label: str) -> list[dict]:
        pools = httpx.get(f"{self.proxy.control}/v1/pools", trust_env=False).json()["pools"]
        return next(pool["workers"] for pool in pools if pool["label"] == label)

    def plan(self, **values) -> Plan:
        defaults = {"connections": CONNECTIONS, "rate": RATE}
        return Plan(**{"port": self.proxy.port, **defaults, **values})


def pool_of(*upstreams: str) -> str:
    return f"GENERAL_POOL={','.join(f'http://{upstream}' for upstream in upstreams)}\n"


@contextmanager
def proxy_in(folder: Path) -> Iterator[Running]:
    with fleet(folder, "a", "b", "c") as workers, label_source(folder, "general") as url:
        (folder / ".env").write_text(pool_of(workers[0].address, workers[1].address))
        variables = {"CLASSIFIER_URL": url, "CLASSIFY_TIMEOUT_MS": 10_000}
        others = {f"{name}_POOL": url for name in ("FAST_PATH", "HIGH_COMPUTE")}
        flags = ("--set", "router_queue_requests=99")
        with processes.proxy(folder, *flags, **variables, **others) as proxy:
            yield Running(proxy, folder, workers)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with proxy_in(tmp_path_factory.mktemp("reload")) as running:
        yield running


@pytest.fixture
def router(shared):
    """The running proxy, with `a` and `b` in its pool whatever was done before."""
    shared.write(pool_of(shared.a.address, shared.b.address))
    assert shared.post("/v1/reload").status_code == 200
    return shared


@pytest.mark.integration
async def test_pools_and_weights_change_under_load_without_an_error(router) -> None:
    a, b, c = router.a, router.b, router.c
    async with Load(router.plan()) as load:
        await asyncio.sleep(0.3)
        began = time.monotonic()
        router.write(pool_of(f"{b.address};weight=3", c.address) + "BALANCING=two-choices\n")
        await asyncio.to_thread(router.hang_up)
        changed = time.monotonic()
        await asyncio.sleep(0.7)
        router.write(pool_of(f"{b.address};weight=3", c.address))
        await asyncio.to_thread(router.hang_up)
        again = time.monotonic()
        await asyncio.sleep(0.7)
    report = load.report()

    print(len(report.answers), report.per_worker(), report.slowest)
    assert (report.kinds(), report.disconnects) == (Counter(), 0)
    assert set(report.between(0, began).per_worker()) == {"a", "b"}
    assert a.entries(since=changed + SOON) == []
    # Round robin by weight is exact; a window cuts it off somewhere.
    shares = report.between(again + SOON).per_worker()
    assert shares["b"] / shares["c"] == pytest.approx(3, abs=0.3)
    assert set(report.between(changed + SOON).per_worker()) == {"b", "c"}


@pytest.mark.integration
async def test_a_slow_answer_of_a_worker_that_is_taken_out_still_arrives(router) -> None:
    await router.a.fault(delay_ms=500)
    await router.b.fault(delay_ms=500)
    async with Load(router.plan(connections=8, rate=0, count=8)) as load:
        assert await asyncio.to_thread(
            until, lambda: len({w["inflight"] for w in router.pool("general")} - {0}) > 0, 5
        )
        router.write(pool_of(router.c.address))
        await asyncio.to_thread(router.hang_up)
        await load.finished()
    await router.a.fault(delay_ms=0)
    await router.b.fault(delay_ms=0)

    assert load.report().kinds() == Counter()
    assert {"a", "b"} <= set(load.report().per_worker())


@pytest.mark.integration
async def test_a_limit_holds_from_the_reload_on_also_on_open_connections(router) -> None:
    long = Request(headers=(("X-Long", "x" * 2_000),))
    router.write(pool_of(router.a.address, router.b.address) + "MAX_HEADER_BYTES=1024\n")
    async with Load(router.plan(make=lambda _: long, connections=2, rate=50)) as load:
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await asyncio.to_thread(router.hang_up)
        changed = time.monotonic()
        await asyncio.sleep(0.3)
    report = load.report()

    assert report.between(0, began - SOON).kinds() == Counter()
    late = report.between(changed + SOON)
    assert late.kinds() == {"431 headers_too_large": len(late.answers)}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("QUEUE_TIMEOUT_MS=soon", "QUEUE_TIMEOUT_MS: 'soon' should be a valid integer"),
        ("METRICS_HOST=0.0.0.0", "METRICS_HOST can only be set at the start; restart to change it"),
        ("BALANCING two-choices", ".env: line 2 cannot be read; write NAME=value"),
    ],
)
def test_a_bad_file_is_refused_whole_in_one_line(router, line, fault) -> None:
    before = router.pool("general")
    router.write(pool_of(router.c.address) + line + "\n")
    told, output = router.told(), len(router.proxy.started.output())

    answer = router.post("/v1/reload")
    router.hang_up()

    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["message"]) == ("settings_refused", fault)
    assert router.told() - told == 2
    assert router.last_told().endswith(f"Settings not reloaded, the old ones stay: {fault}")
    assert len(router.proxy.started.output()[output:].splitlines()) == 2
    assert [worker["url"] for worker in router.pool("general")] == [w["url"] for w in before]


@pytest.mark.integration
def test_what_was_set_by_hand_stays_and_is_told(router) -> None:
    pools = pool_of(router.a.address, router.b.address)
    router.write(f"{pools}QUEUE_REQUESTS=1\nSLOW_START_SECONDS=3\n")

    assert router.post("/v1/reload").json() == {
        "changed": ["SLOW_START_SECONDS"],
        "kept": ["QUEUE_REQUESTS"],
    }
    assert router.post("/v1/reload").json() == {"changed": [], "kept": []}


@pytest.mark.integration
def test_a_drain_outlives_a_reload(router) -> None:
    assert router.post(f"/v1/pools/general/workers/{router.a.address}/drain").status_code == 200
    router.write(pool_of(f"{router.a.address};weight=2", router.c.address))
    router.hang_up()

    states = {worker["name"]: worker["draining"] for worker in router.pool("general")}
    router.post(f"/v1/pools/general/workers/{router.a.address}/undrain")

    assert states == {router.a.address: True, router.c.address: False}


@pytest.mark.integration
def test_the_environment_wins_over_a_file_that_changes(router) -> None:
    pools = pool_of(router.a.address, router.b.address)
    router.write(f"{pools}CLASSIFY_TIMEOUT_MS=1\n")

    assert router.post("/v1/reload").json()["changed"] == []


@pytest.mark.integration
def test_a_proxy_whose_terminal_is_closed_does_not_stay_behind(tmp_path) -> None:
    """SIGHUP no longer ends it by itself."""
    screen, terminal = os.openpty()
    metrics_port = processes.free_port()
    mode = f"reverse:http://unrouted.invalid:9@{processes.free_port()}"
    command = ["setsid", "--ctty", processes.BIN / "mitmdump", "--mode", mode]
    command += ["--listen-host", "127.0.0.1", "--set", f"confdir={tmp_path}"]
    process = subprocess.Popen(
        [*command, "-s", processes.ROOT / "addons" / "router.py"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
        env=processes.clean_env(METRICS_PORT=metrics_port),
    )
    os.close(terminal)
    try:
        assert until(lambda: processes.answers(f"http://127.0.0.1:{metrics_port}/readyz"))
        os.close(screen)
        process.wait(5)
    finally:
        process.kill()
        process.wait()
