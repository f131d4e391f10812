"""A bug of ours: whatever raises, a request is served or refused, and never goes astray."""

import json
import os

import h11
import pytest

from tests import processes, wire
from tests.hostile import is_honest
from tests.hostile import site as hostile_site
from tests.processes import ROOT

pytestmark = pytest.mark.integration

os.environ.setdefault("SLB_TEST_BREAKAGE", os.devnull)
from tests import breakage

REQUESTS = {
    "GET": b"GET /row HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "POST": b"POST /row HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345",
    "chunked": b"POST /row HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    "absolute": b"GET http://{canary}/row HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "WebSocket": b"GET /row HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
}

BEFORE_A_REQUEST = (
    "addons.takeover:",
    "addons.downstream:Clients.enter",
    "addons.downstream:ClientConnection._read_head",
    "addons.downstream:RequestBody.feed",
    "addons.http1:",
)
"""Where there is no request yet, or no whole one, to close the connection is an answer."""

OF_A_WORKER = ("addons.upstream:UpstreamConnection.data_received",)
"""Looks like a worker that fails, and may be told as such."""

CLEANING_UP = ("addons.exchange:Exchange._close", "addons.accounting:Ledger.close")
"""What does not end cannot be counted as ended."""


@pytest.fixture(scope="module", params=["all", "off"])
def broken(request, tmp_path_factory):
    """A site, the switch of its breakage, and whoever contacted its default target."""
    folder = tmp_path_factory.mktemp("faults")
    switch = folder / "switch"
    switch.write_text("")
    with wire.untouched() as visits:
        variables = {
            "SLB_TEST_BREAKAGE": switch,
            "INSPECT": request.param,
            "target": f"http://{visits[0]}",
        }
        script = str(ROOT / "tests" / "breakage.py")
        with hostile_site(folder, "-s", script, **variables) as site:
            yield site, switch, visits[0]
    assert visits[1:] == []


def outcome(port: int, request: bytes, *, tls: bool) -> wire.Answer | None:
    """The answer; None if the connection is closed instead, at once."""
    try:
        return wire.ask(port, request, tls=tls, seconds=3)
    except wire.SilentError:
        raise
    except (wire.BrokenError, OSError, h11.RemoteProtocolError):
        return None


@pytest.mark.parametrize("fault", breakage.TARGETS)
def test_an_exception_of_ours_never_sends_a_request_astray(broken, fault) -> None:
    site, switch, canary = broken
    before = site.proxy.metric("slb_requests_inflight")
    switch.write_text(fault)
    answers = {
        (kind, tls): outcome(site.port, request.replace(b"{canary}", canary.encode()), tls=tls)
        for kind, request in REQUESTS.items()
        for tls in (False, True)
    }
    switch.write_text("")

    for case, answer in answers.items():
        if answer is None:
            assert fault.startswith(BEFORE_A_REQUEST), case
            continue
        assert answer.status in {200, 502, 503}, (case, answer)
        assert answer.status != 502 or fault in OF_A_WORKER, (case, answer)
        assert answer.status == 200 or is_honest(answer), (case, answer)
    after = site.converse(REQUESTS["GET"])
    assert [answer.status for answer in after] == [200]
    if fault not in CLEANING_UP:
        assert processes.until(lambda: site.proxy.metric("slb_requests_inflight") == before, 5)
    assert breakage.MESSAGE not in json.dumps(site.proxy.decisions())
