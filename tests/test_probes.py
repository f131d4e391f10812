"""Health checks against real servers on loopback, in all the ways that those can be unwell."""

import asyncio
import contextlib
import errno
import random
import socket
import ssl
import time

import pytest

from addons import probes
from addons.health import Check, Reason
from addons.probes import ProbePolicy, Probes, probe
from addons.worker import Worker
from tests.processes import free_port

POLICY = ProbePolicy(
    path="/health?x=1", interval_seconds=0.05, timeout_seconds=0.3, connect_seconds=0.2
)


def no_tls():
    raise AssertionError


class Server:
    """Answers each connection with the same bytes, after a while, and keeps what it was asked."""

    def __init__(self, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", hangs=False):
        self.answer = answer
        self.hangs = hangs
        self.asked = []
        self.times = []
        self.open = 0

    async def serve(self, reader, writer):
        self.open += 1
        self.times.append(time.monotonic())
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if self.hangs:
                await reader.read()
            writer.write(self.answer)
            await writer.drain()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def serving(server, port=0):
    listener = await asyncio.start_server(server.serve, "127.0.0.1", port)
    async with listener:
        yield Worker("http", "127.0.0.1", listener.sockets[0].getsockname()[1])


@contextlib.contextmanager
def dropping():
    """A worker whose queue of connections is full: the kernel drops every further SYN."""
    with socket.socket() as sock, contextlib.ExitStack() as held:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(4):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(sock.getsockname())
        yield Worker("http", "127.0.0.1", sock.getsockname()[1])


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - servers and checks have no event for it
            await asyncio.sleep(0.005)


class Findings:
    """What checks have found."""

    def __init__(self):
        self.all = []

    def __call__(self, worker, check, why):
        self.all.append((worker.port, check, why))

    def checks(self):
        return [check for _, check, _ in self.all]


@contextlib.asynccontextmanager
async def probing(*workers, policy=POLICY, **options):
    findings = Findings()
    checks = Probes(findings, tls=no_tls, **options)
    checks.watch(workers, policy)
    checks.start()
    try:
        yield checks, findings
    finally:
        await checks.aclose()


@pytest.mark.parametrize("status", [200, 204, 301, 401, 404, 499])
async def test_any_answer_below_500_is_healthy(status) -> None:
    async with serving(Server(b"HTTP/1.1 %d\r\n\r\n" % status)) as worker:
        assert await probe(worker, POLICY, None) is Check.PASSED


@pytest.mark.parametrize(
    "answer",
    [
        *(b"HTTP/1.1 500 Oops\r\n\r\n", b"HTTP/1.0 503 \r\n\r\n", b"HTTP/1.1 599\r\n\r\n"),
        *(b"HTTP/1.1 99\r\n\r\n", b"HTTP/1.1 2000\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"\r\n\r\n"),
        *(b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200", b"x" * 100_000, b"\n" * 9, b"\x00\xff\n"),
    ],
)
async def test_errors_and_nonsense_are_not(answer) -> None:
    async with serving(Server(answer)) as worker:
        assert await probe(worker, POLICY, None) is Check.FAILED


async def test_a_worker_that_hangs_up_has_failed() -> None:
    async def hang_up(reader, writer):
        await reader.readline()
        writer.transport.abort()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        worker = Worker("http", "127.0.0.1", listener.sockets[0].getsockname()[1])
        assert await probe(worker, POLICY, None) is Check.FAILED


async def test_a_worker_that_hangs_has_failed_when_the_time_is_over() -> None:
    server = Server(hangs=True)
    async with serving(server) as worker:
        began = time.monotonic()

        assert await probe(worker, POLICY, None) is Check.FAILED

        assert 0.25 < time.monotonic() - began < 0.6
        await until(lambda: not server.open)


async def test_a_worker_that_drips_its_answer_has_failed_when_the_time_is_over() -> None:
    async def drip(reader, writer):
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK and so on and on and on and on\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as listener:
        worker = Worker("http", "127.0.0.1", listener.sockets[0].getsockname()[1])
        began = time.monotonic()
        assert await probe(worker, POLICY, None) is Check.FAILED
        assert time.monotonic() - began < 0.6


async def test_a_worker_that_refuses_is_unreachable() -> None:
    worker = Worker("http", "127.0.0.1", free_port())

    assert await probe(worker, POLICY, None) is Check.UNREACHABLE


async def test_a_worker_that_drops_syns_is_unreachable_within_the_connect_timeout() -> None:
    with dropping() as worker:
        began = time.monotonic()

        assert await probe(worker, POLICY, None) is Check.UNREACHABLE

        assert 0.15 < time.monotonic() - began < 0.28


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64 + ".invalid", "a..b"])
async def test_a_name_that_does_not_exist_is_unreachable(host, monkeypatch) -> None:
    def look_up(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)

    assert await probe(Worker("http", host, 80), POLICY, None) is Check.UNREACHABLE


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.EMFILE, "too many open files"),
        OSError(errno.EADDRNOTAVAIL, "no port left"),
        socket.gaierror(socket.EAI_AGAIN, "name servers do not answer"),
    ],
)
async def test_a_fault_of_our_own_says_nothing_about_a_worker(monkeypatch, fault) -> None:
    def fail(*_, **__):
        raise fault

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(probes.asyncio, "open_connection", fail)

    assert await probe(Worker("http", "worker", 80), POLICY, None) is None
    async with probing(Worker("http", "worker", 80)) as (_, findings):
        await asyncio.sleep(0.1)
    assert findings.all == []


def slow_names(monkeypatch, worker, seconds):
    """Name servers that take so long to find the worker."""
    look_up = socket.getaddrinfo

    def find(host, *args, **options):
        time.sleep(seconds)
        return look_up(worker.host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    return Worker(worker.scheme, "worker.test", worker.port)


async def test_a_lookup_that_is_slow_takes_nothing_from_the_time_to_connect(monkeypatch) -> None:
    async with serving(Server()) as worker:
        named = slow_names(monkeypatch, worker, 0.25)

        assert await probe(named, POLICY, None) is Check.PASSED


async def test_a_lookup_that_takes_too_long_says_nothing_about_a_worker(monkeypatch) -> None:
    async with serving(Server()) as worker:
        named = slow_names(monkeypatch, worker, 0.5)

        assert await probe(named, POLICY, None) is None


async def test_each_address_of_a_name_is_tried(monkeypatch) -> None:
    async with serving(Server()) as worker:
        look_up = socket.getaddrinfo

        def both(_, *args, **options):
            return [
                *look_up("127.0.0.2", *args, **options),
                *look_up(worker.host, *args, **options),
            ]

        monkeypatch.setattr(socket, "getaddrinfo", both)

        assert await probe(Worker("http", "both.test", worker.port), POLICY, None) is Check.PASSED


async def test_a_worker_without_tls_fails_a_check_with_it() -> None:
    async with serving(Server()) as worker:
        secure = Worker("https", worker.host, worker.port)

        found = await probe(secure, POLICY, ssl.create_default_context())

        assert found is Check.UNREACHABLE


async def test_a_worker_with_tls_is_checked_through_tls(certified) -> None:
    server, (server_tls, client_tls), made = Server(), certified, []

    def tls():
        made.append(1)
        return client_tls

    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_tls)
    async with listener:
        worker = Worker("https", "127.0.0.1", listener.sockets[0].getsockname()[1])
        findings = Findings()
        checks = Probes(findings, tls=tls)
        checks.watch([worker], POLICY)
        checks.start()
        await until(lambda: findings.checks()[:2] == [Check.PASSED] * 2)
        await checks.aclose()
        await until(lambda: not server.open)

    assert made == [1]


@pytest.mark.parametrize(
    ("host", "found"), [("worker.test", Check.PASSED), ("other.test", Check.UNREACHABLE)]
)
async def test_a_worker_with_tls_has_to_prove_its_name(certified, monkeypatch, host, found) -> None:
    server, (server_tls, client_tls) = Server(), certified
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *more, **a: look_up("127.0.0.1", *more, **a)
    )
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=server_tls)
    async with listener:
        port = listener.sockets[0].getsockname()[1]

        assert await probe(Worker("https", host, port), POLICY, client_tls) is found

        await until(lambda: not server.open)


async def test_a_check_asks_for_its_path_as_one_whole_request() -> None:
    server = Server()
    async with serving(server) as worker:
        await probe(worker, POLICY, None)

        await until(lambda: server.asked)
        head = server.asked[0]
        assert head.startswith(b"GET /health?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % worker.port)
        assert b"\r\nConnection: close\r\n" in head
        await until(lambda: not server.open)


async def test_workers_are_checked_at_once_and_then_at_regular_times() -> None:
    server = Server()
    policy = ProbePolicy(interval_seconds=0.2)
    async with serving(server) as worker:
        began = time.monotonic()
        async with probing(worker, policy=policy) as (_, findings):
            await until(lambda: len(findings.all) >= 4)

        assert server.times[0] - began < 0.1
        gaps = [b - a for a, b in zip(server.times[:3], server.times[1:4], strict=True)]
        assert all(0.17 < gap < 0.28 for gap in gaps), gaps
        assert set(findings.all) == {(worker.port, Check.PASSED, Reason.HEALTH_CHECK)}


async def test_times_between_checks_differ_so_that_proxies_do_not_fall_into_step() -> None:
    server = Server()
    async with (
        serving(server) as worker,
        probing(worker, policy=ProbePolicy(interval_seconds=0.1), rng=random.Random(4)) as (
            _,
            found,
        ),
    ):
        await until(lambda: len(found.all) >= 6)

    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert max(gaps) - min(gaps) > 0.005


async def test_a_slow_worker_does_not_hold_up_the_checks_of_others() -> None:
    with dropping() as stuck:
        async with (
            serving(Server()) as well,
            serving(Server(hangs=True)) as hanging,
            probing(stuck, hanging, well) as (_, findings),
        ):
            await until(lambda: findings.all.count((well.port, *_regular(Check.PASSED))) >= 4, 0.5)


def _regular(check):
    return check, Reason.HEALTH_CHECK


async def test_a_worker_that_starts_late_is_found() -> None:
    port = free_port()
    async with probing(Worker("http", "127.0.0.1", port)) as (_, findings):
        await until(lambda: Check.UNREACHABLE in findings.checks())
        async with serving(Server(), port):
            await until(lambda: Check.PASSED in findings.checks())


async def test_a_suspicion_is_verified_at_once() -> None:
    async with (
        serving(Server(b"HTTP/1.1 500\r\n\r\n")) as worker,
        probing(worker, policy=ProbePolicy(interval_seconds=60)) as (checks, findings),
    ):
        await until(lambda: findings.all)

        checks.verify(worker, Reason.RESPONSE_FAILED)

        await until(lambda: len(findings.all) == 2, 0.1)
        assert findings.all[1] == (worker.port, Check.FAILED, Reason.RESPONSE_FAILED)


async def test_another_interval_holds_at_once() -> None:
    server = Server()
    async with (
        serving(server) as worker,
        probing(worker, policy=ProbePolicy(interval_seconds=60)) as (checks, findings),
    ):
        await until(lambda: findings.all)

        checks.watch([worker], ProbePolicy(interval_seconds=0.05))

        await until(lambda: len(findings.all) >= 4, 2)


async def test_of_many_suspicions_one_is_verified() -> None:
    server = Server()
    async with (
        serving(server) as worker,
        probing(worker, policy=ProbePolicy(interval_seconds=60)) as (checks, findings),
    ):
        await until(lambda: findings.all)
        for _ in range(200):
            checks.verify(worker, Reason.CONNECT_FAILED)
        await until(lambda: len(findings.all) == 2)
        checks.verify(worker, Reason.CONNECT_FAILED)
        await asyncio.sleep(0.03)
        assert len(server.times) == 2

        await asyncio.sleep(0.1)
        checks.verify(worker, Reason.CONNECT_FAILED)
        await until(lambda: len(findings.all) == 3)


async def test_only_one_verifying_probe_of_a_worker_is_under_way() -> None:
    server = Server(hangs=True)
    policy = ProbePolicy(interval_seconds=60, timeout_seconds=0.4)
    async with serving(server) as worker, probing(worker, policy=policy) as (checks, findings):
        await until(lambda: findings.all)
        for _ in range(20):
            checks.verify(worker, Reason.RESPONSE_FAILED)
            await asyncio.sleep(0.015)
        assert len(server.times) == 2
        await until(lambda: len(findings.all) == 2)


async def test_strangers_are_not_verified() -> None:
    server = Server()
    async with serving(server) as worker, probing() as (checks, findings):
        checks.verify(worker, Reason.CONNECT_FAILED)
        await asyncio.sleep(0.05)

    assert findings.all == []
    assert server.times == []


async def test_nothing_is_checked_before_the_start_and_after_the_end() -> None:
    server, findings = Server(), Findings()
    async with serving(server) as worker:
        checks = Probes(findings, tls=no_tls)
        checks.watch([worker], POLICY)
        checks.verify(worker, Reason.CONNECT_FAILED)
        await asyncio.sleep(0.05)
        assert server.times == []

        checks.start()
        await until(lambda: findings.all)
        await checks.aclose()

        count = len(server.times)
        checks.verify(worker, Reason.CONNECT_FAILED)
        await asyncio.sleep(0.15)
        assert len(server.times) == count
        await until(lambda: not server.open)


async def test_closing_cuts_checks_under_way() -> None:
    server = Server(hangs=True)
    async with serving(server) as worker:
        policy = ProbePolicy(timeout_seconds=60)
        async with probing(worker, policy=policy) as (checks, _):
            checks.verify(worker, Reason.RESPONSE_FAILED)
            await until(lambda: server.open == 2)
            began = time.monotonic()
        assert time.monotonic() - began < 0.2
        await until(lambda: not server.open)


async def test_after_a_change_new_workers_are_checked_and_old_ones_left_alone() -> None:
    old, stays, new = Server(), Server(), Server()
    async with (
        serving(old) as one,
        serving(stays) as two,
        serving(new) as three,
        probing(one, two) as (checks, _),
    ):
        await until(lambda: old.times and stays.times)

        checks.watch([two, three], POLICY)

        await until(lambda: new.times)
        count = len(old.times)
        more = len(stays.times) + 3
        await until(lambda: len(stays.times) >= more)
        assert len(old.times) == count
        # One that stays is not checked twice as often.
        assert len([one for one in asyncio.all_tasks() if "_check_reg" in repr(one)]) == 2


async def test_a_worker_that_is_removed_and_added_again_is_checked() -> None:
    server = Server()
    async with serving(server) as worker, probing(worker) as (checks, _):
        await until(lambda: server.times)

        checks.watch([], POLICY)
        checks.watch([worker], POLICY)

        count = len(server.times)
        await until(lambda: len(server.times) > count + 2)


async def test_a_fault_in_the_report_does_not_end_the_checks(caplog) -> None:
    calls, message = [], "sec" + "ret"

    def report(worker, check, why):
        calls.append(check)
        raise RuntimeError(message)

    async with serving(Server()) as worker:
        checks = Probes(report, tls=no_tls)
        checks.watch([worker], POLICY)
        checks.start()
        await until(lambda: len(calls) >= 3)
        await checks.aclose()

    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_checks_work_where_tasks_start_eagerly() -> None:
    """mitmproxy's loop runs a task's first step inside `create_task`."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    worker = Worker("http", "127.0.0.1", free_port())
    async with probing(worker) as (checks, findings):
        checks.verify(worker, Reason.CONNECT_FAILED)
        await until(lambda: (worker.port, Check.UNREACHABLE, Reason.CONNECT_FAILED) in findings.all)
        await asyncio.sleep(0.12)
        count = len(findings.all)
        checks.verify(worker, Reason.CONNECT_FAILED)
        await until(lambda: findings.all[count:])
