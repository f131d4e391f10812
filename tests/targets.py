"""Proxies in front of three faulty workers, to which the scenarios are put."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import processes
from tests.fleet import FaultyWorker, fleet, label_source, listens
from tests.processes import Proxy
from tests.scenarios import Target

NAMES = ("a", "b", "c")
LABEL = "general"
"""Of every request here; a classifier that fails says the same."""

SPILL_NAME = "spill"

FIRST_BYTE_MS = 1500
SETTINGS = {"FIRST_BYTE_TIMEOUT_MS": FIRST_BYTE_MS, "CLASSIFY_TIMEOUT_MS": 10_000}
"""Faults are waited for less than in production; a slow machine is no fault of the classifier."""


@dataclass(frozen=True, slots=True)
class OurTarget:
    """The product in front of three workers; a fourth one makes up the other pools."""

    proxy: Proxy
    target: Target
    spill: FaultyWorker


@contextmanager
def our_proxy(folder: Path, **settings: Any) -> Iterator[OurTarget]:
    """The product, with the three workers in the pool that all requests belong to."""
    with fleet(folder, *NAMES) as workers, fleet(folder, SPILL_NAME) as (spill,):
        ports = {label: [spill.port] for label in processes.LABELS}
        pools = processes.pool_variables({**ports, LABEL: [worker.port for worker in workers]})
        with label_source(folder, LABEL) as url:
            variables = {**SETTINGS, **pools, "CLASSIFIER_URL": url, **settings}
            with processes.proxy(folder, **variables) as proxy:
                target = Target(proxy.port, workers, proxy.started.process.pid)
                yield OurTarget(proxy, target, spill)


NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000; client_max_body_size 0;
  upstream pool {{ {servers} keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://pool; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_connect_timeout 200ms; proxy_read_timeout {read_ms}ms; proxy_next_upstream_tries 2;
    }}
  }}
}}
"""


@contextmanager
def nginx(folder: Path) -> Iterator[Target]:
    """nginx with its defaults, and time-outs as ours."""
    port = processes.free_port()
    with fleet(folder, *NAMES) as workers:
        servers = " ".join(f"server 127.0.0.1:{worker.port};" for worker in workers)
        text = NGINX.format(folder=folder, port=port, servers=servers, read_ms=FIRST_BYTE_MS)
        config = folder / "nginx.conf"
        config.write_text(text)
        process = subprocess.Popen(
            ["/usr/sbin/nginx", "-c", str(config)], stderr=subprocess.DEVNULL
        )
        try:
            assert processes.until(lambda: listens(port)), (folder / "nginx.log").read_text()
            yield Target(port, workers, _only_child(process.pid))
        finally:
            process.terminate()
            process.wait(processes.STOP_SECONDS)


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
