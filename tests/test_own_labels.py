"""An operator's own labels, rules and overrides, in the proxy as it runs."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests import processes
from tests.fleet import label_source
from tests.processes import BIN, LABELS, ROOT, Proxy, free_port, until

pytestmark = pytest.mark.integration

OWN_LABELS = """
[labels.reports]
description = "Nightly reports"
pool = "http://127.0.0.1:REPORTS"
spill_pool = "general"

[labels.batch]
pool = "reports"
"""
RULES = """
[[rules]]
name = "nightly"
label = "reports"
method = ["GET", "POST"]
path = "/reports/*"

[[rules]]
name = "health-is-heavy"
label = "high-compute"
path = "/health-of-all"

[[rules]]
name = "big-tenants"
label = "batch"
header = { x-tenant = "big-*" }

[[rules]]
name = "sized"
label = "high-compute"
body_json = { "query.size" = ">=1000" }

[[rules]]
name = "filtered"
label = "reports"
filter = "~m PUT & ~u /export & ~hq '^x-kind: all'"
"""


def with_port(text: str, ports: dict[str, int]) -> str:
    return text.replace("REPORTS", str(ports["reports"]))


@dataclass
class Site:
    """A proxy with a labels file, a worker for each pool, and no classifier."""

    proxy: Proxy
    file: Path
    ports: dict[str, int]

    def send(self, method: str, path: str, **more) -> httpx.Response:
        return httpx.request(method, self.proxy.url + path, trust_env=False, timeout=10, **more)

    def write(self, text: str) -> None:
        self.file.write_text(with_port(text, self.ports))

    def reload(self) -> httpx.Response:
        return httpx.post(f"{self.proxy.control}/v1/reload", trust_env=False)

    def last_decision(self) -> dict:
        return self.proxy.decisions()[-1]


@contextmanager
def workers_in(folder: Path) -> Iterator[dict[str, int]]:
    """A worker for each built-in label, and one for own labels; yields their ports."""
    with ExitStack() as contexts:
        ports = {label: free_port() for label in (*LABELS, "reports")}
        for label, port in ports.items():
            kind = label if label in LABELS else "general"
            contexts.enter_context(processes.worker(folder, kind, port, "--name", label))
        yield ports


@contextmanager
def site_in(folder: Path, ports: dict[str, int], **variables: object) -> Iterator[Site]:
    file = folder / "labels.toml"
    file.write_text(with_port(OWN_LABELS + RULES, ports))
    pools = processes.pool_variables({label: [ports[label]] for label in LABELS})
    # Nothing listens there: what rules decide, they decide alone.
    nobody = f"http://127.0.0.1:{free_port()}"
    defaults = {"CLASSIFIER_URL": nobody, "LABELS_FILE": file, **pools}
    with processes.proxy(folder, **{**defaults, **variables}) as proxy:
        yield Site(proxy, file, ports)


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    with workers_in(tmp_path_factory.mktemp("workers")) as given:
        yield given


@pytest.fixture(scope="module", params=["all", "off"])
def site(request, tmp_path_factory, ports):
    """Clients on this machine may force labels."""
    folder = tmp_path_factory.mktemp("site")
    sources = {"OVERRIDE_HEADER_SOURCES": "127.0.0.1", "INSPECT": request.param}
    with site_in(folder, ports, **sources) as started:
        yield started


def came_to(response: httpx.Response) -> tuple[str, str, str]:
    """Label, source and the worker that answered."""
    headers = response.headers
    return headers["x-slb-label"], headers["x-slb-source"], headers["x-worker-name"]


def test_an_own_label_has_a_worker_of_its_own(site) -> None:
    assert came_to(site.send("GET", "/reports/daily?day=1")) == ("reports", "rule", "reports")
    seen = site.send("POST", "/reports/run", json={}).json()["headers"]
    assert dict(seen)["x-route-label"] == "reports"
    assert dict(seen)["x-route-confidence"] == "1.000"


def test_a_label_may_share_the_pool_of_another(site) -> None:
    answer = site.send("DELETE", "/x", headers={"X-Tenant": "big-one"})

    assert came_to(answer) == ("batch", "rule", "reports")


def test_a_rule_wins_over_what_the_request_means_and_over_a_dead_classifier(site) -> None:
    assert came_to(site.send("GET", "/health-of-all")) == ("high-compute", "rule", "high-compute")
    assert came_to(site.send("GET", "/other")) == ("general", "fallback", "general")


def test_a_rule_may_ask_what_stands_in_the_body(site) -> None:
    heavy = site.send("POST", "/query", json={"query": {"size": 1000}})
    light = site.send("POST", "/query", json={"query": {"size": 999}})

    assert came_to(heavy) == ("high-compute", "rule", "high-compute")
    assert came_to(light)[1] == "fallback"


def test_a_rule_may_be_a_flow_filter_also_when_no_request_becomes_a_flow(site) -> None:
    assert came_to(site.send("PUT", "/export/7", headers={"X-Kind": "all"}))[0] == "reports"
    assert came_to(site.send("PUT", "/export/7"))[0] == "general"


def test_the_feed_tells_which_rule_it_was(site) -> None:
    site.send("GET", "/reports/weekly")

    assert until(lambda: site.last_decision()["path"] == "/reports/weekly", 5)
    decision = site.last_decision()
    assert (decision["source"], decision["reason"]) == ("rule", "rule nightly")
    assert (decision["confidence"], decision["pool"]) == (1.0, "reports")


def test_own_labels_have_series_from_the_start_and_are_counted(site) -> None:
    answers = 'slb_requests_total{label="batch",pool="reports",status_class="2xx"}'
    before = site.proxy.metric(answers)

    site.send("DELETE", "/x", headers={"X-Tenant": "big-two"})

    assert until(lambda: site.proxy.metric(answers) == before + 1, 5)
    assert site.proxy.metric('slb_decisions_total{label="reports",source="llm"}') == 0
    assert site.proxy.metric('slb_spills_total{from="reports",to="general"}') == 0
    assert site.proxy.metric('slb_queue_waiting{pool="reports"}') == 0
    with pytest.raises(AssertionError, match="not exported"):
        site.proxy.metric('slb_requests_total{label="general",pool="reports",status_class="2xx"}')


def test_rules_do_not_hide_a_dead_classifier(site) -> None:
    for _ in range(20):
        site.send("GET", "/reports/daily")
    site.send("GET", "/other")

    assert site.proxy.metric("slb_classifier_coverage_ratio") == 0


@pytest.mark.parametrize("label", ["fast-path", "reports"])
def test_a_trusted_client_forces_a_label_over_every_rule(site, label) -> None:
    answer = site.send("GET", "/reports/daily", headers={"X-SLB-Force-Label": label})

    assert came_to(answer) == (label, "override", label)
    assert not [name for name, _ in answer.json()["headers"] if name.startswith("x-slb")]


@pytest.mark.parametrize(
    "headers",
    [
        [("x-slb-force-label", "nonsense")],
        [("x-slb-force-label", "general"), ("x-slb-force-label", "reports")],
    ],
)
def test_a_trusted_client_that_forces_no_label_is_told_so_and_nothing_else(site, headers) -> None:
    answer = site.send("GET", "/reports/daily", headers=headers)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "unknown_label"
    assert not any(word in error["message"] for word in ("reports", "general", "127.0.0.1"))
    assert site.proxy.metric('slb_rejections_total{code="unknown_label"}') > 0


@pytest.fixture(scope="module")
def strict(tmp_path_factory, ports):
    """Nobody on this machine may force labels; what it says of others is believed, though."""
    variables = {"OVERRIDE_HEADER_SOURCES": "10.0.0.0/8", "TRUSTED_PROXIES": "127.0.0.1"}
    with site_in(tmp_path_factory.mktemp("strict"), ports, **variables) as started:
        yield started


@pytest.mark.parametrize("label", ["fast-path", "nonsense"])
def test_from_others_the_header_is_dropped_whatever_they_say_of_themselves(strict, label) -> None:
    headers = {"x-slb-force-label": label, "x-forwarded-for": "10.0.0.1", "x-real-ip": "10.0.0.1"}

    answer = strict.send("GET", "/reports/daily", headers=headers)

    assert came_to(answer) == ("reports", "rule", "reports")
    assert not [name for name, _ in answer.json()["headers"] if name.startswith("x-slb")]


# Reloads


@pytest.fixture
def changing(tmp_path, ports):
    with site_in(tmp_path, ports) as started:
        yield started


def test_a_file_that_changed_is_taken_over_without_any_setting_that_did(changing) -> None:
    assert changing.reload().json() == {"changed": [], "kept": []}
    changing.write(OWN_LABELS + RULES.replace("/reports/*", "/nightly/*"))
    assert came_to(changing.send("GET", "/nightly/1"))[1] == "fallback"

    assert changing.reload().json() == {"changed": ["LABELS_FILE"], "kept": []}

    assert came_to(changing.send("GET", "/nightly/1")) == ("reports", "rule", "reports")
    assert came_to(changing.send("GET", "/reports/1"))[1] == "fallback"


def test_a_bad_file_is_refused_and_the_old_one_stays(changing) -> None:
    changing.write(OWN_LABELS + RULES.replace('label = "batch"', 'label = "lunch"'))

    refused = changing.reload()

    assert refused.status_code == 422
    told = refused.json()["error"]["message"]
    assert told.startswith("LABELS_FILE: rules[2]: unknown label 'lunch'; there are fast-path, ")
    assert came_to(changing.send("GET", "/reports/1")) == ("reports", "rule", "reports")

    changing.file.unlink()
    assert changing.reload().status_code == 422
    assert came_to(changing.send("GET", "/reports/1"))[0] == "reports"


def test_a_label_that_goes_leaves_its_requests_to_the_others(changing) -> None:
    changing.write("")

    assert changing.reload().json()["changed"] == ["LABELS_FILE"]

    assert came_to(changing.send("GET", "/reports/1")) == ("general", "fallback", "general")
    pools = httpx.get(f"{changing.proxy.control}/v1/pools", trust_env=False).json()["pools"]
    assert {pool["label"] for pool in pools} == set(LABELS)


def test_a_worker_of_an_own_label_drains_like_any_other(changing) -> None:
    worker = f"127.0.0.1:{changing.ports['reports']}"
    url = f"{changing.proxy.control}/v1/pools/reports/workers/{worker}/drain"

    assert httpx.post(url, trust_env=False).status_code == 200
    # Its pool has nobody else, so it spills.
    assert came_to(changing.send("GET", "/reports/1")) == ("reports", "rule", "general")
    spills = 'slb_spills_total{from="reports",to="general"}'
    assert until(lambda: changing.proxy.metric(spills) == 1, 5)


# The classifier


@pytest.mark.parametrize(
    ("says", "label", "source"),
    [("batch", "batch", "local"), ("lunch", "general", "fallback")],
)
def test_the_classifier_may_give_own_labels_but_none_that_nobody_knows(
    tmp_path, ports, says, label, source
) -> None:
    with label_source(tmp_path, says) as url, site_in(tmp_path, ports, CLASSIFIER_URL=url) as site:
        assert came_to(site.send("GET", "/other"))[:2] == (label, source)


# The start


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rules]", "LABELS_FILE: it is not TOML: "),
        ('[labels.x]\npool = "http://a:1/path"', "LABELS_FILE: labels.x.pool: "),
        (
            '[[rules]]\nname = "f"\nlabel = "general"\nfilter = "~c 200"',
            "LABELS_FILE: rules[0].filter: ~c is about what is not known yet",
        ),
        (None, "LABELS_FILE: 'labels.toml' cannot be read (No such file or directory)"),
    ],
)
def test_a_bad_file_ends_the_start_with_one_line_and_exit_code_2(tmp_path, text, message) -> None:
    if text is not None:
        (tmp_path / "labels.toml").write_text(text)

    command = [BIN / "mitmdump", "-s", ROOT / "addons" / "router.py", "--listen-port", "0"]
    env = processes.clean_env(LABELS_FILE="labels.toml", METRICS_PORT=free_port())
    confdir = f"confdir={tmp_path / 'mitmproxy'}"
    ended = subprocess.run(
        [*command, "--set", confdir],
        check=False,
        cwd=tmp_path,
        env=env,
        capture_output=True,
        timeout=60,
    )

    assert ended.returncode == 2
    assert ended.stderr.decode().startswith(f"error: {message}")
    assert ended.stderr.count(b"\n") == 1
