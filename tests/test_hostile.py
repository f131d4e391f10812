"""Hostile clients: whatever they send, workers see only plain requests, as many as are served."""

import itertools
import time

import pytest

from tests import processes, wire
from tests.hostile import check
from tests.hostile import site as hostile_site
from tests.malformed import SMUGGLED, TABLE, chunked

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with hostile_site(tmp_path_factory.mktemp("hostile")) as site:
        yield site
        assert "Traceback" not in site.proxy.started.output()
    # Nothing came late, either.
    assert len(site.worker.requests) == site.accepted
    assert site.worker.complaints == []


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_what_parsers_disagree_about_is_refused_or_normalised(site, row) -> None:
    before = len(site.worker.requests)

    check(site, row)

    assert b"/smuggled" not in {seen.target for seen in site.worker.requests[before:]}


def test_over_tls_as_well(site) -> None:
    for row in TABLE:
        check(site, row, tls=True)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /row HTTP/1.1\r\nHost: {canary}\r\n\r\n",
        b"GET http://{canary}/row HTTP/1.1\r\nHost: {canary}\r\n\r\n",
        b"GET http://{canary}/row HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET https://{canary}/row HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x@{canary}/row HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://{canary} HTTP/1.0\r\n\r\n",
        b"GET //{canary}/row HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET @{canary}/row HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET {canary} HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ws://{canary}/row HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT {canary} HTTP/1.1\r\nHost: {canary}\r\n\r\n",
        b"CONNECT {canary} HTTP/1.0\r\n\r\n",
        b"OPTIONS http://{canary} HTTP/1.1\r\nHost: {canary}\r\n\r\n",
        b"GET /row HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: {canary}\r\n"
        b"Forwarded: host={canary}\r\nX-Original-URL: http://{canary}/\r\nX-Rewrite-URL: http://{canary}/\r\n\r\n",
        b"GET /row HTTP/1.1\r\nHost: {canary}\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
@pytest.mark.parametrize("tls", [False, True])
def test_an_address_that_is_no_worker_is_never_contacted(site, request_, tls) -> None:
    with wire.untouched() as visits:
        request_ = request_.replace(b"{canary}", visits[0].encode())
        answers = site.converse(request_, tls=tls)

    assert visits[1:] == []
    assert {answer.status for answer in answers} <= {200, 400, 405}


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: mitm.it\r\n\r\n",
        b"GET /cert/pem HTTP/1.1\r\nHost: mitm.it\r\n\r\n",
        b"GET http://mitm.it/ HTTP/1.1\r\nHost: mitm.it\r\n\r\n",
    ],
)
def test_mitmproxys_own_pages_are_not_served(site, request_) -> None:
    assert site.served(request_).values(b"host") == [b"mitm.it"]


def test_an_absolute_target_becomes_origin_form_and_its_authority_the_host(site) -> None:
    seen = site.served(b"GET http://b.example:81/row?q=1 HTTP/1.1\r\nHost: a.example\r\n\r\n")

    assert seen.target == b"/row?q=1"
    assert seen.values(b"host") == [b"b.example:81"]


@pytest.mark.parametrize("name", ["X-Route-Label", "x-route-source", "X-ROUTE-CONFIDENCE"])
@pytest.mark.parametrize("connection", ["keep-alive", "X-Route-Label, x-route-source"])
def test_routing_headers_of_clients_are_dropped(site, name, connection) -> None:
    seen = site.served(
        b"GET /row HTTP/1.1\r\nHost: x\r\n%b: high-compute\r\nx-slb-label: spoofed\r\n"
        b"%b: spoofed\r\nConnection: %b\r\n\r\n"
        % (name.encode(), name.encode(), connection.encode())
    )

    assert seen.values(b"x-route-label") == [b"fast-path"]
    assert len(seen.values(b"x-route-source")) == len(seen.values(b"x-route-confidence")) == 1
    assert b"spoofed" not in seen.head
    assert b"high-compute" not in seen.head


def test_routing_headers_in_trailers_are_dropped(site) -> None:
    trailers = b"X-Route-Label: spoofed\r\nx-slb-label: spoofed\r\nContent-Length: 7\r\nHost: y\r\n"
    trailers += b"Authorization: Basic eDp5\r\nX-Checksum: 1\r\n"
    seen = site.served(chunked(b"5\r\n12345\r\n0\r\n" + trailers + b"\r\n"))

    assert seen.body == b"12345"
    assert {name for name, _ in seen.trailers} <= {b"x-checksum"}


def test_hop_by_hop_headers_end_at_the_proxy(site) -> None:
    seen = site.served(
        b"GET /row HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n"
        b"Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: keep-alive\r\n"
        b"Proxy-Authorization: Basic eDp5\r\nX-Public: 2\r\n\r\n"
    )

    # The judge of the worker complains about the well-known ones.
    assert seen.values(b"x-private") == []
    assert seen.values(b"x-public") == [b"2"]


def test_a_client_cannot_have_our_own_headers_dropped(site) -> None:
    names = "Host, Via, X-Forwarded-For, X-Forwarded-Proto, Forwarded, X-Route-Label"
    names += ", Content-Length"
    seen = site.served(
        b"POST /row HTTP/1.1\r\nHost: x\r\nConnection: %b\r\nContent-Length: 5\r\n\r\n12345"
        % names.encode()
    )

    assert seen.body == b"12345"
    for name in names.lower().encode().split(b", "):
        assert len(seen.values(name)) == 1, name


def test_what_an_untrusted_client_says_about_forwarding_is_replaced(site) -> None:
    seen = site.served(
        b"GET /row HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: 6.6.6.6\r\n"
        b"X-Forwarded-Port: 6666\r\n"
        b"Forwarded: for=6.6.6.6\r\nVia: 1.0 before\r\n\r\n"
    )

    assert b"6.6.6.6" not in seen.head
    assert b"6666" not in seen.head
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert seen.values(b"x-forwarded-proto") == [b"http"]
    assert seen.values(b"x-forwarded-host") == [b"a.example"]
    assert seen.values(b"forwarded")[0].startswith(b"for=127.0.0.1")
    via = seen.values(b"via")
    assert len(via) == 1
    assert via[0].startswith(b"1.0 before, 1.1 ")


def test_chunk_extensions_end_at_the_proxy(site) -> None:
    # Long enough for the proxy to send chunks on, instead of a body of a known length.
    chunk = b"10000;canary=extension\r\n" + b"x" * 65_536 + b"\r\n"
    seen = site.served(chunked(chunk * 4 + b"0;canary=extension\r\n\r\n"))

    assert seen.body == b"x" * 262_144
    assert not [raw for raw in site.worker.raw if b"canary=extension" in raw]


def test_the_proxy_does_not_reflect_a_trace(site) -> None:
    answers = site.converse(b"TRACE /row HTTP/1.1\r\nHost: x\r\nCookie: secret=1\r\n\r\n")

    assert answers[0].status in {200, 405, 501}
    assert "secret" not in answers[0].text


def test_an_expectation_is_met_by_the_proxy(site) -> None:
    head = b"POST /row HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with wire.Client(site.port) as client:
        client.send(head % len(SMUGGLED))
        client.socket.settimeout(1)
        assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(SMUGGLED)
        assert client.answer().status == 200

    site.accepted += 1
    assert site.worker.requests[-1].body == SMUGGLED
    assert site.worker.requests[-1].values(b"expect") == []


REQUEST = chunked(b"5;a\r\n12345\r\n0\r\n\r\n")
ENDS = [at for at in range(1, len(REQUEST)) if REQUEST[at - 1 : at + 1] == b"\r\n"]
"""Where a line ends: between CR and LF."""


@pytest.mark.parametrize("around", [-1, 0, 1])
def test_a_request_may_come_in_pieces(site, around) -> None:
    cuts = [0, *(end + around for end in ENDS), len(REQUEST)]
    with wire.Client(site.port) as client:
        # From its first request on, the proxy reads what comes as it comes.
        client.send(REQUEST)
        assert client.answer().status == 200
        for start, end in itertools.pairwise(cuts):
            client.send(REQUEST[start:end])
            assert processes.until(lambda: wire.has_read(client), 1)
        assert client.answer().status == 200

    site.accepted += 2
    assert site.worker.requests[-1].body == b"12345"


def test_a_request_may_come_byte_by_byte(site) -> None:
    with wire.Client(site.port) as client:
        client.send(REQUEST)
        assert client.answer().status == 200
        for byte in REQUEST:
            client.send(bytes([byte]))
            time.sleep(0.001)
        assert client.answer().status == 200

    site.accepted += 2
    assert site.worker.requests[-1].body == b"12345"


def test_many_requests_at_once_are_answered_in_their_order(site) -> None:
    requests = [b"GET /row/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(50)]
    before = len(site.worker.requests)

    answers = site.converse(b"".join(requests))

    assert [answer.status for answer in answers] == [200] * 51
    seen = [request.target for request in site.worker.requests[before:]]
    assert seen == [*(b"/row/%d" % number for number in range(50)), b"/last"]
