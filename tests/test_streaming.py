"""What passes between a client and a worker while neither has finished; and what breaks off."""

import itertools
import json
import time
import zlib
from contextlib import ExitStack, contextmanager

import pytest

from tests import processes
from tests.faulty_behaviours import PIECE, SECRET
from tests.targets import FIRST_BYTE_MS, NAMES, our_proxy
from tests.websocket_client import WebSocket, checksum
from tests.wire import BrokenError, Client, SilentError, ask, flood, growth

pytestmark = pytest.mark.integration

MEGABYTE = 1_000_000
GIGABYTE = 1_000 * MEGABYTE
BIG_STREAM = 200 * MEGABYTE
"""Ten times the memory that may be used for it; a whole gigabyte is for the soak tests."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    with our_proxy(tmp_path_factory.mktemp("proxy")) as started:
        yield started


@pytest.fixture
def port(ours):
    return ours.proxy.port


@pytest.fixture
def client(port):
    with Client(port) as connection:
        yield connection


def request(target: str, *fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: load.test", *fields]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def leaks(text: str) -> list[str]:
    """What an error page must not tell."""
    return [word for word in (SECRET, "127.0.0.1", "Traceback", "mitmproxy") if word in text]


# Parts of messages that few send


def test_trailers_of_an_answer_reach_the_client(client) -> None:
    client.send(request("/do/trailers", "TE: trailers", "Connection: close"))

    answer = client.rest(1).decode()

    assert answer.startswith("HTTP/1.1 200 ")
    last_chunk = answer.rpartition("\r\n0\r\n")[2].lower()
    assert last_chunk == "x-checksum: 0\r\nx-last: yes\r\n\r\n"


def test_trailers_of_a_request_reach_the_worker(port) -> None:
    head = request("/users", "Transfer-Encoding: chunked", "Trailer: X-Checksum", method="POST")

    answer = ask(port, head + b"5\r\nhello\r\n0\r\nX-Checksum: 42\r\n\r\n", seconds=1)

    seen = json.loads(answer.body)
    assert (answer.status, seen["bytes"]) == (200, 5)
    assert seen["trailers"] == {"x-checksum": "42"}


def test_early_hints_come_before_the_answer(client) -> None:
    client.send(request("/do/early-hints?gap_ms=500"))

    first = client.socket.recv(65_536)
    hinted_after = time.monotonic() - client.began
    client.unread = first
    answer = client.answer()

    assert first.startswith(b"HTTP/1.1 103 ")
    assert b"rel=preload" in first
    assert hinted_after < 0.4
    assert (answer.interim, answer.status) == ([103], 200)
    assert answer.seconds < 1


def test_a_client_that_waits_to_be_told_to_continue_is_told_so(client) -> None:
    client.send(request("/users", "Content-Length: 5", "Expect: 100-continue", method="POST"))
    told = client.socket.recv(65_536)
    client.send(b"hello")
    answer = client.answer(seconds=1)

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert json.loads(answer.body)["bytes"] == 5


def test_an_answer_whose_head_comes_byte_by_byte_arrives_whole(port) -> None:
    answer = ask(port, request("/do/slow-head"))

    assert answer.status == 200
    assert json.loads(answer.body)["worker"] in NAMES
    assert answer.seconds < 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("behaviour", ["cut-head", "garbage"])
def test_half_a_head_or_none_is_a_clean_502(port, behaviour, method) -> None:
    answer = ask(port, request(f"/do/{behaviour}", "Content-Length: 0", method=method))

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "bad_gateway")
    assert leaks(answer.text) == []
    assert answer.seconds < 1
    assert not answer.last


def test_a_head_that_never_ends_is_a_clean_504(port) -> None:
    answer = ask(port, request("/do/stalled-head", "Content-Length: 0", method="POST"))

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (504, "gateway_timeout")
    assert leaks(answer.text) == []
    assert answer.seconds == pytest.approx(FIRST_BYTE_MS / 1000, abs=0.2)


@pytest.mark.parametrize("behaviour", ["cut-length", "cut-chunks", "bad-chunks"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_breaks_off_is_not_taken_for_whole(client, behaviour, method) -> None:
    client.send(request(f"/do/{behaviour}?ms=100", "Content-Length: 0", method=method))

    assert what_comes(client) in {"closed", "502"}


def what_comes(client: Client) -> str:
    """The status of a whole answer, or how the connection ended without one."""
    try:
        answer = client.answer(seconds=1)
    except SilentError:
        return "silence"
    except BrokenError:
        return "closed"
    assert leaks(answer.text) == []
    return str(answer.status)


def test_a_stray_second_answer_is_nobodys(client) -> None:
    for index in range(12):
        client.send(request("/do/surplus", f"X-Load-Id: stray-{index}"))
        answer = client.answer()

        assert (answer.status, json.loads(answer.body)["id"]) == (200, f"stray-{index}")


def test_an_answer_before_the_end_of_the_body_reaches_the_client(client) -> None:
    client.send(request("/do/early", "Content-Length: 50000000", method="PUT") + PIECE)

    answer = client.answer("PUT", seconds=1)

    assert (answer.status, answer.fields["x-worker"] in NAMES) == (413, True)


# Upgrades


def test_a_websocket_is_routed_and_carries_messages_both_ways(ours) -> None:
    with WebSocket(ours.proxy.port, "/do/websocket") as opened:
        opened.send("hello")
        opened.send(PIECE)
        said = [opened.message(), opened.message()]
        reason = opened.close()

    assert said == ["hello", PIECE]
    assert reason == checksum([b"hello", PIECE])
    assert opened.fields["x-worker"] in NAMES
    assert opened.fields["x-slb-label"] == "general"


def test_websockets_go_to_different_workers(port) -> None:
    with ExitStack() as opened:
        sockets = [opened.enter_context(WebSocket(port, "/do/websocket")) for _ in NAMES]
        workers = {socket.fields["x-worker"] for socket in sockets}

    assert workers == set(NAMES)


@pytest.mark.parametrize("protocol", ["h2c", "H2C", "h2c, x", "x, H2c", "TLS/1.0", "raw"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_upgrade_to_anything_else_is_no_tunnel(ours, client, protocol, method) -> None:
    fields = [
        f"Upgrade: {protocol}",
        "Connection: Upgrade, HTTP2-Settings",
        "HTTP2-Settings: AAMAAAB",
    ]
    client.send(request("/do/switch", *fields, "Content-Length: 0", method=method))
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    received = client.rest()

    assert b" 101 " not in received
    assert b"tunnelled" not in received
    assert [w.name for w in ours.target.workers if w.entries("tunnelled")] == []
    heads = "".join(entry.target for w in ours.target.workers for entry in w.entries("tunnelled"))
    assert "PRI" not in heads


def test_a_worker_that_switches_unasked_is_a_clean_502(port) -> None:
    answer = ask(port, request("/do/switch"))

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "bad_gateway")


# Streams


def test_each_event_of_a_stream_arrives_as_soon_as_the_worker_sends_it(client) -> None:
    client.send(request("/do/sse?events=10&gap_ms=50"))
    delays, unread = [], b""
    while len(delays) < 10:
        unread += client.socket.recv(65_536)
        now = time.monotonic()
        while b"data: " in unread and b"\n\n" in unread.partition(b"data: ")[2]:
            event, _, unread = unread.partition(b"data: ")[2].partition(b"\n\n")
            delays.append(now - float(event))

    print(f"delays of events: median {sorted(delays)[5]:.4f}, most {max(delays):.4f} s")
    assert max(delays) < 0.05


def receive(port: int, target: str) -> tuple[int, float]:
    """How many bytes came of an answer that ends with its connection, and in how many seconds."""
    buffer, total = bytearray(MEGABYTE), 0
    with Client(port, timeout=10) as client:
        client.send(request(target, "Connection: close"))
        while size := client.socket.recv_into(buffer):
            total += size
        return total, time.monotonic() - client.began


def upload(port: int, size: int, *, chunked: bool) -> tuple[dict, float]:
    """What the worker says of a body of this size, and in how many seconds it took it."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    frame = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    with Client(port, timeout=30) as client:
        client.send(request("/blobs/1", framing, method="PUT"))
        began = time.monotonic()
        for _ in range(size // len(PIECE)):
            client.socket.sendall(frame)
        client.socket.sendall(b"0\r\n\r\n" if chunked else b"")
        answer = client.answer("PUT", 30)
        return json.loads(answer.body), time.monotonic() - began


def rounded(size: int) -> int:
    """The nearest whole number of pieces."""
    return size // len(PIECE) * len(PIECE)


SIZES = [
    pytest.param(BIG_STREAM, id="big"),
    pytest.param(GIGABYTE, marks=[pytest.mark.soak, pytest.mark.slow], id="gigabyte"),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_long_answer_takes_no_memory(ours, framing, size) -> None:
    with growth(ours.target.pid) as grown:
        total, took = receive(ours.proxy.port, f"/do/stream?bytes={size}&framing={framing}")

        print(f"{framing}: {size / took / MEGABYTE:.0f} MB/s, memory +{grown():.1f} MB")
        assert total > size
        assert grown() < 20


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_long_body_takes_no_memory_and_arrives_whole(ours, chunked, size) -> None:
    size = rounded(size)
    with growth(ours.target.pid) as grown:
        seen, took = upload(ours.proxy.port, size, chunked=chunked)

        print(f"chunked={chunked}: {size / took / MEGABYTE:.0f} MB/s, memory +{grown():.1f} MB")
        assert seen["bytes"] == size
        assert seen["crc"] == crc_of_pieces(size // len(PIECE))
        assert grown() < 20


def crc_of_pieces(count: int) -> int:
    crc = 0
    for _ in range(count):
        crc = zlib.crc32(PIECE, crc)
    return crc


@pytest.mark.parametrize("chunked", [False, True])
def test_a_worker_that_stops_reading_stops_the_client_and_fills_no_memory(ours, chunked) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {GIGABYTE}"
    frame = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    body = itertools.chain([request("/blobs/1", framing, method="PUT")], itertools.repeat(frame))
    with growth(ours.target.pid) as grown, frozen(ours.target.workers):
        flooded = flood(ours.proxy.port, body, seconds=1.0)

        print(
            f"chunked={chunked}: {flooded.sent / MEGABYTE:.0f} MB taken, memory +{grown():.1f} MB"
        )
        assert not flooded.closed
        assert grown() < 20


@contextmanager
def frozen(workers):
    for worker in workers:
        worker.freeze()
    try:
        yield
    finally:
        for worker in workers:
            worker.thaw()


def test_a_client_that_stops_reading_fills_no_memory(ours, client) -> None:
    with growth(ours.target.pid) as grown:
        client.send(request(f"/do/stream?bytes={GIGABYTE}"))
        client.socket.recv(1000)
        time.sleep(1.0)  # nothing can be seen of a stream that stands still

        assert grown() < 20


def test_a_websocket_whose_client_only_writes_fills_no_memory(ours) -> None:
    with growth(ours.target.pid) as grown, WebSocket(ours.proxy.port, "/do/websocket") as opened:
        with pytest.raises(TimeoutError):
            opened.send_until_blocked(PIECE)

        assert grown() < 20


def noticed_after(ours, target: str) -> float:
    """Seconds from now until a worker notes that the other side of this request has gone."""
    left = time.monotonic()
    assert processes.until(lambda: noted(ours, "aborted", target), 5)
    return time.monotonic() - left


def noted(ours, event: str, target: str) -> bool:
    workers = ours.target.workers
    return any(entry.target == target for worker in workers for entry in worker.entries(event))


@pytest.mark.parametrize("behaviour", ["silence", "sse?events=1000", f"stream?bytes={GIGABYTE}"])
def test_a_worker_learns_within_a_second_that_the_client_has_left(ours, behaviour) -> None:
    target = f"/do/{behaviour}"
    with Client(ours.proxy.port) as client:
        client.send(request(target))
        if behaviour != "silence":
            client.socket.recv(1000)
        assert processes.until(lambda: noted(ours, "request", target), 5)

    seconds = noticed_after(ours, target)

    print(f"{target}: seen after {seconds:.3f} s")
    assert seconds < 1.0


def test_a_worker_learns_that_the_client_has_left_a_websocket(ours) -> None:
    target = "/do/websocket?left"
    with WebSocket(ours.proxy.port, target) as websocket:
        websocket.send("hello")
        assert websocket.message() == "hello"

    assert noticed_after(ours, target) < 1.0


def test_a_worker_learns_that_the_client_has_left_amid_its_body(ours) -> None:
    target = "/blobs/left"
    with Client(ours.proxy.port) as client:
        client.send(request(target, f"Content-Length: {GIGABYTE}", method="PUT"))
        for _ in range(100):
            client.socket.sendall(PIECE)

    assert noticed_after(ours, target) < 1.0
