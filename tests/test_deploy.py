"""Dockerfile, compose file, Kubernetes manifests, scripts: what can be proved without an engine."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from addons.settings import AdminSettings, RouterSettings
from classifier.configuration import load
from classifier.contracts import LABELS
from classifier.labels_file import parse_labels_file, read_labels_file
from classifier.settings import ClassifierSettings
from dashboard.settings import DashboardSettings
from tests.processes import ROOT
from workers.settings import WorkerSettings, load_config

K8S = ROOT / "k8s"
SCRIPTS = sorted([*ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"])
MANIFEST_FILES = sorted(file for file in K8S.glob("*.yaml") if file.name != "kustomization.yaml")
KUSTOMIZATION = yaml.safe_load((K8S / "kustomization.yaml").read_text())
CONFIG = dict(line.split("=", 1) for line in KUSTOMIZATION["configMapGenerator"][0]["literals"])
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
IMAGE = f"semantic-load-balancer:{KUSTOMIZATION['images'][0]['newTag']}"
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == IMAGE}
ALL_SETTINGS = (
    RouterSettings,
    AdminSettings,
    ClassifierSettings,
    DashboardSettings,
    WorkerSettings,
)
VARIABLES = {field.upper() for settings in ALL_SETTINGS for field in settings.model_fields}
NAME = "app.kubernetes.io/name"

type Manifest = Mapping[str, Any]


def manifests(kind: str = "") -> list[Manifest]:
    found = [doc for file in MANIFEST_FILES for doc in yaml.safe_load_all(file.read_text())]
    return [doc for doc in found if kind in {"", doc["kind"]}]


DEPLOYMENTS = {doc["metadata"]["name"]: doc for doc in manifests("Deployment")}


def pod_of(deployment: Manifest) -> Manifest:
    return deployment["spec"]["template"]["spec"]


def container_of(deployment: Manifest) -> Manifest:
    (container,) = pod_of(deployment)["containers"]
    return container


def ports_of(deployment: Manifest) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container_of(deployment)["ports"]}


def labels_of(deployment: Manifest) -> dict[str, str]:
    return deployment["spec"]["template"]["metadata"]["labels"]


def millis(cpu: str) -> int:
    assert cpu.endswith("m")
    return int(cpu[:-1])


def mebibytes(memory: str) -> int:
    assert memory.endswith("Mi")
    return int(memory[:-2])


def selected(selector: Manifest) -> set[str]:
    """The deployments whose pods a label selector matches."""
    return {
        name
        for name, deployment in DEPLOYMENTS.items()
        if selector.get("matchLabels", {}).items() <= labels_of(deployment).items()
        and all(
            labels_of(deployment).get(rule["key"]) in rule["values"]
            for rule in selector.get("matchExpressions", [])
        )
    }


def script_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Kubernetes


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("file", MANIFEST_FILES, ids=lambda file: file.name)
def test_a_manifest_fits_the_kubernetes_schema(file, version) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_kustomization_names_every_file() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == [file.name for file in MANIFEST_FILES]


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_renders_the_kustomization(tmp_path) -> None:
    command = ["kubectl", "kustomize", str(K8S)]
    rendered = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)

    documents = list(yaml.safe_load_all(rendered.stdout))
    for document in documents:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    pods = [pod_of(doc) for doc in documents if doc["kind"] == "Deployment"]
    assert {pod["containers"][0]["image"] for pod in pods} == {"semantic-load-balancer:local"}
    maps = [doc for doc in documents if doc["kind"] == "ConfigMap"]
    (config,) = (doc for doc in maps if "labels.toml" not in doc["data"])
    assert {pod["containers"][0]["envFrom"][0]["configMapRef"]["name"] for pod in pods} == {
        config["metadata"]["name"]
    }


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_a_deployment_selects_its_own_pods_and_no_others(deployment) -> None:
    assert selected(deployment["spec"]["selector"]) == {deployment["metadata"]["name"]}


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_a_pod_may_do_as_little_as_possible(deployment) -> None:
    pod, container = pod_of(deployment), container_of(deployment)

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


def pods_of(deployment: Manifest) -> int:
    """How many there are without load."""
    replicas = {
        doc["spec"]["scaleTargetRef"]["name"]: doc["spec"]["minReplicas"]
        for doc in manifests("HorizontalPodAutoscaler")
    }
    return replicas.get(deployment["metadata"]["name"]) or deployment["spec"]["replicas"]


def requested(*, surge: bool) -> tuple[int, int]:
    """CPU in thousandths and memory in MiB that all deployments ask for."""
    cpu = memory = 0
    for deployment in DEPLOYMENTS.values():
        requests = container_of(deployment)["resources"]["requests"]
        pods = pods_of(deployment)
        pods += deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"] if surge else 0
        cpu += pods * millis(requests["cpu"])
        memory += pods * mebibytes(requests["memory"])
    return cpu, memory


SYSTEM = (1_150, 512)
"""What a minikube with Calico and the metrics server asks for itself, about."""


def test_the_pods_fit_the_smallest_minikube() -> None:
    cpu, _ = requested(surge=False)

    assert cpu + SYSTEM[0] <= 2_000


def test_a_rollout_of_everything_fits_the_minikube_that_the_script_suggests() -> None:
    text = (ROOT / "scripts" / "minikube-deploy.sh").read_text()
    (size,) = re.findall(r"--cpus (\d+) --memory (\d+)g", text)
    cpu, memory = requested(surge=True)

    assert cpu + SYSTEM[0] <= int(size[0]) * 1_000
    assert memory + SYSTEM[1] <= int(size[1]) * 1_024


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_no_service_variable_of_kubernetes_reaches_our_settings(deployment) -> None:
    """A Service named `proxy` would set PROXY_PORT=tcp://10.0.0.1:8080."""
    assert pod_of(deployment)["enableServiceLinks"] is False


PROBES = {
    "worker-general": ("/health", "/health"),
    "worker-high-compute": ("/health", "/health"),
    "worker-fast-path": ("/health", "/health"),
    "classifier": ("/health", "/ready"),
    "proxy": ("/livez", "/readyz"),
    "dashboard": ("/healthz", "/healthz"),
}


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_probes_ask_for_life_and_readiness_where_they_are_told(deployment) -> None:
    container = container_of(deployment)
    live, ready = PROBES[deployment["metadata"]["name"]]

    assert container["livenessProbe"]["httpGet"]["path"] == live
    assert container["startupProbe"]["httpGet"]["path"] == live
    assert container["readinessProbe"]["httpGet"]["path"] == ready
    for probe in ("livenessProbe", "startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports_of(deployment)


@pytest.mark.parametrize("deployment", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_a_pod_has_time_to_finish_after_its_pre_stop(deployment) -> None:
    waits = container_of(deployment).get("lifecycle", {"preStop": {"exec": {"command": ["", "0"]}}})
    pre_stop_s = int(waits["preStop"]["exec"]["command"][1])

    assert pod_of(deployment)["terminationGracePeriodSeconds"] >= pre_stop_s + 20


CLOSING_SECONDS = 5
"""What the proxy needs to end when the last request is over, with some to spare."""


def test_a_pod_of_the_proxy_is_not_killed_while_it_drains() -> None:
    deployment = DEPLOYMENTS["proxy"]
    drain_s = int(CONFIG["DRAIN_DELAY_SECONDS"]) + int(CONFIG["DRAIN_TIMEOUT_SECONDS"])

    assert int(CONFIG["DRAIN_DELAY_SECONDS"]) > 0
    assert pod_of(deployment)["terminationGracePeriodSeconds"] >= drain_s + CLOSING_SECONDS
    # It would only shorten the drain: what it waits for, the proxy does itself.
    assert "lifecycle" not in container_of(deployment)


def test_a_proxy_in_compose_is_not_killed_while_it_drains() -> None:
    defaults = RouterSettings.model_construct()
    grace_s = int(OURS["proxy"]["stop_grace_period"].removesuffix("s"))

    drain_s = defaults.drain_delay_seconds + defaults.drain_timeout_seconds
    assert grace_s >= drain_s + CLOSING_SECONDS


@pytest.mark.parametrize("service", manifests("Service"), ids=lambda doc: doc["metadata"]["name"])
def test_a_service_leads_to_a_port_of_one_deployment(service) -> None:
    (name,) = selected({"matchLabels": service["spec"]["selector"]})

    for port in service["spec"]["ports"]:
        assert ports_of(DEPLOYMENTS[name])[port["targetPort"]] == port["port"]


def test_only_the_proxy_is_reachable_from_outside() -> None:
    types = {doc["metadata"]["name"]: doc["spec"].get("type") for doc in manifests("Service")}

    assert types.pop("proxy") == "LoadBalancer"
    assert set(types.values()) == {None}


def test_the_control_port_is_not_a_port_of_the_public_service() -> None:
    ports = {
        doc["metadata"]["name"]: [port["port"] for port in doc["spec"]["ports"]]
        for doc in manifests("Service")
    }

    assert ports["proxy"] == [8080]
    assert ports["proxy-control"] == [9090]


@pytest.mark.parametrize(
    "budget", manifests("PodDisruptionBudget"), ids=lambda doc: doc["metadata"]["name"]
)
def test_a_disruption_budget_covers_the_deployment_it_is_named_for(budget) -> None:
    assert selected(budget["spec"]["selector"]) == {budget["metadata"]["name"]}


@pytest.mark.parametrize(
    "scaler", manifests("HorizontalPodAutoscaler"), ids=lambda doc: doc["metadata"]["name"]
)
def test_an_autoscaler_alone_sets_the_replicas_of_its_deployment(scaler) -> None:
    deployment = DEPLOYMENTS[scaler["spec"]["scaleTargetRef"]["name"]]

    assert "replicas" not in deployment["spec"]
    assert 1 < scaler["spec"]["minReplicas"] <= scaler["spec"]["maxReplicas"]


def admitted(policy: Manifest) -> Iterator[tuple[str, int, Manifest]]:
    """Target deployment, port and peer of each thing that a policy lets in."""
    for rule in policy["spec"].get("ingress", []):
        for name in selected(policy["spec"]["podSelector"]):
            for port in rule["ports"]:
                if port["port"] in ports_of(DEPLOYMENTS[name]).values():
                    for peer in rule.get("from", [{"everybody": True}]):
                        yield name, port["port"], peer


def admissions(name: str, port: int) -> list[Manifest]:
    everything = [found for policy in manifests("NetworkPolicy") for found in admitted(policy)]
    return [peer for target, at, peer in everything if (target, at) == (name, port)]


def test_nothing_is_let_in_by_default() -> None:
    (default,) = (
        doc for doc in manifests("NetworkPolicy") if doc["metadata"]["name"] == "deny-by-default"
    )

    assert default["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


@pytest.mark.parametrize("name", [name for name in DEPLOYMENTS if name.startswith("worker-")])
def test_only_the_proxy_reaches_a_worker(name) -> None:
    (port,) = ports_of(DEPLOYMENTS[name]).values()
    (peer,) = admissions(name, port)

    assert peer.keys() == {"podSelector"}
    assert selected(peer["podSelector"]) == {"proxy"}


def test_metrics_are_for_the_dashboard_and_the_monitoring_namespace() -> None:
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    for name, port, readers in (
        ("proxy", 9090, {"dashboard"}),
        ("classifier", 8001, {"proxy", "dashboard"}),
    ):
        pods, namespace = admissions(name, port)
        assert selected(pods["podSelector"]) == readers
        assert namespace == {"namespaceSelector": monitoring}


def test_clients_reach_the_proxy_from_anywhere() -> None:
    assert admissions("proxy", 8080) == [{"everybody": True}]


def test_prometheus_is_told_where_the_metrics_are() -> None:
    told = {
        name: deployment["spec"]["template"]["metadata"].get("annotations", {})
        for name, deployment in DEPLOYMENTS.items()
    }

    for name, port in (("proxy", "9090"), ("classifier", "8001")):
        assert told[name]["prometheus.io/scrape"] == "true"
        assert told[name]["prometheus.io/port"] == port
        assert told[name]["prometheus.io/path"] == "/metrics"
        assert int(port) in ports_of(DEPLOYMENTS[name]).values()


# Settings of both


def documented_variables() -> set[str]:
    text = (ROOT / ".env.example").read_text()
    return set(re.findall(r"^#?\s*([A-Z][A-Z0-9_]+)=", text, re.MULTILINE))


def test_every_variable_of_the_config_map_is_a_documented_setting() -> None:
    assert CONFIG.keys() <= VARIABLES
    assert CONFIG.keys() <= documented_variables()


@pytest.mark.parametrize("name", ["proxy", "classifier"])
def test_a_labels_file_is_mounted_where_it_is_looked_for(name, monkeypatch) -> None:
    pod = pod_of(DEPLOYMENTS[name])
    mounted = {
        mount["name"]: mount["mountPath"]
        for mount in container_of(DEPLOYMENTS[name])["volumeMounts"]
    }
    assert f"{mounted['labels']}/labels.toml" == CONFIG["LABELS_FILE"]
    assert {"name": "labels", "configMap": {"name": "labels"}} in pod["volumes"]

    (bound,) = OURS[name]["volumes"]
    assert OURS[name]["environment"]["LABELS_FILE"] == f"${{LABELS_FILE:+{bound['target']}}}"
    assert bound["read_only"]


def test_the_labels_file_of_the_manifests_adds_nothing_until_somebody_does() -> None:
    shipped = read_labels_file(str(K8S / "labels.toml"))
    example = (K8S / "labels.toml").read_text().partition("# [labels")
    text = re.sub("^# ?", "", "".join(example[1:]), flags=re.MULTILINE)

    assert (tuple(shipped.labels), shipped.rules) == (LABELS, ())
    assert len(parse_labels_file(text.encode()).rules) == 1


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_a_compose_service_is_a_documented_setting(name) -> None:
    assert OURS[name]["environment"].keys() <= VARIABLES
    assert OURS[name]["environment"].keys() <= documented_variables()


@pytest.mark.parametrize("name", OURS.keys() - {"proxy"})
def test_only_the_proxy_gets_the_admin_token_in_compose(name) -> None:
    # All of them are given .env.
    assert OURS[name]["environment"]["ADMIN_TOKEN"] == ""


@pytest.mark.parametrize("name", DEPLOYMENTS.keys() - {"proxy"})
def test_only_the_proxy_gets_the_admin_token_on_kubernetes(name) -> None:
    assert all("secretRef" not in source for source in container_of(DEPLOYMENTS[name])["envFrom"])


def test_every_variable_that_compose_fills_in_is_documented() -> None:
    text = (ROOT / "compose.yaml").read_text()

    assert set(re.findall(r"\$\{([A-Z_]+)", text)) <= documented_variables()


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=lambda settings: settings.__name__)
def test_the_config_map_holds_values_that_the_programs_take(
    settings, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in CONFIG.items():
        monkeypatch.setenv(name, value)

    load(settings)


@pytest.mark.parametrize(
    "variable", [name for name, value in CONFIG.items() if value.startswith("http")]
)
def test_an_address_in_the_config_map_is_that_of_a_service(variable) -> None:
    address = urlsplit(CONFIG[variable])
    ports = {
        doc["metadata"]["name"]: [port["port"] for port in doc["spec"]["ports"]]
        for doc in manifests("Service")
    }
    assert address.port in ports[address.hostname]


def test_the_config_map_names_no_ollama_for_none_is_deployed() -> None:
    assert CONFIG["OLLAMA_BASE_URL"] == ""
    assert "ollama" not in DEPLOYMENTS


def compose_addresses() -> Iterator[tuple[str, str, str]]:
    for name, service in OURS.items():
        for variable, value in service["environment"].items():
            if value.startswith("http://"):
                yield name, variable, value


@pytest.mark.parametrize(("name", "variable", "value"), compose_addresses())
def test_an_address_in_the_compose_file_is_that_of_a_service_in_reach(
    name, variable, value
) -> None:
    address = urlsplit(value)

    assert set(COMPOSE["services"][address.hostname]["networks"]) & set(OURS[name]["networks"])
    if address.hostname in DEPLOYMENTS:
        assert address.port in ports_of(DEPLOYMENTS[address.hostname]).values()


# Compose


def test_compose_and_kubernetes_run_the_same_services_by_the_same_commands() -> None:
    assert OURS.keys() == DEPLOYMENTS.keys()
    for name, service in OURS.items():
        assert service["command"] == container_of(DEPLOYMENTS[name])["command"], name


def test_the_local_stack_runs_the_proxy_by_the_same_command(monkeypatch, tmp_path) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    stack = script_module("stack_services")
    proxy = next(service for service in stack.services({}, tmp_path) if service.name == "proxy")
    assert proxy.command[0] == sys.executable
    contained = OURS["proxy"]["command"]
    assert contained[0] == "python"

    assert [part for part in proxy.command[1:] if "confdir" not in part] == [
        part.replace("0.0.0.0", "127.0.0.1") for part in contained[1:] if "confdir" not in part
    ]


def test_published_are_the_proxy_and_on_loopback_its_metrics_and_the_dashboard() -> None:
    published = [port for service in OURS.values() for port in service.get("ports", [])]

    assert published == [
        "${PROXY_PORT:-8080}:8080",
        "127.0.0.1:${METRICS_PORT:-9090}:9090",
        "127.0.0.1:${DASHBOARD_PORT:-3000}:3000",
    ]
    assert "ports" not in COMPOSE["services"]["ollama"]


@pytest.mark.parametrize("name", [name for name in OURS if name.startswith("worker-")])
def test_only_the_proxy_shares_a_network_with_a_worker_in_compose(name) -> None:
    neighbours = {
        other
        for other, service in COMPOSE["services"].items()
        if set(service["networks"]) & set(OURS[name]["networks"])
    }

    assert {other for other in neighbours if not other.startswith("worker-")} == {"proxy"}
    assert COMPOSE["networks"]["workers"] == {"internal": True}


@pytest.mark.parametrize("name", OURS)
def test_a_container_may_do_as_little_as_possible(name) -> None:
    service = OURS[name]

    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_a_compose_healthcheck_asks_the_port_and_path_of_the_readiness_probe(name) -> None:
    probe = container_of(DEPLOYMENTS[name])["readinessProbe"]["httpGet"]
    port = ports_of(DEPLOYMENTS[name])[probe["port"]]

    assert f"'http://127.0.0.1:{port}{probe['path']}'" in OURS[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("kind", ["general", "high-compute", "fast-path"])
def test_a_worker_listens_where_its_pool_is_looked_for(kind, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"worker-{kind}"
    for variable, value in OURS[name]["environment"].items():
        monkeypatch.setenv(variable, value)

    config = load_config(OURS[name]["command"][3:])

    pool = f"{kind.replace('-', '_').upper()}_POOL"
    assert OURS["proxy"]["environment"][pool] == f"http://{config.name}:{config.port}"
    assert (config.host, config.type) == ("0.0.0.0", kind)
    assert ports_of(DEPLOYMENTS[name]) == {"http": config.port}


def test_the_image_is_built_once_and_never_looked_for_in_a_registry() -> None:
    assert [name for name, service in OURS.items() if "build" in service] == ["classifier"]
    assert {service["pull_policy"] for service in OURS.values()} == {"never"}


def test_ollama_is_there_only_for_who_asks() -> None:
    assert COMPOSE["services"]["ollama"]["profiles"] == ["ollama"]
    assert all("ollama" not in service.get("depends_on", {}) for service in OURS.values())


# Image

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def copied_files() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


@pytest.mark.parametrize("source", copied_files())
def test_what_the_image_copies_exists_and_is_not_ignored(source) -> None:
    assert (ROOT / source).exists()
    assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines()


def test_the_image_is_pinned_and_does_not_run_as_root() -> None:
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.13\.\d+-slim", DOCKERFILE, re.MULTILINE)
    assert "--require-hashes" in DOCKERFILE
    (user,) = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)
    assert {pod_of(each)["securityContext"]["runAsUser"] for each in DEPLOYMENTS.values()} == {
        int(user)
    }


def test_every_package_of_the_project_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]

    assert set(packages) <= set(copied_files())


def test_the_image_gets_the_runtime_part_of_the_lock() -> None:
    scripts = script_module("runtime_lock")
    lock = (ROOT / "requirements.lock").read_text()
    part = scripts.entries(scripts.runtime_part(lock))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {re.split(r"[<>=\[]", line)[0] for line in project["project"]["dependencies"]}

    assert wanted <= part.keys()
    assert {"starlette", "tqdm", "h11"} <= part.keys()
    assert not {"pytest", "mypy", "scikit-learn", "numpy", "playwright"} & part.keys()
    assert all("--hash=sha256:" in text for text in part.values())
    assert part.items() <= scripts.entries(lock).items()


# Scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_parses(script) -> None:
    subprocess.run(["bash", "-n", str(script)], timeout=10, check=True)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    command = ["shellcheck", *map(str, SCRIPTS)]

    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    "script",
    [script for script in SCRIPTS if script.read_text().startswith("#!")],
    ids=lambda script: script.name,
)
def test_a_script_can_be_run(script) -> None:
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert os.access(script, os.X_OK)


def minikube_deploy(*flags: str, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash") or "bash", str(ROOT / "scripts" / "minikube-deploy.sh"), *flags],
        cwd="/",
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def test_minikube_deploy_tells_what_it_would_do() -> None:
    result = minikube_deploy("--dry-run", path="/nonexistent")

    assert result.returncode == 0, result.stderr
    commands = [line[2:] for line in result.stdout.splitlines() if line.startswith("+ ")]
    tag = KUSTOMIZATION["images"][0]["newTag"]
    kubectl = f"kubectl --context minikube --namespace {KUSTOMIZATION['namespace']}"
    waits = [f"{kubectl} rollout status deployment/{name} --timeout 300s" for name in DEPLOYMENTS]
    assert (
        commands[1]
        == f"minikube --profile minikube image build --tag semantic-load-balancer:{tag} ."
    )
    assert commands[2] == f"{kubectl} apply --kustomize k8s"
    assert sorted(command for command in commands if "rollout status" in command) == sorted(waits)
    restarts = [command.split()[-1] for command in commands if "rollout restart" in command]
    assert sorted(restarts) == sorted(f"deployment.apps/{name}" for name in DEPLOYMENTS)
    assert commands[-1].endswith("proxy --url")
    # That one may not come back before Ctrl-C, so nothing is said after it.
    assert result.stdout.splitlines()[-1] == f"+ {commands[-1]}"


def fake_cluster(path: Path, deployments: str) -> str:
    """A PATH with a minikube that runs and a kubectl that finds those deployments."""
    answers = f'case "$*" in *"get deployments"*) printf "{deployments}" ;; esac'
    for tool, script in (("minikube", "exit 0"), ("kubectl", answers)):
        (path / tool).write_text(f"#!/bin/sh\n{script}\n")
        (path / tool).chmod(0o755)
    return str(path)


def test_minikube_deploy_restarts_only_what_was_there_before(tmp_path) -> None:
    path = fake_cluster(tmp_path, r"deployment.apps/proxy\ndeployment.apps/classifier\n")

    result = minikube_deploy(path=path)

    assert result.returncode == 0, result.stderr
    restarts = re.findall(r"rollout restart (.+)", result.stdout)
    assert restarts == ["deployment.apps/proxy", "deployment.apps/classifier"]


def test_minikube_deploy_restarts_nothing_the_first_time(tmp_path) -> None:
    result = minikube_deploy(path=fake_cluster(tmp_path, ""))

    assert result.returncode == 0, result.stderr
    assert "apply --kustomize k8s" in result.stdout
    assert "rollout restart" not in result.stdout


def test_minikube_deploy_says_what_is_missing() -> None:
    result = minikube_deploy(path="/nonexistent")

    assert result.returncode == 1
    assert result.stderr == (
        "error: minikube is not installed; see https://minikube.sigs.k8s.io/docs/start\n"
    )


def test_minikube_deploy_does_nothing_while_minikube_is_down(tmp_path) -> None:
    for tool, code in (("minikube", 85), ("kubectl", 0)):
        (tmp_path / tool).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / tool).chmod(0o755)

    result = minikube_deploy(path=str(tmp_path))

    assert result.returncode == 1
    assert "minikube is not running" in result.stderr
    assert "--cni calico --cpus 4 --memory 6g" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
