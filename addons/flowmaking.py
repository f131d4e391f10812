"""New flows: what mitmproxy's constructors make, at a tenth of their time.

They look up and compare the annotations of each field of each object; heads have been checked here
before. Tests compare what is made here with what they make.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from functools import lru_cache

from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server

from addons import http1
from addons.pool import Worker
from addons.routing import RESERVED_PREFIX

_VERSIONS = {0: b"HTTP/1.0", 1: b"HTTP/1.1"}
_RESERVED = RESERVED_PREFIX.encode()
_NO_SERVER = {name: value for name, value in vars(Server(address=None)).items() if name != "id"}
_VARIANTS = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def flow_of(client: Client, head: http1.RequestHead, scheme: str) -> http.HTTPFlow:
    """A new flow of a request that a client sent; its worker is not known yet."""
    flow = http.HTTPFlow.__new__(http.HTTPFlow)
    flow.id = _new_id()
    flow.client_conn = client
    flow.server_conn = _server(None)
    flow.live = True
    flow.timestamp_created = time.time()
    flow.intercepted = False
    flow._resume_event = None  # noqa: SLF001 - what its constructor does; a test compares
    flow._backup = None  # noqa: SLF001
    flow.marked = ""
    flow.is_replay = None
    flow.metadata = {}
    flow.comment = ""
    flow.request = request_of(head, scheme)
    return flow


def request_of(head: http1.RequestHead, scheme: str) -> http.Request:
    """The request of a flow, as the client sent it; its body comes later."""
    host, port = _host_and_port(head.host, scheme)
    request = http.Request.__new__(http.Request)
    request.data = data = http.RequestData.__new__(http.RequestData)
    data.host, data.port = host, port
    data.method, data.path = head.method, head.target
    data.scheme, data.authority = scheme.encode(), b""
    data.http_version = _VERSIONS[head.minor]
    data.headers = _headers(as_sent(head))
    data.content = data.trailers = None
    data.timestamp_start, data.timestamp_end = time.time(), None
    return request


@lru_cache(maxsize=256)
def _host_and_port(host: bytes, scheme: str) -> tuple[str, int]:
    text = host.decode("ascii")
    name, _, port = text.rpartition(":")
    if name and port.isdigit():
        return name, int(port)
    return text, 443 if scheme == "https" else 80


def as_sent(head: http1.RequestHead) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a request as flows show them."""
    fields = tuple(head.fields)
    for place, (name, value) in enumerate(fields):
        if value != head.host and name.lower() == b"host":
            # With an absolute target, its authority is the Host.
            return (*fields[:place], (name, head.host), *fields[place + 1 :])
    return fields


def response_of(head: http1.ResponseHead, told: Iterable[tuple[str, str]]) -> http.Response:
    """The response of a flow, as the worker sent it; its body comes later.

    Args:
        head: The worker's; its values under our names are dropped.
        told: What the client is told about the decision.
    """
    response = http.Response.__new__(http.Response)
    response.data = data = http.ResponseData.__new__(http.ResponseData)
    data.status_code, data.reason = head.status, head.reason
    data.http_version = _VERSIONS[head.minor]
    fields = [field for field in head.fields if not field[0].lower().startswith(_RESERVED)]
    fields += [(name.encode(), value.encode()) for name, value in told]
    data.headers = _headers(tuple(fields))
    data.content = data.trailers = None
    data.timestamp_start, data.timestamp_end = time.time(), None
    return response


def server_of(worker: Worker, transport: asyncio.BaseTransport) -> Server:
    """The upstream side of a flow, for people to see."""
    server = _server((worker.host, worker.port))
    now = time.time()
    vars(server).update(
        state=ConnectionState.OPEN,
        timestamp_start=now,
        timestamp_tcp_setup=now,
        peername=transport.get_extra_info("peername"),
        sockname=transport.get_extra_info("sockname"),
    )
    return server


def _headers(fields: tuple[tuple[bytes, bytes], ...]) -> http.Headers:
    headers = http.Headers.__new__(http.Headers)
    headers.fields = fields
    return headers


def _server(address: tuple[str, int] | None) -> Server:
    server = Server.__new__(Server)
    # Past its own `__setattr__`, which looks at each of twenty fields whether it may be set.
    vars(server).update(_NO_SERVER, id=_new_id(), address=address)
    return server


def _new_id() -> str:
    """A random UUID; ids of flows are no secret, so the kernel need not be asked."""
    bits = f"{random.getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{_VARIANTS[bits[16]]}{bits[17:20]}-{bits[20:]}"
