"""Documentation that cannot rot: settings, metrics and paths that it names exist."""

import importlib.util
import re

import pytest
from prometheus_client.core import Metric

from addons.overview import Overview
from addons.settings import AdminSettings, ProcessSettings, RouterSettings
from addons.telemetry import telemetry
from classifier.labels_file import parse_labels_file
from classifier.settings import ClassifierSettings
from dashboard.settings import DashboardSettings
from tests.processes import ROOT
from workers.settings import WorkerSettings

README = (ROOT / "README.md").read_text("utf-8")
ENV_EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
SETTINGS = [
    RouterSettings,
    AdminSettings,
    ProcessSettings,
    ClassifierSettings,
    DashboardSettings,
    WorkerSettings,
]


def documented() -> dict[str, str]:
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", ENV_EXAMPLE, re.MULTILINE))


def test_every_setting_is_in_the_env_example_and_no_other() -> None:
    fields = {name.upper() for cls in SETTINGS for name in cls.model_fields}

    assert set(documented()) == fields


def test_the_env_example_shows_the_defaults(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for cls in SETTINGS:
        defaults = cls()
        for name in cls.model_fields:
            shown, value = documented()[name.upper()], getattr(defaults, name)
            expected = "" if value is None else str(value)
            assert shown.lower() == expected.lower(), name


def test_the_env_example_can_be_used_as_it_is(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(re.sub(r"^#(?=[A-Z])", "", ENV_EXAMPLE, flags=re.MULTILINE))

    for cls in SETTINGS:
        assert cls() == cls(_env_file=None)


def test_every_setting_in_the_readme_exists() -> None:
    table = README.partition("## Settings")[2].partition("## Metrics")[0]
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", table))

    assert named
    assert named <= set(documented())


def metric_name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def test_every_metric_in_the_readme_exists() -> None:
    from classifier.app import build

    exported = telemetry.render() + build(ClassifierSettings()).metrics.render()
    known = set(re.findall(r"^# TYPE (\S+)", exported.decode(), re.MULTILINE))
    # The state of a router is exported only while one runs.
    known |= {"slb_cache_hits_total", "slb_cache_misses_total", "slb_worker_inflight"}
    known |= {"slb_worker_requests_total", "slb_worker_errors_total", "slb_worker_up"}
    known |= {"slb_pool_panic", "slb_queue_waiting"}
    known |= {"slb_classifier_breaker_state", "slb_classify_queue"}
    known |= {"slb_sibling_messages_lost_total"}
    # And those of a supervisor only by one.
    known |= {metric_name(one) for one in Overview(list, 2).own_metrics(2)}
    named = set(re.findall(r"slb_[a-z0-9_]+", README))

    assert named
    assert named <= known


def test_the_labels_file_in_the_readme_can_be_used_as_it_is() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

    read = parse_labels_file(text.encode())

    assert [rule.name for rule in read.rules] == ["exports", "big-queries"]


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+\w)", README))))
def test_every_module_in_the_readme_can_be_run(module) -> None:
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?:scripts|docs|k8s)/[\w./-]+\w", README)))
)
def test_every_path_in_the_readme_exists(path) -> None:
    assert (ROOT / path).exists()
