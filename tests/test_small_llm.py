"""A real language model as the second opinion: the wire, the schema, the deadline.

Run with `scripts/test.sh`, which installs the model; `pytest -m llm` alone runs these.
"""

import base64
import sys
import time

import httpx
import pytest

from tests import processes, small_llm
from tests.processes import LABELS
from tests.recorded import body_of, rows

pytestmark = [
    pytest.mark.integration,
    pytest.mark.llm,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        small_llm.weights() is None, reason="the packages of tests/llm.lock are not installed"
    ),
]

QUESTIONS = [
    {"payload": {"op": "frobnicate", "arg": [1, 2, 3]}},
    {"payload": "zxcv qwer", "content_type": "text/plain"},
    {"method": "PUT", "path": "/x/y", "payload": {"ü": "größe", "passwort": "geheim"}},
]


@pytest.fixture(scope="module")
def ollama_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llm")
    port = processes.free_port()
    command = [sys.executable, "-m", "tests.small_llm", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    env = processes.clean_env()
    with processes.running(command, folder, env, f"{url}/api/version", "llm"):
        yield url


@pytest.fixture(scope="module")
def service(tmp_path_factory, ollama_url):
    port = processes.free_port()
    variables = {
        "OLLAMA_BASE_URL": ollama_url,
        "OLLAMA_MODEL": "smollm2",
        "LOCAL_MIN_CONFIDENCE": 1,
        "LLM_MODE": "wait",
        # It is far too small for its labels to be plausible.
        "LLM_MIN_LOCAL_PROBABILITY": 0,
        "LLM_TIMEOUT_SECONDS": 120,
    }
    with processes.classifier(tmp_path_factory.mktemp("service"), port, **variables):
        url = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{url}/ready", trust_env=False).json()["llm"] == "available"
        yield url


def classify(url: str, **question) -> dict:
    answer = httpx.post(f"{url}/classify", json=question, timeout=130, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_models_answer_fits_the_contract(service, question) -> None:
    answer = classify(service, **question)

    assert answer["source"] == "llm"
    assert answer["label"] in LABELS
    assert 0 <= answer["confidence"] <= 1
    assert answer["provisional"] is False


def test_a_repeated_question_does_not_reach_the_model_again(service) -> None:
    question = {"payload": {"op": "repeat me"}}
    first = classify(service, **question)
    calls = calls_of(service)

    again = classify(service, **question)

    assert again["cached"]
    assert again["label"] == first["label"]
    assert calls_of(service) == calls


def test_at_the_deadline_the_local_label_comes_and_the_models_later(service) -> None:
    question = {"payload": {"op": "unhurried"}, "deadline_ms": 20}
    began = time.monotonic()
    first = classify(service, **question)
    took = time.monotonic() - began

    assert (first["source"], first["provisional"]) == ("local", True)
    assert took < 3
    assert processes.until(lambda: classify(service, **question)["source"] == "llm", 120)


def test_in_the_background_the_local_label_comes_at_once_and_the_models_later(
    tmp_path, ollama_url
) -> None:
    port = processes.free_port()
    variables = {
        "OLLAMA_BASE_URL": ollama_url,
        "OLLAMA_MODEL": "smollm2",
        "LLM_MIN_LOCAL_PROBABILITY": 0,
        "LLM_TIMEOUT_SECONDS": 120,
    }
    with processes.classifier(tmp_path, port, **variables):
        url = f"http://127.0.0.1:{port}"
        unsure = next(row for row in rows() if asked(url, row)["provisional"])
        first = asked(url, unsure)
        assert processes.until(lambda: asked(url, unsure)["source"] != "local", 120)
        later = asked(url, unsure)

    assert (first["source"], first["provisional"]) == ("local", True)
    assert (later["source"], later["cached"], later["provisional"]) == ("llm", True, False)


def asked(url: str, row: dict) -> dict:
    return classify(
        url,
        method=row["method"],
        path=row["path"],
        headers=row["headers"],
        content_type=row["headers"].get("content-type"),
        payload_base64=base64.b64encode(body_of(row)).decode(),
    )


def calls_of(service: str) -> float:
    text = httpx.get(f"{service}/metrics", trust_env=False).text
    line = next(
        line for line in text.splitlines() if line.startswith("slb_classifier_llm_calls_total ")
    )
    return float(line.split()[1])
