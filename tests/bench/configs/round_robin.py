"""For stock mitmdump: requests go by turns to the ports in BENCH_PORTS, and that is all."""

import itertools
import os

from mitmproxy import http

PORTS = itertools.cycle(int(port) for port in os.environ["BENCH_PORTS"].split(","))


def request(flow: http.HTTPFlow) -> None:
    flow.request.host = "127.0.0.1"
    flow.request.port = next(PORTS)
