"""The rows of the comparison in which the client is hostile."""

import asyncio
import contextlib

import h11

from tests import malformed, processes, wire
from tests.comparison import Bench, Cell, Row, figures, rows_of
from tests.peers import Proxied
from tests.websocket_client import WebSocket

SILENCE_SECONDS = 0.4
BACK_SECONDS = 3.0
FLOOD_BYTES = 64 << 20

ROWS: dict[str, Row] = {}
row = rows_of(ROWS)


@row("Upgrade: h2c, H2C, 'h2c, x' to a worker that says 101", "no tunnel; WebSocket works")
async def upgrade(bench: Bench) -> Cell:
    return await asyncio.to_thread(_upgrade, bench.proxied.port)


def _upgrade(port: int) -> Cell:
    fault = _websocket_fault(port)
    tunnels = [protocol for protocol in ("h2c", "H2C", "h2c, x") if _tunnels(port, protocol)]
    text = f"{len(tunnels)} tunnels, WebSocket {'fails' if fault else 'works'}"
    return Cell(text, not fault and not tunnels, {"tunnels": tunnels, "websocket_fault": fault})


def _websocket_fault(port: int) -> str:
    """Why there is no WebSocket to a worker; empty if there is."""
    try:
        with WebSocket(port, "/do/websocket", timeout=2) as socket:
            socket.send("hello")
            return "" if socket.message() == "hello" else "another message"
    except (wire.BrokenError, OSError, AssertionError) as exc:
        return repr(exc)


def _tunnels(port: int, protocol: str) -> bool:
    """Whether bytes reach the worker after an upgrade to a protocol."""
    head = "GET /do/switch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
    with wire.Client(port, timeout=1) as client, contextlib.suppress(OSError):
        client.send(f"{head}Upgrade: {protocol}\r\n\r\n".encode())
        if b" 101 " in client.socket.recv(1_000):
            client.send(b"canary")
            return b"tunnelled:canary" in client.socket.recv(1_000)
    return False


@row(
    f"{len(malformed.TABLE)} raw requests that parsers disagree about",
    "the worker sees 0 that h11 cannot read, 0 smuggled, 0 unclean heads",
    recorded=True,
)
async def malformed_requests(bench: Bench) -> Cell:
    assert bench.recorder is not None
    return await asyncio.to_thread(_malformed, bench.proxied.port, bench.recorder)


def _malformed(port: int, recorder: wire.Recorder) -> Cell:
    unreadable, unclean = {}, {}
    lenient, smuggled = [], []
    for each in malformed.TABLE:
        # What breaks a connection may have cost the worker its good name for a while.
        processes.until(lambda: _say(port, wire.LAST_REQUEST) == [200], BACK_SECONDS)
        recorder.complaints, recorder.unreadable, before = [], 0, len(recorder.requests)
        statuses = _say(port, each.request)
        if recorder.complaints:
            kind = unreadable if recorder.unreadable else unclean
            kind[each.name] = [text[:300] for text in recorder.complaints]
        # There is no answer to a CONNECT; that it came is one of the complaints.
        seen = [each for each in recorder.requests[before:] if each.method != b"CONNECT"]
        if len(seen) > len(statuses):
            smuggled.append(each.name)
        if statuses[:1] == [200] and 200 not in each.allowed:
            lenient.append(each.name)
    found = {"unreadable": unreadable, "unclean": unclean, "smuggled": smuggled}
    text = f"{len(unreadable)} unreadable, {len(smuggled)} smuggled, {len(unclean)} unclean"
    met = not unreadable and not smuggled and not unclean
    return Cell(text, met, {**found, "lenient": lenient})


def _say(port: int, request: bytes) -> list[int]:
    """Send a raw request, and a last one if the connection stays; the statuses of the answers."""
    statuses: list[int] = []
    broken = (wire.BrokenError, h11.RemoteProtocolError, OSError)
    with contextlib.suppress(*broken), wire.Client(port) as client:
        client.send(request)
        answer = client.answer(seconds=SILENCE_SECONDS)
        statuses.append(answer.status)
        if not answer.last:
            client.send(wire.LAST_REQUEST)
        while not answer.last:
            answer = client.answer(seconds=SILENCE_SECONDS)
            statuses.append(answer.status)
    return statuses


@row("a head of 64 MB", "refused and closed within 1.5 s, memory + < 10 MB")
async def huge_head(bench: Bench) -> Cell:
    return await asyncio.to_thread(_huge_head, bench.proxied)


def _huge_head(proxied: Proxied) -> Cell:
    start = b"GET /row HTTP/1.1\r\nHost: x\r\nA: "
    with wire.growth(proxied.pid) as grown:
        flooded = wire.flood(proxied.port, wire.repeated(b"b", FLOOD_BYTES, start), seconds=3)
        megabytes = grown()
    text = f"{flooded.status or 'closed'} in {flooded.seconds:.2f} s, {megabytes:+.1f} MB"
    met = flooded.closed and flooded.seconds < 1.5 and megabytes < 10
    return Cell(text, met and flooded.status != 200, {**figures(flooded), "megabytes": megabytes})
