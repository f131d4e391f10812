"""`python -m classifier explain` and `POST /explain`: why one request has its label."""

import json
import subprocess
import sys

import httpx
import pytest
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow, tutils

from classifier import commands
from tests import processes, recorded

pytestmark = pytest.mark.integration

SECRET = "x9Fz31kQcanary"
RAW = (
    "POST /graphql?trace=1 HTTP/1.1\r\nHost: api.example.com\r\n"
    "Content-Type: application/json\r\n\r\n"
    '{"query": "{ users { posts { comments { id } } } }"}'
)


def explain(*arguments, stdin="", cwd=None, **variables) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "classifier", "explain", *map(str, arguments)]
    env = processes.clean_env(**variables)
    return subprocess.run(
        command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def run(*arguments, capsys) -> dict:
    """The same in this process, for cases of which there are many."""
    assert commands.run(["explain", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def fault(*arguments, capsys) -> str:
    assert commands.run(["explain", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_arguments_like_those_of_curl_are_explained_to_people() -> None:
    done = explain("--path", f"/users/42?key={SECRET}", "--header", f"Authorization: {SECRET}")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "GET /users/42?key=***"
    assert lines[1].split() == ["label", "fast-path"]
    assert lines[2].endswith("(local)")
    assert lines[3].split()[1] == "lookup:"
    assert sum(line.startswith(("  fast-path", "  general", "  high")) for line in lines) == 3
    assert sum(line.startswith("  +") for line in lines) == 8
    assert SECRET not in done.stdout


def test_a_raw_request_from_standard_input_is_explained() -> None:
    for stdin in (RAW, RAW.replace("\r\n", "\n"), f"\n{RAW}"):
        done = explain("--json", stdin=stdin)

        told = json.loads(done.stdout)
        assert (told["label"], told["reason_code"]) == ("high-compute", "nesting")
        assert sum(told["probabilities"].values()) == pytest.approx(1, abs=0.001)
        assert len(told["features"]) == 8


def test_a_row_from_standard_input_is_explained() -> None:
    row = json.dumps({"method": "GET", "path": "/healthz"})

    assert json.loads(explain("--json", stdin=row).stdout)["reason_code"] == "health"


def test_a_body_can_come_from_a_file(tmp_path, capsys) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"model": "m", "input": ["a"]}')

    told = run("-p", "/v1/embeddings", "-d", f"@{body}", capsys=capsys)

    assert told == {
        **run("-X", "post", "-p", "/v1/embeddings", "-d", body.read_text(), capsys=capsys),
        "latency_ms": told["latency_ms"],
    }
    assert told["label"] == "high-compute"


def test_a_url_is_as_good_as_a_path(capsys) -> None:
    by_url = run("-p", "https://example.com/users?page=2", capsys=capsys)
    by_path = run("-p", "/users?page=2", capsys=capsys)

    assert by_url["probabilities"] == by_path["probabilities"]


def test_headers_that_mean_something_count(capsys) -> None:
    media = "content-type: application/x-amz-json-1.0"
    body = '{"TableName": "t", "Key": {"id": {"S": "1"}}}'
    target = "X-Amz-Target: DynamoDB_20120810.GetItem"

    told = run("-p", "/", "-H", media, "-H", target, "-d", body, capsys=capsys)

    assert (told["label"], told["reason_code"]) == ("fast-path", "lookup")


def test_a_row_of_a_file_is_chosen_by_its_number(capsys) -> None:
    for number in (1, 2, 579):
        row = recorded.rows()[number - 1]
        told = run(recorded.PATH, "--index", number, capsys=capsys)
        assert told["label"] in processes.LABELS
        assert row["label"]
    assert "there is no request 580; it holds 579" in fault(
        recorded.PATH, "--index", 580, capsys=capsys
    )


def test_a_flow_is_chosen_by_number_or_filter(tmp_path, capsys) -> None:
    path = tmp_path / "saved.mitm"
    with path.open("wb") as file:
        for target in (b"/healthz", b"/users/42", b"/users?page=2"):
            request = tutils.treq(method=b"GET", path=target, content=b"")
            FlowWriter(file).add(tflow.tflow(req=request))

    assert run(path, capsys=capsys)["reason_code"] == "health"
    assert run(path, "-n", 3, capsys=capsys)["reason_code"] == "list"
    assert run(path, "--filter", "~u users", capsys=capsys)["reason_code"] == "lookup"
    assert "there is no request in it" in fault(path, "--filter", "~u none", capsys=capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-p", "/", "-H", "nonsense"], "a header is written 'Name: value', not 'nonsense'"),
        (["-p", "/", "-d", "@/nonexistent/body"], "/nonexistent/body: cannot be read"),
        (["/nonexistent/request"], "/nonexistent/request: cannot be read"),
        (["request.txt", "-p", "/"], "not both"),
        (["-p", "/", "--service", "http://127.0.0.1:9"], "gives no answer (unreachable)"),
    ],
)
def test_what_cannot_be_used_gets_one_line(capsys, arguments, said) -> None:
    assert said in fault(*arguments, capsys=capsys)


@pytest.mark.parametrize("content", ["", "nonsense", "GET\n\n", "\x00\x01 \x02", "{} {}"])
def test_what_is_no_request_gets_one_line(tmp_path, capsys, content) -> None:
    path = tmp_path / "request.txt"
    path.write_text(content)

    assert fault(path, capsys=capsys).startswith("error: ")


def test_an_unknown_command_names_those_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "classifier", "nonsense"],
        env=processes.clean_env(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "explain" in done.stderr
    assert "evaluate" in done.stderr


def test_the_rule_that_fits_and_the_shape_are_told(tmp_path) -> None:
    (tmp_path / "labels.toml").write_text(
        """
        [[rules]]
        name = "exports"
        label = "high-compute"
        header = { "x-tenant" = "big-*" }
        """
    )
    arguments = ["-p", "/users/42", "-H", "X-Tenant: big-one"]

    shown = explain(*arguments, cwd=tmp_path, LABELS_FILE="labels.toml").stdout
    told = json.loads(explain(*arguments, "--json", cwd=tmp_path).stdout)

    assert "confidence  1.000 (rule)" in shown
    assert "reason      rule: exports" in shown
    assert "the model   fast-path, lookup: " in shown
    assert f"shape       {told['shape']}" in shown
    assert told["source"] == "local"


def test_requests_of_one_shape_say_so(capsys) -> None:
    one, other, third = (
        run("-p", path, capsys=capsys)["shape"] for path in ("/users/42", "/users/7", "/users")
    )

    assert one == other != third


# The service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    port = processes.free_port()
    with processes.classifier(tmp_path_factory.mktemp("classifier"), port):
        yield f"http://127.0.0.1:{port}"


def ask(url: str, **question) -> httpx.Response:
    return httpx.post(f"{url}/explain", json=question, trust_env=False)


def test_the_service_explains_what_it_classifies(service) -> None:
    question = {"method": "GET", "path": "/users/42"}

    told = ask(service, **question).json()

    decided = httpx.post(f"{service}/classify", json=question, trust_env=False).json()
    assert {name: told[name] for name in ("label", "confidence", "source", "reasoning")} == {
        name: decided[name] for name in ("label", "confidence", "source", "reasoning")
    }
    assert told["reason_code"] == decided["reason_code"] == "lookup"
    assert told["features"][:3] == decided["features"]
    assert len(told["features"]) == 8
    assert list(told["probabilities"]) == list(processes.LABELS)
    assert told["probabilities"]["fast-path"] == pytest.approx(told["confidence"], abs=0.001)
    assert told["local_label"] == "fast-path"
    assert 0.34 < told["min_confidence"] < 1


def test_an_explanation_never_repeats_the_payload(service) -> None:
    answer = ask(service, path=f"/{SECRET}/x?{SECRET}={SECRET}", payload={SECRET: SECRET})

    assert answer.status_code == 200
    assert SECRET not in answer.text


def test_a_bad_question_is_refused_as_by_classify(service) -> None:
    answer = ask(service, path=7, payload=SECRET)

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_request")
    assert SECRET not in answer.text


def test_the_command_asks_a_service_when_told_to(service, capsys) -> None:
    by_service = run("-p", "/users/42", "--service", service, capsys=capsys)
    by_model = run("-p", "/users/42", capsys=capsys)

    assert by_service["features"] == by_model["features"]
    assert by_service["probabilities"] == by_model["probabilities"]


@pytest.mark.timeout(180)
def test_the_opinion_of_the_model_is_told_beside_the_answer_of_an_llm(tmp_path, ollama) -> None:
    port = processes.free_port()
    variables = {"OLLAMA_BASE_URL": ollama.url, "LOCAL_MIN_CONFIDENCE": 1}
    variables["LLM_MIN_LOCAL_PROBABILITY"] = 0
    with processes.classifier(tmp_path, port, **variables):
        url = f"http://127.0.0.1:{port}"

        def told() -> dict:
            return ask(url, method="GET", path="/users/42").json()

        # An LLM takes its time to load, and need not be waited for.
        assert processes.until(lambda: told()["source"] == "llm", 60)
        answer = told()
        shown = explain("-p", "/users/42", "--service", url).stdout

    assert (answer["label"], answer["reason_code"]) == ("high-compute", "llm")
    assert (answer["local_label"], answer["local_reason_code"]) == ("fast-path", "lookup")
    assert answer["min_confidence"] == 1
    assert "the model   fast-path, lookup: " in shown
    assert "what weighed most for fast-path" in shown
