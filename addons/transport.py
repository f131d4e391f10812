"""What the proxy changes in mitmproxy's HTTP/1 layer, and nothing else of it.

House rule: every override of mitmproxy's own classes lives in this file, names what it replaces,
and is guarded by a test that fails when a mitmproxy release changes it.
"""

from typing import override

from mitmproxy.connection import ConnectionState
from mitmproxy.http import Response
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._events import HttpEvent, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server

from addons.flowview import error_body
from addons.routing import Rejection

BAD_GATEWAY = 502

_ERRORS = {
    400: Rejection(400, "bad_request", "The request is not valid HTTP."),
    413: Rejection(413, "request_too_large", "The request is larger than the proxy takes."),
    BAD_GATEWAY: Rejection(BAD_GATEWAY, "bad_gateway", "The worker gave no usable answer."),
}


class JsonErrorServer(Http1Server):
    """`Http1Server` that tells of upstream errors in JSON and names no address.

    mitmproxy's is an HTML page with the upstream's address and the proxy's version. A request that
    cannot even be parsed still gets that page, which then repeats only the request itself.
    """

    @override
    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        status = event.code.http_status_code() if isinstance(event, ResponseProtocolError) else None
        writable = bool(self.conn.state & ConnectionState.CAN_WRITE)
        if status is None or self.response or not writable:
            yield from super().send(event)
            return
        yield commands.SendData(self.conn, error_response(status))
        yield commands.CloseConnection(self.conn)


def error_response(status: int) -> bytes:
    """A whole HTTP/1.1 response for an error of the proxy's own."""
    rejection = _ERRORS.get(status, _ERRORS[BAD_GATEWAY])
    headers = {"content-type": "application/json", "connection": "close"}
    response = Response.make(rejection.status, error_body(rejection), headers)
    return bytes(http1.assemble_response(response))


def harden(nextlayer: layer.NextLayer) -> None:
    """Give a client connection that speaks HTTP/1 our server side.

    Works on the layers that mitmproxy has just chosen, with TLS or without: the client connection
    of their `HttpLayer` is not set up yet, and its place is left alone when it is taken. HTTP/2 is
    switched off (`addons.options`), so it is HTTP/1 that is spoken there.
    """
    chosen: object = nextlayer.layer
    while chosen is not None and type(chosen) is not HttpLayer:
        chosen = getattr(chosen, "child_layer", None)
    if isinstance(chosen, HttpLayer):
        server = JsonErrorServer(chosen.context.fork())
        chosen.connections.setdefault(chosen.context.client, server)
