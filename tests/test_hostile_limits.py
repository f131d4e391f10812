"""Limits: what is too large, too many or too slow is turned away, and nobody else notices."""

import bz2
import hashlib
import math
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache

import brotli
import pytest
import zstandard

from tests import processes, wire
from tests.hostile import is_honest
from tests.hostile import site as hostile_site

pytestmark = pytest.mark.integration

MEGABYTE = 1 << 20
HEAD = b"GET /row HTTP/1.1\r\nHost: x\r\n"
GET = HEAD + b"\r\n"
POST = b"POST /row HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

NOISY_MS = 15
"""A machine on which undisturbed requests wait this long says little about 50 ms: it gets more."""


TRIES = 3


def bound(baseline: wire.Probe, milliseconds: float) -> float:
    """How long others may wait at most."""
    noise = baseline.percentile(0.99)
    return milliseconds if noise < NOISY_MS else milliseconds + 2 * noise


def quietest(measure: Callable[[], wire.Probe], limit: float) -> wire.Probe:
    """The first of a few measurements that holds the limit, or the last one.

    What an attack does to others it does each time; what else this machine is busy with is not.
    """
    for _ in range(TRIES - 1):
        probe = measure()
        if probe.percentile(0.99) < limit:
            return probe
    return measure()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with hostile_site(tmp_path_factory.mktemp("limits")) as site:
        wire.probe_for(site.port, 0.5)
        yield site


@pytest.fixture(scope="module")
def baseline(site):
    return wire.probe_for(site.port, 1.5)


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "header of 64 MB": lambda: wire.repeated(b"b" * 1_000, 64 * MEGABYTE, HEAD + b"A: "),
    "64 MB of headers": lambda: wire.repeated(b"A: b\r\n", 64 * MEGABYTE, HEAD),
    "10,000 headers": lambda: iter([HEAD + b"A: b\r\n" * 10_000 + b"\r\n"]),
    "468 KB of folds": lambda: iter([HEAD + b"A: b" + b"\r\n c" * 117_000 + b"\r\n\r\n"]),
    "header name of 64 MB": lambda: wire.repeated(b"b" * 1_000, 64 * MEGABYTE, HEAD),
    "target of 64 MB": lambda: wire.repeated(b"b" * 1_000, 64 * MEGABYTE, b"GET /"),
    "method of 64 MB": lambda: wire.repeated(b"A" * 1_000, 64 * MEGABYTE),
    "64 MB of line ends": lambda: wire.repeated(b"\r\n", 64 * MEGABYTE),
    "64 MB of spaces": lambda: wire.repeated(b" " * 1_000, 64 * MEGABYTE, b"GET "),
    "chunk extension of 64 MB": lambda: wire.repeated(b"a" * 1_000, 64 * MEGABYTE, CHUNKED + b"5;"),
    "64 MB of trailers": lambda: wire.repeated(b"A: b\r\n", 64 * MEGABYTE, CHUNKED + b"0\r\n"),
    "trailer of 64 MB": lambda: wire.repeated(b"b" * 1_000, 64 * MEGABYTE, CHUNKED + b"0\r\nA: "),
}
PIPELINES: dict[str, Callable[[], Iterator[bytes]]] = {
    "200 MB behind a slow request": lambda: wire.repeated(
        GET, 200 * MEGABYTE, b"GET /row?wait=5 HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
    "200 MB of requests": lambda: wire.repeated(GET, 200 * MEGABYTE),
    "200 MB of nonsense behind a slow request": lambda: wire.repeated(
        b"x" * 1_000, 200 * MEGABYTE, b"GET /row?wait=5 HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", [*FLOODS, *PIPELINES])
def test_a_flood_is_refused_at_once_and_no_other_client_notices(site, baseline, name) -> None:
    pieces = {**FLOODS, **PIPELINES}[name]
    floods = [wire.flood(site.port, pieces())]

    def again() -> None:
        floods.append(wire.flood(site.port, pieces()))
        time.sleep(0.05)

    with wire.growth(site.pid) as grown:
        probe = quietest(lambda: wire.probe_for(site.port, 1, again), bound(baseline, 50))

    slowest = max(flood.seconds for flood in floods)
    print(
        f"\n{name}: {len(floods)} floods, refused within {slowest * 1000:.0f} ms, "
        f"memory +{grown():.1f} MB; {probe}; without: {baseline}"
    )
    assert all(flood.closed for flood in floods)
    assert slowest < 1
    if name in FLOODS:
        assert {flood.status for flood in floods} <= {400, 413, 431}
    assert grown() < 10
    assert probe.faults == []
    assert probe.percentile(0.99) < bound(baseline, 50)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A site that takes little."""
    limits = {
        "MAX_BODY_BYTES": 100_000,
        "MAX_CONNECTIONS": 8,
        "MAX_CONNECTIONS_PER_CLIENT": 5,
        "HEADER_TIMEOUT_SECONDS": 1,
        "PROGRESS_TIMEOUT_SECONDS": 1,
        "KEEPALIVE_SECONDS": 2,
    }
    with hostile_site(tmp_path_factory.mktemp("small"), **limits) as site:
        yield site


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 100001\r\n\r\n",
        POST + b"Content-Length: 100001\r\n\r\n" + b"x" * 100_001,
        POST + b"Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n",
        POST + b"Content-Length: 99999999999\r\n\r\n",
        CHUNKED + b"186a1\r\n" + b"x" * 100_001,
        CHUNKED + b"fffffffffffffff\r\n",
        CHUNKED + b"1\r\nx\r\n" * 100_001,
    ],
)
def test_a_body_over_the_limit_is_refused_and_reaches_no_worker(small, request_) -> None:
    before = len(small.worker.requests)

    answer = wire.ask(small.port, request_)

    assert (answer.status, answer.interim) == (413, [])
    assert answer.seconds < 1
    assert is_honest(answer)
    assert len(small.worker.requests) == before


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
        CHUNKED + b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n",
    ],
)
def test_a_body_of_the_limit_passes(small, request_) -> None:
    assert wire.ask(small.port, request_).status == 200
    assert small.worker.requests[-1].body == b"x" * 100_000


def test_one_client_may_have_so_many_connections_and_not_more(small) -> None:
    clients = [wire.Client(small.port, source="127.0.0.2") for _ in range(5)]
    for client in clients:
        client.send(GET)
        assert client.answer().status == 200

    refused = first_answer(small.port, "127.0.0.2")

    assert refused.status == 503
    assert refused.fields["retry-after"] == "1"
    assert refused.last
    assert is_honest(refused)
    assert is_served(small.port, "127.0.0.3")
    clients[0].socket.close()
    assert processes.until(lambda: is_served(small.port, "127.0.0.2"), 5)
    for client in clients:
        client.socket.close()


def first_answer(port: int, source: str) -> wire.Answer:
    """What a new client from this address is told."""
    with wire.Client(port, source=source) as client:
        client.send(HEAD + b"Connection: close\r\n\r\n")
        return client.answer()


def is_served(port: int, source: str) -> bool:
    """Whether a new client from this address is served."""
    return first_answer(port, source).status == 200


def test_all_together_may_have_so_many_connections_and_not_more(small) -> None:
    assert processes.until(lambda: is_served(small.port, "127.0.0.9"), 5)
    clients = [wire.Client(small.port, source=f"127.0.0.{10 + number}") for number in range(8)]
    for client in clients:
        client.send(GET)
        assert client.answer().status == 200

    refused = first_answer(small.port, "127.0.0.50")

    assert refused.status == 503
    assert is_honest(refused)
    for client in clients:
        client.socket.close()
    assert processes.until(lambda: is_served(small.port, "127.0.0.50"), 5)


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (b"GET / HT", 408),
        (HEAD + b"A: b\r\n", 408),
        (POST + b"Content-Length: 10\r\n\r\n12345", 408),
        (CHUNKED + b"5\r\n123", 408),
    ],
)
def test_a_request_that_does_not_come_is_not_waited_for(small, begin, status) -> None:
    with wire.Client(small.port, source="127.0.0.60") as client:
        client.send(begin)
        answer = client.answer()

    assert answer.status == status
    assert 0.8 < answer.seconds < 2.5
    assert answer.last
    assert is_honest(answer)


def test_a_request_that_trickles_is_not_waited_for(small) -> None:
    began = time.monotonic()
    with wire.Client(small.port, source="127.0.0.61") as client:
        client.send(HEAD + b"A: ")
        while time.monotonic() - began < 5 and not client.readable(0.2):
            client.socket.sendall(b"b")
        assert client.answer().status == 408

    assert time.monotonic() - began < 2.5


@pytest.mark.parametrize("begin", [b"", GET])
def test_a_client_that_says_nothing_is_let_go(small, begin) -> None:
    with wire.Client(small.port, source="127.0.0.62") as client:
        client.send(begin)
        if begin:
            assert client.answer().status == 200
        client.rest(4)

        assert time.monotonic() - client.began < 3.5


def open_connections(port: int) -> int:
    """Sockets of a server that its kernel still keeps anything for.

    Closed is a connection for which nothing is left to be sent, either: a client that does not read
    would otherwise hold on to the kernel's memory instead of the server's.
    """
    open_states = {"01", "04"}  # ESTABLISHED, FIN_WAIT1
    return sum(
        one.local.endswith(f":{port:04X}") and one.state in open_states
        for one in wire.tcp_sockets()
    )


@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
def test_a_client_that_does_not_read_is_let_go(small, size) -> None:
    request = f"GET /row?size={size} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    before = open_connections(small.port)
    with wire.Client(small.port, source="127.0.0.63", buffer_bytes=4_096) as client:
        client.send(request)

        assert processes.until(lambda: open_connections(small.port) > before, 1)
        assert processes.until(lambda: open_connections(small.port) <= before, 3)
        assert time.monotonic() - client.began > 0.8


# Bombs

ZEROS = bytes(16 * MEGABYTE)
BOMB_BLOCKS = 32
UNCACHED = "/probes/{number}"
"""Others have to be labelled, too, while a bomb may keep the classifier busy."""


def bomb(encoder) -> bytes:
    """512 MB of zeros, compressed."""
    press = getattr(encoder, "compress", None) or encoder.process
    end = getattr(encoder, "flush", None) if hasattr(encoder, "compress") else encoder.finish
    return b"".join([*(press(ZEROS) for _ in range(BOMB_BLOCKS)), end()])


TEXT_BOMBS = {
    "punycode": ("text/plain; charset=punycode", b"a-" * 400_000),
    "nested JSON": ("application/json", b"[" * 60_000),
    "nested JSON objects": ("application/json", b'{"a":' * 60_000),
    "JSON number": ("application/json", b'{"a":' + b"9" * 60_000 + b"}"),
    "JSON exponent": ("application/json", b'{"limit": 1e999999999}'),
    "nested GraphQL": ("application/graphql", b"{a" * 30_000),
    "nested SQL": ("application/json", b'{"sql":"SELECT ' + b"(" * 60_000 + b'"}'),
    "form fields": ("application/x-www-form-urlencoded", b"a=%61&" * 10_000),
    "XML entities": ("application/xml", b'<!DOCTYPE a [<!ENTITY a "b">' + b"&a;" * 20_000),
    "parts": ("multipart/form-data; boundary=a", b"--a\r\n\r\n\r\n" * 6_000),
}


@cache
def bomb_of(kind: str) -> tuple[bytes, bytes]:
    """Header lines and body of a request that grows when it is decoded."""
    if kind in TEXT_BOMBS:
        content_type, body = TEXT_BOMBS[kind]
        return f"Content-Type: {content_type}\r\n".encode(), body
    encoders = {
        "gzip": lambda: zlib.compressobj(6, zlib.DEFLATED, 31),
        "deflate": lambda: zlib.compressobj(6),
        "bz2": lambda: bz2.BZ2Compressor(9),
        "br": lambda: brotli.Compressor(quality=5),
        "zstd": lambda: zstandard.ZstdCompressor(3).compressobj(),
    }
    head = f"Content-Type: application/json\r\nContent-Encoding: {kind}\r\n"
    return head.encode(), bomb(encoders[kind]())


@pytest.fixture(scope="module")
def decoding(tmp_path_factory):
    """A site with the real classifier, which looks at bodies."""
    folder = tmp_path_factory.mktemp("bombs")
    port = processes.free_port()
    with (
        processes.classifier(folder, port) as classifier,
        hostile_site(folder, classifier_url=f"http://127.0.0.1:{port}") as site,
    ):
        wire.probe_for(site.port, 0.5)
        yield site, wire.probe_for(site.port, 1, path=UNCACHED), classifier.process.pid


@pytest.mark.parametrize("kind", ["gzip", "deflate", "bz2", "br", "zstd", *TEXT_BOMBS])
def test_a_bomb_passes_unopened(decoding, kind) -> None:
    site, baseline, classifier_pid = decoding
    head, body = bomb_of(kind)
    request = POST + head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    statuses = [wire.ask(site.port, request).status]

    def drop() -> None:
        statuses.append(wire.ask(site.port, request).status)
        time.sleep(0.05)

    with wire.growth(site.pid) as grown, wire.growth(classifier_pid) as classifier_grown:
        probe = quietest(
            lambda: wire.probe_for(site.port, 1, drop, path=UNCACHED), bound(baseline, 100)
        )

    print(
        f"\n{kind}, {len(body)} bytes, {len(statuses)} times: memory +{grown():.1f} MB, "
        f"classifier's +{classifier_grown():.1f} MB; {probe}; without: {baseline}"
    )
    assert set(statuses) == {200}
    arrived = [seen for seen in site.worker.requests if seen.method == b"POST"]
    assert {hashlib.sha256(seen.body).digest() for seen in arrived[-len(statuses) :]} == {
        hashlib.sha256(body).digest()
    }
    assert grown() < 20
    assert classifier_grown() < 20
    assert probe.faults == []
    assert probe.percentile(0.99) < bound(baseline, 100)


# Very many slow clients, by a program that is made for it

SLOW_CONNECTIONS = 800
SLOW_SECONDS = 12


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.skipif(shutil.which("slowhttptest") is None, reason="no slowhttptest here")
@pytest.mark.parametrize(
    ("mode", "flags"),
    [
        ("slow heads", ["-H", "-i", "3", "-x", "24"]),
        ("slow bodies", ["-B", "-i", "3", "-x", "24", "-s", "100000"]),
        ("slow reading", ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"]),
    ],
)
def test_slow_clients_are_closed_and_others_served(site, tmp_path, mode, flags) -> None:
    # The worker has to keep up: what it does not answer is no answer that waits to be read.
    url = f"http://127.0.0.1:{site.port}/row?size=100000"
    command = ["slowhttptest", *flags, "-c", str(SLOW_CONNECTIONS), "-r", "250", "-p", "3"]
    command += ["-l", "20", "-u", url]
    counts = []

    with wire.growth(site.pid) as grown, wire.Probe(site.port, pause=0.05) as probe:
        began = time.monotonic()
        with (tmp_path / "slow.log").open("wb") as log:
            attack = subprocess.Popen(command, stdout=log, stderr=log)
        while attack.poll() is None and time.monotonic() - began < 30:
            counts.append((time.monotonic() - began, open_connections(site.port)))
            time.sleep(0.2)
        # It ends when all its connections are closed.
        counts.append((time.monotonic() - began, open_connections(site.port)))
        attack.kill()
        attack.wait()

    all_open = next(at for at, count in counts if count >= SLOW_CONNECTIONS)
    # The probe's own connection stays.
    all_closed = next((at for at, count in counts if at > all_open and count < 3), math.inf)
    print(
        f"\n{mode}: all open after {all_open:.1f} s, all closed after {all_closed:.1f} s; "
        f"memory +{grown():.0f} MB; {probe}"
    )
    assert all_closed - all_open <= SLOW_SECONDS, counts
    # Not before their time, either: a slow client may be an honest one.
    assert all_closed - all_open > 5
    assert probe.faults == []
    assert len(probe.seconds) > 50
