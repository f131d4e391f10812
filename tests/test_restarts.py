"""The proxy is told to end while it serves."""

import asyncio
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests import processes, scenarios
from tests.fleet import fleet, label_source, listens
from tests.load import Load, Plan
from tests.targets import LABEL, NAMES, our_proxy

pytestmark = pytest.mark.integration


class Readiness:
    """Watches, while it lasts, when the proxy stops to be ready and when it stops to listen."""

    def __init__(self, proxy) -> None:
        self._proxy = proxy
        self.unready_at = self.closed_at = float("inf")

    async def __aenter__(self) -> "Readiness":
        self._task = asyncio.ensure_future(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            while self.closed_at == float("inf"):
                self.unready_at = min(self.unready_at, await self._unready(client))
                self.closed_at = await self._closed()
                await asyncio.sleep(0.01)

    async def _unready(self, client: httpx.AsyncClient) -> float:
        try:
            answer = await client.get(f"{self._proxy.control}/readyz")
        except httpx.HTTPError:
            return float("inf")
        return time.monotonic() if answer.status_code == 503 else float("inf")

    async def _closed(self) -> float:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._proxy.port)
        except OSError:
            return time.monotonic()
        writer.close()
        return float("inf")


async def test_sigterm_loses_no_request_in_flight(tmp_path) -> None:
    with our_proxy(tmp_path, FIRST_BYTE_TIMEOUT_MS=10_000, DRAIN_DELAY_SECONDS=1) as ours:
        process = ours.proxy.started.process
        assert await scenarios.all_in_use(ours.target)
        async with Readiness(ours.proxy) as watched:
            drained = await scenarios.drain(ours.target, process.terminate)
        code = await asyncio.to_thread(process.wait, 10)

    print(drained)
    assert drained.lost == 0, drained
    assert drained.requests == 32
    assert code == 0
    assert watched.unready_at < watched.closed_at < float("inf")


async def test_readiness_ends_a_while_before_the_listener_closes(tmp_path) -> None:
    """A balancer that looks at it has the time to send nobody any more."""
    with our_proxy(tmp_path, DRAIN_DELAY_SECONDS=1) as ours:
        process = ours.proxy.started.process
        assert await scenarios.all_in_use(ours.target)
        plan = ours.target.plan("GET and POST", rate=100, connections=8)
        async with Readiness(ours.proxy) as watched:
            load = Load(plan)
            async with load:
                process.terminate()
                told = time.monotonic()
                await asyncio.sleep(0.8)
            await asyncio.to_thread(process.wait, 10)

    assert load.report().errors == []
    assert watched.unready_at - told < 0.3
    assert 0.9 <= watched.closed_at - told < 2.0
    assert process.returncode == 0


async def test_an_idle_proxy_ends_at_once(tmp_path) -> None:
    with our_proxy(tmp_path) as ours:
        process = ours.proxy.started.process
        began = time.monotonic()
        process.terminate()

        assert await asyncio.to_thread(process.wait, 10) == 0
        assert time.monotonic() - began < 3.0


async def test_a_request_that_outlasts_the_drain_does_not_hold_the_proxy(tmp_path) -> None:
    settings = {"DRAIN_TIMEOUT_SECONDS": 1, "FIRST_BYTE_TIMEOUT_MS": 60_000}
    with our_proxy(tmp_path, **settings) as ours:
        process = ours.proxy.started.process
        plan = ours.target.plan(make=lambda _: scenarios.NEVER_ANSWERED, connections=2, count=2)
        async with Load(plan) as load:
            assert await scenarios.until(
                lambda: load.sent == 2 and scenarios.read(ours.target) == 2
            )
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, 10)

    assert code == 0
    assert 0.9 < time.monotonic() - began < 5.0
    assert len(load.report().errors) == 2


async def test_a_second_signal_ends_the_wait(tmp_path) -> None:
    with our_proxy(tmp_path, DRAIN_DELAY_SECONDS=20) as ours:
        process = ours.proxy.started.process
        process.terminate()
        assert await scenarios.until(
            lambda: httpx.get(f"{ours.proxy.control}/readyz").status_code == 503
        )
        began = time.monotonic()
        process.terminate()

        assert await asyncio.to_thread(process.wait, 10) == 0
        assert time.monotonic() - began < 5.0


HAPROXY = """
defaults
  mode http
  timeout connect 500ms
  timeout client 10s
  timeout server 10s
  timeout check 2s
  option redispatch
  retries 3
frontend front
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  option httpchk GET /readyz
  default-server check inter 200ms fall 1 rise 1
  server one 127.0.0.1:{one[0]} port {one[1]}
  server two 127.0.0.1:{two[0]} port {two[1]}
"""


@contextmanager
def haproxy(folder, one, two):
    """HAProxy in front of two replicas, whose readiness it looks at; yields its port."""
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    port = processes.free_port()
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, one=one, two=two))
    process = subprocess.Popen([program, "-q", "-db", "-f", str(config)])
    try:
        assert processes.until(lambda: listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.skipif(
    not (shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")),
    reason="no haproxy here",
)
async def test_a_rolling_restart_of_two_replicas_loses_no_request(tmp_path) -> None:
    ports = [(processes.free_port(), processes.free_port()) for _ in range(2)]
    with ExitStack() as stack:
        workers = stack.enter_context(fleet(tmp_path, *NAMES))
        pools = processes.pool_variables(
            {label: [worker.port for worker in workers] for label in processes.LABELS}
        )
        url = stack.enter_context(label_source(tmp_path, LABEL))
        settings = {**pools, "CLASSIFIER_URL": url, "DRAIN_DELAY_SECONDS": 1}

        def replica(number):
            started = processes.proxy(tmp_path, ports=ports[number], **settings)
            return stack.enter_context(started)

        replicas = [replica(0), replica(1)]
        port = stack.enter_context(haproxy(tmp_path, *ports))
        plan = Plan(port, scenarios.MAKERS["GET and POST"], connections=16, rate=150)
        async with Load(plan) as load:
            for number in range(2):
                await asyncio.sleep(1)
                code = await asyncio.to_thread(replicas[number].started.stop)
                assert code == 0
                replicas[number] = await asyncio.to_thread(replica, number)
            await asyncio.sleep(1)

    answers = load.report()
    print(len(answers.answers), answers.errors[:3])
    assert len(answers.answers) > 500
    assert answers.errors == []
