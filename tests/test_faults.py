"""A classifier that fails in any way never blocks or fails a request."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests import processes
from tests.processes import LABELS
from tests.servers import Classifier, serving

pytestmark = pytest.mark.integration

TIMEOUT_MS = 300
# Far above the deadline for slow machines, far below the faults' own length.
SLACK_SECONDS = 2.5


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    ports = {label: [processes.free_port()] for label in LABELS}
    with (
        processes.worker(folder, "fast-path", ports["fast-path"][0]),
        processes.worker(folder, "general", ports["general"][0]),
        processes.worker(folder, "high-compute", ports["high-compute"][0]),
    ):
        yield processes.pool_variables(ports)


def label(proxy: processes.Proxy, path: str) -> str:
    return httpx.get(f"{proxy.url}{path}").headers["x-slb-label"]


def source(proxy: processes.Proxy, path: str) -> str:
    return httpx.get(f"{proxy.url}{path}").headers["x-slb-source"]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("500", "bad_status"),
        ("unknown label", "bad_answer"),
        ("fallback", "bad_answer"),
        ("not json", "bad_answer"),
        ("empty", "bad_answer"),
        ("huge", "bad_answer"),
        ("hang", "timeout"),
        ("trickle", "timeout"),
        ("gone", "unreachable"),
    ],
)
def test_the_request_goes_to_general_in_time_and_metrics_say_why(
    tmp_path, workers, mode, reason
) -> None:
    # Only the slow faults get the short deadline: elsewhere the fault itself has to be seen.
    timeout_ms = TIMEOUT_MS if reason == "timeout" else 10_000
    with serving(Classifier(mode).app()) as service_url:
        nobody = f"http://127.0.0.1:{processes.free_port()}"
        url = nobody if mode == "gone" else service_url
        variables = {**workers, "CLASSIFIER_URL": url, "CLASSIFY_TIMEOUT_MS": timeout_ms}
        with processes.proxy(tmp_path, **variables) as proxy:
            began = time.monotonic()
            response = httpx.post(f"{proxy.url}/v1/embeddings", json={"input": "x"}, timeout=20)
            took = time.monotonic() - began

            assert response.status_code == 200
            assert response.headers["x-slb-label"] == "general"
            assert response.headers["x-slb-source"] == "fallback"
            assert response.headers["x-worker-type"] == "general"
            if reason == "timeout":
                assert TIMEOUT_MS / 1000 <= took < TIMEOUT_MS / 1000 + SLACK_SECONDS
            assert proxy.metric(f'slb_fallbacks_total{{reason="{reason}"}}') == 1
            assert proxy.metric("slb_classifier_coverage_ratio") == 0
            assert proxy.decisions()[0]["reason"] == reason


def test_a_fallback_is_told_again_for_a_moment_and_never_kept_as_a_label(tmp_path, workers) -> None:
    service = Classifier("500")
    with serving(service.app()) as url:
        variables = {
            **workers,
            "CLASSIFIER_URL": url,
            "CLASSIFY_TIMEOUT_MS": 10_000,
            "FALLBACK_TTL_MS": 1_500,
        }
        with processes.proxy(tmp_path, **variables) as proxy:
            first = httpx.get(f"{proxy.url}/same")
            failed_by = time.monotonic()
            service.mode = "ok"
            second = httpx.get(f"{proxy.url}/same")
            other = httpx.get(f"{proxy.url}/other")
            in_time = time.monotonic() - failed_by < 1.4
            assert processes.until(lambda: label(proxy, "/same") == "fast-path", 10)

            assert proxy.metric('slb_fallbacks_total{reason="bad_status"}') >= 2 * in_time
    assert first.headers["x-slb-label"] == "general"
    assert not in_time or second.headers["x-slb-source"] == "fallback"
    assert other.headers["x-slb-label"] == "fast-path"


def test_a_classifier_that_is_killed_and_comes_back_is_used_again(tmp_path, workers) -> None:
    port = processes.free_port()
    variables = {
        **workers,
        "CLASSIFIER_URL": f"http://127.0.0.1:{port}",
        "CLASSIFY_TIMEOUT_MS": 10_000,
        "FALLBACK_TTL_MS": 500,
    }
    with processes.proxy(tmp_path, **variables) as proxy:
        with processes.classifier(tmp_path, port) as service:
            assert httpx.get(f"{proxy.url}/health").headers["x-slb-source"] == "local"
            service.process.kill()
            service.process.wait()
            gone = httpx.get(f"{proxy.url}/version")
            assert (gone.status_code, gone.headers["x-slb-source"]) == (200, "fallback")
        with processes.classifier(tmp_path, port):
            assert processes.until(lambda: source(proxy, "/version") == "local", 10)


def test_beyond_the_most_open_questions_requests_do_not_wait(tmp_path, workers) -> None:
    with serving(Classifier("hang").app()) as url:
        variables = {
            **workers,
            "CLASSIFIER_URL": url,
            "CLASSIFY_TIMEOUT_MS": 2_000,
            "CLASSIFY_MAX_INFLIGHT": 4,
            "CLASSIFY_QUEUE": 0,
            # They are of one shape, and so would be one question.
            "CACHE_SHAPES": False,
        }
        with processes.proxy(tmp_path, **variables) as proxy, ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda n: httpx.get(f"{proxy.url}/q/{n}"), range(20)))

            assert {answer.status_code for answer in answers} == {200}
            assert proxy.metric('slb_fallbacks_total{reason="timeout"}') == 4
            assert proxy.metric('slb_fallbacks_total{reason="saturated"}') == 16
