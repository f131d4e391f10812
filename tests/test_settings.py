"""Settings: typed, documented, and refused in one clear line."""

import re
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from addons.settings import AdminSettings, RouterSettings, option_names
from classifier.configuration import Settings, SettingsError, listen, load
from classifier.settings import ClassifierSettings
from tests.processes import BIN, ROOT, clean_env, free_port, running, until

ALL_SETTINGS: list[type[Settings]] = [RouterSettings, AdminSettings, ClassifierSettings]


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"metrics_port": "abc"}, "METRICS_PORT: 'abc' should be a valid integer"),
        ({"classify_timeout_ms": 0}, "CLASSIFY_TIMEOUT_MS: 0 should be greater than 0"),
        (
            {"classifier_url": "localhost:8001"},
            "CLASSIFIER_URL: 'localhost:8001' is not a URL; write it like http://localhost:8001",
        ),
        (
            {"general_pool": ""},
            "GENERAL_POOL: the pool is empty; write at least one upstream, like"
            " http://localhost:9001",
        ),
        (
            {"general_pool": "http://a:1;weight=0"},
            "GENERAL_POOL: 'http://a:1;weight=0' has no usable weight; write 1 to 1000, like"
            " http://localhost:9001;weight=3",
        ),
        (
            {"high_compute_spill_pool": "high-compute"},
            "HIGH_COMPUTE_SPILL_POOL: 'high-compute' is the pool itself; name another, or none",
        ),
        (
            {"fast_path_spill_pool": "fast"},
            "FAST_PATH_SPILL_POOL: 'fast' should be '', 'fast-path', 'general' or 'high-compute'",
        ),
        (
            {"balancing": "random"},
            "BALANCING: 'random' should be 'round-robin', 'least-inflight' or 'two-choices'",
        ),
        (
            {"eject_seconds": 20, "eject_max_seconds": 10},
            "EJECT_MAX_SECONDS: 10 is less than EJECT_SECONDS; write as much or more",
        ),
        (
            {"inspect_sample_percent": -1},
            "INSPECT_SAMPLE_PERCENT: -1 should be greater than or equal to 0",
        ),
        (
            {"inspect_header_sources": "nobody"},
            "INSPECT_HEADER_SOURCES: 'nobody' is no address or network; write one like 10.0.0.0/8",
        ),
        ({"health_path": "health"}, "HEALTH_PATH: 'health' is not a path; write one like /health"),
        (
            {"health_path": "/a HTTP/1.1\r\nX: y"},
            "HEALTH_PATH: '/a HTTP/1.1\\r\\nX: y' is not a path; write one like /health",
        ),
    ],
)
def test_a_bad_value_is_one_line_that_says_what_to_write(values, fault) -> None:
    with pytest.raises(SettingsError) as caught:
        load(RouterSettings, **values)

    assert str(caught.value) == fault


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"METRICS_PORT: .*; CLIENT_HEADERS: "):
        load(RouterSettings, metrics_port=0, client_headers="perhaps")


def test_the_environment_wins_over_the_env_file(monkeypatch, tmp_path) -> None:
    (tmp_path / ".env").write_text("METRICS_PORT=1111\nPROXY_PORT=2222\n")
    monkeypatch.setenv("METRICS_PORT", "3333")

    settings = load(RouterSettings)

    assert (settings.metrics_port, settings.proxy_port) == (3333, 2222)


def test_an_empty_ollama_url_means_no_ollama(monkeypatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "")

    assert load(ClassifierSettings).ollama_base_url is None


def test_a_port_in_use_names_its_setting() -> None:
    sock = listen("127.0.0.1", 0, "METRICS")
    port = sock.getsockname()[1]

    with pytest.raises(SettingsError, match=rf"METRICS_PORT: cannot listen on 127.0.0.1:{port}"):
        listen("127.0.0.1", port, "METRICS")
    sock.close()


def test_an_address_of_nowhere_names_its_setting() -> None:
    with pytest.raises(SettingsError, match=r"METRICS_HOST: 'no\.such\.host\.invalid'"):
        listen("no.such.host.invalid", 0, "METRICS")


@pytest.mark.parametrize(
    "url",
    [
        *("http://a b", "http://a?x=1", "http://a#b", "http://a/\x7f", "http://", "//a"),
        # Only httpx refuses these.
        *(
            "http://[::1]x:80",
            "http://[v1.a]",
            "http://-ü-",
            "http://☃☃",
            "http://a/" + "x" * 70_000,
        ),
    ],
    ids=lambda url: url[:20],
)
def test_a_service_is_named_by_a_plain_url(url) -> None:
    with pytest.raises(SettingsError, match=r"CLASSIFIER_URL: .* is not a URL"):
        load(RouterSettings, classifier_url=url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            RouterSettings,
            general_pool="http://bob:hunter2@a:1",
            classifier_url="ftp://b:hunter2@c",
        )

    assert "hunter2" not in str(caught.value)


def test_a_url_that_is_shown_to_users_holds_no_password() -> None:
    with pytest.raises(SettingsError, match=r"CLASSIFIER_URL: .* holds a user") as caught:
        load(RouterSettings, classifier_url="http://bob:hunter2@a:1")

    assert "hunter2" not in str(caught.value)
    assert load(ClassifierSettings, ollama_base_url="http://bob:x@a:1")


def test_all_choices_of_a_setting_are_told() -> None:
    from workers.settings import WorkerSettings

    with pytest.raises(SettingsError, match="'general', 'high-compute' or 'fast-path'"):
        load(WorkerSettings, worker_type="nope")


def test_every_setting_is_described() -> None:
    for cls in ALL_SETTINGS:
        for name, field in cls.model_fields.items():
            assert field.description, name


def test_every_setting_of_the_proxy_is_a_mitmproxy_option() -> None:
    done = subprocess.run(
        [BIN / "mitmdump", "-s", ROOT / "addons" / "router.py", "--options"],
        capture_output=True,
        text=True,
        env=clean_env(),
        timeout=30,
        check=True,
    )

    declared = set(re.findall(r"^(router_\w+):", done.stdout, re.MULTILINE))
    assert declared == set(option_names())


@contextmanager
def listen_probe(port):
    try:
        sock = listen("0.0.0.0", port, "TEST")
    except SettingsError:
        yield False
        return
    sock.close()
    yield True


def connects(port) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def refused(command, **variables):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=clean_env(**variables),
        # Not the checkout, whose own `.env` would be read.
        cwd=ROOT / "tests",
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if line]


MITMDUMP = [
    BIN / "mitmdump",
    "--mode",
    "reverse:http://unrouted.invalid:9",
    "-s",
    ROOT / "addons" / "router.py",
]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("router_general_pool=localhost9001", "GENERAL_POOL: 'localhost9001' is not an upstream"),
        ("router_general_pool=", "GENERAL_POOL: the pool is empty"),
        ("router_metrics_port=abc", "METRICS_PORT: 'abc' should be a valid integer"),
        ("router_classify_timeout_ms=-5", "CLASSIFY_TIMEOUT_MS: '-5' should be greater than 0"),
        ("router_client_headers=perhaps", "CLIENT_HEADERS: 'perhaps' should be a valid boolean"),
        ("router_inspect_filter=~bq x", "INSPECT_FILTER: ~bq is about what is not known yet"),
        ("router_inspect_sample_percent=120", "INSPECT_SAMPLE_PERCENT: '120' should be less than"),
        ("router_client_headers=yes", "Failed to parse option router_client_headers"),
        ("router_classify_timeout_ms=500.0", "Failed to parse option router_classify_timeout_ms"),
        ("router_general_pol=http://a:1", "unknown option router_general_pol; did you mean"),
    ],
)
def test_the_proxy_does_not_run_with_a_bad_option(option, fault) -> None:
    code, lines = refused([*MITMDUMP, "--listen-port", free_port(), "--set", option])

    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {fault}")


@pytest.mark.integration
@pytest.mark.parametrize("value", ['"500"', "true", "[1]"])
def test_the_proxy_does_not_run_with_a_wrong_type_in_mitmproxys_own_file(tmp_path, value) -> None:
    (tmp_path / "config.yaml").write_text(f"router_classify_timeout_ms: {value}\n")
    command = [*MITMDUMP, "--listen-port", free_port(), "--set", f"confdir={tmp_path}"]

    code, lines = refused(command)

    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: router_classify_timeout_ms: ")


@pytest.mark.integration
def test_the_proxy_does_not_run_with_a_bad_environment() -> None:
    code, lines = refused([*MITMDUMP, "--listen-port", free_port()], FAST_PATH_POOL="ftp://x")

    assert code == 2
    assert lines == [
        "error: FAST_PATH_POOL: 'ftp://x' is not an upstream; write scheme, host and port,"
        " like http://localhost:9001"
    ]


@pytest.mark.integration
def test_the_proxy_does_not_run_without_its_control_port() -> None:
    sock = listen("127.0.0.1", 0, "TEST")
    port = sock.getsockname()[1]

    code, lines = refused([*MITMDUMP, "--listen-port", free_port()], METRICS_PORT=port)

    assert code == 2
    assert lines[0].startswith(f"error: METRICS_PORT: cannot listen on 127.0.0.1:{port}")
    sock.close()


@pytest.mark.integration
@pytest.mark.parametrize("bare", [True, False])
def test_the_proxy_does_not_run_without_its_port(bare) -> None:
    sock = listen("0.0.0.0", 0, "TEST")
    port = sock.getsockname()[1]
    command = [BIN / "mitmdump", "-s", ROOT / "addons" / "router.py"]
    if not bare:
        command = [*MITMDUMP, "--listen-port", port]

    # A bare mitmdump first opens its own default port; where that is taken it ends as well.
    code, _ = refused(command, METRICS_PORT=free_port(), PROXY_PORT=port)

    assert code != 0
    sock.close()


@pytest.mark.integration
def test_the_port_setting_holds_where_the_command_line_names_none(tmp_path) -> None:
    port, metrics_port = free_port(), free_port()
    env = clean_env(PROXY_PORT=port, METRICS_PORT=metrics_port)
    ready = f"http://127.0.0.1:{metrics_port}/readyz"
    # It opens mitmproxy's default port first, which may be taken on this machine.
    with listen_probe(8080) as free:
        if not free:
            pytest.skip("port 8080 is in use")
    with running(MITMDUMP, tmp_path, env, ready, "proxy"):
        assert until(lambda: connects(port), 5)
        assert not connects(8080)


@pytest.mark.integration
def test_the_proxy_does_not_run_in_a_mode_without_requests_to_route() -> None:
    command = [BIN / "mitmdump", "--mode", f"socks5@{free_port()}"]

    code, lines = refused([*command, "-s", ROOT / "addons" / "router.py"], METRICS_PORT=free_port())

    assert code == 2
    assert "cannot be routed; start with --mode reverse:" in lines[-1]


@pytest.mark.integration
def test_the_classifier_does_not_run_with_a_bad_setting_or_a_taken_port() -> None:
    command = [sys.executable, "-m", "classifier"]

    code, lines = refused(command, CLASSIFIER_PORT="http")
    assert (code, lines) == (2, ["error: CLASSIFIER_PORT: 'http' should be a valid integer"])

    sock = listen("127.0.0.1", 0, "TEST")
    port = sock.getsockname()[1]
    code, lines = refused(command, CLASSIFIER_PORT=port)
    assert code == 2
    assert lines[0].startswith(f"error: CLASSIFIER_PORT: cannot listen on 127.0.0.1:{port}")
    sock.close()
