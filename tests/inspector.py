"""A user's addon, loaded by mitmproxy from its file: notes each hook, and does what a request asks.

A request asks by its query, `?do=answer_in_request`. In the environment are the journal's path,
JOURNAL, an address that nobody may contact, CANARY, and the name of a fault of the router's, FAULT.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from mitmproxy import ctx, http

JOURNAL = Path(os.environ["JOURNAL"])
CANARY_HOST, _, CANARY_PORT = os.environ.get("CANARY", "127.0.0.1:1").partition(":")
FAULT = os.environ.get("FAULT", "")

type Deed = Callable[[http.HTTPFlow], Awaitable[None] | None]

DEEDS: dict[str, Deed] = {}
"""By name; each name ends in that of its hook."""


def deed(function: Deed) -> Deed:
    DEEDS[getattr(function, "__name__", "")] = function
    return function


@deed
def answer_in_requestheaders(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(418, b"short", {"x-by": "user"})


@deed
def kill_in_requestheaders(flow: http.HTTPFlow) -> None:
    flow.kill()


@deed
def stream_in_requestheaders(flow: http.HTTPFlow) -> None:
    flow.request.stream = True


@deed
def raise_in_requestheaders(_: http.HTTPFlow) -> None:
    raise ValueError


@deed
def change_in_request(flow: http.HTTPFlow) -> None:
    flow.request.headers["X-User"] = "1"
    flow.request.headers.pop("x-drop", None)
    flow.request.path = "/changed?x=1"
    flow.request.content = b"changed body"


@deed
def empty_in_request(flow: http.HTTPFlow) -> None:
    flow.request.content = b""


@deed
def rename_in_request(flow: http.HTTPFlow) -> None:
    flow.request.method = "PUT"


@deed
def spoof_in_request(flow: http.HTTPFlow) -> None:
    flow.request.headers["X-Route-Label"] = "spoofed"
    flow.request.headers["X-Forwarded-For"] = "10.0.0.1"
    flow.request.headers["Connection"] = "Upgrade"
    flow.request.headers["Upgrade"] = "h2c"


@deed
def two_lengths_in_request(flow: http.HTTPFlow) -> None:
    flow.request.headers["Content-Length"] = "1"
    flow.request.headers["Transfer-Encoding"] = "chunked"


@deed
def split_in_request(flow: http.HTTPFlow) -> None:
    flow.request.headers["X-A"] = "a\r\nX-B: b"


@deed
def split_path_in_request(flow: http.HTTPFlow) -> None:
    flow.request.path = "/x HTTP/1.1\r\nHost: y\r\n\r\nGET /smuggled"


@deed
def relative_path_in_request(flow: http.HTTPFlow) -> None:
    flow.request.path = "x"


@deed
def connect_in_request(flow: http.HTTPFlow) -> None:
    flow.request.method = "CONNECT"


@deed
def elsewhere_in_request(flow: http.HTTPFlow) -> None:
    flow.request.url = f"http://{CANARY_HOST}:{CANARY_PORT}/elsewhere"
    flow.server_conn.address = (CANARY_HOST, int(CANARY_PORT))


@deed
def another_host_in_request(flow: http.HTTPFlow) -> None:
    flow.request.host, flow.request.port = CANARY_HOST, int(CANARY_PORT)
    flow.request.scheme = "https"
    flow.request.authority = f"{CANARY_HOST}:{CANARY_PORT}"


@deed
def answer_in_request(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(418, b"teapot", {"x-by": "user"})


@deed
def kill_in_request(flow: http.HTTPFlow) -> None:
    flow.kill()


@deed
def raise_in_request(_: http.HTTPFlow) -> None:
    raise ValueError


@deed
async def wait_in_request(flow: http.HTTPFlow) -> None:
    await asyncio.sleep(0.5)
    note("request ended", flow)


@deed
def intercept_in_request(flow: http.HTTPFlow) -> None:
    flow.intercept()
    asyncio.get_running_loop().call_later(0.3, flow.resume)


@deed
def change_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.status_code = 201
    flow.response.headers["x-user"] = "1"


@deed
def split_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.headers["x-a"] = "a\r\nx-b: b"


@deed
def no_content_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.status_code = 204


@deed
def ok_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.status_code = 200


@deed
def stream_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.stream = True


@deed
def upper_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.stream = lambda data: data.upper()


@deed
def list_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.stream = lambda data: [data, b"!"] if data else []


@deed
def footer_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.stream = lambda data: data or b"footer"


@deed
def fail_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.stream = lambda data: data / 0


@deed
def buffer_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.response.stream = False
    flow.metadata["do"] = "upper_in_response"


@deed
def kill_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.kill()


@deed
def raise_in_responseheaders(_: http.HTTPFlow) -> None:
    raise ValueError


@deed
async def wait_in_responseheaders(_: http.HTTPFlow) -> None:
    await asyncio.sleep(0.3)


@deed
def intercept_in_responseheaders(flow: http.HTTPFlow) -> None:
    flow.intercept()
    asyncio.get_running_loop().call_later(0.3, flow.resume)


@deed
def change_in_response(flow: http.HTTPFlow) -> None:
    flow.response.status_code = 202
    flow.response.headers["x-user"] = "1"
    flow.response.text = "changed answer"


@deed
def replace_in_response(flow: http.HTTPFlow) -> None:
    flow.response = http.Response.make(208, b"replaced", {"x-by": "user"})


@deed
def upper_in_response(flow: http.HTTPFlow) -> None:
    flow.response.content = flow.response.content.upper()


@deed
def kill_in_response(flow: http.HTTPFlow) -> None:
    flow.kill()


@deed
def raise_in_response(_: http.HTTPFlow) -> None:
    raise ValueError


@deed
def raise_in_error(_: http.HTTPFlow) -> None:
    raise ValueError


def text(message: http.Message | None) -> str | None:
    content = None if message is None else message.raw_content
    return None if content is None else content[:100].decode("latin-1")


def fields(message: http.Message | None) -> list[tuple[str, str]]:
    return [] if message is None else list(message.headers.items(multi=True))


def trailers(message: http.Message | None) -> list[tuple[str, str]]:
    if message is None or message.trailers is None:
        return []
    return list(message.trailers.items(multi=True))


def note(hook: str, flow: http.HTTPFlow) -> None:
    line = {
        "hook": hook,
        "flow": flow.id,
        "target": flow.metadata["target"],
        "status": None if flow.response is None else flow.response.status_code,
        "error": None if flow.error is None else flow.error.msg,
        "live": flow.live,
        "comment": flow.comment,
        "marked": flow.marked,
        "decision": flow.metadata.get("router"),
        "request": text(flow.request),
        "response": text(flow.response),
        "request_fields": fields(flow.request),
        "response_fields": fields(flow.response),
        "request_trailers": trailers(flow.request),
        "response_trailers": trailers(flow.response),
        "server": flow.server_conn.address,
        "client": flow.client_conn.peername,
    }
    with JOURNAL.open("a") as file:
        file.write(json.dumps(line) + "\n")


async def fail(*_: object) -> None:
    await asyncio.sleep(0)
    msg = "canary-secret"
    raise ValueError(msg)


class Inspector:
    """Obeys requests."""

    def running(self) -> None:
        router = ctx.master.addons.get("router")
        if FAULT == "hook":
            router.request = fail
        elif FAULT == "labels":
            router._labels.classify = fail

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.metadata["do"] = flow.request.query.get("do", "")
        flow.metadata["target"] = flow.request.path
        await self._obey("requestheaders", flow)

    async def request(self, flow: http.HTTPFlow) -> None:
        await self._obey("request", flow)

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        await self._obey("responseheaders", flow)

    async def response(self, flow: http.HTTPFlow) -> None:
        await self._obey("response", flow)

    async def error(self, flow: http.HTTPFlow) -> None:
        await self._obey("error", flow)

    async def _obey(self, hook: str, flow: http.HTTPFlow) -> None:
        note(hook, flow)
        do = flow.metadata["do"]
        if do.endswith(f"_in_{hook}"):
            waiting = DEEDS[do](flow)
            if waiting is not None:
                await waiting


addons = [Inspector()]
