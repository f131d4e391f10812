"""What is measured: this product, its peers, stock mitmdump and the floor for Python.

All have one serving thread, the same three workers, and no health checks worth speaking of: what
reaches the upstream shall be what clients have sent. The peers' files are in `configs`.
"""

import contextlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from addons.settings import RouterSettings
from tests import processes
from tests.bench.programs import CONFIGS, as_root, configured, is_installed, program, version
from tests.bench.wrk import GET_PATH

FLOOR = "floor"
STOCK = "mitmdump"
"""Targets that the others are compared with."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a target is started on.

    Attributes:
        folder: For its files.
        ports: Of the workers, one for each pool.
        classifier_url: Where this product gets its labels.
    """

    folder: Path
    ports: Sequence[int]
    classifier_url: str


@dataclass(frozen=True, slots=True)
class Started:
    """A running target.

    Attributes:
        port: Where clients connect.
        pid: The process that serves, or whose descendants do.
        control: Base URL of this product's control port; empty for the others.
    """

    port: int
    pid: int
    control: str = ""


type Start = Callable[[Ground], AbstractContextManager[Started]]


@dataclass(frozen=True, slots=True)
class Target:
    """Something to measure.

    Attributes:
        missing: Says what it lacks to be run here; nothing if it lacks nothing.
        by_default: It is measured unless others are named.
        python: A sampling profiler for Python can look into it.
        asks: It wants a classifier.
    """

    title: str
    start: Start
    version: Callable[[], str]
    missing: Callable[[], str] = lambda: ""
    by_default: bool = True
    python: bool = True
    asks: bool = False

    def name(self) -> str:
        return f"{self.title} {self.version()}".strip()


@contextmanager
def _running(
    ground: Ground, port: int, command: Sequence[str], **variables: object
) -> Iterator[Started]:
    env = processes.clean_env(**variables)
    ready = f"http://127.0.0.1:{port}{GET_PATH}"
    with processes.running(command, ground.folder, env, ready, "target") as started:
        yield Started(port, started.process.pid)


def _nginx(ground: Ground) -> AbstractContextManager[Started]:
    port = processes.free_port()
    servers = "".join(f"    server 127.0.0.1:{each};\n" for each in ground.ports)
    config = configured("nginx.conf", ground.folder, port=port, servers=servers)
    return _running(ground, port, [program("nginx"), "-c", config, *as_root()])


def _haproxy(ground: Ground) -> AbstractContextManager[Started]:
    port = processes.free_port()
    servers = "".join(f"  server w{each} 127.0.0.1:{each}\n" for each in ground.ports)
    config = configured("haproxy.cfg", ground.folder, port=port, servers=servers)
    return _running(ground, port, [program("haproxy"), "-db", "-f", config])


def _envoy(ground: Ground) -> AbstractContextManager[Started]:
    port = processes.free_port()
    address = "socket_address: {address: 127.0.0.1, port_value: %d}"
    servers = "".join(
        f"        - endpoint: {{address: {{{address % each}}}}}\n" for each in ground.ports
    )
    api = "type.googleapis.com/envoy.extensions"
    config = configured("envoy.yaml", ground.folder, port=port, servers=servers, api=api)
    flags = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"]
    return _running(ground, port, [program("envoy"), "-c", config, *flags])


def _caddy(ground: Ground) -> AbstractContextManager[Started]:
    port = processes.free_port()
    servers = " ".join(f"127.0.0.1:{each}" for each in ground.ports)
    config = configured("Caddyfile", ground.folder, port=port, servers=servers)
    command = [program("caddy"), "run", "--config", config, "--adapter", "caddyfile"]
    # It writes to its home.
    return _running(ground, port, command, GOMAXPROCS=1, HOME=ground.folder)


def _floor(ground: Ground, *flags: str) -> AbstractContextManager[Started]:
    port = processes.free_port()
    command = [sys.executable, "-m", "tests.bench.floor", *flags, str(port)]
    return _running(ground, port, [*command, *map(str, ground.ports)])


def _stock(ground: Ground, *flags: str) -> AbstractContextManager[Started]:
    port = processes.free_port()
    command = [program("mitmdump"), "-q", "--mode", f"reverse:http://127.0.0.1:{ground.ports[0]}"]
    command += ["--listen-host", "127.0.0.1", "--listen-port", str(port), *flags]
    command += ["--set", f"confdir={ground.folder / 'mitmproxy'}"]
    ports = ",".join(map(str, ground.ports))
    return _running(ground, port, command, BENCH_PORTS=ports)


def _settings(ground: Ground) -> dict[str, Any]:
    """Of this product, whichever way it is started."""
    pools = dict(zip(processes.LABELS, ([port] for port in ground.ports), strict=True))
    return {
        **processes.pool_variables(pools),
        "CLASSIFIER_URL": ground.classifier_url,
        "CLASSIFY_TIMEOUT_MS": 10_000,
        "CACHE_TTL_SECONDS": 86_400,
        "HEALTH_INTERVAL_MS": 3_600_000,
        "DRAIN_TIMEOUT_SECONDS": 1,
    }


@contextmanager
def _router(ground: Ground, inspect: str, *, seen: bool = True) -> Iterator[Started]:
    """As `mitmdump -s addons/router.py`; `seen` by an addon, without which nothing is a flow."""
    settings = {**_settings(ground), "INSPECT": inspect}
    with processes.proxy(ground.folder, seen=seen, **settings) as proxy:
        yield Started(proxy.port, proxy.started.process.pid, proxy.control)


@contextmanager
def _launcher(ground: Ground, inspect: str, *flags: str) -> Iterator[Started]:
    """As the command of this product's own, which takes mitmdump's options."""
    port, control_port = processes.free_port(), processes.free_port()
    command = [*_launcher_command(), "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    command += [*flags, "--set", f"confdir={ground.folder / 'mitmproxy'}"]
    variables = {**_settings(ground), "INSPECT": inspect, "METRICS_PORT": control_port}
    with _running(ground, port, command, **variables) as started:
        yield Started(port, started.pid, f"http://127.0.0.1:{control_port}")


LAUNCHER, LAUNCHER_MODULE = "slb", "addons.launcher"
"""The command as it is installed; the module that does the same from a checkout."""
UNROUTED_FLAGS = ("--set", "router_routing=false")
"""What makes the launcher pass requests on without asking for labels."""


def _without(name: str) -> Callable[[], str]:
    """What is missing if a program is."""
    return lambda: "" if is_installed(name) else f"{name} is not installed"


def _launcher_command() -> list[str]:
    if is_installed(LAUNCHER):
        return [program(LAUNCHER)]
    there = importlib.util.find_spec(LAUNCHER_MODULE) is not None
    return [sys.executable, "-m", LAUNCHER_MODULE] if there else []


def _without_launcher() -> str:
    return "" if _launcher_command() else f"there is no {LAUNCHER} and no {LAUNCHER_MODULE} yet"


def _without_setting(inspect: str) -> str:
    """What is missing if this way of inspection is unknown."""
    with contextlib.suppress(ValidationError):
        RouterSettings.model_validate({"inspect": inspect})
        return ""
    return f"there is no INSPECT={inspect} yet"


def _package(name: str) -> Callable[[], str]:
    return lambda: importlib.metadata.version(name)


def _peer(title: str, start: Start, *flags: str) -> Target:
    name = title.lower()
    told = partial(version, name, *flags)
    return Target(title, start, told, missing=_without(name), python=False)


def _ours(
    title: str,
    start: Start,
    missing: Callable[[], str] = lambda: "",
    *,
    by_default: bool = True,
) -> Target:
    return Target(
        f"this, {title}", start, lambda: "", missing=missing, by_default=by_default, asks=True
    )


ROUND_ROBIN = ("-s", str(CONFIGS / "round_robin.py"))
OBSERVER = ("-s", str(processes.OBSERVER))
"""An addon that looks at each request and each answer: without one, none becomes a flow."""
_mitmproxy, _httptools = _package("mitmproxy"), _package("httptools")

TARGETS = {
    "nginx": _peer("nginx", _nginx, "-v"),
    "haproxy": _peer("HAProxy", _haproxy, "-v"),
    "envoy": _peer("Envoy", _envoy, "--version"),
    "caddy": _peer("Caddy", _caddy, "version"),
    FLOOR: Target("floor: asyncio, httptools", _floor, _httptools),
    "floor-uvloop": Target(
        "the floor on uvloop",
        lambda ground: _floor(ground, "--uvloop"),
        _package("uvloop"),
        by_default=False,
    ),
    STOCK: Target("mitmdump", _stock, _mitmproxy),
    "mitmdump-rr": Target(
        "round-robin addon on mitmdump", lambda ground: _stock(ground, *ROUND_ROBIN), _mitmproxy
    ),
    "router-all": _ours("INSPECT=all, an addon", partial(_router, inspect="all")),
    "router-unseen": _ours(
        "INSPECT=all, no addon", partial(_router, inspect="all", seen=False), by_default=False
    ),
    "router-matching": _ours(
        "INSPECT=matching",
        partial(_router, inspect="matching"),
        missing=partial(_without_setting, "matching"),
        by_default=False,
    ),
    "router-off": _ours("INSPECT=off", partial(_router, inspect="off")),
    "slb-all": _ours(
        "launcher, INSPECT=all, an addon",
        lambda ground: _launcher(ground, "all", *OBSERVER),
        missing=_without_launcher,
    ),
    "slb-off": _ours(
        "launcher, INSPECT=off", partial(_launcher, inspect="off"), missing=_without_launcher
    ),
    "slb-2": _ours(
        "launcher, INSPECT=off, 2 processes",
        lambda ground: _launcher(ground, "off", "--processes", "2"),
        missing=_without_launcher,
    ),
    "slb-unrouted": _ours(
        "launcher, no routing",
        lambda ground: _launcher(ground, "off", *UNROUTED_FLAGS),
        missing=_without_launcher,
    ),
}
