"""The command `slb`: as safe and as open to addons as `mitmdump -s addons/router.py`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
from mitmproxy.addonmanager import traverse
from mitmproxy.options import Options

from addons.accepting import MAX_PROCESSES
from addons.launcher import processes_of
from addons.lean import LeanMaster
from tests import hostile, processes, wire
from tests.hostile import check
from tests.malformed import TABLE
from tests.processes import LABELS, ROOT, until

pytestmark = pytest.mark.integration

ADDON = """
from mitmproxy import ctx

class Stamp:
    def load(self, loader):
        loader.add_option("stamp", str, "", "What to write.")

    def requestheaders(self, flow):
        flow.request.headers["X-Hooks"] = "requestheaders"

    async def request(self, flow):
        flow.request.headers["X-Hooks"] += f", request {flow.comment.split()[0]}"
        flow.request.headers["X-Stamp"] = ctx.options.stamp

    def responseheaders(self, flow):
        flow.response.headers["X-Hooks"] = "responseheaders"

    def response(self, flow):
        flow.response.headers["X-Hooks"] += ", response"

addons = [Stamp()]
"""


EACH = """
import contextlib, io, json, sys
from addons.launcher import main

for arguments in json.load(sys.stdin):
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(arguments)
        except SystemExit as exc:
            code = exc.code
    print(json.dumps([code, out.getvalue()]))
"""


def slb(*command_lines: Sequence[object]) -> list[tuple[int, str]]:
    """The exit code and the output of each command line, all in one process: a start is slow."""
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        input=json.dumps([[str(part) for part in line] for line in command_lines]),
        env=processes.clean_env(METRICS_PORT=processes.free_port()),
        # Not the checkout, whose own `.env` would be read.
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slb")
    (folder / "stamp.py").write_text(ADDON)
    flags = ("-s", str(folder / "stamp.py"), "--set", "stamp=blue")
    settings = {"OVERRIDE_HEADER_SOURCES": "127.0.0.1", "CLASSIFY_TIMEOUT_MS": 10_000}
    with hostile.site(folder, *flags, program="slb", **settings) as site:
        yield site
        assert "Traceback" not in site.proxy.started.output()
    assert len(site.worker.requests) == site.accepted
    assert site.worker.complaints == []


@pytest.mark.parametrize("label", LABELS)
def test_a_request_of_each_label_goes_to_its_pool(site, label) -> None:
    force = f"X-SLB-Force-Label: {label}\r\n".encode()
    seen = site.served(b"GET /a HTTP/1.1\r\nHost: x\r\n%b\r\n" % force)

    assert seen.values(b"x-route-label") == [label.encode()]
    counted = 'slb_decisions_total{label="%s",source="override"}'
    assert site.proxy.metric(counted % label) >= 1


def test_hooks_and_options_of_a_users_addon_work(site) -> None:
    (answer,) = site.converse(b"GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    seen = site.worker.requests[-1]

    # The router comes first: the addon sees the label.
    assert seen.values(b"x-hooks") == [b"requestheaders, request fast-path"]
    assert seen.values(b"x-stamp") == [b"blue"]
    assert answer.fields["x-hooks"] == "responseheaders, response"


def test_what_parsers_disagree_about_is_refused_or_normalised(site) -> None:
    for row in TABLE:
        check(site, row)
    for row in TABLE[:5]:
        check(site, row, tls=True)

    assert b"/smuggled" not in {seen.target for seen in site.worker.requests}


def test_sighup_takes_over_what_the_environment_file_says(site) -> None:
    started = site.proxy.started
    (started.log.parent / ".env").write_text("QUEUE_REQUESTS=7\n")

    started.process.send_signal(signal.SIGHUP)

    assert until(lambda: "QUEUE_REQUESTS" in started.output(), 5), started.output()


def test_sigterm_lets_the_request_under_way_end(tmp_path) -> None:
    with (
        hostile.site(tmp_path, program="slb", INSPECT="off", DRAIN_DELAY_SECONDS=0) as site,
        wire.Client(site.port) as client,
    ):
        client.send(b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
        assert until(lambda: wire.has_read(client), 5)
        process = site.proxy.started.process
        process.terminate()
        assert until(lambda: not processes.answers(f"{site.proxy.control}/readyz"), 5)
        client.send(b"2")

        assert client.answer("POST").status == 200
        assert process.wait(10) == 0


REFUSED = {
    "--set router_general_pool=": "GENERAL_POOL: the pool is empty",
    "--set router_general_pol=x": "unknown option router_general_pol; did you mean",
    "--set listen_port=abc": "Failed to parse option listen_port: not an integer",
    "--set modify_header=x": "unknown option modify_header; slb --options lists all",
    "--mode socks5": "mode socks5 cannot be routed; start with --mode reverse:",
    "--listen-prt 1": "unrecognized arguments: --listen-prt 1; see slb --help",
    "--process 2": "--processes is to be written in full",
    "-s ../addons/router.py": "slb has the router built in; start it without -s ../addons",
    "--set modify_headers=/x/y/z --set anticomp": "slb leaves out anticomp, modify_headers; for"
    " this use mitmdump -s addons/router.py\n",
    "-w x -H /x/y/z": "slb leaves out save_stream_file, modify_headers; for this use mitmdump",
}


def test_what_cannot_be_used_ends_it_with_one_line() -> None:
    for (code, output), (line, fault) in zip(
        slb(*(line.split() for line in REFUSED)), REFUSED.items(), strict=True
    ):
        assert code == 2, line
        assert output.startswith(f"error: {fault}"), line
        assert output.count("\n") == 1, line


def test_there_is_a_process_for_each_core_but_not_more_than_can_be(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for cores, count in ((3, 3), (200, MAX_PROCESSES), (None, 1)):
        monkeypatch.setattr(os, "process_cpu_count", lambda cores=cores: cores)
        assert processes_of(["--processes=0", "-q"]) == (count, ["-q"])


def test_help_is_told_whatever_the_settings_say(monkeypatch) -> None:
    monkeypatch.setenv("PROXY_PROCESSES", "x")

    assert processes_of(["--help"]) == (1, ["--help"])


def test_help_options_and_version_are_told() -> None:
    told, options, version = slb(["--help"], ["--options"], ["--version"])

    assert (told[0], options[0], version[0]) == (0, 0, 0)
    assert "--listen-port" in told[1]
    assert "--modify-headers" not in told[1]
    assert "router_general_pool: http://localhost:9001" in options[1]
    assert version[1].startswith("slb: ")


@pytest.mark.parametrize(("detail", "listeners"), [(0, ["router"]), (2, ["router", "dumper"])])
async def test_nobody_looks_at_flows_unless_asked(detail, listeners, monkeypatch) -> None:
    monkeypatch.chdir(ROOT / "tests")
    master = LeanMaster(Options())
    try:
        master.options.flow_detail = detail
        master.add_router()
        chain = list(traverse(master.addons.chain))
    finally:
        await master.done()

    hooks = ("requestheaders", "request", "responseheaders", "response", "error", "update")
    found = [name_of(addon) for addon in chain if any(getattr(addon, hook, None) for hook in hooks)]
    assert found == listeners


def name_of(addon) -> str:
    return getattr(addon, "name", type(addon).__name__.lower())


def test_it_starts_before_mitmproxy_is_imported() -> None:
    """A process that only starts others must not pay for it."""
    code = "import sys, addons.launcher; sys.exit('mitmproxy' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], env=processes.clean_env(), cwd=ROOT, check=False, timeout=30
    )

    assert done.returncode == 0
