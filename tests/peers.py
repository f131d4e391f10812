"""This product and its peers in front of given workers, each as a good operator would set it up.

All have the same deadlines, health checks (nginx has none), ejection after five failures, two tries
at most, and repeat only what may be repeated. WebSocket passes, no other protocol does.
"""

import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template

from tests import processes
from tests.fleet import fleet, label_source, listens
from tests.targets import LABEL, SETTINGS, SPILL_NAME

CONFIGS = processes.ROOT / "tests" / "peer_configs"
PATH = os.pathsep.join([str(processes.BIN), os.environ.get("PATH", os.defpath), "/usr/sbin"])


class Config(Template):
    """A configuration with values left open: `%name`, for `$` has a meaning of its own there."""

    delimiter = "%"


@dataclass(frozen=True, slots=True)
class Proxied:
    """A running proxy.

    Attributes:
        port: Where clients connect.
        pid: The process that serves.
        drain: Tells it to end once all that is in flight is answered.
    """

    port: int
    pid: int
    drain: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a proxy is started with.

    Attributes:
        folder: For its files.
        ports: Of the workers.
        first_byte_ms: How long it waits for an answer.
    """

    folder: Path
    ports: Sequence[int]
    first_byte_ms: int

    def each(self, text: str) -> str:
        """The text for each worker."""
        return "".join(
            Config(text).substitute(name=f"w{index}", at=port)
            for index, port in enumerate(self.ports)
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy that can be started.

    Attributes:
        program: What has to be installed for it.
        version: Arguments that make it tell its version.
    """

    title: str
    start: Callable[[Setup], AbstractContextManager[Proxied]]
    program: str = ""
    version: str = "-v"

    @property
    def installed(self) -> bool:
        return not self.program or shutil.which(self.program, path=PATH) is not None

    def name(self) -> str:
        """Its title, with the version that is installed."""
        if not self.program:
            return self.title
        told = subprocess.run(
            [_path(self.program), self.version], capture_output=True, text=True, check=True
        )
        found = re.search(r"\b\d+\.\d+\.\d+", told.stdout + told.stderr)
        return f"{self.title} {found[0] if found else ''}".strip()


def _path(program: str) -> str:
    path = shutil.which(program, path=PATH)
    assert path is not None, f"{program} is not installed"
    return path


@contextmanager
def _ours(setup: Setup, inspect: str) -> Iterator[Proxied]:
    with (
        fleet(setup.folder, SPILL_NAME) as (other,),
        label_source(setup.folder, LABEL) as classifier,
    ):
        ports = {label: [other.port] for label in processes.LABELS}
        settings = {
            **SETTINGS,
            **processes.pool_variables({**ports, LABEL: setup.ports}),
            "CLASSIFIER_URL": classifier,
            "FIRST_BYTE_TIMEOUT_MS": setup.first_byte_ms,
            "INSPECT": inspect,
        }
        with processes.proxy(setup.folder, **settings) as proxy:
            process = proxy.started.process
            yield Proxied(proxy.port, process.pid, process.terminate)


@contextmanager
def _running(setup: Setup, port: int, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    log = setup.folder / "peer.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [_path(command[0]), *command[1:]], env=processes.clean_env(), stdout=out, stderr=out
        )
    try:
        processes.until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, log.read_text(errors="replace")
        yield process
    finally:
        processes.Started(process, log).stop()


def _configured(setup: Setup, name: str, **values: object) -> str:
    """Write the configuration of that name; returns its path."""
    config = Config((CONFIGS / name).read_text())
    path = setup.folder / name
    path.write_text(
        config.substitute(values, folder=setup.folder, first_byte_ms=setup.first_byte_ms)
    )
    return str(path)


@contextmanager
def _nginx(setup: Setup) -> Iterator[Proxied]:
    port = processes.free_port()
    server = "    server 127.0.0.1:%at max_fails=5 fail_timeout=2s;\n"
    config = _configured(setup, "nginx.conf", port=port, servers=setup.each(server))
    # As root it would serve as a user who may not write to the folder.
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    with _running(setup, port, "nginx", "-c", config, *user) as master:
        children = Path(f"/proc/{master.pid}/task/{master.pid}/children")
        assert processes.until(lambda: bool(children.read_text()))
        pid = int(children.read_text().split()[0])
        yield Proxied(port, pid, partial(master.send_signal, signal.SIGQUIT))


@contextmanager
def _haproxy(setup: Setup) -> Iterator[Proxied]:
    port = processes.free_port()
    servers = setup.each("  server %name 127.0.0.1:%at\n")
    config = _configured(setup, "haproxy.cfg", port=port, servers=servers)
    with _running(setup, port, "haproxy", "-db", "-f", config) as process:
        yield Proxied(port, process.pid, partial(process.send_signal, signal.SIGUSR1))


@contextmanager
def _envoy(setup: Setup) -> Iterator[Proxied]:
    port, admin = processes.free_port(), processes.free_port()
    address = "{socket_address: {address: 127.0.0.1, port_value: %at}}"
    values = {
        "api": "type.googleapis.com/envoy.extensions",
        "port": port,
        "admin": admin,
        "first_byte": setup.first_byte_ms / 1000,
        "servers": setup.each(f"        - endpoint: {{address: {address}}}\n"),
    }
    config = _configured(setup, "envoy.yaml", **values)
    flags = ["--use-dynamic-base-id", "--drain-time-s", "20", "--concurrency", "2"]
    with _running(setup, port, "envoy", "-c", config, *flags) as process:
        # No signal of its lets requests finish: this is what operators put before one.
        url = f"http://127.0.0.1:{admin}/drain_listeners?graceful"
        drain = urllib.request.Request(url, method="POST")
        yield Proxied(port, process.pid, lambda: urllib.request.urlopen(drain, timeout=5).close())


PEERS = {
    "off": Peer("this, INSPECT=off", partial(_ours, inspect="off")),
    "all": Peer("this, INSPECT=all", partial(_ours, inspect="all")),
    "nginx": Peer("nginx", _nginx, "nginx"),
    "haproxy": Peer("HAProxy", _haproxy, "haproxy"),
    "envoy": Peer("Envoy", _envoy, "envoy", "--version"),
}
