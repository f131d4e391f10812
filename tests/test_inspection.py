"""Requests as flows: what addons of users see and can change, with real mitmdumps."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from mitmproxy import http
from mitmproxy.io import FlowReader, FlowWriter
from mitmproxy.test import tflow

from tests import loopback, processes
from tests.processes import LABELS, ROOT
from tests.servers import Classifier, serving
from tests.wire import Answer, BrokenError, Client, untouched

pytestmark = pytest.mark.integration

INSPECTOR = ROOT / "tests" / "inspector.py"
ORDER = ["requestheaders", "request", "responseheaders", "response", "error"]
WHOLE = ORDER[:4]
BIG = 100_000
"""Longer bodies are not shown."""


@dataclass
class Seen:
    """A request as the worker got it."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.fields if known.lower() == name]


def answer_of(status: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode() + body


ANSWERS = {
    "length": answer_of("200 OK", "Content-Length: 5", "Content-Type: text/plain", body=b"hello"),
    "chunked": answer_of(
        "200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked",
        body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ),
    "trailers": answer_of(
        "200 OK", "Transfer-Encoding: chunked", "Trailer: X-Sum",
        body=b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "until-close": answer_of("200 OK", body=b"hello"),
    "304": answer_of("304 Not Modified", "Content-Length: 5", "ETag: x"),
    "204": answer_of("204 No Content"),
    "cookies": answer_of(
        "200 OK", "Set-Cookie: a=1", "Content-Length: 5", "Set-Cookie: b=2", body=b"hello"
    ),
    "big": answer_of("200 OK", f"Content-Length: {BIG + 1}", body=b"x" * (BIG + 1)),
    "hang-up": b"",
    "cut": answer_of("200 OK", "Content-Length: 10", body=b"hello"),
    "cut-chunks": answer_of("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"),
}  # fmt: skip
CLOSING = {"until-close", "hang-up", "cut", "cut-chunks"}


@dataclass
class Worker:
    """Answers by the path's name, and keeps what it got."""

    port: int = 0
    requests: list[Seen] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head[:-4].split("\r\n")
            fields = [(name, value) for name, _, value in (one.partition(": ") for one in lines)]
            seen = Seen(line, fields, b"")
            seen.body = await self._body(reader, seen)
            if seen.target != "/health":
                self.requests.append(seen)
            if not await self._answer(writer, seen):
                return

    async def _body(self, reader: asyncio.StreamReader, seen: Seen) -> bytes:
        if seen.values("transfer-encoding") != ["chunked"]:
            return await reader.readexactly(int((seen.values("content-length") or ["0"])[0]))
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
            seen.fields.append(("trailer " + trailer.decode().split(":")[0], "yes"))
        return body

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen) -> bool:
        name = seen.target.partition("?")[0].removeprefix("/")
        if name == "silence":
            await asyncio.sleep(60)
        if name == "endless":
            writer.write(answer_of("200 OK", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n"))
            await asyncio.sleep(60)
        if name == "websocket":
            return await self._switch(writer, seen)
        answer = ANSWERS.get(name, ANSWERS["length"])
        if seen.line.startswith("HEAD"):
            answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        writer.write(answer)
        await writer.drain()
        return name not in CLOSING

    async def _switch(self, writer: asyncio.StreamWriter, seen: Seen) -> bool:
        from wsproto.utilities import generate_accept_token

        token = generate_accept_token(seen.values("sec-websocket-key")[0].encode()).decode()
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {token}")
        writer.write(answer_of("101 Switching Protocols", *upgrade, body=b"\x81\x05hello"))
        await writer.drain()
        return False


@dataclass
class Site:
    """A proxy with a user's addon, before one worker.

    Attributes:
        visits: The canary's address, and whoever contacted it.
    """

    proxy: processes.Proxy
    worker: Worker
    journal: Path
    visits: list[str]
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def target(self, path: str, do: str = "") -> str:
        """A target that no other test asks for."""
        return f"{path}?do={do}&n={next(self.numbers)}"

    def notes(self, target: str, last: str = "") -> list[dict]:
        """What the addon noted of a request, once the `last` hook is among it."""
        found: list[dict] = []

        def is_there() -> bool:
            lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
            found[:] = [line for line in lines if line["target"] == target]
            hooks = {line["hook"] for line in found}
            return last in hooks if last else bool(hooks & {"response", "error"})

        processes.until(is_there, 3)
        return found

    def hooks(self, target: str, last: str = "") -> list[str]:
        return [note["hook"] for note in self.notes(target, last)]

    def seen(self, target: str) -> list[Seen]:
        """What the worker got under this target."""
        return [seen for seen in self.worker.requests if seen.target == target]

    def ask(self, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Answer:
        """Ask, and see that the connection is still in step."""
        with Client(self.proxy.port) as client:
            client.send(request(target, *fields, method=method, body=body))
            answer = client.answer(method)
            if not answer.last:
                client.send(request("/cookies", "Connection: close"))
                after = client.answer()
                assert (after.status, after.body) == (200, b"hello")
            assert client.rest() == b""
        return answer

    def closes_without_an_answer(self, target: str, **parts: str) -> bool:
        with Client(self.proxy.port) as client:
            client.send(request(target, **parts))
            return client.rest() == b""

    def errors_of_workers(self) -> int:
        pools = httpx.get(f"{self.proxy.control}/v1/pools", trust_env=False).json()["pools"]
        return sum(worker["errors"] for pool in pools for worker in pool["workers"])


def request(target: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: client.test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@contextlib.contextmanager
def site_of(folder: Path, *flags: str, program: str = "mitmdump", **variables) -> Iterator[Site]:
    worker = Worker()
    journal = folder / "journal"
    journal.touch()
    with (
        loopback.serving(worker.serve) as worker.port,
        serving(Classifier().app()) as url,
        untouched() as visits,
    ):
        settings = {
            **processes.pool_variables({label: [worker.port] for label in LABELS}),
            "CLASSIFIER_URL": url,
            "CLASSIFY_TIMEOUT_MS": 10_000,
            "STREAM_BODY_BYTES": BIG,
            "JOURNAL": journal,
            "CANARY": visits[0],
            **variables,
        }
        scripts = ("-s", str(INSPECTOR), *flags)
        with processes.proxy(folder, *scripts, program=program, **settings) as proxy:
            yield Site(proxy, worker, journal, visits)
            output = proxy.started.output()
    assert visits[1:] == []
    for word in ("never retrieved", "Unhandled", "crashed"):
        assert word not in output, output


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with site_of(tmp_path_factory.mktemp("inspect")) as site:
        yield site


def in_order(hooks: list[str]) -> bool:
    """Whether each hook fired at most once, in mitmproxy's order, and the flow has one end."""
    places = [ORDER.index(hook) for hook in hooks]
    ends = [hook for hook in hooks if hook in {"response", "error"}]
    return places == sorted(set(places)) and len(ends) == 1 and hooks[-1] == ends[0]


# Which hooks fire


@pytest.mark.parametrize(
    "path", ["/length", "/chunked", "/trailers", "/until-close", "/304", "/204"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_all_hooks_fire_once_and_in_order(site, path, method) -> None:
    target = site.target(path)

    answer = site.ask(target, method=method, body=b"body" if method == "POST" else b"")

    assert answer.status == (int(path[1:]) if path in {"/304", "/204"} else 200)
    assert answer.body == (b"hello" if method != "HEAD" and answer.status == 200 else b"")
    assert site.hooks(target) == WHOLE
    assert len(site.seen(target)) == 1


def test_each_request_of_a_connection_is_a_flow(site) -> None:
    targets = [site.target("/length") for _ in range(4)]
    with Client(site.proxy.port) as client:
        client.send(b"".join(request(target) for target in targets))
        assert [client.answer().status for _ in targets] == [200] * 4

    flows = {site.notes(target)[0]["flow"] for target in targets}
    assert len(flows) == 4
    assert [site.hooks(target) for target in targets] == [WHOLE] * 4


def test_without_inspection_no_hook_fires(tmp_path) -> None:
    with site_of(tmp_path, INSPECT="off") as site:
        for path in ("/length", "/chunked", "/hang-up"):
            site.ask(site.target(path, "answer_in_request"))

        assert site.journal.read_text() == ""
        assert len(site.worker.requests) >= 2


@pytest.fixture(scope="module")
def choosing(tmp_path_factory):
    chooses = {"INSPECT_FILTER": "~m POST & ~u seen=1", "INSPECT_HEADER_SOURCES": "127.0.0.1"}
    with site_of(tmp_path_factory.mktemp("choosing"), INSPECT="matching", **chooses) as site:
        yield site


def test_only_requests_that_match_become_flows(choosing) -> None:
    seen, unseen = choosing.target("/length?seen=1"), choosing.target("/length")
    # The last one chosen comes after all others: what its journal lacks will never be there.
    for target in (unseen, seen):
        for method in ("GET", "POST"):
            answer = choosing.ask(target, method=method, body=b"b" if method == "POST" else b"")
            assert (answer.status, answer.fields["x-slb-label"]) == (200, "fast-path")

    assert choosing.hooks(seen) == WHOLE
    assert choosing.notes(seen)[1]["request"] == "b"
    assert unseen not in choosing.journal.read_text()


def test_a_trusted_client_asks_for_a_flow_and_no_worker_is_told(choosing) -> None:
    asked, refused = choosing.target("/length"), choosing.target("/length")
    choosing.ask(refused, "X-SLB-Inspect: 0")
    choosing.ask(asked, "X-SLB-Inspect: 1")

    assert choosing.hooks(asked) == WHOLE
    assert refused not in choosing.journal.read_text()
    for seen in (*choosing.seen(asked), *choosing.seen(refused)):
        assert seen.values("x-slb-inspect") == []


def test_what_a_chosen_request_is_made_of_an_addon_can_change(choosing) -> None:
    target = choosing.target("/length", "answer_in_request")

    assert choosing.ask(target).status == 200
    assert choosing.ask(target, "X-SLB-Inspect: 1").status == 418


def test_hooks_see_messages_as_they_come(site) -> None:
    target = site.target("/length")
    site.ask(target, "X-A: 1", method="POST", body=b"the body")

    head, asked, answered, done = site.notes(target)

    assert (head["request"], asked["request"]) == (None, "the body")
    assert (answered["response"], done["response"]) == (None, "hello")
    assert ["X-A", "1"] in head["request_fields"]
    assert (answered["status"], done["status"]) == (200, 200)
    assert all(note["live"] for note in (head, asked, answered, done))
    assert head["client"][0] == "127.0.0.1"


def test_hooks_after_ours_see_the_decision(site) -> None:
    target = site.target("/length")
    answer = site.ask(target)

    head, asked, answered, _ = site.notes(target)

    worker = f"127.0.0.1:{site.worker.port}"
    assert head["decision"] is None
    assert (asked["decision"]["label"], asked["decision"]["worker"]) == ("fast-path", worker)
    assert asked["comment"].startswith(f"fast-path -> {worker} (local")
    assert asked["marked"] == ":zap:"
    assert answered["server"] == ["127.0.0.1", site.worker.port]
    assert ["x-slb-label", "fast-path"] in answered["response_fields"]
    assert answer.fields["x-slb-label"] == "fast-path"


@pytest.mark.parametrize("size", [BIG, 50 * BIG])
def test_bodies_too_long_to_be_shown_pass(site, size) -> None:
    target = site.target("/big")
    answer = site.ask(target, method="POST", body=b"x" * size)

    notes = site.notes(target)

    assert [note["hook"] for note in notes] == WHOLE
    assert (notes[1]["request"] is None) is (size > BIG)
    assert notes[-1]["response"] is None
    assert (len(answer.body), len(site.seen(target)[0].body)) == (BIG + 1, size)


def test_trailers_are_shown(site) -> None:
    target = site.target("/trailers")
    raw = request(target, "Transfer-Encoding: chunked", method="POST")
    with Client(site.proxy.port) as client:
        client.send(raw + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
        assert client.answer("POST").status == 200

    notes = site.notes(target)

    assert notes[1]["request_trailers"] == [["X-Sum", "1"]]
    assert ("trailer X-Sum", "yes") in site.seen(target)[0].fields


# What a user's addon can change


def test_an_addon_can_change_a_request(site) -> None:
    target = site.target("/length", "change_in_request")
    for method in ("GET", "POST"):
        before = len(site.worker.requests)
        body = b"body" if method == "POST" else b""
        site.ask(target, "X-Drop: 1", "X-Kept: 2", method=method, body=body)

        seen = site.worker.requests[before]
        assert (seen.target, seen.body) == ("/changed?x=1", b"changed body")
        assert seen.values("content-length") == ["12"]
        assert (seen.values("x-user"), seen.values("x-drop")) == (["1"], [])
        assert (seen.values("x-kept"), seen.values("host")) == (["2"], ["client.test"])


@pytest.mark.parametrize(
    ("do", "line", "body"),
    [("empty_in_request", "POST", b""), ("rename_in_request", "PUT", b"body")],
)
def test_an_addon_can_change_method_and_body(site, do, line, body) -> None:
    target = site.target("/length", do)
    site.ask(target, method="POST", body=b"body")

    (seen,) = site.seen(target)
    assert (seen.line, seen.body) == (f"{line} {target} HTTP/1.1", body)
    assert seen.values("content-length") == [str(len(body))]


def test_a_chunked_body_can_be_changed(site) -> None:
    target = site.target("/length", "change_in_request")
    before = len(site.worker.requests)
    raw = request(target, "Transfer-Encoding: chunked", method="POST")
    with Client(site.proxy.port) as client:
        client.send(raw + b"5\r\nhello\r\n0\r\n\r\n")
        assert client.answer("POST").status == 200

    assert site.worker.requests[before].body == b"changed body"


def test_what_is_ours_to_say_an_addon_cannot_change(site) -> None:
    target = site.target("/length", "spoof_in_request")
    site.ask(target, method="POST", body=b"body")

    (seen,) = site.seen(target)
    assert seen.values("x-route-label") == ["fast-path"]
    assert seen.values("x-forwarded-for") == ["127.0.0.1"]
    assert seen.values("upgrade") == []
    assert seen.body == b"body"


@pytest.mark.parametrize(
    "do",
    [
        "split_in_request",
        "split_path_in_request",
        "relative_path_in_request",
        "connect_in_request",
        "two_lengths_in_request",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_is_made_invalid_is_not_sent(site, do, method) -> None:
    target = site.target("/length", do)
    before = len(site.worker.requests)

    answer = site.ask(target, method=method, body=b"body" if method == "POST" else b"")

    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "routing_failed")
    assert [seen.target for seen in site.worker.requests[before:]] == ["/cookies"]
    assert in_order(site.hooks(target))


@pytest.mark.parametrize("do", ["elsewhere_in_request", "another_host_in_request"])
def test_an_addon_cannot_send_a_request_anywhere_but_to_a_worker(site, do) -> None:
    before = len(site.worker.requests)
    target = site.target("/length", do)

    answer = site.ask(target)

    assert answer.status == 200
    expected = "/elsewhere" if do == "elsewhere_in_request" else target
    assert site.worker.requests[before].target == expected
    assert site.notes(target)[-1]["server"] == ["127.0.0.1", site.worker.port]
    assert site.visits[1:] == []


@pytest.mark.parametrize("path", ["/length", "/chunked", "/until-close", "/big"])
def test_an_addon_can_change_the_head_of_an_answer(site, path) -> None:
    answer = site.ask(site.target(path, "change_in_responseheaders"))

    assert (answer.status, answer.fields["x-user"]) == (201, "1")
    assert answer.body in {b"hello", b"x" * (BIG + 1)}


def test_an_addon_can_change_an_answer(site) -> None:
    target = site.target("/length", "change_in_response")
    answer = site.ask(target)

    assert (answer.status, answer.body) == (202, b"changed answer")
    assert answer.fields["x-user"] == "1"
    assert answer.fields["content-length"] == "14"
    assert site.hooks(target) == WHOLE


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_addon_can_put_another_answer_in_place_of_the_workers(site, method) -> None:
    target = site.target("/length", "replace_in_response")
    answer = site.ask(target, method=method)

    assert (answer.status, answer.fields["x-by"]) == (208, "user")
    assert answer.body == (b"" if method == "HEAD" else b"replaced")


def test_a_head_that_is_made_invalid_loses_the_malformed_field(site) -> None:
    answer = site.ask(site.target("/length", "split_in_responseheaders"))

    assert (answer.status, answer.body) == (200, b"hello")
    assert "x-a" not in answer.fields
    assert "x-b" not in answer.fields


@pytest.mark.parametrize("path", ["/length", "/chunked", "/until-close", "/big"])
@pytest.mark.parametrize(
    "do",
    [
        "stream_in_responseheaders",
        "upper_in_responseheaders",
        "list_in_responseheaders",
        "footer_in_responseheaders",
    ],
)
def test_an_addon_can_have_an_answer_streamed(site, path, do) -> None:
    target = site.target(path, do)
    answer = site.ask(target)

    body = b"x" * (BIG + 1) if path == "/big" else b"hello"
    if do == "stream_in_responseheaders":
        assert answer.body == body
    elif do == "upper_in_responseheaders":
        assert answer.body == body.upper()
    elif do == "footer_in_responseheaders":
        assert answer.body == body + b"footer"
    else:
        assert answer.body.replace(b"!", b"") == body
        assert answer.body.endswith(b"!")
    assert site.hooks(target) == WHOLE


@pytest.mark.parametrize(
    "do", ["stream_in_responseheaders", "upper_in_responseheaders", "footer_in_responseheaders"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/length"), ("GET", "/304"), ("GET", "/204")]
)
def test_an_answer_without_a_body_stays_without_one(site, do, method, path) -> None:
    assert site.ask(site.target(path, do), method=method).body == b""


@pytest.mark.parametrize("do", ["no_content_in_responseheaders", "ok_in_responseheaders"])
@pytest.mark.parametrize("path", ["/length", "/chunked", "/big", "/304", "/204"])
def test_another_status_changes_nothing_about_how_the_worker_is_read(site, path, do) -> None:
    answer = site.ask(site.target(path, do))

    assert answer.status == (204 if do == "no_content_in_responseheaders" else 200)
    if do == "no_content_in_responseheaders":
        assert answer.body == b""
    elif path not in {"/304", "/204"}:
        assert answer.body in {b"hello", b"x" * (BIG + 1)}


def test_an_addon_can_hold_a_stream_back_to_change_it(site) -> None:
    answer = site.ask(site.target("/chunked", "buffer_in_responseheaders"))

    assert answer.body == b"HELLO"


def test_repeated_fields_stay_apart(site) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"{site.proxy.url}{site.target('/cookies')}")

    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("method", "path"), [("HEAD", "/length"), ("GET", "/304"), ("HEAD", "/big")]
)
def test_the_length_of_what_is_not_sent_is_still_told(site, method, path) -> None:
    answer = site.ask(site.target(path), method=method)

    assert answer.fields["content-length"] == (str(BIG + 1) if path == "/big" else "5")


# Answers of an addon's own, and no answers


@pytest.mark.parametrize("do", ["answer_in_requestheaders", "answer_in_request"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_addon_can_answer_by_itself(site, do, method) -> None:
    target = site.target("/length", do)
    answer = site.ask(target, method=method, body=b"body" if method == "POST" else b"")

    body = b"short" if do == "answer_in_requestheaders" else b"teapot"
    assert (answer.status, answer.fields["x-by"]) == (418, "user")
    assert answer.body == (b"" if method == "HEAD" else body)
    assert site.seen(target) == []
    hooks = site.hooks(target)
    assert in_order(hooks)
    assert hooks[-1] == "response"


@pytest.mark.parametrize("do", ["kill_in_requestheaders", "kill_in_request"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_is_killed_is_not_sent(site, do, method) -> None:
    target = site.target("/length", do)

    assert site.closes_without_an_answer(target, method=method)

    assert site.seen(target) == []
    notes = site.notes(target)
    assert in_order([note["hook"] for note in notes])
    assert notes[-1]["error"] == "Connection killed."


@pytest.mark.parametrize("path", ["/length", "/chunked"])
def test_an_answer_that_is_killed_does_not_reach_the_client(site, path) -> None:
    target = site.target(path, "kill_in_responseheaders")

    assert site.closes_without_an_answer(target)

    assert in_order(site.hooks(target))
    assert site.errors_of_workers() == 0 or path != "/length"


def test_so_it_is_if_it_is_killed_when_it_is_whole(site) -> None:
    target = site.target("/length", "kill_in_response")

    assert site.closes_without_an_answer(target)

    time.sleep(0.1)
    assert site.hooks(target) == WHOLE


# Errors


@pytest.mark.parametrize(
    "do",
    [
        "raise_in_requestheaders",
        "raise_in_request",
        "raise_in_responseheaders",
        "raise_in_response",
    ],
)
@pytest.mark.parametrize("path", ["/length", "/chunked"])
def test_an_error_in_an_addon_does_not_lose_the_request(site, do, path) -> None:
    target = site.target(path, do)
    answer = site.ask(target, method="POST", body=b"body")

    assert (answer.status, answer.body) == (200, b"hello")
    assert site.seen(target)[0].body == b"body"
    assert site.hooks(target) == WHOLE


@pytest.mark.parametrize("path", ["/length", "/chunked", "/until-close"])
def test_an_error_in_a_stream_function_ends_the_answer_and_blames_nobody(site, path) -> None:
    target = site.target(path, "fail_in_responseheaders")
    before = site.errors_of_workers()
    with contextlib.suppress(BrokenError), Client(site.proxy.port) as client:
        client.send(request(target))
        assert client.answer(seconds=2).status == 503

    assert in_order(site.hooks(target))
    assert site.errors_of_workers() == before


@pytest.mark.parametrize("path", ["/hang-up", "/cut", "/cut-chunks"])
@pytest.mark.parametrize("do", ["", "raise_in_error"])
def test_the_error_hook_fires_when_the_worker_fails(site, path, do) -> None:
    target = site.target(path, do)
    with contextlib.suppress(BrokenError), Client(site.proxy.port) as client:
        client.send(request(target, method="POST"))
        assert client.answer("POST").status == 502

    notes = site.notes(target, "error")
    assert in_order([note["hook"] for note in notes])
    assert notes[-1]["error"]


@pytest.mark.parametrize(
    ("path", "do"),
    [("/silence", ""), ("/endless", ""), ("/length", "wait_in_request"),
     ("/length", "wait_in_responseheaders")],
)  # fmt: skip
def test_the_error_hook_fires_when_the_client_leaves(site, path, do) -> None:
    target = site.target(path, do)
    with Client(site.proxy.port) as client:
        client.send(request(target))
        last = "responseheaders" if do == "wait_in_responseheaders" else "request"
        assert last in site.hooks(target, last)
        while path == "/endless" and b"hello" not in client.unread:
            client.unread += client.socket.recv(1_000)

    notes = site.notes(target, "error")
    hooks = [note["hook"] for note in notes if note["hook"] in ORDER]
    assert in_order(hooks)
    assert notes[-1]["error"] == "Client disconnected."


def test_a_hook_is_not_cut_off_when_the_client_leaves(site) -> None:
    target = site.target("/length", "wait_in_request")
    with Client(site.proxy.port) as client:
        client.send(request(target))
        assert "request" in site.hooks(target, "request")

    assert "request ended" in site.hooks(target, "request ended")
    assert site.hooks(target, "error")[-1] == "error"


def test_a_malformed_body_has_an_end_as_well(site) -> None:
    target = site.target("/length")
    with Client(site.proxy.port) as client:
        client.send(request(target, "Transfer-Encoding: chunked", method="POST") + b"zz\r\n")
        assert client.answer("POST").status == 400

    assert in_order(site.hooks(target))
    assert site.seen(target) == []


def test_a_request_that_finds_no_worker_has_an_end_as_well(tmp_path) -> None:
    pools = processes.pool_variables({label: [processes.free_port()] for label in LABELS})
    with site_of(tmp_path, **pools) as site:
        processes.until(lambda: site.errors_of_workers() >= 0, 1)
        for _ in range(3):
            target = site.target("/length")
            with Client(site.proxy.port) as client:
                client.send(request(target))
                assert client.answer().status == 503
            assert in_order(site.hooks(target))
            # By now the worker is known to be down.
            time.sleep(0.3)


@pytest.mark.parametrize("fault", ["hook", "labels"])
def test_an_error_of_our_own_ends_at_a_worker_or_in_a_503(tmp_path, fault) -> None:
    with site_of(tmp_path, FAULT=fault) as site:
        target = site.target("/length")
        answer = site.ask(target) if fault == "hook" else None
        if answer is None:
            with Client(site.proxy.port) as client:
                client.send(request(target))
                answer = client.answer()
            assert json.loads(answer.body)["error"]["code"] == "routing_failed"
            assert "canary-secret" not in answer.text

        assert answer.status == (200 if fault == "hook" else 503)
        assert in_order(site.hooks(target))


# mitmproxy's own uses of flows


@pytest.mark.parametrize("do", ["intercept_in_request", "intercept_in_responseheaders"])
def test_an_intercepted_flow_waits_until_it_is_resumed(site, do) -> None:
    target = site.target("/length", do)
    answer = site.ask(target)

    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.seconds > 0.25
    assert site.hooks(target) == WHOLE


def test_a_websocket_is_a_flow_without_its_messages(site) -> None:
    target = site.target("/websocket")
    fields = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    with Client(site.proxy.port) as client:
        client.send(request(target, *fields, key))
        received = client.rest()

    assert received.startswith(b"HTTP/1.1 101 ")
    assert received.endswith(b"\r\n\r\n\x81\x05hello")
    notes = site.notes(target)
    assert in_order([note["hook"] for note in notes])
    assert (notes[-1]["hook"], notes[-1]["status"]) == ("response", 101)


def flows_of(path: Path) -> list[http.HTTPFlow]:
    with path.open("rb") as file:
        return [flow for flow in FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]


def test_flows_can_be_saved_read_back_and_replayed(tmp_path) -> None:
    saved = tmp_path / "saved"
    with site_of(tmp_path, "-w", str(saved)) as site:
        targets = {
            path: site.target(path) for path in ("/length", "/chunked", "/304", "/big", "/hang-up")
        }
        for target in targets.values():
            with contextlib.suppress(BrokenError):
                site.ask(target, "X-Slb-Label: spoofed", method="POST", body=b"body")
        assert processes.until(lambda: all(site.hooks(target) for target in targets.values()))

    flows = {flow.request.path: flow for flow in flows_of(saved)}
    assert targets.items() <= {path.partition("?")[0]: path for path in flows}.items()
    flow = flows[targets["/length"]]
    assert (flow.request.raw_content, flow.response.raw_content) == (b"body", b"hello")
    assert flow.request.headers["host"] == "client.test"
    assert flow.metadata["router"]["label"] == "fast-path"
    assert flow.marked == ":zap:"
    assert flows[targets["/big"]].response.raw_content is None
    assert flows[targets["/hang-up"]].error is not None

    replays(tmp_path / "replay", saved, targets)


def replays(folder: Path, saved: Path, targets: dict[str, str]) -> None:
    """Have the saved requests sent again, from their file."""
    folder.mkdir()
    flags = ("-C", str(saved), "--set", "keepserving=true")
    with site_of(folder, *flags) as site:
        target = targets["/length"]
        assert processes.until(lambda: site.seen(target) != [], 5)
        assert processes.until(lambda: len(site.proxy.decisions()) >= len(targets), 5)
        (seen,) = site.seen(target)
        assert (seen.body, seen.values("host")) == (b"body", ["client.test"])
        assert seen.values("x-route-label") == ["fast-path"]
        assert seen.values("x-slb-label") == []
        assert processes.until(lambda: site.proxy.metric("slb_requests_inflight") == 0, 5)


def test_a_replay_never_goes_to_where_it_was_recorded(tmp_path) -> None:
    saved = tmp_path / "saved"
    target = "/length?do=&n=replayed"
    with untouched() as visits:
        flow = tflow.tflow(resp=True)
        flow.request.url = f"http://{visits[0]}{target}"
        with saved.open("wb") as file:
            FlowWriter(file).add(flow)
        flags = ("-C", str(saved), "--set", "keepserving=true")
        with site_of(tmp_path, *flags, FAULT="labels") as site:
            assert in_order(site.hooks(target))
            assert site.seen(target) == []
            assert "canary-secret" not in site.proxy.started.output()
    assert visits[1:] == []


def test_a_flow_can_be_intercepted_and_resumed_in_mitmweb(tmp_path) -> None:
    web_port = processes.free_port()
    flags = ["--no-web-open-browser", "--web-port", str(web_port), "--set", "web_password=test"]
    flags += ["--set", "intercept=~u held"]
    web = httpx.Client(base_url=f"http://127.0.0.1:{web_port}", trust_env=False)
    with site_of(tmp_path, *flags, program="mitmweb") as site, web:
        # mitmweb takes any token that cookie and header agree on.
        xsrf = "0" * 32
        web.cookies.set("_mitmproxy_xsrf", xsrf)
        target = "/length?held"
        with Client(site.proxy.port) as client:
            client.send(request(target, method="POST", body=b"body"))

            def held() -> list[dict]:
                flows = web.get("/flows", params={"token": "test"}).json()
                return [flow for flow in flows if flow["intercepted"]]

            assert processes.until(lambda: bool(held()), 10)
            time.sleep(0.2)
            assert site.seen(target) == []
            while flows := held():
                resumed = web.post(
                    f"/flows/{flows[0]['id']}/resume",
                    params={"token": "test"},
                    headers={"X-XSRFToken": xsrf},
                )
                assert resumed.status_code < 300, resumed.text
                time.sleep(0.1)
            answer = client.answer("POST", 5)

    assert (answer.status, answer.body) == (200, b"hello")
    assert site.seen(target)[0].body == b"body"
