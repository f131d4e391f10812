"""Metrics as Prometheus itself sees them."""

import shutil
import subprocess

import httpx
import pytest

from tests import processes

pytestmark = pytest.mark.integration

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Debian's package prometheus is not installed",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    with processes.stack(folder, CLASSIFY_TIMEOUT_MS=10_000) as started:
        for _ in range(3):
            httpx.get(f"{started.proxy.url}/health", trust_env=False)
        httpx.post(f"{started.proxy.url}/v1/embeddings", json={"input": "x"}, trust_env=False)
        yield started


def metrics_urls(stack) -> list[str]:
    return [
        f"{stack.proxy.control}/metrics",
        f"http://127.0.0.1:{stack.classifier_port}/metrics",
    ]


@needs_prometheus
def test_promtool_finds_nothing_to_mend(stack) -> None:
    for url in metrics_urls(stack):
        text = httpx.get(url, trust_env=False).content
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
        )

        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@needs_prometheus
def test_a_real_prometheus_scrapes_both(stack, tmp_path) -> None:
    port = processes.free_port()
    targets = [url.removeprefix("http://").removesuffix("/metrics") for url in metrics_urls(stack)]
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        f"  - {{job_name: slb, static_configs: [{{targets: {targets}}}]}}\n"
    )
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    url = f"http://127.0.0.1:{port}"

    def value(query: str) -> float | None:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, trust_env=False).json()
        found = answer["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    ready = f"{url}/-/ready"
    with processes.running(command, tmp_path, processes.clean_env(), ready, "prometheus"):
        assert processes.until(lambda: value('sum(up{job="slb"})') == 2, 20)
        assert processes.until(lambda: value("sum(slb_requests_total)") == 4, 20)
        assert value('slb_decisions_total{label="fast-path",source="local"}') == 3
        assert value("slb_classifier_latency_p99_seconds") > 0
        assert value("slb_classifier_cache_misses_total") == 2
        assert value("slb_cache_hits_total") == 2
        assert value("histogram_quantile(0.99, slb_classify_duration_seconds_bucket)") > 0


def test_series_do_not_grow_with_what_clients_send(stack) -> None:
    def series() -> set[str]:
        text = httpx.get(metrics_urls(stack)[0], trust_env=False).text
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        return {line.rpartition(" ")[0] for line in lines}

    before = series()
    with httpx.Client(base_url=stack.proxy.url, trust_env=False) as client:
        for number in range(50):
            client.request(f"VERB{number}", f"/path/{number}?q={number}")

    assert series() == before
    assert len(before) < 500
