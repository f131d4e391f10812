"""The demo worker as a real process on a free loopback port."""

import asyncio
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.processes import clean_env, until


@dataclass(frozen=True)
class Worker:
    process: subprocess.Popen[str]
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "workers", *flags]


def refused(
    cwd: Path, *flags: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*flags),
        cwd=cwd,
        env=clean_env(**(env or {})),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )


@contextmanager
def running(cwd: Path, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[Worker]:
    process = subprocess.Popen(
        command("--port", "0", *flags),
        cwd=cwd,
        env=clean_env(**(env or {})),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = re.search(r"listens on (\S+):(\d+)$", line.strip())
            assert address, line + process.stderr.read()
            yield Worker(process, address[1], int(address[2]))
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    flags = ("--type", "fast-path", "--delay-ms", "0", "--name", "w1", "--echo-headers")
    with running(tmp_path_factory.mktemp("fast"), *flags) as worker:
        yield worker


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with running(tmp_path_factory.mktemp("slow"), "--type", "high-compute") as worker:
        yield worker


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "FROB"]
)
def test_any_method_on_any_path_is_answered_with_what_was_received(fast, method) -> None:
    response = httpx.request(method, f"{fast.url}/a/b%20c?x=1&y=%2F", content=b'{"q": 1}')

    assert response.status_code == 200
    answer = response.json()
    assert answer["method"] == method
    assert answer["path"] == "/a/b%20c?x=1&y=%2F"
    assert answer["body_bytes"] == 8
    assert answer["body_sha256"] == hashlib.sha256(b'{"q": 1}').hexdigest()
    assert answer["body_snippet"] == '{"q": 1}'
    assert (answer["worker"], answer["type"]) == ("w1", "fast-path")
    assert answer["elapsed_ms"] >= 0
    assert response.headers["x-worker-type"] == "fast-path"
    assert response.headers["x-worker-name"] == "w1"


def test_head_has_the_headers_and_no_body(fast) -> None:
    response = httpx.head(f"{fast.url}/anything")

    assert response.status_code == 200
    assert response.headers["x-worker-type"] == "fast-path"
    assert response.content == b""


def test_the_asterisk_form_is_answered(fast) -> None:
    with socket.create_connection((fast.host, fast.port), timeout=5) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nhost: w\r\nconnection: close\r\n\r\n")
        head, _, body = b"".join(iter(lambda: connection.recv(65_536), b"")).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["path"] == "*"


def test_the_routing_headers_are_reported_as_received(fast) -> None:
    headers = {
        "X-Route-Label": "fast-path",
        "X-Route-Confidence": "0.93",
        "X-Route-Source": "local",
    }

    answer = httpx.get(fast.url, headers=headers).json()

    assert answer["route_label"] == "fast-path"
    assert answer["route_confidence"] == "0.93"
    assert answer["route_source"] == "local"


def test_absent_routing_headers_are_null(fast) -> None:
    answer = httpx.get(fast.url).json()

    assert [answer[f"route_{name}"] for name in ("label", "confidence", "source")] == [None] * 3


def test_headers_are_echoed_only_when_asked_for(fast, slow) -> None:
    headers = {"X-Twice": "1"}

    assert ["x-twice", "1"] in httpx.get(fast.url, headers=headers).json()["headers"]
    assert httpx.get(slow.url, headers=headers).json()["headers"] == []


def test_a_chunked_binary_body_is_hashed_and_its_snippet_is_bounded(fast) -> None:
    chunks = [bytes(range(256)), b"\xff" * 300, b"end"]

    answer = httpx.post(fast.url, content=iter(chunks)).json()

    assert answer["body_bytes"] == 559
    assert answer["body_sha256"] == hashlib.sha256(b"".join(chunks)).hexdigest()
    assert len(answer["body_snippet"]) <= 200


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory use from /proc")
def test_a_large_body_is_hashed_without_being_collected(tmp_path) -> None:
    piece = b"x" * 1_048_576
    with running(tmp_path, "--type", "general", "--delay-ms", "0") as worker:
        httpx.post(worker.url, content=piece)
        before_kb = peak_memory_kb(worker.process.pid)
        answer = httpx.post(worker.url, content=(piece for _ in range(64)), timeout=15).json()
        grown_kb = peak_memory_kb(worker.process.pid) - before_kb

    assert answer["body_bytes"] == 64 * len(piece)
    assert grown_kb < 32_768


def peak_memory_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def test_health_answers_without_the_delay(tmp_path) -> None:
    with running(tmp_path, "--type", "general", "--delay-ms", "600000") as worker:
        response = httpx.get(f"{worker.url}/health", timeout=5)

    assert response.status_code == 200
    assert response.json()["status"] == "ok"
    assert response.json()["type"] == "general"


def test_only_reading_health_is_a_health_check(fast) -> None:
    assert httpx.head(f"{fast.url}/health").status_code == 200
    assert httpx.post(f"{fast.url}/health", content=b"x").json()["body_bytes"] == 1
    assert httpx.get(f"{fast.url}/health/").json()["path"] == "/health/"


async def test_requests_wait_side_by_side(slow) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=10) as client:
        started = time.perf_counter()
        responses = await asyncio.gather(*(client.get(slow.url) for _ in range(50)))
        elapsed_s = time.perf_counter() - started

    assert all(response.json()["elapsed_ms"] >= 395 for response in responses)
    assert elapsed_s < 10, "50 requests of 400 ms took turns"


def test_stream_spreads_its_events_over_the_delay(slow) -> None:
    with httpx.stream("GET", f"{slow.url}/watch?stream=4") as response:
        arrivals = [
            (time.perf_counter(), json.loads(line.removeprefix("data: ")))
            for line in response.iter_lines()
            if line.startswith("data: ")
        ]

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-worker-type"] == "high-compute"
    assert [event["event"] for _, event in arrivals] == [1, 2, 3, 4]
    assert arrivals[-1][1]["elapsed_ms"] >= 395
    assert arrivals[-1][0] - arrivals[0][0] > 0.1


def test_an_event_stream_is_what_accept_asks_for(fast) -> None:
    headers = {"accept": "text/event-stream"}

    response = httpx.post(fast.url, headers=headers, content=b"prompt")

    events = [line for line in response.text.splitlines() if line.startswith("data: ")]
    assert len(events) == 5
    assert json.loads(events[-1].removeprefix("data: "))["body_bytes"] == 6


@pytest.mark.parametrize(
    "query",
    ["stream=true", "stream=0", "stream=1001", "stream=-1", "stream=", f"stream={'9' * 5000}"],
)
def test_a_stream_parameter_that_is_no_count_is_an_ordinary_request(fast, query) -> None:
    assert httpx.get(f"{fast.url}/?{query}").json()["path"] == f"/?{query}"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads CPU time from /proc")
def test_burning_uses_cpu_time_in_parallel_and_leaves_the_loop_free(tmp_path) -> None:
    flags = ("--type", "high-compute", "--burn-cpu", "--delay-ms", "400", "--cpu-processes", "2")
    with running(tmp_path, *flags) as worker:
        children = burning_children(worker)
        before_s = [cpu_seconds(pid) for pid in children]
        elapsed_ms = asyncio.run(burn_twice(worker.url))
        burnt_s = [cpu_seconds(pid) - was for pid, was in zip(children, before_s, strict=True)]

    assert all(each >= 395 for each in elapsed_ms)
    assert all(each >= 0.38 for each in burnt_s), "not each of the two processes burnt CPU"


async def burn_twice(url: str) -> list[float]:
    async with httpx.AsyncClient(timeout=15) as client, asyncio.TaskGroup() as group:
        burning = [group.create_task(client.post(url)) for _ in range(2)]
        # That it says so while both burn is what shows that its loop is free.
        await in_flight(client, url, 2)
    return [task.result().json()["elapsed_ms"] for task in burning]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def in_flight(client: httpx.AsyncClient, url: str, count: int) -> None:
    while True:
        health = await client.get(f"{url}/health")
        if health.json()["in_flight"] >= count:
            return


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")
def test_a_killed_cpu_process_costs_no_request(tmp_path) -> None:
    flags = ("--type", "general", "--burn-cpu", "--delay-ms", "1", "--cpu-processes", "1")
    with running(tmp_path, *flags) as worker:
        for pid in burning_children(worker):
            os.kill(pid, signal.SIGKILL)
        answers = [httpx.get(worker.url, timeout=10).status_code for _ in range(2)]

    assert answers == [200, 200]


@pytest.mark.parametrize("flags", [(), ("--burn-cpu",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path, flags, number) -> None:
    with running(tmp_path, "--type", "general", "--delay-ms", "1", *flags) as worker:
        assert httpx.get(worker.url).status_code == 200
        children = burning_children(worker)
        worker.process.send_signal(number)
        _, err = worker.process.communicate(timeout=10)

    assert worker.process.returncode in {0, -number}
    assert err == ""
    assert not any(map(alive, children))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")
def test_the_cpu_processes_do_not_outlive_a_killed_worker(tmp_path) -> None:
    flags = ("--type", "general", "--burn-cpu", "--cpu-processes", "2")
    with running(tmp_path, *flags) as worker:
        children = burning_children(worker)
        worker.process.kill()

    assert len(children) == 2
    assert until(lambda: not any(map(alive, children)), 10), "a CPU process outlived its worker"


def burning_children(worker: Worker) -> list[int]:
    httpx.get(f"{worker.url}/health")  # answered as soon as they are there
    pid = worker.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"workers.cpu" in command_line(child)]


def command_line(pid: str) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_request_in_flight_survives_a_graceful_stop(tmp_path) -> None:
    with running(tmp_path, "--type", "high-compute") as worker:
        answer = asyncio.run(stop_in_flight(worker))

    assert answer["elapsed_ms"] >= 395


async def stop_in_flight(worker: Worker) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=10) as client, asyncio.TaskGroup() as group:
        request = group.create_task(client.get(worker.url))
        await in_flight(client, worker.url, 1)
        worker.process.terminate()
    return request.result().json()


@pytest.mark.parametrize(("access_log", "lines"), [("0", 0), ("1", 1)])
def test_requests_are_logged_only_when_asked_for(tmp_path, access_log, lines) -> None:
    env = {"WORKER_ACCESS_LOG": access_log}
    with running(tmp_path, "--type", "general", "--delay-ms", "0", env=env) as worker:
        httpx.get(f"{worker.url}/orders?token=1")
        worker.process.terminate()
        _, err = worker.process.communicate(timeout=10)

    assert err.count("/orders") == lines
    assert (err == "") == (access_log == "0")


@pytest.mark.parametrize(
    ("flags", "env", "type_and_delay"),
    [
        ((), {}, ("general", 50)),
        (("--type", "high-compute"), {}, ("high-compute", 400)),
        (("--type", "fast-path"), {}, ("fast-path", 5)),
        ((), {"WORKER_TYPE": "fast-path", "WORKER_DELAY_MS": "7"}, ("fast-path", 7)),
        (("--type", "general"), {"GENERAL_DELAY_MS": "9"}, ("general", 9)),
        (("--delay-ms", "3"), {"WORKER_TYPE": "general", "WORKER_DELAY_MS": "7"}, ("general", 3)),
    ],
)
def test_flags_win_over_the_environment_and_that_over_the_defaults(
    tmp_path, flags, env, type_and_delay
) -> None:
    with running(tmp_path, *flags, env=env) as worker:
        health = httpx.get(f"{worker.url}/health").json()

    assert (health["type"], health["delay_ms"]) == type_and_delay


def test_settings_are_read_from_a_dotenv_file_in_the_working_directory(tmp_path) -> None:
    (tmp_path / ".env").write_text("WORKER_TYPE=high-compute\nHIGH_COMPUTE_DELAY_MS=8\n")

    with running(tmp_path) as worker:
        health = httpx.get(f"{worker.url}/health").json()

    assert (health["type"], health["delay_ms"]) == ("high-compute", 8)


@pytest.mark.parametrize(
    ("flags", "env", "named"),
    [
        (("--type", "quick"), {}, "WORKER_TYPE"),
        (("--type", "general", "--port", "70000"), {}, "WORKER_PORT"),
        (("--type", "general", "--delay-ms", "soon"), {}, "WORKER_DELAY_MS"),
        (("--type", "general"), {"WORKER_BURN_CPU": "maybe"}, "WORKER_BURN_CPU"),
        (("--type", "general"), {"WORKER_CPU_PROCESSES": "0"}, "WORKER_CPU_PROCESSES"),
        (("--type", "general"), {"GENERAL_DELAY_MS": "-1"}, "GENERAL_DELAY_MS"),
        (("--type", "general", "--name", "a\nb"), {}, "WORKER_NAME"),
        (("--type", "general", "--frob"), {}, "--frob"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(tmp_path, flags, env, named) -> None:
    result = refused(tmp_path, *flags, env=env)

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr


def test_a_port_in_use_is_one_line_that_names_the_setting(tmp_path, fast) -> None:
    result = refused(tmp_path, "--type", "general", "--port", str(fast.port))

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert f":{fast.port}" in result.stderr
    assert "WORKER_PORT" in result.stderr
