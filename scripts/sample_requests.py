"""Sends one request of each kind through the proxy and shows where it went."""

import argparse
import http.client
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from stack_services import ROOT
from stack_settings import SettingsError, port_setting, read_settings

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Sample:
    """A request, and what an operator would call it."""

    shown: str
    path: str
    body: Mapping[str, object]


SAMPLES = (
    Sample(
        "JSON-RPC eth_blockNumber",
        "/rpc",
        {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []},
    ),
    Sample(
        "create an order",
        "/api/v1/orders",
        {"customer_id": 4711, "items": [{"sku": "A-100", "quantity": 2}], "currency": "EUR"},
    ),
    Sample(
        "chat completion",
        "/v1/chat/completions",
        {
            "model": "llama-3-70b",
            "messages": [{"role": "user", "content": "Write an essay about load balancing."}],
            "max_tokens": 2000,
        },
    ),
)


def main() -> int:
    """Send all samples; 1 if one is not answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--wait", type=float, default=0.0, help="seconds to wait until the proxy is ready"
    )
    wait_s: float = parser.parse_args().wait
    try:
        settings = read_settings(ROOT)
        port = port_setting(settings, "PROXY_PORT", 8080)
        control_port = port_setting(settings, "METRICS_PORT", 9090)
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    try:
        _await_ready(control_port, wait_s)
        for sample in SAMPLES:
            _send(port, sample)
    except (OSError, http.client.HTTPException) as exc:
        sys.stderr.write(f"error: the proxy at 127.0.0.1:{port} does not answer: {exc}\n")
        return 1
    return 0


def _await_ready(port: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() >= deadline:
            return
        time.sleep(0.5)


def _send(port: int, sample: Sample) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    started = time.perf_counter()
    headers = {"content-type": "application/json"}
    connection.request("POST", sample.path, json.dumps(sample.body), headers)
    response = connection.getresponse()
    response.read()
    elapsed_ms = (time.perf_counter() - started) * 1_000
    connection.close()
    label = response.headers.get("x-slb-label", "?")
    source = response.headers.get("x-slb-source", "?")
    worker = response.headers.get("x-worker-name", "?")
    print(
        f"POST {sample.path:<22} {sample.shown:<26} {response.status}  "
        f"{label:<13} by {source:<9} to {worker:<18} {elapsed_ms:5.0f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
