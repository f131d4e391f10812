"""The whole product: real proxy, classifier and workers; what clients and workers see."""

import asyncio
import hashlib
import itertools
import json
import os
import socket
import time
import zlib
from collections import Counter
from contextlib import contextmanager

import httpx
import pytest

from tests import processes, recorded
from tests.processes import LABELS

pytestmark = pytest.mark.integration

# Written by the proxy, or hop-by-hop: between the client and the proxy alone.
ROUTING_HEADERS = {"x-route-label", "x-route-confidence", "x-route-source"}
FORWARDING_HEADERS = {
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
}
HOP_BY_HOP = {"connection", "te", "keep-alive"}
TEN_MEGABYTES = 10_485_760


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    # A generous deadline: here the labels are looked at, not how soon they come.
    folder = tmp_path_factory.mktemp("stack")
    with processes.stack(folder, workers_per_pool=2, CLASSIFY_TIMEOUT_MS=10_000) as started:
        yield started


@pytest.fixture(scope="module")
def client(stack):
    with httpx.Client(base_url=stack.proxy.url, timeout=20, trust_env=False) as http:
        yield http


def raw(url: str, request: bytes) -> bytes:
    """Send bytes as they are; return all that comes back until the server closes."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


async def send(client, row):
    return await client.request(
        row["method"],
        "/",
        content=recorded.body_of(row),
        headers=[*row["headers"].items(), ("x-canary", row["id"])],
        extensions={"target": row["path"].encode()},
    )


def arrived_whole(row, response) -> bool:
    """Whether the worker saw this very request, apart from the routing headers."""
    if row["method"] == "HEAD":
        return response.content == b""
    if row["path"] == "/health":
        # The demo worker's own page, at which it does not tell what it got.
        return response.json()["status"] == "ok"
    seen = response.json()
    added = ROUTING_HEADERS | FORWARDING_HEADERS
    headers = [(name, value) for name, value in seen["headers"] if name not in added]
    body = recorded.body_of(row)
    return (
        # The worker's server does not tell an empty query string from none.
        (seen["method"], seen["path"]) == (row["method"], row["path"].removesuffix("?"))
        and (seen["body_bytes"], seen["body_sha256"])
        == (len(body), hashlib.sha256(body).hexdigest())
        and [tuple(header) for header in headers] == sent_headers(response.request)
    )


def sent_headers(request: httpx.Request) -> list[tuple[str, str]]:
    sent = ((name.decode().lower(), value.decode()) for name, value in request.headers.raw)
    return [(name, value) for name, value in sent if name not in HOP_BY_HOP]


async def test_every_recorded_request_arrives_whole_at_a_worker_of_its_label(stack) -> None:
    rows = recorded.rows()
    slots = asyncio.Semaphore(16)

    async with httpx.AsyncClient(base_url=stack.proxy.url, timeout=30, trust_env=False) as client:

        async def one(row):
            async with slots:
                return row, await send(client, row)

        answers = await asyncio.gather(*(one(row) for row in rows))

    for row, response in answers:
        assert response.status_code == 200, row["id"]
        label = response.headers["x-slb-label"]
        assert response.headers["x-worker-type"] == label, row["id"]
        assert response.headers["x-slb-source"] == "local", row["id"]
        assert arrived_whole(row, response), row["id"]
    assert set(Counter(response.headers["x-slb-label"] for _, response in answers)) == set(LABELS)


def test_workers_of_a_pool_are_served_in_turn(client) -> None:
    names = [client.get("/health").headers["x-worker-name"] for _ in range(10)]

    assert len(set(names)) == 2
    assert all(one != other for one, other in itertools.pairwise(names))


@pytest.mark.parametrize(
    ("label", "method", "path", "body"),
    [
        ("fast-path", "GET", "/version", None),
        ("fast-path", "POST", "/graphql", {"query": "{ user(id: 1) { name } }"}),
        ("fast-path", "POST", "/query", {"sql": "SELECT name FROM users WHERE id = 7"}),
        ("general", "POST", "/users", {"name": "x", "email": "user@example.com"}),
        ("general", "DELETE", "/users/7", None),
        (
            "high-compute",
            "POST",
            "/query",
            {"sql": "SELECT region, SUM(total), AVG(total) FROM orders GROUP BY region"},
        ),
        (
            "high-compute",
            "POST",
            "/v1/chat/completions",
            {"model": "m", "messages": [{"role": "user", "content": "Write a story"}]},
        ),
    ],
)
def test_the_meaning_of_a_request_chooses_the_pool(client, label, method, path, body) -> None:
    response = client.request(method, path, json=body)

    assert response.headers["x-slb-label"] == label
    assert response.headers["x-worker-type"] == label
    if method != "HEAD":
        assert response.json()["route_label"] == label


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "FROBNICATE"]
)
def test_any_method_is_routed(client, method) -> None:
    response = client.request(method, "/anything/7")

    assert response.status_code == 200
    assert response.headers["x-worker-type"] in LABELS


@pytest.mark.parametrize("size", [0, 1, 70_000, TEN_MEGABYTES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_binary_body_of_any_size_arrives_whole(client, size, chunked) -> None:
    body = os.urandom(size)
    parts = (body[start : start + 65_536] for start in range(0, size, 65_536))
    headers = {"content-type": "application/octet-stream"}

    response = client.post("/upload", content=parts if chunked else body, headers=headers)

    seen = response.json()
    assert (seen["body_bytes"], seen["body_sha256"]) == (size, hashlib.sha256(body).hexdigest())


def test_a_compressed_body_arrives_as_it_was_sent(client) -> None:
    body = zlib.compress(b"a" * 10_000_000)

    response = client.post("/x", content=body, headers={"content-encoding": "deflate"})

    assert response.json()["body_sha256"] == hashlib.sha256(body).hexdigest()


def test_a_body_over_the_limit_passes_as_a_stream(tmp_path) -> None:
    with processes.stack(tmp_path, STREAM_BODY_BYTES=100_000) as small:
        body = os.urandom(5_000_000)

        response = httpx.put(f"{small.proxy.url}/blobs/1", content=body, trust_env=False)

        assert response.json()["body_sha256"] == hashlib.sha256(body).hexdigest()
        assert response.headers["x-worker-type"] == response.headers["x-slb-label"]


def test_spoofed_routing_headers_do_not_reach_the_worker(client) -> None:
    response = client.get("/version", headers={"X-Route-Label": "high-compute"})

    seen = [value for name, value in response.json()["headers"] if name == "x-route-label"]
    assert seen == ["fast-path"]


def test_an_absolute_target_goes_to_a_worker_in_origin_form(stack) -> None:
    request = (
        b"GET http://elsewhere.invalid/version HTTP/1.1\r\n"
        b"Host: elsewhere.invalid\r\nConnection: close\r\n\r\n"
    )

    answer = raw(stack.proxy.url, request)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == "/version"


def test_a_client_that_offers_http2_gets_http1_and_its_body_arrives(stack) -> None:
    """mitmproxy's HTTP/2 would forward a body of unknown length as a second request."""
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    with httpx.Client(http2=True, verify=False, trust_env=False) as client:
        url = stack.proxy.url.replace("http:", "https:")
        response = client.post(f"{url}/x", content=iter([smuggled]))

    assert response.http_version == "HTTP/1.1"
    assert response.json()["body_sha256"] == hashlib.sha256(smuggled).hexdigest()
    assert "/smuggled" not in str(stack.proxy.decisions())


def test_two_host_headers_are_not_merged(stack) -> None:
    request = b"GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"

    answer = raw(stack.proxy.url, request)

    assert b"a, b" not in answer


def test_a_client_that_aborts_its_upload_is_not_the_workers_fault(stack) -> None:
    head = b"PUT /blobs/aborted HTTP/1.1\r\nHost: x\r\nContent-Length: 99000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stack.proxy.port), timeout=5) as connection:
        connection.sendall(head + b"x" * 100_000)
        time.sleep(0.5)

    def ended() -> list[dict]:
        return [event for event in stack.proxy.decisions() if "/aborted" in event["path"]]

    assert processes.until(lambda: bool(ended()), 5)
    assert ended()[0]["error"] == "client_disconnected"
    assert stack.proxy.metric("slb_requests_inflight") == 0


def test_connect_is_refused(stack) -> None:
    answer = raw(stack.proxy.url, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")

    assert answer.split(b" ")[1] in {b"400", b"405"}


@contextmanager
def proxy_before(stack, folder, port):
    """Another proxy of the same classifier, with one worker for all pools."""
    classifier_url = f"http://127.0.0.1:{stack.classifier_port}"
    pools = processes.pool_variables({label: [port] for label in LABELS})
    with processes.proxy(folder, CLASSIFIER_URL=classifier_url, **pools) as proxy:
        yield proxy


def test_events_stream_while_the_worker_still_writes(stack, tmp_path) -> None:
    port = processes.free_port()
    with (
        processes.worker(tmp_path, "fast-path", port, "--delay-ms", "1500"),
        proxy_before(stack, tmp_path, port) as proxy,
        httpx.stream("GET", f"{proxy.url}/events?stream=5", timeout=20, trust_env=False) as answer,
    ):
        lines = answer.iter_lines()
        next(line for line in lines if line.startswith("data:"))
        first = time.monotonic()
        rest = [line for line in lines if line.startswith("data:")]

    assert len(rest) == 4
    # The worker spaces its events: had they been held back, all would come at once.
    assert time.monotonic() - first > 0.6


def test_a_dead_worker_is_an_honest_error_that_names_no_address(stack, tmp_path) -> None:
    dead = processes.free_port()
    with proxy_before(stack, tmp_path, dead) as proxy:
        response = httpx.get(f"{proxy.url}/health", trust_env=False)

        tls_url = proxy.url.replace("http:", "https:")
        with httpx.Client(http2=True, verify=False, trust_env=False) as client:
            with_tls = client.get(f"{tls_url}/health")
        for answer in (response, with_tls):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["error"]["code"] == "no_worker"
            assert str(dead) not in answer.text + str(answer.headers)
            assert "mitmproxy" not in (answer.text + str(answer.headers)).lower()
        # The second one perhaps finds the worker known to be down.
        assert proxy.decisions()[-1]["error"] in {"worker_failed", "rejected"}
        sample = 'slb_requests_total{label="fast-path",pool="fast-path",status_class="5xx"}'
        assert proxy.metric(sample) == 2


def test_a_client_that_leaves_frees_the_worker(stack, tmp_path) -> None:
    port = processes.free_port()
    with (
        processes.worker(tmp_path, "general", port, "--delay-ms", "3000"),
        proxy_before(stack, tmp_path, port) as proxy,
    ):
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{proxy.url}/users", timeout=0.5, trust_env=False)

        assert processes.until(lambda: len(proxy.decisions()) == 1, 5)
        assert proxy.decisions()[0]["error"] == "client_disconnected"
        assert proxy.metric("slb_requests_inflight") == 0


def test_the_decision_feed_replays_and_follows(stack, client) -> None:
    decided = client.get("/users/42?token=canary-secret-value").headers["x-slb-decision-id"]

    with httpx.stream("GET", f"{stack.proxy.control}/events", trust_env=False) as feed:
        events = (json.loads(line[5:]) for line in feed.iter_lines() if line.startswith("data:"))
        old = next(event for event in events if event["id"] == decided)
        live_id = client.get("/users/43").headers["x-slb-decision-id"]
        live = next(event for event in events if event["id"] == live_id)

    assert (old["label"], old["status"], old["path"]) == ("fast-path", 200, "/users/42?token=***")
    assert live["worker"] == f"127.0.0.1:{live['worker'].rpartition(':')[2]}"
    assert live["reason"]
    assert 0 <= live["classify_ms"] <= live["total_ms"]


def test_equal_requests_are_answered_from_the_proxys_cache(stack, client) -> None:
    before = stack.proxy.metric('slb_cache_hits_total{layer="exact"}')

    for _ in range(3):
        client.post("/query", json={"sql": "SELECT 'only here'"})

    assert stack.proxy.metric('slb_cache_hits_total{layer="exact"}') == before + 2


def test_no_secret_of_a_request_is_in_log_metrics_or_feed(stack, client) -> None:
    canary = "cAnArY-7f3a9b1c5d-0123456789"
    client.post(
        f"/login?password={canary}",
        json={"password": canary},
        headers={"authorization": f"Bearer {canary}", "cookie": f"session={canary}"},
    )

    shown = [
        stack.proxy.started.output(),
        stack.classifier.output(),
        httpx.get(f"{stack.proxy.control}/metrics", trust_env=False).text,
        httpx.get(f"{stack.proxy.control}/v1/decisions", trust_env=False).text,
    ]
    assert [text for text in shown if canary in text] == []


def test_the_control_port_tells_pools_and_health(stack) -> None:
    pools = httpx.get(f"{stack.proxy.control}/v1/pools", trust_env=False).json()["pools"]

    assert {pool["label"]: len(pool["workers"]) for pool in pools} == dict.fromkeys(LABELS, 2)
    assert httpx.get(f"{stack.proxy.control}/livez", trust_env=False).status_code == 200
    bad = httpx.get(f"{stack.proxy.control}/v1/decisions?limit=all", trust_env=False)
    assert bad.status_code == 400
