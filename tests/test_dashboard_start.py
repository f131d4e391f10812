"""The dashboard's program: settings, port, start and stop."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.processes import clean_env, free_port, running

pytestmark = pytest.mark.integration
COMMAND = (sys.executable, "-m", "dashboard")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DASHBOARD_PORT", "http"),
        ("DASHBOARD_PORT", "70000"),
        ("DASHBOARD_HOST", "no such host"),
        ("DASHBOARD_REFRESH_SECONDS", "0"),
        ("DASHBOARD_REFRESH_SECONDS", "nan"),
        ("PROXY_METRICS_URL", "localhost:9090"),
        ("CLASSIFIER_URL", "ftp://x"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_code_2(tmp_path, variable: str, value: str) -> None:
    env = clean_env(**{"DASHBOARD_PORT": free_port(), variable: value})

    ended = start(tmp_path, env)

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert variable in ended.stderr
    assert value in ended.stderr


def test_a_port_in_use_is_one_line_and_exit_code_2(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start(tmp_path, clean_env(DASHBOARD_PORT=port))

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in ended.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_it_starts_and_stops_without_anything_to_look_at(tmp_path, stop: signal.Signals) -> None:
    port = free_port()
    env = clean_env(
        DASHBOARD_PORT=port,
        PROXY_METRICS_URL=f"http://127.0.0.1:{free_port()}",
        CLASSIFIER_URL=f"http://127.0.0.1:{free_port()}",
    )
    url = f"http://127.0.0.1:{port}"

    with running(COMMAND, tmp_path, env, f"{url}/healthz", "dashboard") as started:
        assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
        page = httpx.get(url, trust_env=False)
        started.process.send_signal(stop)
        started.process.wait(10)

    assert page.status_code == 200
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "Traceback" not in started.output()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".log"] == []


def start(cwd, env) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, cwd=cwd, env=env, capture_output=True, text=True, timeout=20, check=False
    )
