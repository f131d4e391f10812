"""Our overrides of mitmproxy's HTTP layer, and the parts of mitmproxy that they rest on.

The last test fails when a mitmproxy release changes what is overridden: read its new code, adapt
addons/transport.py, then change the digests.
"""

import hashlib
import inspect
import json

import pytest
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._http1 import Http1Server

from addons.transport import error_response


@pytest.mark.parametrize(
    ("status", "code"), [(400, "bad_request"), (413, "request_too_large"), (502, "bad_gateway")]
)
def test_errors_are_json_with_a_code(status, code) -> None:
    head, _, body = error_response(status).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head
    assert json.loads(body)["error"]["code"] == code


def test_an_unforeseen_status_is_a_bad_gateway() -> None:
    assert error_response(599).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("function", "digest"),
    [
        (Http1Server.__init__, "508efbb58d5dead1"),
        (Http1Server.send, "cc218a1337c0f5cf"),
        (HttpLayer.__init__, "1ece202e595d103e"),
        (HttpLayer._handle_event, "6ba31883cc7a06b3"),
    ],
)
def test_mitmproxys_code_is_the_one_that_was_read(function, digest) -> None:
    source = inspect.getsource(function).encode()

    assert hashlib.sha256(source).hexdigest()[:16] == digest
