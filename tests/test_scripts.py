"""The scripts as a user runs them: real processes on free ports, in directories of their own."""

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import override

import httpx
import pytest

from addons.settings import AdminSettings, RouterSettings
from classifier.settings import ClassifierSettings
from dashboard.settings import DashboardSettings
from tests import processes
from tests.processes import LABELS, ROOT, free_port, until
from workers.settings import WorkerSettings

BASH = shutil.which("bash") or "/bin/bash"
BARE = {"PATH": "/usr/bin:/bin"}
SETTINGS = (RouterSettings, AdminSettings, ClassifierSettings, DashboardSettings, WorkerSettings)
SERVICES = {
    "worker-general",
    "worker-high-compute",
    "worker-fast-path",
    "classifier",
    "proxy",
    "dashboard",
}

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def settings_on_free_ports() -> dict[str, str]:
    """All of the stack's ports, and no LLM, for one may run on this machine."""
    general, high, fast, classifier, proxy, metrics, dashboard = map(str, free_ports(7))
    return {
        "GENERAL_POOL": f"http://127.0.0.1:{general}",
        "HIGH_COMPUTE_POOL": f"http://127.0.0.1:{high}",
        "FAST_PATH_POOL": f"http://127.0.0.1:{fast}",
        "HIGH_COMPUTE_DELAY_MS": "20",
        # A busy machine must not turn an answer into a fallback.
        "CLASSIFY_TIMEOUT_MS": "20000",
        "CLASSIFIER_URL": f"http://127.0.0.1:{classifier}",
        "CLASSIFIER_PORT": classifier,
        "OLLAMA_BASE_URL": "http://127.0.0.1:9",
        "PROXY_PORT": proxy,
        "METRICS_PORT": metrics,
        "PROXY_METRICS_URL": f"http://127.0.0.1:{metrics}",
        "DASHBOARD_PORT": dashboard,
    }


def workers_only(settings: Mapping[str, str]) -> dict[str, str]:
    """A stack that is up in a second: no classifier here, for it is said to be elsewhere."""
    rest = {name: value for name, value in settings.items() if name != "CLASSIFIER_PORT"}
    return {**rest, "CLASSIFIER_URL": "http://classifier.invalid:8001"}


def write_dotenv(home: Path, settings: Mapping[str, str]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}={value}" for name, value in settings.items()]
    (home / ".env").write_text("\n".join(["# of a test", *lines, ""]))


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = Path("/"),
    timeout: float = 100,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env={**BARE, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def stack(home: Path, *arguments: str, env: Mapping[str, str] | None = None):
    command = [sys.executable, ROOT / "scripts" / "stack.py", "--home", home, *arguments]
    return run(command, env=env)


def records(home: Path) -> dict[str, dict[str, object]]:
    return {file.stem: json.loads(file.read_text()) for file in (home / ".run").glob("*.json")}


def pids(home: Path) -> dict[str, int]:
    return {name: int(str(record["pid"])) for name, record in records(home).items()}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def open_ports(settings: Mapping[str, str]) -> list[int]:
    ports = {int(port) for value in settings.values() for port in re.findall(r"(\d{4,5})$", value)}
    return [port for port in ports if listens(port)]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Running:
    home: Path
    settings: Mapping[str, str]

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.settings['PROXY_PORT']}"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The whole stack with its real parts."""
    home = tmp_path_factory.mktemp("stack")
    settings = settings_on_free_ports()
    write_dotenv(home, settings)
    result = stack(home, "up")
    try:
        assert result.returncode == 0, result.stderr
        yield Running(home, settings)
    finally:
        stack(home, "down")


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    path = tmp_path / "home"
    path.mkdir()
    yield path
    stack(path, "down")


# stack.py


def test_up_starts_all_services_and_all_are_ready(full) -> None:
    result = stack(full.home, "status")

    assert result.returncode == 0, result.stdout
    lines = [line.split() for line in result.stdout.splitlines()]
    assert {name: state for name, _, state, *_ in lines} == dict.fromkeys(SERVICES, "ready")


def test_a_second_up_leaves_alone_what_runs(full) -> None:
    before = records(full.home)

    result = stack(full.home, "up")

    assert result.returncode == 0
    assert records(full.home) == before
    assert result.stdout.count("already up") == len(SERVICES)


def test_up_says_when_settings_have_changed_since_the_start(home) -> None:
    settings = workers_only(settings_on_free_ports())
    write_dotenv(home, settings)
    stack(home, "up")
    write_dotenv(home, {**settings, "GENERAL_DELAY_MS": "1"})

    result = stack(home, "up")

    assert result.returncode == 0
    assert "older settings" in result.stdout


def test_up_says_when_the_environment_has_changed_since_the_start(home) -> None:
    write_dotenv(home, workers_only(settings_on_free_ports()))
    stack(home, "up")

    same = stack(home, "up", env={"TERM": "dumb"})
    changed = stack(home, "up", env={"GENERAL_DELAY_MS": "500"})

    assert "older settings" not in same.stdout
    assert "older settings" in changed.stdout


@pytest.mark.parametrize("name", sorted({name for cls in SETTINGS for name in cls.model_fields}))
def test_every_setting_is_known_as_one(name, monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    settings_in = importlib.import_module("stack_settings").settings_in

    assert settings_in({name: "1", name.upper(): "2", f"X_{name}": "3", "PATH": "4"}) == {
        name: "1",
        name.upper(): "2",
    }


def test_a_worker_with_a_weight_is_started_like_any_other(monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    services = importlib.import_module("stack_services").services
    pool = "http://127.0.0.1:7001;weight=3, http://127.0.0.1:7002 ; weight=1"

    found = {service.name: service for service in services({"GENERAL_POOL": pool}, tmp_path)}

    workers = [found["worker-general"], found["worker-general-2"]]
    assert [worker.listeners[0].port for worker in workers] == [7001, 7002]


def test_a_proxy_that_drains_is_waited_for(monkeypatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    stop_seconds = importlib.import_module("stack_processes").STOP_SECONDS

    assert stop_seconds > RouterSettings.model_construct().drain_timeout_seconds + 5


def test_down_leaves_no_process_and_no_port(home) -> None:
    settings = workers_only(settings_on_free_ports())
    write_dotenv(home, settings)
    assert stack(home, "up").returncode == 0
    started = pids(home)
    assert started.keys() == SERVICES - {"classifier"}

    result = stack(home, "down")

    assert result.returncode == 0
    assert not [name for name, pid in started.items() if alive(pid)]
    assert open_ports(settings) == []
    assert records(home) == {}
    assert stack(home, "status").returncode == 3
    assert stack(home, "down").stdout == "nothing is running\n"


def test_up_starts_again_what_has_died(home) -> None:
    write_dotenv(home, workers_only(settings_on_free_ports()))
    stack(home, "up")
    before = pids(home)
    os.kill(before["worker-general"], signal.SIGKILL)
    assert until(lambda: not alive(before["worker-general"]))

    result = stack(home, "up")

    after = pids(home)
    assert result.returncode == 0
    assert {name for name in after if after[name] != before[name]} == {"worker-general"}


@pytest.mark.parametrize(
    ("variable", "service", "advice"),
    [
        ("PROXY_PORT", "proxy", "change PROXY_PORT in .env"),
        ("METRICS_PORT", "proxy", "change METRICS_PORT in .env"),
        ("FAST_PATH_POOL", "worker-fast-path", "change FAST_PATH_POOL in .env"),
    ],
)
def test_a_foreign_program_on_a_port_is_one_line_and_nothing_is_started(
    home, variable, service, advice
) -> None:
    settings = settings_on_free_ports()
    write_dotenv(home, settings)
    port = int(settings[variable].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        result = stack(home, "up")

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"{service} cannot listen on 127.0.0.1:{port}" in result.stderr
    assert advice in result.stderr
    assert records(home) == {}


def test_a_service_that_fails_is_named_with_its_last_words_and_the_rest_is_stopped(home) -> None:
    settings = {**workers_only(settings_on_free_ports()), "CLASSIFY_TIMEOUT_MS": "soon"}
    write_dotenv(home, settings)

    result = stack(home, "up")

    assert result.returncode == 1
    first, *log = result.stderr.splitlines()
    assert first == "error: proxy ended with exit code 2 before it was ready"
    assert any("CLASSIFY_TIMEOUT_MS" in line for line in log)
    assert records(home) == {}
    assert open_ports(settings) == []


def test_a_service_that_never_gets_ready_is_named_after_the_deadline(home) -> None:
    settings = workers_only(settings_on_free_ports())
    write_dotenv(home, settings)

    result = stack(home, "up", "--timeout", "0")

    assert result.returncode == 1
    assert re.search(r"is not ready after 0 s \(http://", result.stderr)
    assert records(home) == {}
    assert open_ports(settings) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"PROXY_PORT": "eighty"}, "PROXY_PORT"),
        ({"GENERAL_POOL": "localhost:9001"}, "GENERAL_POOL"),
        ({"METRICS_PORT": "8080"}, "METRICS_PORT"),
        ({"CLASSIFIER_PORT": "8101"}, "CLASSIFIER_URL"),
        ({"METRICS_PORT": "9190", "PROXY_METRICS_URL": "http://localhost:9090"}, "METRICS_PORT"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line(home, settings, named) -> None:
    write_dotenv(home, settings)

    result = stack(home, "up")

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert named in result.stderr


@pytest.mark.parametrize("variable", ["DASHBOARD_HOST", "METRICS_HOST"])
@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", ".."])
def test_a_host_that_cannot_be_listened_on_is_not_blamed_on_the_port(home, variable, host) -> None:
    settings = {**workers_only(settings_on_free_ports()), variable: host}
    del settings["PROXY_METRICS_URL"]
    write_dotenv(home, settings)

    result = stack(home, "up")

    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"error: {variable}: ")
    assert host in result.stderr
    assert "PORT" not in result.stderr
    assert records(home) == {}


def test_the_environment_wins_over_the_dotenv_file(home) -> None:
    write_dotenv(home, {"PROXY_PORT": "1"})

    result = stack(home, "status", env={"PROXY_PORT": "8765"})

    assert "http://127.0.0.1:8765" in result.stdout


def test_a_recycled_process_id_is_never_signalled(home) -> None:
    (home / ".run").mkdir()
    with subprocess.Popen(["sleep", "30"]) as stranger:
        record = {
            "name": "proxy",
            "rank": 1,
            "pid": stranger.pid,
            "started": "1",
            "address": "http://127.0.0.1:1",
            "ready_url": "http://127.0.0.1:1",
            "fingerprint": "",
        }
        (home / ".run" / "proxy.json").write_text(json.dumps(record))

        result = stack(home, "down")

        assert result.stdout == "nothing is running\n"
        assert stranger.poll() is None
        stranger.kill()


# Requests through the running stack


def load_test(url: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, ROOT / "scripts" / "load_test.py", "--url", url, *flags])


def test_the_samples_show_where_each_kind_goes(full) -> None:
    result = run([sys.executable, ROOT / "scripts" / "sample_requests.py"], env=full.settings)

    assert result.returncode == 0, result.stderr
    answers = re.findall(r" 200 +(\S+) +by \S+ +to (\S+)-\d+ ", result.stdout)
    assert answers == [(label, label) for label in LABELS]


def test_the_samples_say_when_there_is_no_proxy() -> None:
    port = free_port()

    result = run(
        [sys.executable, ROOT / "scripts" / "sample_requests.py"], env={"PROXY_PORT": str(port)}
    )

    assert result.returncode == 1
    assert f"the proxy at 127.0.0.1:{port} does not answer" in result.stderr


def test_a_load_test_passes_when_every_request_reaches_its_own_pool(full) -> None:
    result = load_test(full.proxy_url, "--requests", "132", "--concurrency", "8")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "OK: all 132 requests reached their own pool" in result.stdout
    for label in LABELS:
        assert re.search(
            rf"^{label} +44 +0 +[\d.]+ +[\d.]+ +{label} 44$", result.stdout, re.MULTILINE
        )


def test_a_load_test_fails_when_requests_go_astray(full, tmp_path) -> None:
    swapped = {
        "GENERAL_POOL": full.settings["FAST_PATH_POOL"],
        "FAST_PATH_POOL": full.settings["GENERAL_POOL"],
        "HIGH_COMPUTE_POOL": full.settings["HIGH_COMPUTE_POOL"],
        "CLASSIFIER_URL": full.settings["CLASSIFIER_URL"],
        "CLASSIFY_TIMEOUT_MS": full.settings["CLASSIFY_TIMEOUT_MS"],
    }
    with processes.proxy(tmp_path, **swapped) as proxy:
        result = load_test(proxy.url, "--requests", "30")

    assert result.returncode == 1
    assert "decided fast-path, but went to general" in result.stdout
    assert "decided general, but went to fast-path" in result.stdout
    assert "FAILED: 20 of 30 requests" in result.stdout


def test_a_load_test_fails_when_nothing_answers() -> None:
    port = free_port()

    result = load_test(f"http://127.0.0.1:{port}", "--requests", "3")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: no proxy at http://127.0.0.1:{port} (Connection refused); run scripts/dev-up.sh\n"
    )


def test_a_load_test_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = load_test(url, "--requests", "5", "--max-seconds", "0.5")

    assert result.returncode == 1
    assert result.stdout.splitlines()[-2:] == [
        "stopped after 0.5 s with 5 requests not answered",
        "FAILED: 5 of 5 requests failed, went astray or were not answered",
    ]


def test_an_interrupted_load_test_reports_what_it_has(full) -> None:
    command = [sys.executable, ROOT / "scripts" / "load_test.py", "--url", full.proxy_url]
    before = sent_to_workers(full)
    with subprocess.Popen(
        [*command, "--requests", "100000", "--concurrency", "2"],
        env=BARE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert until(lambda: sent_to_workers(full) > before + 5)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)

    assert (process.returncode, stderr) == (130, "")
    assert re.search(r"^interrupted with \d+ requests not answered$", stdout, re.MULTILINE)
    assert re.search(r"^general +[1-9]\d* ", stdout, re.MULTILINE)
    assert re.fullmatch(r"FAILED: \d+ of 100000 requests failed, .*", stdout.splitlines()[-1])


def sent_to_workers(running: Running) -> int:
    url = f"http://127.0.0.1:{running.settings['METRICS_PORT']}/v1/pools"
    pools = httpx.get(url, trust_env=False).json()["pools"]
    return sum(worker["requests"] for pool in pools for worker in pool["workers"])


def test_load_is_not_sent_to_other_machines_unasked() -> None:
    result = load_test("http://proxy.invalid:8080")

    assert result.returncode == 2
    assert result.stderr == (
        "error: proxy.invalid is not this machine; --allow-remote sends load to it all the same\n"
    )


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--requests", "100001", "from 1 to 100000"),
        ("--requests", "abc", "from 1 to 100000"),
        ("--concurrency", "0", "from 1 to 512"),
        ("--timeout", "nan", "seconds above 0 and up to 86400"),
        ("--timeout", "soon", "seconds above 0 and up to 86400"),
        ("--max-seconds", "nan", "seconds above 0 and up to 86400"),
        ("--max-seconds", "-1", "seconds above 0 and up to 86400"),
        ("--max-seconds", "inf", "seconds above 0 and up to 86400"),
    ],
)
def test_load_is_bounded(flag, value, allowed) -> None:
    result = load_test("http://127.0.0.1:1", flag, value)

    assert result.returncode == 2
    assert result.stderr == f"error: argument {flag}: must be {allowed}, not {value!r}\n"


def test_load_shapes_are_at_least_twenty_a_label_and_all_different() -> None:
    listing = "from load_shapes import SHAPES; print(*(shape.label for shape in set(SHAPES)))"
    result = run([sys.executable, "-c", listing], cwd=ROOT / "scripts")

    labels = result.stdout.split()
    assert set(labels) == set(LABELS)
    assert all(labels.count(label) >= 20 for label in LABELS)


# dev-up.sh and what it shares


@pytest.fixture(scope="module")
def bare_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which nothing has been set up."""
    checkout = tmp_path_factory.mktemp("bare") / "checkout"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    shutil.copy(ROOT / "requirements.lock", checkout)
    for package in ("addons", "classifier", "dashboard", "workers"):
        (checkout / package).symlink_to(ROOT / package)
    return checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout whose .venv has all that the lock asks for: that of this test run."""
    path = tmp_path_factory.mktemp("set-up") / "checkout"
    shutil.copytree(ROOT / "scripts", path / "scripts")
    shutil.copy(ROOT / "requirements.lock", path)
    for package in ("addons", "classifier", "dashboard", "workers"):
        (path / package).symlink_to(ROOT / package)
    borrow_environment(path / ".venv", path / "requirements.lock")
    write_dotenv(path, settings_on_free_ports())
    yield path
    run([BASH, path / "scripts" / "dev-down.sh"])


def borrow_environment(venv: Path, lock: Path) -> None:
    run([sys.executable, "-m", "venv", "--without-pip", venv])
    (packages,) = venv.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(ours))
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    (venv / "requirements.sha256").write_text(f"{digest}\n")


def test_without_a_python_dev_up_says_what_to_install_and_the_shell_lives(
    bare_checkout, tmp_path
) -> None:
    script = """
        set -u
        before=$(set +o; shopt; trap)
        source scripts/dev-up.sh
        echo "status $?"
        [ "$before" = "$(set +o; shopt; trap)" ] && echo "unchanged"
        compgen -v _slb_ || echo "nothing left behind"
    """

    result = run(
        [BASH, "-c", script], env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, cwd=bare_checkout
    )

    assert result.stdout.splitlines() == ["status 1", "unchanged", "nothing left behind"]
    assert len(result.stderr.splitlines()) == 2
    assert "no Python 3.13 or newer found" in result.stderr
    assert "uv python install 3.13" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_sourcing_dev_up_brings_the_stack_up_and_activates_the_environment(checkout, shell) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = """
        set -u
        source ./scripts/dev-up.sh
        echo "status $?"
        echo "active $VIRTUAL_ENV"
        command -v python
    """

    result = run([program, "-c", script], env={"HOME": str(checkout)}, cwd=checkout)

    lines = result.stdout.splitlines()
    assert lines[-3:] == [
        "status 0",
        f"active {checkout}/.venv",
        f"{checkout}/.venv/bin/python",
    ], result.stderr
    assert sum(line.startswith("POST ") for line in lines) == 3
    assert pids(checkout).keys() == SERVICES


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_sourced_dev_up_takes_its_own_words_and_not_those_of_the_caller(
    bare_checkout, tmp_path, shell
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = """
        source ./scripts/dev-up.sh
        source ./scripts/dev-up.sh --own
        echo "$*"
    """

    # bash, and no Python that would be set up.
    (tmp_path / "bash").symlink_to(BASH)

    result = run(
        [program, "-c", script, "_", "theirs"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        cwd=bare_checkout,
    )

    assert "unknown option theirs" not in result.stderr
    assert "unknown option --own" in result.stderr
    assert result.stdout == "theirs\n"


@pytest.mark.parametrize("shell", ["sh", "dash", "zsh"])
@pytest.mark.parametrize("script", ["dev-up.sh", "dev-down.sh", "minikube-deploy.sh"])
def test_a_script_runs_in_bash_whatever_shell_it_is_given_to(bare_checkout, shell, script) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")

    result = run([program, bare_checkout / "scripts" / script, "--help"])

    assert (result.returncode, result.stderr) == (0, "")
    assert script in result.stdout


@pytest.mark.skipif(not shutil.which("dash"), reason="dash is not installed")
def test_a_shell_that_cannot_source_dev_up_is_told_so_and_lives(bare_checkout) -> None:
    result = run(["dash", "-c", '. ./scripts/dev-up.sh; echo "status $?"'], cwd=bare_checkout)

    assert result.stdout == "status 2\n"
    assert result.stderr == (
        "error: only bash and zsh can source dev-up.sh; run it instead: scripts/dev-up.sh\n"
    )


def test_running_dev_up_does_not_need_its_directory(checkout, tmp_path) -> None:
    result = run([checkout / "scripts" / "dev-up.sh"], env={"HOME": str(tmp_path)}, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    assert "high-compute" in result.stdout


def test_dev_down_stops_what_dev_up_started(checkout) -> None:
    run([BASH, checkout / "scripts" / "dev-up.sh"])
    started = pids(checkout)

    result = run([BASH, "dev-down.sh"], cwd=checkout / "scripts")

    assert result.returncode == 0, result.stderr
    assert len(started) == len(SERVICES)
    assert not [pid for pid in started.values() if alive(pid)]


def test_dev_down_before_any_dev_up_has_nothing_to_do(bare_checkout) -> None:
    result = run([BASH, bare_checkout / "scripts" / "dev-down.sh"])

    assert (result.returncode, result.stdout) == (0, "nothing is running\n")


def test_load_test_before_any_dev_up_says_what_to_run_first(bare_checkout) -> None:
    result = run([BASH, bare_checkout / "scripts" / "load-test.sh"])

    assert result.returncode == 1
    assert result.stderr == "error: there is no usable .venv; run scripts/dev-up.sh first\n"


@pytest.mark.parametrize("script", ["dev-up.sh", "dev-down.sh"])
def test_compose_without_an_engine_is_one_clear_line(bare_checkout, tmp_path, script) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)

    result = run(
        [BASH, bare_checkout / "scripts" / script, "--compose"], env={"PATH": str(tmp_path)}
    )

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error: no container engine with compose answers; "
        "start Docker or podman, or leave out --compose"
    ]


@pytest.mark.parametrize("script", ["dev-up.sh", "dev-down.sh"])
def test_an_unknown_option_is_refused(bare_checkout, script) -> None:
    result = run([BASH, bare_checkout / "scripts" / script, "--composed"])

    assert result.returncode == 2
    assert "unknown option --composed" in result.stderr


def test_an_environment_that_was_left_without_pip_is_made_again(tmp_path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"])
    (tmp_path / ".venv" / "left-over").touch()
    script = "set -euo pipefail; . scripts/environment.sh; make_venv"

    first = run([BASH, "-c", script], env={"PYTHON": sys.executable}, cwd=tmp_path)
    again = run([BASH, "-c", script], env={"PYTHON": sys.executable}, cwd=tmp_path)

    assert first.stdout.startswith("Making .venv with ")
    assert run([tmp_path / ".venv" / "bin" / "python", "-m", "pip", "--version"]).returncode == 0
    assert not (tmp_path / ".venv" / "left-over").exists()
    assert (again.returncode, again.stdout) == (0, "")


def found_python(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    script = "set -euo pipefail; . scripts/environment.sh; find_python"
    return run([BASH, "-c", script], env={"PATH": "/nonexistent", **env}, cwd=checkout)


def test_a_python_of_pyenv_is_found_without_its_shims(bare_checkout, tmp_path) -> None:
    python = tmp_path / ".pyenv" / "versions" / "3.13.99" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    shim = tmp_path / "shims" / "python3.13"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)

    by_home = found_python(bare_checkout, HOME=str(tmp_path), PATH=str(shim.parent))
    by_root = found_python(bare_checkout, PYENV_ROOT=str(tmp_path / ".pyenv"))

    assert by_home.stdout == by_root.stdout == f"{python}\n"


def test_a_python_of_uv_is_found(bare_checkout, tmp_path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\n[ "$1 $2" = "python find" ] && echo "{sys.executable}"\n')
    uv.chmod(0o755)

    result = found_python(bare_checkout, PATH=str(tmp_path))

    assert result.stdout == f"{sys.executable}\n"


def test_the_python_that_the_user_names_comes_first(bare_checkout) -> None:
    result = found_python(bare_checkout, PYTHON=sys.executable)

    assert result.stdout == f"{sys.executable}\n"
    assert result.stderr == ""


def test_a_python_that_does_not_fit_is_passed_over(bare_checkout, tmp_path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    result = found_python(bare_checkout, PYTHON=str(old), PATH=str(tmp_path))

    assert result.returncode == 1
    assert f"PYTHON={old} is not Python 3.13 or newer" in result.stderr
    assert "no Python 3.13 or newer found" in result.stderr


# pull-model.sh


ODD_ANSWERS = {
    "list": (200, b"[1]\n"),
    "html": (502, b"<html>\n<body>" + b"no gateway " * 100),
    "refused": (400, b'{"error": "invalid\\nmodel name"}'),
    "chatty": (500, json.dumps({"error": "x" * 5_000}).encode()),
}


class Ollama(BaseHTTPRequestHandler):
    """As much of Ollama as a pull sees."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["model"] in ODD_ANSWERS:
            self.answer_oddly(*ODD_ANSWERS[asked["model"]])
            return
        if asked["model"] == "absent":
            events = [{"status": "pulling manifest"}, {"error": "file does not exist"}]
        else:
            events = [
                {"status": "pulling manifest"},
                {"status": "pulling 4f6", "total": 100, "completed": 50},
                {"status": "success"},
            ]
        self.send_response(200 if self.path == "/api/pull" else 404)
        self.end_headers()
        for event in events:
            self.wfile.write(json.dumps(event).encode() + b"\n")

    def answer_oddly(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def ollama() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Ollama) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pull_model(base_url: str, model: str) -> subprocess.CompletedProcess[str]:
    return run(
        [BASH, ROOT / "scripts" / "pull-model.sh"],
        env={"OLLAMA_BASE_URL": base_url, "OLLAMA_MODEL": model, "PYTHON": sys.executable},
    )


def test_pull_model_follows_the_pull_to_its_end(ollama) -> None:
    result = pull_model(ollama, "mistral")

    assert result.returncode == 0, result.stderr
    assert "mistral: pulling manifest" in result.stdout
    assert result.stdout.endswith(f"mistral is ready at {ollama}\n")


def test_pull_model_fails_when_the_pull_does(ollama) -> None:
    result = pull_model(ollama, "absent")

    assert result.returncode == 1
    assert result.stderr == "error: the pull of absent ended early: file does not exist\n"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("list", "no Ollama answers at {url} (it sends no JSON objects); install it from "),
        ("html", "Ollama at {url} answered 502 to the pull of html: Bad Gateway\n"),
        ("refused", "Ollama at {url} answered 400 to the pull of refused: invalid model name\n"),
        ("chatty", "Ollama at {url} answered 500 to the pull of chatty: xxx"),
    ],
)
def test_pull_model_tells_of_an_odd_answer_in_a_short_line(ollama, model, message) -> None:
    result = pull_model(ollama, model)

    assert result.returncode == 1
    assert result.stderr.startswith("error: " + message.format(url=ollama))
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stderr) < 320


def test_pull_model_says_that_an_empty_address_means_no_ollama() -> None:
    result = pull_model("", "mistral")

    assert result.returncode == 2
    assert result.stderr == (
        "error: OLLAMA_BASE_URL is empty, so there is no Ollama; "
        "set it, like http://localhost:11434\n"
    )


def test_pull_model_says_when_there_is_no_ollama() -> None:
    port = free_port()

    result = pull_model(f"http://127.0.0.1:{port}", "mistral")

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"no Ollama answers at http://127.0.0.1:{port}" in result.stderr
