"""Secrets of clients are in no log, prompt, metric, feed or error page, whatever they send."""

import json

import h11
import httpx
import pytest

from tests import processes, wire
from tests.hostile import site as hostile_site
from tests.servers import Ollama, serving

pytestmark = pytest.mark.integration

CANARIES = {
    "token": "cAnArY7f3a9b1c5d0123456789",
    "hex": "ca9a4f7f3a9b1c5d0123456789abcdef",
    "key": "sk-canary-4f7f3a9b1c5d0123456789abcd",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOjF9.cAnArY7f3a9b1c5d0123",
    "mail": "canary.7f3a@example.com",
    "card": "4539578763621486",
}


def get(*lines: str, target: str = "/row") -> bytes:
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines])
    return head.encode() + b"\r\n\r\n"


def post(content_type: str, body: str, *lines: str) -> bytes:
    payload = body.encode()
    head = [
        "POST /row HTTP/1.1",
        "Host: x",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(payload)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + payload


def requests_with(secret: str) -> list[bytes]:
    """Requests that hold a secret, well-formed and malformed, in every place that there is."""
    raw = secret.encode()
    chunked = b"POST /row HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [
        *(get(f"{name}: {secret}") for name in ("X-Api-Key", "X-Auth-Token", "Referer", "Cookie")),
        get(f"Authorization: Bearer {secret}"),
        get(f"Authorization: Basic {secret}"),
        get(f"Proxy-Authorization: Bearer {secret}"),
        get(f"Cookie: session={secret}; theme=dark"),
        get(f"Idempotency-Key: {secret}"),
        get(f"X-Route-Label: {secret}", f"x-slb-label: {secret}"),
        get(f"User-Agent: {secret}", f"From: {secret}", f"Via: 1.1 {secret}"),
        get(f"X-Forwarded-For: {secret}", f"Forwarded: for={secret}"),
        get(f"Content-Type: text/{secret}", f"Accept: application/{secret}"),
        get(f"Traceparent: 00-{secret}-01"),
        *(get(target=f"/row?{name}={secret}") for name in ("token", "password", "q", "sig", "id")),
        get(target=f"/row?{secret}"),
        get(target=f"/row?a=b;{secret}#"),
        get(target=f"/reset/{secret}"),
        get(target=f"/users/{secret}/orders"),
        get(target=f"/row;jsessionid={secret}"),
        get(target=f"http://user:{secret}@x/row"),
        get(target=f"http://x/row?token={secret}"),
        get(target=f"/{'a' * 3000}/{secret}"),
        post("application/json", json.dumps({"password": secret, "user": {"token": secret}})),
        post("application/json", json.dumps([secret, {"messages": [{"content": secret}]}])),
        post("application/json", '{"password": "' + secret),
        post("application/json", json.dumps({"query": f'{{ user(token: "{secret}") {{ id }} }}'})),
        post("application/json", json.dumps({"sql": f"SELECT * FROM a WHERE b = '{secret}'"})),
        post("application/json", json.dumps({"jsonrpc": "2.0", "method": "a", "params": [secret]})),
        post("application/x-www-form-urlencoded", f"user=a&password={secret}"),
        post("multipart/form-data; boundary=b", f"--b\r\nA: b\r\n\r\n{secret}\r\n--b--"),
        post("application/xml", f"<a password='{secret}'><token>{secret}</token></a>"),
        post("text/plain", f"my secret is {secret} indeed"),
        post("application/json", json.dumps({"a": secret}), f"Authorization: Bearer {secret}"),
        # From here on, what is refused
        get(f"Authorization : Bearer {secret}"),
        get(f"{secret}"),
        get(f"A: b\x00{secret}"),
        get(f" {secret}"),
        get(f"Expect: {secret}"),
        get(f"Content-Length: {secret}"),
        get(f"Transfer-Encoding: {secret}"),
        get(f"Upgrade: {secret}", "Connection: Upgrade"),
        get(f"Host: {secret}"),
        get(target=f"/{secret} {secret}"),
        get(target=f"{secret}"),
        f"{secret} /row HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET /row HTTP/{secret}\r\nHost: x\r\n\r\n".encode(),
        f"GET /row?token={secret} HTTP/9.9\r\nHost: x\r\n\r\n".encode(),
        f"GET /row HTTP/1.1\r\nHost: {secret} x\r\n\r\n".encode(),
        f"CONNECT {secret}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        f"GET /row?token={secret}\r\n\r\n".encode(),
        b"\x16\x03\x01\x00" + bytes([len(raw)]) + raw,
        b"\x00" + raw + b"\r\n\r\n",
        chunked + b"5;a=" + raw + b"\r\n12345\r\n0\r\nX-Secret: " + raw + b"\r\n\r\n",
        chunked + raw + b"\r\n12345\r\n0\r\n\r\n",
        chunked + b"0\r\n" + raw + b"\r\n\r\n",
        get("A: " + "b" * 50_000 + secret),
        get(*[f"Cookie: {secret}"] * 500),
        # What a worker makes a mess of
        get(f"Authorization: Bearer {secret}", target=f"/broken?token={secret}"),
    ]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """All that clients got and operators can see, after requests full of secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    port, ollama = processes.free_port(), Ollama()
    answers = []
    with (
        serving(ollama.app()) as ollama_url,
        processes.classifier(
            folder, port, OLLAMA_BASE_URL=ollama_url, LOCAL_MIN_CONFIDENCE=1
        ) as classifier,
        hostile_site(
            folder,
            *("--set", "termlog_verbosity=debug"),
            classifier_url=f"http://127.0.0.1:{port}",
            DECISION_HISTORY=10_000,
            CLASSIFY_TIMEOUT_MS=10_000,
        ) as site,
    ):
        for secret in CANARIES.values():
            target = f"/broken?token={secret}".encode()
            site.worker.replies[target] = b"HTTP/1.1 nonsense\r\n\r\n"
            answers += [said(site.port, one) for one in requests_with(secret)]
        answers += [said(site.port, one, tls=True) for one in requests_with(CANARIES["token"])]
        control, service = site.proxy.control, f"http://127.0.0.1:{port}"
        pages = [
            f"{control}/metrics",
            f"{control}/v1/decisions?limit=100000",
            f"{control}/v1/pools",
        ]
        pages += [f"{control}/readyz", f"{service}/metrics", f"{service}/health"]
        texts = {page: httpx.get(page, trust_env=False).text for page in pages}
        decisions = len(site.proxy.decisions())
    assert decisions > 200
    return {
        **texts,
        "proxy's log": site.proxy.started.output(),
        "classifier's log": classifier.output(),
        "prompts": json.dumps(ollama.chats),
        "answers": "\n".join(answers),
    }


def said(port: int, request: bytes, *, tls: bool = False) -> str:
    """What a client is told, head and body; a worker's answer holds no secret either."""
    try:
        with wire.Client(port, tls=tls) as client:
            client.send(request)
            answer = client.answer(seconds=1)
    except (wire.BrokenError, OSError, h11.RemoteProtocolError) as exc:
        return type(exc).__name__
    return f"{answer.status} {answer.text}"


@pytest.mark.parametrize("kind", CANARIES)
def test_no_secret_of_any_request_is_shown_anywhere(shown, kind) -> None:
    secret = CANARIES[kind].lower()

    found = {
        place: text[max(0, text.lower().find(secret) - 200) :][:400]
        for place, text in shown.items()
        if secret in text.lower()
    }

    assert found == {}


def test_what_is_shown_is_not_empty(shown) -> None:
    assert "slb_requests_total" in "".join(shown.values())
    assert "400 " in shown["answers"]
    assert "200 " in shown["answers"]
    assert len(json.loads(shown["prompts"])) > 0
