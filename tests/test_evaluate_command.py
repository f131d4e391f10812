"""`python -m classifier evaluate`, run as users run it: figures, floors, sources, bad files."""

import json
import re
import subprocess
import sys

import httpx
import pytest
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow, tutils

from classifier import commands
from tests import processes, recorded

pytestmark = pytest.mark.integration

RIGHT = [
    {"method": "GET", "path": "/users/42", "label": "fast-path"},
    {"method": "POST", "path": "/users", "body": {"name": "x"}, "label": "general"},
    {"method": "GET", "path": "/users?page=2&per_page=20", "label": "general"},
    {
        "method": "POST",
        "path": "/v1/embeddings",
        "headers": {"Content-Type": "application/json"},
        "body": '{"model": "m", "input": ["a", "b"]}',
        "label": "high-compute",
    },
]
WRONG = {
    "method": "GET",
    "path": "/accounts/x9Fz31kQcanary/7?key=x9Fz31kQcanary",
    "label": "general",
}


def evaluate(*arguments, cwd, **variables) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "classifier", "evaluate", *map(str, arguments)]
    env = processes.clean_env(**variables)
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def saved(folder, rows, name="rows.jsonl"):
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_the_report_has_all_its_parts(tmp_path) -> None:
    done = evaluate(recorded.PATH, "--resamples", 100, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "579 requests, source local",
        "labels given: general",
        "decided by local: 579 (100.0%, 0 cached)",
        "latency: median",
        "times an empty call",
        "always general",
        "method and path only",
        "same endpoint clear",
        "precision recall",
        "worst mistakes",
    ):
        assert part in done.stdout
    assert re.search(r"^clear +466 +0\.\d{3} \[0\.\d{3} [01]\.\d{3}\]", done.stdout, re.MULTILINE)
    assert re.search(r"^0\.9 to 1\.0 +\d+ .*\|", done.stdout, re.MULTILINE)


def test_json_holds_the_same_and_is_the_same_each_time(tmp_path) -> None:
    first, second = (
        json.loads(evaluate(recorded.PATH, "--json", "--resamples", 50, cwd=tmp_path).stdout)
        for _ in range(2)
    )

    assert first["slices"] == second["slices"]
    assert (first["requests"], first["judged"]) == (579, 579)
    assert sum(map(sum, first["confusion"])) == 579
    assert sum(one["rows"] for one in first["reliability"]) == 579
    everything = first["slices"][0]["score"]
    assert everything["accuracy"]["low"] < everything["accuracy"]["value"]
    assert first["slices"][0]["baselines"]["always general"]["accuracy"]["value"] == pytest.approx(
        315 / 579
    )
    assert {one["truth"] != one["said"] for one in first["mistakes"]} == {True}


def test_a_floor_decides_the_exit_code(tmp_path) -> None:
    rows = saved(tmp_path, [*RIGHT, WRONG])

    above = evaluate(rows, "--floor", 0.5, cwd=tmp_path)
    below = evaluate(rows, "--floor", 0.99, cwd=tmp_path)

    assert above.returncode == 0
    assert below.returncode == 1
    assert re.fullmatch(r"macro-F1 0\.\d+ is below the floor of 0\.99 \(all\)\n", below.stderr)


def test_a_floor_can_be_for_the_clear_rows_alone(tmp_path) -> None:
    clear = [{**row, "confidence": "clear"} for row in RIGHT]
    rows = saved(tmp_path, [*clear, {**WRONG, "confidence": "debatable"}])

    assert evaluate(rows, "--floor", 0.99, "--floor-on", "clear", cwd=tmp_path).returncode == 0
    assert evaluate(rows, "--floor", 0.99, cwd=tmp_path).returncode == 1
    missing = evaluate(rows, "--floor", 0.9, "--floor-on", "same_endpoint", cwd=tmp_path)
    assert missing.returncode == 2


def test_mistakes_are_shown_without_what_could_be_secret(tmp_path) -> None:
    done = evaluate(saved(tmp_path, [WRONG]), cwd=tmp_path)

    assert "line 1: GET /accounts/***/7?key=***: general, was given fast-path" in done.stdout
    assert "canary" not in done.stdout


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_plot_is_written(tmp_path, suffix) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / f"plot.{suffix}"

    done = evaluate(saved(tmp_path, [*RIGHT, WRONG]), "--plot", plot, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    start = plot.read_bytes()[:400]
    assert start.startswith(b"\x89PNG") if suffix == "png" else b"<svg" in start
    if suffix == "svg":
        text = plot.read_text()
        assert "high-compute" in text
        assert "calibration error" in text


def test_a_plot_in_another_format_is_refused_before_anything_is_measured(tmp_path) -> None:
    done = evaluate(saved(tmp_path, RIGHT), "--plot", "plot.gif", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: plot.gif: a plot is written as .png or .svg\n"


def run(*arguments, capsys) -> tuple[int, str, str]:
    """The same in this process, for cases of which there are many."""
    code = commands.run(["evaluate", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{nonsense", "is not JSON (Expecting property name enclosed in double quotes"),
        (b'["a"]', "is not a JSON object"),
        (b'{"method": "GET", "path": "/canary", "label": "No Label"}', "'No Label' is no label"),
        (b'{"method": "GET", "label": "general"}', "there is no path"),
        (b'{"method": 7, "path": "/canary", "label": "general"}', "method must be a text"),
        (b'{"method": "GET", "path": "/canary", "headers": [1]}', "headers must be an object"),
        (b'{"method": "GET", "path": "/canary", "body_b64": "%"}', "body_b64 is not base64"),
        (b'{"method": "GET", "path": "/canary", "body": NaN}', "NaN is no JSON number"),
        (b'{"method": "GET", "path": "/canary", "n": -Infinity}', "-Infinity is no JSON number"),
        (b'{"body": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "is nested too deeply"),
        (b'{"body": {"a":' * 100_000, "is nested too deeply"),
        (b'{"method": "GET", "path": "/\xff"}', "is not UTF-8 text"),
        (b'{"n": ' + b"9" * 5_000 + b"}", "Exceeds the limit"),
        (b'{"body": "' + b"x" * 17_000_000 + b'"}', "has over 16777216 bytes"),
    ],
    ids=range(14),
)
def test_a_bad_line_ends_with_one_line_that_names_it(tmp_path, capsys, line, fault) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(json.dumps(RIGHT[0]).encode() + b"\n\n" + line + b"\n")

    code, out, err = run(rows, capsys=capsys)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: {rows}: line 3: {fault}")
    assert err.count("\n") == 1
    assert len(err) < 400
    assert "canary" not in err


def test_a_bad_line_ends_the_process_without_a_traceback(tmp_path) -> None:
    rows = saved(tmp_path, [*RIGHT, {"body": []}])

    done = evaluate(rows, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {rows}: line 5: there is no method\n"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("none.jsonl", None, "cannot be read (No such file or directory)"),
        ("empty.jsonl", b"\n\n", "there is no request in it"),
        ("nonsense.mitm", b"7:nonsense", "is no file of flows, or ends in the middle of one"),
        ("empty.mitm", b"", "there is no request in it"),
        ("none.mitm", None, "cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_line(tmp_path, capsys, name, content, fault) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    assert run(path, capsys=capsys) == (2, "", f"error: {path}: {fault}\n")


def test_rows_without_labels_are_counted_but_not_judged(tmp_path) -> None:
    rows = [{name: row[name] for name in ("method", "path")} for row in RIGHT]
    path = saved(tmp_path, rows)

    done = evaluate(path, cwd=tmp_path)

    assert done.returncode == 0
    assert "labels given: " in done.stdout
    assert "No request says what its right label is" in done.stdout
    assert evaluate(path, "--floor", 0.1, cwd=tmp_path).returncode == 2


def test_a_running_service_is_measured(tmp_path) -> None:
    port = processes.free_port()
    rows = saved(tmp_path, [*RIGHT, *RIGHT])
    with processes.classifier(tmp_path, port):
        url = f"http://127.0.0.1:{port}"
        done = evaluate(rows, "--source", url, "--floor", 1, cwd=tmp_path)
        named = evaluate(rows, "--source", "service", cwd=tmp_path, CLASSIFIER_PORT=port)
    gone = evaluate(rows, "--source", url, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"source {url}" in done.stdout
    assert "decided by local: 8 (100.0%, 4 cached)" in done.stdout
    assert named.returncode == 0
    assert (gone.returncode, gone.stdout) == (2, "")
    assert gone.stderr == f"error: {url}: the classifier gives no answer (unreachable)\n"


def test_the_llm_of_a_cascade_is_measured(tmp_path, ollama) -> None:
    rows = saved(tmp_path, RIGHT)
    # Confidence never reaches 1: every request is one the local model is unsure of.
    variables = {"LOCAL_MIN_CONFIDENCE": 1, "LLM_MIN_LOCAL_PROBABILITY": 0}
    variables["OLLAMA_BASE_URL"] = ollama.url

    done = evaluate(rows, "--source", "cascade", "--json", cwd=tmp_path, **variables)

    (coverage,) = json.loads(done.stdout)["coverage"]
    assert (coverage["source"], coverage["requests"]) == ("llm", len(RIGHT))
    assert json.loads(done.stdout)["codes"] == {"llm": len(RIGHT)}


def test_two_configurations_are_compared(tmp_path, ollama) -> None:
    other = tmp_path / "other.env"
    other.write_text("LOCAL_MIN_CONFIDENCE=1\nLLM_MIN_LOCAL_PROBABILITY=0\n")
    rows = saved(tmp_path, RIGHT)

    done = evaluate(
        rows,
        "--source",
        "local",
        "--against",
        other,
        cwd=tmp_path,
        OLLAMA_BASE_URL=ollama.url,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "agreement 0.250; 3 requests would change their label" in done.stdout
    assert "line 1: GET /users/42 (right: fast-path)" in done.stdout
    assert re.search(r"fast-path \(local 0\.\d+ lookup\)", done.stdout)
    assert "high-compute (llm 0.88 llm) scans a table" in done.stdout
    assert "right label known for 4: local right on 4" in done.stdout


def test_rules_of_a_labels_file_are_measured(tmp_path) -> None:
    (tmp_path / "labels.toml").write_text(
        """
        [[rules]]
        name = "big-tenants"
        label = "high-compute"
        header = { "x-tenant" = "big-*" }

        [[rules]]
        name = "filtered"
        label = "high-compute"
        filter = "~m GET"
        """
    )
    rows = saved(tmp_path, [{**RIGHT[0], "headers": {"X-Tenant": "big-one"}}, *RIGHT])

    done = evaluate(rows, "--source", "cascade", "--json", cwd=tmp_path, LABELS_FILE="labels.toml")

    found = json.loads(done.stdout)
    assert {one["source"]: one["requests"] for one in found["coverage"]} == {"local": 4, "rule": 1}
    assert found["mistakes"][0]["reason"] == "big-tenants"
    assert done.stderr == "rules with a flow filter fit nothing here: filtered\n"


@pytest.mark.parametrize("source", ["nonsense", "ftp://x", "recorded"])
def test_a_source_that_is_none_gets_one_line(tmp_path, source) -> None:
    done = evaluate(saved(tmp_path, RIGHT), "--source", source, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_bad_settings_of_a_cascade_get_one_line(tmp_path) -> None:
    bad = tmp_path / "bad.env"
    bad.write_text("LOCAL_MIN_CONFIDENCE=7\n")

    done = evaluate(saved(tmp_path, RIGHT), "--source", bad, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: LOCAL_MIN_CONFIDENCE: ")


# Flows


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """Flows as the proxy records them."""
    folder = tmp_path_factory.mktemp("traffic")
    flows = folder / "traffic.mitm"
    worker_port, classifier_port = processes.free_port(), processes.free_port()
    ports = processes.pool_variables({label: [worker_port] for label in processes.LABELS})
    variables = {"CLASSIFIER_URL": f"http://127.0.0.1:{classifier_port}", **ports}
    with (
        processes.worker(folder, "general", worker_port),
        processes.classifier(folder, classifier_port),
        processes.proxy(folder, "-w", flows, CLASSIFY_TIMEOUT_MS=10_000, **variables) as proxy,
        httpx.Client(base_url=proxy.url, trust_env=False) as client,
    ):
        client.get("/users/42?token=canary-secret")
        client.post("/v1/embeddings", json={"model": "m", "input": ["a", "b"]})
        client.post("/users", json={"name": "x"})
    return flows


def test_recorded_traffic_is_labelled(traffic, tmp_path) -> None:
    done = evaluate(traffic, "--json", cwd=tmp_path)

    found = json.loads(done.stdout)
    assert (found["requests"], found["judged"]) == (3, 0)
    assert found["given"] == {"fast-path": 1, "high-compute": 1, "general": 1}
    assert set(found["codes"]) == {"lookup", "inference", "write"}


def test_recorded_traffic_can_be_filtered(traffic, tmp_path) -> None:
    done = evaluate(traffic, "--json", "--filter", "~m POST & ~u embeddings", cwd=tmp_path)
    bad = evaluate(traffic, "--filter", "~nonsense (", cwd=tmp_path)

    assert json.loads(done.stdout)["given"] == {"high-compute": 1}
    assert bad.returncode == 2
    assert bad.stderr == "error: '~nonsense (' is no filter expression of mitmproxy's\n"


def test_recorded_decisions_are_compared_with_todays(traffic, tmp_path) -> None:
    done = evaluate(traffic, "--source", "recorded", "--against", "local", cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "agreement 1.000; 0 requests would change their label" in done.stdout


def test_flows_that_name_their_right_label_are_judged(tmp_path) -> None:
    path = tmp_path / "known.flow"

    def flow(target: str):
        return tflow.tflow(req=tutils.treq(method=b"GET", path=target.encode(), content=b""))

    by_comment, by_header, by_metadata = (flow(f"/users/{number}") for number in (41, 42, 43))
    by_comment.comment = "general -> w:9001 (local 0.70) true: fast-path"
    by_header.response = tutils.tresp()
    by_header.response.headers["X-True-Label"] = "fast-path"
    by_metadata.metadata["true_label"] = "general"
    with path.open("wb") as file:
        writer = FlowWriter(file)
        for each in (by_comment, by_header, by_metadata, flow("/unknown/1")):
            writer.add(each)

    done = evaluate(path, "--json", cwd=tmp_path)

    found = json.loads(done.stdout)
    assert (found["requests"], found["judged"]) == (4, 3)
    assert [one["place"] for one in found["mistakes"]] == ["flow 3"]


def test_a_file_of_flows_that_breaks_off_gets_one_line(traffic, tmp_path) -> None:
    broken = tmp_path / "broken.mitm"
    broken.write_bytes(traffic.read_bytes()[:-40])

    done = evaluate(broken, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {broken}: is no file of flows, or ends in the middle of one\n"
