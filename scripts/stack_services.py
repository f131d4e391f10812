"""What the local stack consists of, by the settings: one process each, none for what is remote."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stack_settings import SettingsError, address_of, is_loopback, port_setting

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"

POOLS = {
    "general": ("GENERAL_POOL", "http://localhost:9001"),
    "high-compute": ("HIGH_COMPUTE_POOL", "http://localhost:9002"),
    "fast-path": ("FAST_PATH_POOL", "http://localhost:9003"),
}


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that a service opens, and the variables that move it."""

    host: str
    port: int
    variable: str
    host_variable: str

    @property
    def url(self) -> str:
        """Base URL under which a program on this machine reaches the port."""
        host = {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(self.host, self.host)
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"http://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack.

    Attributes:
        rank: Services of a higher rank use those of a lower one, so they are stopped first.
        listeners: The ports it opens; the first one is its address.
        ready_url: Answers 200 as soon as the service does its work.
        env: What it gets on top of the environment.
        pages: What a person may want to open, with a word on what it is.
    """

    name: str
    rank: int
    command: tuple[str, ...]
    listeners: tuple[Listener, ...]
    ready_url: str
    env: Mapping[str, str] = field(default_factory=dict)
    pages: tuple[tuple[str, str], ...] = ()


def services(settings: Mapping[str, str], run_dir: Path) -> tuple[Service, ...]:
    """The services to run here, in the order of their start.

    Raises:
        SettingsError: If a setting that says what runs where cannot be used.
    """
    found = (
        *_workers(settings),
        *_classifier(settings),
        _proxy(settings, run_dir),
        _dashboard(settings),
    )
    _refuse_shared_ports(found)
    return found


def _workers(settings: Mapping[str, str]) -> Iterator[Service]:
    started: set[tuple[str, int]] = set()
    for label, (variable, default) in POOLS.items():
        parts = settings.get(variable, default).split(",")
        # Behind a semicolon there is a weight, of no interest here.
        upstreams = [part.partition(";")[0].strip() for part in parts]
        for number, upstream in enumerate(filter(None, upstreams), 1):
            host, port = address_of(variable, upstream)
            host = LOOPBACK if host == "localhost" else host
            if not is_loopback(host) or upstream.startswith("https") or (host, port) in started:
                continue
            started.add((host, port))
            name = f"worker-{label}" if number == 1 else f"worker-{label}-{number}"
            yield _worker(label, name, Listener(host, port, variable, variable))


def _worker(label: str, name: str, listener: Listener) -> Service:
    flags = ("--type", label, "--host", listener.host, "--port", str(listener.port))
    return Service(
        name=name,
        rank=0,
        command=(sys.executable, "-m", "workers", *flags),
        listeners=(listener,),
        ready_url=f"{listener.url}/health",
    )


def _classifier(settings: Mapping[str, str]) -> Iterator[Service]:
    url = settings.get("CLASSIFIER_URL", "http://localhost:8001")
    host, port = address_of("CLASSIFIER_URL", url, like="http://localhost:8001")
    if not is_loopback(host):
        return
    _ensure_same_port(
        port_setting(settings, "CLASSIFIER_PORT", port), "CLASSIFIER_PORT", url, "CLASSIFIER_URL"
    )
    host = settings.get("CLASSIFIER_HOST", LOOPBACK)
    listener = Listener(host, port, "CLASSIFIER_URL and CLASSIFIER_PORT", "CLASSIFIER_HOST")
    yield Service(
        name="classifier",
        rank=0,
        command=(sys.executable, "-m", "classifier"),
        listeners=(listener,),
        ready_url=f"{listener.url}/ready",
        env={"CLASSIFIER_HOST": host, "CLASSIFIER_PORT": str(port)},
        pages=(("Classifier API", f"{listener.url}/docs"),),
    )


def _proxy(settings: Mapping[str, str], run_dir: Path) -> Service:
    port = port_setting(settings, "PROXY_PORT", 8080)
    proxy = Listener(LOOPBACK, port, "PROXY_PORT", "PROXY_PORT")
    control = _control(settings)
    return Service(
        name="proxy",
        rank=1,
        command=(
            *(sys.executable, "-m", "addons.launcher"),
            *("--listen-host", proxy.host),
            *("--listen-port", str(proxy.port)),
            # Neither reads nor writes the certificates and options that the user keeps in ~.
            *("--set", f"confdir={run_dir / 'mitmproxy'}"),
        ),
        listeners=(proxy, control),
        ready_url=f"{control.url}/readyz",
        pages=(("Send requests to", proxy.url), ("Metrics", f"{control.url}/metrics")),
    )


def _control(settings: Mapping[str, str]) -> Listener:
    return Listener(
        settings.get("METRICS_HOST", LOOPBACK),
        port_setting(settings, "METRICS_PORT", 9090),
        "METRICS_PORT",
        "METRICS_HOST",
    )


def _dashboard(settings: Mapping[str, str]) -> Service:
    listener = Listener(
        settings.get("DASHBOARD_HOST", LOOPBACK),
        port_setting(settings, "DASHBOARD_PORT", 3000),
        "DASHBOARD_PORT",
        "DASHBOARD_HOST",
    )
    control = _control(settings)
    metrics_url = settings.get("PROXY_METRICS_URL", control.url)
    if is_loopback(address_of("PROXY_METRICS_URL", metrics_url, like="http://localhost:9090")[0]):
        _ensure_same_port(control.port, "METRICS_PORT", metrics_url, "PROXY_METRICS_URL")
    return Service(
        name="dashboard",
        rank=2,
        command=(sys.executable, "-m", "dashboard"),
        listeners=(listener,),
        ready_url=f"{listener.url}/healthz",
        env={"PROXY_METRICS_URL": metrics_url},
        pages=(("Dashboard", listener.url),),
    )


def _ensure_same_port(port: int, name: str, url: str, url_name: str) -> None:
    if address_of(url_name, url)[1] != port:
        msg = f"{url_name}: {url} is not at port {port} of {name}; make them agree"
        raise SettingsError(msg)


def _refuse_shared_ports(found: tuple[Service, ...]) -> None:
    owners: dict[int, tuple[str, str]] = {}
    for service in found:
        for listener in service.listeners:
            name, variable = owners.setdefault(listener.port, (service.name, listener.variable))
            if (name, variable) != (service.name, listener.variable):
                msg = (
                    f"{listener.variable}: port {listener.port} of {service.name} "
                    f"is also the port of {name} ({variable})"
                )
                raise SettingsError(msg)
