"""The one upstream of all targets: nginx with small answers that are always the same."""

import contextlib
import http.client
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import processes
from tests.bench.cores import started_on
from tests.bench.programs import as_root, configured, program

POOLS = 3


@dataclass(frozen=True, slots=True)
class Counts:
    """What has come to the upstream since its start."""

    connections: int
    requests: int


class Upstream:
    """A running upstream."""

    def __init__(self, ports: Sequence[int], counting_port: int) -> None:
        """Ports of three pools, and the one that counts."""
        self.ports = tuple(ports)
        self._counter = http.client.HTTPConnection("127.0.0.1", counting_port, timeout=30)
        self._looks = 0

    def counts(self) -> Counts:
        """What others than this very question have brought."""
        self._counter.request("GET", "/")
        text = self._counter.getresponse().read().decode()
        self._looks += 1
        accepted, _, requests = map(int, re.findall(r"^ (\d+) (\d+) (\d+)", text, re.MULTILINE)[0])
        return Counts(accepted, requests - self._looks)

    def close(self) -> None:
        self._counter.close()


@contextmanager
def upstream(folder: Path, cores: frozenset[int]) -> Iterator[Upstream]:
    """An upstream while the context lasts."""
    ports = [processes.free_port() for _ in range(POOLS)]
    counting_port = processes.free_port()
    listens = "".join(f"    listen 127.0.0.1:{port} backlog=4096;\n" for port in ports)
    config = configured("upstream.conf", folder, listens=listens, count=counting_port)
    command = [program("nginx"), "-c", config, *as_root()]
    ready = f"http://127.0.0.1:{counting_port}/"
    context = processes.running(command, folder, processes.clean_env(), ready, "upstream")
    with started_on(cores, context), contextlib.closing(Upstream(ports, counting_port)) as running:
        yield running
