"""The addon where mitmproxy's users meet it: mitmweb, the bare command, the installed wheel."""

import json
import re
import subprocess
import sys
import time
import venv

import httpx
import pytest
from mitmproxy.io import FlowReader

from tests import processes
from tests.processes import BIN, LABELS, ROOT

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backend")
    with processes.stack(folder) as started:
        classifier_url = f"http://127.0.0.1:{started.classifier_port}"
        pools = processes.pool_variables(started.worker_ports)
        yield {**pools, "CLASSIFIER_URL": classifier_url, "CLASSIFY_TIMEOUT_MS": 10_000}


def test_mitmweb_shows_the_decision_of_a_flow(tmp_path, backend) -> None:
    web_port = processes.free_port()
    flags = ["--no-web-open-browser", "--web-port", str(web_port), "--set", "web_password=test"]
    with processes.proxy(tmp_path, *flags, program="mitmweb", **backend) as proxy:
        answer = httpx.post(f"{proxy.url}/query", json={"sql": "SELECT 1"}, trust_env=False)
        httpx.get(f"{proxy.url}/health", trust_env=False)

        web = httpx.Client(
            base_url=f"http://127.0.0.1:{web_port}", params={"token": "test"}, trust_env=False
        )
        with web:
            assert processes.until(lambda: len(web.get("/flows").json()) == 2, 10)
            flows = {flow["request"]["path"]: flow for flow in web.get("/flows").json()}

    label = answer.headers["x-slb-label"]
    flow = flows["/query"]
    assert flow["comment"].startswith(f"{label} -> 127.0.0.1:")
    assert "(local " in flow["comment"]
    assert flow["marked"] in {"⚡", "⚙", "🐌"}
    assert flows["/health"]["marked"] == "⚡"


def test_saved_flows_can_be_filtered_by_their_decision(tmp_path, backend) -> None:
    saved = tmp_path / "flows.mitm"
    with processes.proxy(tmp_path, "-w", str(saved), **backend) as proxy:
        httpx.get(f"{proxy.url}/health", trust_env=False)
        httpx.post(f"{proxy.url}/v1/embeddings", json={"input": "x", "model": "m"})

    def found(expression: str) -> list[str]:
        command = [BIN / "mitmdump", "-nr", saved, "--set", "flow_detail=1", expression]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return [line for line in done.stdout.splitlines() if " http://" in line]

    assert "/health" in " ".join(found("~meta fast-path"))
    assert "/v1/embeddings" in " ".join(found("~meta high-compute"))
    assert len(found("~marker snail")) == 1
    assert len(found("~comment fast-path")) == 1


def test_the_bare_command_becomes_a_reverse_proxy(tmp_path, backend) -> None:
    port, metrics_port = processes.free_port(), processes.free_port()
    # The one flag keeps it off mitmproxy's default port, which something else may use.
    command = [BIN / "mitmdump", "-s", ROOT / "addons" / "router.py", "-p", str(port)]
    env = processes.clean_env(METRICS_PORT=metrics_port, **backend)
    ready = f"http://127.0.0.1:{metrics_port}/readyz"
    with processes.running(command, tmp_path, env, ready, "bare"):
        response = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)

        assert response.headers["x-worker-type"] == "fast-path"


def test_a_reload_of_the_script_keeps_routing(tmp_path, backend) -> None:
    script = tmp_path / "addons" / "router.py"
    script.parent.mkdir()
    for source in (ROOT / "addons").glob("*.py"):
        (script.parent / source.name).write_text(source.read_text())
    with processes.proxy(tmp_path, script=script, **backend) as proxy:
        assert httpx.get(f"{proxy.url}/health").headers["x-slb-label"] == "fast-path"

        script.write_text(script.read_text() + "\n# touched\n")

        def reloaded() -> bool:
            return proxy.started.output().count("Routing. Metrics") == 2

        assert processes.until(reloaded, 10)
        assert processes.until(lambda: processes.answers(f"{proxy.control}/readyz"), 5)
        assert httpx.get(f"{proxy.url}/health").headers["x-slb-label"] == "fast-path"
        assert "Traceback" not in proxy.started.output()


def test_it_ends_cleanly_when_told_to(tmp_path, backend) -> None:
    with processes.proxy(tmp_path, **backend) as proxy:
        httpx.get(f"{proxy.url}/health", trust_env=False)
        # An open reader of the feed must not hold up the end.
        with httpx.stream("GET", f"{proxy.control}/events", trust_env=False) as feed:
            next(feed.iter_lines())
            began = time.monotonic()
            code = proxy.started.stop()

    assert code == 0
    assert time.monotonic() - began < 8
    assert "Traceback" not in proxy.started.output()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_installed_wheel_runs_without_the_checkout(tmp_path, backend) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    wheel = next((tmp_path / "dist").glob("*.whl"))
    # The wheel alone is new; its dependencies are those of this environment.
    venv.create(tmp_path / "venv", with_pip=True, system_site_packages=False)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--no-deps", "-q", wheel], check=True, capture_output=True
    )
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    packages = next((BIN.parent / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(f"{packages}\n")
    found = subprocess.run(
        [python, "-c", "import importlib.util as u; print(u.find_spec('addons.router').origin)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout.strip()
    assert found.startswith(str(site))
    slb = [python.parent / "slb", "--version"]
    told = subprocess.run(slb, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert re.match(r"slb: +\d", told)

    port, metrics_port = processes.free_port(), processes.free_port()
    command = [python, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()"]
    command += ["--mode", "reverse:http://unrouted.invalid:9", "-p", str(port), "-s", found]
    env = processes.clean_env(METRICS_PORT=metrics_port, **backend)
    del env["PYTHONPATH"]
    ready = f"http://127.0.0.1:{metrics_port}/readyz"
    classifier_port = processes.free_port()
    with (
        processes.running(command, tmp_path, env, ready, "wheel-proxy"),
        processes.running(
            [python, "-m", "classifier"],
            tmp_path,
            {**env, "CLASSIFIER_PORT": str(classifier_port)},
            f"http://127.0.0.1:{classifier_port}/ready",
            "wheel-classifier",
        ),
    ):
        response = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
        assert response.headers["x-worker-type"] in LABELS
        question = json.dumps({"payload": "SELECT 1"})
        answer = httpx.post(f"http://127.0.0.1:{classifier_port}/classify", content=question)
        assert answer.json()["label"] in LABELS


def test_a_flow_is_explained_by_a_command(tmp_path, backend) -> None:
    web_port = processes.free_port()
    saved = tmp_path / "flows.mitm"
    flags = ["--no-web-open-browser", "--web-port", str(web_port), "--set", "web_password=test"]
    with processes.proxy(tmp_path, *flags, program="mitmweb", **backend) as proxy:
        httpx.get(f"{proxy.url}/users/42?token=canary-secret", trust_env=False)

        web = httpx.Client(
            base_url=f"http://127.0.0.1:{web_port}",
            params={"token": "test"},
            headers={"x-xsrftoken": "t"},
            cookies={"_mitmproxy_xsrf": "t"},
            trust_env=False,
        )

        def run(command: str, *arguments: str) -> dict:
            return web.post(f"/commands/{command}", json={"arguments": list(arguments)}).json()

        def comment() -> str:
            return web.get("/flows").json()[0]["comment"]

        with web:
            assert processes.until(lambda: len(web.get("/flows").json()) == 1, 10)
            assert "1" in run("router.explain", "@all")["value"]
            assert processes.until(lambda: " | explained: fast-path (local " in comment(), 10)
            again = run("router.explain", "@all")
            run("save.file", "@all", str(saved))
            shown = comment()

            def refused() -> str:
                return run("router.explain", "~m NOTHING").get("error", "")

            assert processes.until(lambda: "name 1 to 20 HTTP flows" in refused(), 10)

    assert "asking the classifier" in again["value"]
    assert shown.startswith("fast-path -> 127.0.0.1:")
    assert shown.count("explained: ") == 1
    assert "probabilities: fast-path 0." in shown
    assert "weighed: " in shown
    log = proxy.started.output()
    assert "canary-secret" not in log.partition("explain")[2]
    assert "Traceback" not in log
    with saved.open("rb") as file:
        (flow,) = FlowReader(file).stream()
    assert flow.metadata["router.explanation"]["reason_code"] == "lookup"
    assert flow.metadata["router"]["code"] == "lookup"
