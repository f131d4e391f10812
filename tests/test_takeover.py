"""Where mitmproxy's connections become ours, and the parts of mitmproxy that this rests on.

The last test fails when a mitmproxy release changes what is relied on: read its new code, adapt
addons/takeover.py, addons/inspection.py or addons/router.py, then change the digests.
"""

import asyncio
import contextlib
import hashlib
import inspect
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mitmproxy import addonmanager, flow
from mitmproxy.addons import clientplayback, next_layer, proxyserver
from mitmproxy.proxy import layer, mode_servers, server, tunnel
from mitmproxy.proxy.layers import http, modes, tls

from tests import loopback, processes
from tests.faulty_behaviours import PIECE
from tests.fleet import FaultyWorker, fleet, label_source
from tests.processes import LABELS, ROOT
from tests.wire import Client, ask, growth

WATCHER = '''
"""Watches over connections, and tells of them at a path of its own."""

import asyncio
import gc
import json

from mitmproxy import ctx, http


class Watcher:
    def __init__(self):
        self.open, self.pairs, self.odd = set(), 0, []

    async def client_connected(self, client):
        self.open.add(client.id)
        if DELAY:
            await asyncio.sleep(DELAY)

    def client_disconnected(self, client):
        if client.id not in self.open:
            self.odd.append(client.id)
        self.open.discard(client.id)
        self.pairs += 1

    def requestheaders(self, flow):
        if not flow.request.path.startswith("/-state"):
            return
        if flow.request.path.endswith("?collect"):
            gc.collect()
        server = ctx.master.addons.get("proxyserver")
        state = {
            "open": len(self.open),
            "pairs": self.pairs,
            "odd": self.odd,
            "connections": server.active_connections(),
            "ours": len(ctx.master.addons.get("router")._transport.clients),
            "tasks": len(asyncio.all_tasks()),
        }
        flow.response = http.Response.make(200, json.dumps(state))


addons = [Watcher()]
'''

MISTAKES = (
    "unclosed",
    "never retrieved",
    "never awaited",
    "Traceback",
    "Unhandled",
    "crashed",
    "ResourceWarning",
)
"""What asyncio, Python or mitmproxy log of a mistake."""

LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp."""


@dataclass
class Site:
    """The proxy, watched, before one worker."""

    proxy: processes.Proxy
    worker: FaultyWorker
    delay: float = 0.0

    @property
    def port(self) -> int:
        return self.proxy.port

    @property
    def pid(self) -> int:
        return self.proxy.started.process.pid

    def state(self, query: str = "") -> dict:
        """What the watcher has seen; its own connection is one of those."""
        return json.loads(ask(self.port, a_request(f"/-state{query}", "Connection: close")).body)

    def sockets(self) -> int:
        """How many sockets of clients the proxy holds."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        local = f":{self.port:04X}"
        return sum(row[1].endswith(local) and row[3] != LISTENING and row[9] != "0" for row in rows)

    def leftovers(self, seconds: float = 5) -> dict:
        """What is left of all connections when they should have ended; nothing if all is well."""
        left: dict = {}

        def look() -> bool:
            nonlocal left
            # What is looked at must not be our own last look.
            time.sleep(self.delay * 2)
            now = {"sockets": self.sockets() + 1, **self.state()}
            left = {name: now[name] for name in ("sockets", "open", "connections", "ours")}
            left = {name: count - 1 for name, count in left.items() if count > 1}
            return not left

        processes.until(look, seconds)
        return left

    def mistakes(self) -> list[str]:
        """Lines of the log that tell of a mistake; some only the collector of garbage finds."""
        self.state("?collect")
        lines = self.proxy.started.output().splitlines()
        return [line for line in lines if any(word in line for word in MISTAKES)]


@contextlib.contextmanager
def site_of(folder, delay: float = 0.0, *, ahead: bool = False, **settings) -> Iterator[Site]:
    """A watched proxy; the watcher's hooks fire after ours, unless it is `ahead` of us."""
    script = folder / "watcher.py"
    script.write_text(WATCHER.replace("DELAY", str(delay)))
    settings.setdefault("PYTHONWARNINGS", "always::ResourceWarning")
    with fleet(folder, "a") as (worker,), label_source(folder, "general") as url:
        pools = processes.pool_variables({label: [worker.port] for label in LABELS})
        variables = {**pools, "CLASSIFIER_URL": url, "CLASSIFY_TIMEOUT_MS": 10_000, **settings}
        router = ROOT / "addons" / "router.py"
        first, second = (script, router) if ahead else (router, script)
        with processes.proxy(folder, "-s", str(second), script=first, **variables) as proxy:
            yield Site(proxy, worker, delay)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with site_of(tmp_path_factory.mktemp("takeover")) as site:
        yield site
        assert site.mistakes() == []


@pytest.fixture(scope="module")
def hurried(tmp_path_factory):
    """A proxy with little patience and few places."""
    settings = {"HEADER_TIMEOUT_SECONDS": 1, "PROGRESS_TIMEOUT_SECONDS": 1, "MAX_CONNECTIONS": 20}
    with site_of(tmp_path_factory.mktemp("hurried"), **settings) as site:
        yield site
        assert site.mistakes() == []


def a_request(target: str, *fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: takeover.test", *fields]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def hello() -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def connect(port: int, *, buffer: int = 0) -> socket.socket:
    sock = socket.socket()
    if buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(5)
    sock.connect(("127.0.0.1", port))
    return sock


def over_tls(sock: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname="localhost")


@contextlib.contextmanager
def connected(port: int, *, tls: bool, buffer: int = 0) -> Iterator[socket.socket]:
    sock = connect(port, buffer=buffer)
    sock = over_tls(sock) if tls else sock
    with sock:
        yield sock


def reset(sock: socket.socket) -> None:
    """Close so that the other side gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def closed_after(sock: socket.socket, seconds: float) -> float:
    """Seconds until the other side closes."""
    began = time.monotonic()
    sock.settimeout(seconds)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while sock.recv(65_536):
            pass
    return time.monotonic() - began


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_serves_one_request_after_the_other(site, tls) -> None:
    with Client(site.port, tls=tls) as client:
        for size in (0, 1, 70_000, 1_000_000):
            head = a_request("/users", f"Content-Length: {size}", method="POST")
            client.send(head + b"x" * size)
            answer = client.answer("POST")
            assert (answer.status, json.loads(answer.body)["bytes"]) == (200, size)


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True])
def test_pipelined_requests_are_answered_in_order(site, tls) -> None:
    with Client(site.port, tls=tls) as client:
        client.send(
            b"".join(a_request("/x", f"X-Load-Id: {i}", f"Content-Length: {i}") for i in (0, 0))
            + a_request("/x", "X-Load-Id: last", "Content-Length: 3", method="POST")
            + b"abc"
            + a_request("/x", "X-Load-Id: end", "Connection: close")
        )
        answers = [client.answer() for _ in range(4)]

    seen = [json.loads(answer.body) for answer in answers]
    assert [one["id"] for one in seen] == ["0", "0", "last", "end"]
    assert [one["bytes"] for one in seen] == [0, 0, 3, 0]
    assert [answer.last for answer in answers] == [False, False, False, True]


def leave_at_once(port: int, _: int) -> None:
    connect(port).close()


def leave_amid_head(port: int, turn: int) -> None:
    sock = connect(port)
    sock.sendall(b"GET / HTTP/1.1\r\nHo"[: turn % 18 + 1])
    sock.close()


def leave_by_reset(port: int, _: int) -> None:
    sock = connect(port)
    sock.sendall(a_request("/x"))
    reset(sock)


def leave_after_the_answer(port: int, _: int) -> None:
    ask(port, a_request("/x", "Connection: close"))


def leave_before_the_answer(port: int, _: int) -> None:
    sock = connect(port)
    sock.sendall(a_request("/do/silence"))
    time.sleep(0.01)
    sock.close()


def leave_amid_body(port: int, _: int) -> None:
    sock = connect(port)
    sock.sendall(a_request("/x", "Content-Length: 1000000", method="POST") + b"x" * 100_000)
    sock.close()


def leave_amid_stream(port: int, turn: int) -> None:
    sock = connect(port)
    sock.sendall(a_request("/do/stream?bytes=5000000"))
    sock.recv(1_000)
    reset(sock) if turn % 2 else sock.close()


def leave_amid_handshake(port: int, turn: int) -> None:
    sock = connect(port)
    sock.sendall(hello()[: 1 + turn * 7])
    sock.close()


def send_no_tls(port: int, _: int) -> None:
    sock = connect(port)
    sock.sendall(b"\x16\x03\x01\x00\x05hello" + a_request("/x"))
    assert closed_after(sock, 5) < 5
    sock.close()


def leave_after_the_handshake(port: int, turn: int) -> None:
    sock = over_tls(connect(port))
    reset(sock) if turn % 2 else sock.close()


def leave_amid_tls_stream(port: int, turn: int) -> None:
    sock = over_tls(connect(port))
    sock.sendall(a_request("/do/stream?bytes=5000000"))
    sock.recv(1_000)
    reset(sock) if turn % 2 else sock.close()


def leave_tls_before_the_answer(port: int, _: int) -> None:
    sock = over_tls(connect(port))
    sock.sendall(a_request("/do/silence"))
    time.sleep(0.01)
    sock.close()


def close_tls_after_the_answer(port: int, _: int) -> None:
    ask(port, a_request("/x", "Connection: close"), tls=True)


LEAVINGS: list[Callable[[int, int], None]] = [
    leave_at_once, leave_amid_head, leave_by_reset, leave_after_the_answer,
    leave_before_the_answer, leave_amid_body, leave_amid_stream, leave_amid_handshake, send_no_tls,
    leave_after_the_handshake, leave_amid_tls_stream, leave_tls_before_the_answer,
    close_tls_after_the_answer,
]  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("leave", LEAVINGS, ids=[leave.__name__ for leave in LEAVINGS])
def test_nothing_is_left_of_connections_that_have_closed(site, leave) -> None:
    leave(site.port, 0)
    assert site.leftovers() == {}
    before = site.state()

    for turn in range(25):
        leave(site.port, turn)

    assert site.leftovers() == {}
    after = site.state()
    assert after["pairs"] >= before["pairs"] + 25
    assert processes.until(lambda: site.state()["tasks"] <= before["tasks"], 5)
    assert after["odd"] == []
    assert site.mistakes() == []


@pytest.mark.integration
def test_a_hook_that_closes_the_connection_is_obeyed(site, tmp_path) -> None:
    script = tmp_path / "refuse.py"
    script.write_text("def client_connected(client):\n    client.error = 'not you'\n")
    pools = processes.pool_variables({label: [site.worker.port] for label in LABELS})
    with processes.proxy(tmp_path, "-s", str(script), **pools) as proxy:
        for _ in range(3):
            with Client(proxy.port) as client, contextlib.suppress(ConnectionError):
                client.socket.sendall(a_request("/x"))
                assert client.rest() == b""
        output = proxy.started.output()

    assert [word for word in MISTAKES if word in output] == []


@pytest.fixture(scope="module")
def delayed(tmp_path_factory):
    """A proxy with another addon whose `client_connected` takes its time."""
    with site_of(tmp_path_factory.mktemp("delayed"), delay=0.3) as site:
        yield site
        assert site.mistakes() == []


@pytest.fixture(scope="module")
def delayed_ahead(tmp_path_factory):
    """The same, with that addon ahead of ours."""
    with site_of(tmp_path_factory.mktemp("ahead"), delay=0.3, ahead=True) as site:
        yield site


@pytest.mark.integration
@pytest.mark.parametrize("size", [0, 1_000, 5_000_000])
@pytest.mark.parametrize("where", ["delayed", "delayed_ahead"])
def test_what_comes_while_a_hook_looks_at_the_connection_is_served(request, where, size) -> None:
    site = request.getfixturevalue(where)
    head = a_request("/users", f"Content-Length: {size}", method="POST")

    answer = ask(site.port, head + b"x" * size)

    assert (answer.status, json.loads(answer.body)["bytes"]) == (200, size)


LEAVING_EARLY = [leave_at_once, leave_amid_head, leave_by_reset]


@pytest.mark.integration
@pytest.mark.parametrize("leave", LEAVING_EARLY)
def test_a_client_that_leaves_while_a_hook_looks_at_it_leaves_nothing(delayed, leave) -> None:
    for turn in range(5):
        leave(delayed.port, turn)

    assert delayed.leftovers() == {}
    assert delayed.mistakes() == []


@pytest.mark.integration
@pytest.mark.parametrize("leave", LEAVING_EARLY)
def test_nor_does_one_that_has_left_before_it_was_ours(delayed_ahead, leave) -> None:
    """mitmproxy itself trips over such a client: its hook of the end does not fire."""
    for turn in range(5):
        leave(delayed_ahead.port, turn)

    left = delayed_ahead.leftovers(2)
    assert left.keys() <= {"open"}


@pytest.mark.integration
@pytest.mark.parametrize("sent", [0, 1, 3, 100])
def test_a_tls_handshake_that_takes_too_long_is_cut(hurried, sent) -> None:
    with connect(hurried.port) as sock:
        sock.sendall(hello()[:sent])
        seconds = closed_after(sock, 5)

    assert 0.9 < seconds < 1.8


@pytest.mark.integration
def test_a_client_that_is_silent_after_its_handshake_is_cut(hurried) -> None:
    with over_tls(connect(hurried.port)) as sock:
        assert 0.9 < closed_after(sock, 5) < 1.8


@pytest.mark.integration
def test_a_slow_head_over_tls_is_a_408(hurried) -> None:
    with Client(hurried.port, tls=True) as client:
        client.send(b"GET /x HTTP/1.1\r\n")
        answer = client.answer()

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (408, "request_timeout")
    assert answer.last


@pytest.mark.integration
def test_a_malformed_body_over_tls_is_refused_at_once(site) -> None:
    head = a_request("/x", "Transfer-Encoding: chunked", method="POST")
    with Client(site.port, tls=True) as client:
        client.send(head + b"%x\r\n%b\r\n" % (len(PIECE), PIECE) + b"zz\r\n\r\n")
        answer = client.answer("POST")

    assert answer.status == 400
    assert answer.seconds < 1


@pytest.fixture
def crowded(hurried):
    """All places of the proxy are taken."""
    assert hurried.leftovers() == {}
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(Client(hurried.port))
            client.send(a_request("/do/silence?crowd"))

        def all_are_in() -> bool:
            asked = hurried.worker.entries("request")
            return sum(entry.target.endswith("?crowd") for entry in asked) >= 20

        assert processes.until(all_are_in, 5)
        yield hurried
    assert hurried.leftovers() == {}


@pytest.mark.integration
def test_over_the_limit_of_connections_clients_get_a_503(crowded) -> None:
    answer = ask(crowded.port, a_request("/x"))

    assert (answer.status, answer.fields["retry-after"]) == (503, "1")
    assert json.loads(answer.body)["error"]["code"] == "too_many_connections"


@pytest.mark.integration
def test_over_the_limit_of_connections_there_is_no_handshake(crowded) -> None:
    for sent in (hello(), hello()[:50], hello() + hello()):
        with connect(crowded.port) as sock:
            sock.sendall(sent)
            assert closed_after(sock, 3) < 3

    assert crowded.mistakes() == []


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_does_not_read_is_cut(hurried, tls) -> None:
    with contextlib.ExitStack() as stack:
        for size in (3_000_000, 5_000_000, 50_000_000):
            sock = stack.enter_context(connected(hurried.port, tls=tls, buffer=4_096))
            sock.sendall(a_request(f"/do/stream?bytes={size}", "Connection: close"))

        assert hurried.leftovers() == {}


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True])
def test_a_big_answer_to_a_slow_reader_takes_no_memory(site, tls) -> None:
    with growth(site.pid) as grown, connected(site.port, tls=tls, buffer=65_536) as sock:
        sock.sendall(a_request("/do/stream?bytes=100000000&framing=chunked"))
        for _ in range(20):
            sock.recv(65_536)
            time.sleep(0.02)
        assert grown() < 10


def sent_within(sock: socket.socket, seconds: float, most: int) -> int:
    """How many bytes the other side takes in this time."""
    sent, end = 0, time.monotonic() + seconds
    while sent < most and (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        with contextlib.suppress(TimeoutError):
            sent += sock.send(PIECE)
    return sent


@pytest.mark.integration
@pytest.mark.parametrize("inspect", ["all", "off"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_big_body_to_a_slow_worker_takes_no_memory(tmp_path, tls, inspect) -> None:
    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /health"):
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        await asyncio.sleep(60)

    with loopback.serving(never_read) as port:
        pools = processes.pool_variables({label: [port] for label in LABELS})
        with (
            processes.proxy(tmp_path, INSPECT=inspect, **pools) as proxy,
            growth(proxy.started.process.pid) as grown,
        ):
            with connected(proxy.port, tls=tls) as sock:
                sock.sendall(a_request("/x", "Content-Length: 1000000000", method="PUT"))
                sent = sent_within(sock, 1, 100_000_000)
                assert grown() < 10, sent
                assert sent < 50_000_000
                reset(sock)
            # That it has left is noticed though nothing is read from it.
            assert processes.until(lambda: proxy.metric("slb_requests_inflight") == 0, 3)


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True])
def test_events_arrive_as_soon_as_they_are_sent(site, tls) -> None:
    with Client(site.port, tls=tls) as client:
        client.send(a_request("/do/sse?events=8&gap_ms=50"))
        delays, unread = [], b""
        while len(delays) < 8:
            unread += client.socket.recv(65_536)
            now = time.monotonic()
            while b"\n\n" in unread.partition(b"data: ")[2]:
                event, _, unread = unread.partition(b"data: ")[2].partition(b"\n\n")
                delays.append(now - float(event))

    assert sorted(delays)[len(delays) // 2] < 0.05


@pytest.mark.integration
def test_a_worker_learns_at_once_that_a_tls_client_has_left(site) -> None:
    target = "/do/silence?tls"
    with Client(site.port, tls=True) as client:
        client.send(a_request(target))
        assert processes.until(lambda: noted(site, "request", target), 5)
    left = time.monotonic()

    assert processes.until(lambda: noted(site, "aborted", target), 5)
    assert time.monotonic() - left < 1


def noted(site: Site, event: str, target: str) -> bool:
    return any(entry.target == target for entry in site.worker.entries(event))


@pytest.mark.integration
@pytest.mark.parametrize("tls", [False, True])
def test_the_worker_is_told_by_which_scheme_the_client_came(site, tls) -> None:
    ask(site.port, a_request(f"/scheme-{tls}"), tls=tls)
    heads = asyncio.run(site.worker.seen())["heads"]
    head = next(head for head in heads if f"/scheme-{tls} " in head)

    assert f"\r\nX-Forwarded-Proto: {'https' if tls else 'http'}\r\n" in head


def test_what_is_taken_from_streams_is_there() -> None:
    async def look() -> tuple[object, ...]:
        reader = asyncio.StreamReader()
        reader.feed_data(b"x")
        return type(reader._buffer), bytes(reader._buffer), reader._paused, reader._limit

    assert asyncio.run(look())[:3] == (bytearray, b"x", False)


DIGESTS = {
    server.ConnectionHandler.handle_client: "01f1b7cc991c4711",
    server.ConnectionHandler.handle_connection: "95c3f93e9824e527",
    server.ConnectionHandler.drain_writers: "6b57434604561e3e",
    server.ConnectionHandler.server_event: "a2b42657ebe8bf6d",
    server.ConnectionHandler.close_connection: "c0d10cc05dd65b80",
    server.ConnectionHandler.on_timeout: "0d1e6b0aa6e41173",
    server.TimeoutWatchdog.watch: "eee8e7085dba9250",
    server.LiveConnectionHandler.__init__: "2cb1077a21556ca9",
    mode_servers.ProxyConnectionHandler.handle_hook: "9f8b52fd798203c9",
    mode_servers.ServerInstance.handle_stream: "21eea06f208c752e",
    mode_servers.AsyncioServerInstance.listen: "7670a9038b44170d",
    mode_servers.AsyncioServerInstance._stop: "73df3f7e7fb2d941",
    proxyserver.Servers.update: "e653c1bdfa8cf352",
    proxyserver.Proxyserver.register_connection: "d79bb91554a8bda2",
    next_layer.NextLayer.next_layer: "d277fef31bbe9519",
    next_layer.NextLayer._setup_reverse_proxy: "5e0e9bf5d376fb5a",
    layer.NextLayer._ask: "4d8ace76d8488336",
    layer.Layer.handle_event: "fd88b0fb09ceddbb",
    modes.ReverseProxy._handle_event: "c24268c5e5cd49db",
    tunnel.TunnelLayer._handle_event: "00676a887c456cec",
    tunnel.TunnelLayer._handle_command: "11ede598b3b37965",
    tunnel.TunnelLayer.event_to_child: "119a33642637d420",
    tls.ClientTLSLayer.receive_handshake_data: "a0ee021f92f6d0ff",
    tls.TLSLayer.send_data: "35a29a1b0b0cb184",
    tls.TLSLayer.send_close: "d9b1161f42db9992",
    http.HttpStream.state_consume_request_body: "45459c1bbd8bdb1a",
    clientplayback.ReplayHandler.__init__: "3830fad55fab2d87",
    clientplayback.ReplayHandler.handle_hook: "c36485d27984d431",
    addonmanager.AddonManager._iter_hooks: "350b419ab7284091",
    addonmanager.AddonManager.handle_lifecycle: "38c97e792d1db5b7",
    addonmanager.AddonManager.trigger_event: "b763c59bc4992e33",
    addonmanager.safecall: "f2052c18340e99b0",
    flow.Flow.kill: "f5f3dc0e1a2a7f92",
    flow.Flow.wait_for_resume: "a333ab3b51300b44",
}
"""Of the functions of mitmproxy that ours rest on."""


@pytest.mark.parametrize("function", DIGESTS, ids=[one.__qualname__ for one in DIGESTS])
def test_mitmproxys_code_is_the_one_that_was_read(function) -> None:
    source = inspect.getsource(function).encode()

    assert hashlib.sha256(source).hexdigest()[:16] == DIGESTS[function]
