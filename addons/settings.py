"""Settings of the proxy side, and how they appear as mitmproxy options.

Precedence: `--set router_x=...` > environment > `.env` > the default here.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator

from addons.bounds import Bounds, Limits, Timeouts
from addons.forwarding import parse_networks
from addons.pool import Worker, parse_workers
from classifier.configuration import Port, PublicHttpUrl, Settings, SettingsError
from classifier.contracts import LABELS, MAX_PAYLOAD_BYTES, Label
from classifier.labels_file import NO_FILE, LabelsFile

OPTION_PREFIX = "router_"
MIN_TOKEN_CHARS = 16
_HEALTH_PATH = re.compile(r"/[!-\"$-~]*")  # printable ASCII without a fragment


def _checked_upstreams(value: str) -> str:
    parse_workers(value)
    return value


def _checked_networks(value: str) -> str:
    parse_networks(value)
    return value


def _checked_health_path(value: str) -> str:
    if not _HEALTH_PATH.fullmatch(value):
        msg = f"{value!r} is not a path; write one like /health"
        raise ValueError(msg)
    return value


def _checked_token(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if token and not (len(token) >= MIN_TOKEN_CHARS and token.isascii() and token.isprintable()):
        msg = f"write at least {MIN_TOKEN_CHARS} ASCII characters, or none"
        raise ValueError(msg)
    if " " in token:
        msg = "write it without spaces"
        raise ValueError(msg)
    return value


type HealthPath = Annotated[str, AfterValidator(_checked_health_path)]
type SpillPool = Literal["", "fast-path", "general", "high-compute"]
type Networks = Annotated[str, AfterValidator(_checked_networks)]
type Upstreams = Annotated[str, AfterValidator(_checked_upstreams)]


class RouterSettings(Settings):
    """Everything an operator can say about the proxy."""

    proxy_port: Annotated[
        Port, Field(description="Port that clients connect to, unless mitmproxy is told another.")
    ] = 8080
    metrics_host: Annotated[
        str,
        Field(min_length=1, description="Address of metrics, health and decision feed."),
    ] = "127.0.0.1"
    metrics_port: Annotated[
        Port, Field(description="Port of metrics, health and decision feed.")
    ] = 9090
    general_pool: Annotated[
        Upstreams,
        Field(description="Upstreams for general requests, comma-separated; may end in ;weight=N."),
    ] = "http://localhost:9001"
    high_compute_pool: Annotated[
        Upstreams, Field(description="Upstreams for high-compute requests, comma-separated.")
    ] = "http://localhost:9002"
    fast_path_pool: Annotated[
        Upstreams, Field(description="Upstreams for fast-path requests, comma-separated.")
    ] = "http://localhost:9003"
    general_spill_pool: Annotated[
        SpillPool, Field(description="Pool that serves when no general worker can; empty: none.")
    ] = ""
    high_compute_spill_pool: Annotated[
        SpillPool,
        Field(description="Pool that serves when no high-compute worker can; empty: none."),
    ] = ""
    fast_path_spill_pool: Annotated[
        SpillPool, Field(description="Pool that serves when no fast-path worker can; empty: none.")
    ] = "general"
    labels_file: Annotated[
        str, Field(description="TOML file with own labels and rules; empty: none.")
    ] = ""
    override_header_sources: Annotated[
        Networks,
        Field(description="Addresses or networks that may set x-slb-force-label; empty: none."),
    ] = ""
    balancing: Annotated[
        Literal["round-robin", "least-inflight", "two-choices"],
        Field(description="How a worker is chosen: round-robin, least-inflight or two-choices."),
    ] = "round-robin"
    worker_max_inflight: Annotated[
        int,
        Field(ge=0, description="Most requests of a pool at one worker at once; 0 sets no limit."),
    ] = 0
    queue_requests: Annotated[
        int,
        Field(ge=0, le=100_000, description="Most requests that wait for a pool that is full."),
    ] = 128
    queue_timeout_ms: Annotated[
        int, Field(gt=0, le=3_600_000, description="Longest such wait; then a 503.")
    ] = 1_000
    health_path: Annotated[
        HealthPath,
        Field(description="Path that health checks ask for; an answer below 500 is healthy."),
    ] = "/health"
    health_interval_ms: Annotated[
        int, Field(ge=50, le=3_600_000, description="Time between two health checks of a worker.")
    ] = 500
    health_timeout_ms: Annotated[
        int, Field(ge=10, le=600_000, description="Longest wait for a health check's answer.")
    ] = 1_000
    health_rise: Annotated[
        int,
        Field(gt=0, le=1_000, description="Passed health checks in a row that let a worker in."),
    ] = 2
    health_fall: Annotated[
        int,
        Field(gt=0, le=1_000, description="Failed health checks in a row that take a worker out."),
    ] = 2
    eject_after_errors: Annotated[
        int,
        Field(
            ge=0, description="Answers of 500 or above, or hang-ups, in a row that eject; 0: never."
        ),
    ] = 5
    eject_seconds: Annotated[
        int, Field(gt=0, le=86_400, description="How long; twice as long each further time.")
    ] = 10
    eject_max_seconds: Annotated[
        int, Field(gt=0, le=86_400, description="Longest time a worker is ejected.")
    ] = 300
    panic_percent: Annotated[
        int,
        Field(ge=0, le=100, description="Healthy share under which a pool uses ailing workers."),
    ] = 30
    slow_start_seconds: Annotated[
        int,
        Field(ge=0, le=86_400, description="Time until a worker that is back has its full share."),
    ] = 10
    classifier_url: Annotated[
        PublicHttpUrl, Field(description="Base URL of the classifier service.")
    ] = "http://localhost:8001"
    classify_timeout_ms: Annotated[
        int,
        Field(gt=0, le=60_000, description="Longest wait for a label; then the label is general."),
    ] = 500
    classify_max_inflight: Annotated[
        int,
        Field(gt=0, le=10_000, description="Most questions to the classifier at once."),
    ] = 32
    classify_queue: Annotated[
        int,
        Field(ge=0, le=10_000, description="Most that wait for that; beyond, label is general."),
    ] = 256
    breaker_failures: Annotated[
        int,
        Field(gt=0, le=10_000, description="Failures in a row until the classifier is left alone."),
    ] = 5
    breaker_open_ms: Annotated[
        int,
        Field(gt=0, le=600_000, description="How long it is left alone; up to four times that."),
    ] = 1_000
    fallback_ttl_ms: Annotated[
        int,
        Field(ge=0, le=600_000, description="How long a question that failed is not asked again."),
    ] = 3_000
    provisional_ttl_ms: Annotated[
        int,
        Field(ge=0, le=600_000, description="How long a label is used while an LLM is asked."),
    ] = 1_000
    routing: Annotated[
        bool,
        Field(
            description="Ask what requests mean. If not, all go to general, but for those that a"
            " rule or a trusted client gives another label."
        ),
    ] = True
    classify_body_bytes: Annotated[
        int,
        Field(ge=0, le=MAX_PAYLOAD_BYTES, description="How much of a body the classifier reads."),
    ] = 65_536
    cache_entries: Annotated[
        int, Field(ge=0, le=10_000_000, description="Most labels kept in the proxy; 0 keeps none.")
    ] = 50_000
    cache_ttl_seconds: Annotated[
        int, Field(gt=0, description="How long the proxy keeps a label.")
    ] = 300
    cache_shapes: Annotated[
        bool,
        Field(description="Requests that differ only in ids, texts and the like share a label."),
    ] = True
    inspect: Annotated[
        Literal["all", "matching", "off"],
        Field(description="Which requests mitmproxy sees as flows: all, matching, or off: none."),
    ] = "all"
    inspect_filter: Annotated[
        str,
        Field(description="With matching: a flow filter about the request's head; empty: none."),
    ] = ""
    inspect_sample_percent: Annotated[
        float,
        Field(ge=0, le=100, description="With matching: how many of a hundred, by chance."),
    ] = 0
    inspect_header_sources: Annotated[
        Networks,
        Field(description="With matching: who may ask for it with x-slb-inspect: 1; empty: none."),
    ] = ""
    stream_body_bytes: Annotated[
        int,
        Field(gt=0, description="Longer bodies pass as they come; flows do not show them."),
    ] = 4_194_304
    connect_timeout_ms: Annotated[
        int, Field(gt=0, le=60_000, description="Longest wait for a connection to a worker.")
    ] = 200
    first_byte_timeout_ms: Annotated[
        int,
        Field(gt=0, le=3_600_000, description="Longest wait for a worker's answer to begin."),
    ] = 120_000
    idle_timeout_seconds: Annotated[
        int, Field(gt=0, description="Longest pause inside a worker's answer, or a WebSocket.")
    ] = 300
    total_timeout_seconds: Annotated[
        int, Field(gt=0, description="Longest time for a whole request and its answer.")
    ] = 3_600
    header_timeout_seconds: Annotated[
        int, Field(gt=0, description="Longest time for a client to send a request's head.")
    ] = 10
    progress_timeout_seconds: Annotated[
        int,
        Field(gt=0, description="Clients that move under 500 bytes a second for so long are cut."),
    ] = 10
    keepalive_seconds: Annotated[
        int, Field(gt=0, description="How long a client's connection may be idle.")
    ] = 60
    upstream_keepalive_seconds: Annotated[
        int, Field(gt=0, description="How long an idle connection to a worker is kept.")
    ] = 4
    max_header_bytes: Annotated[
        int, Field(ge=1_024, le=1_048_576, description="Longest head of a request; more is a 431.")
    ] = 32_768
    max_headers: Annotated[
        int, Field(ge=8, le=10_000, description="Most header fields of a request; more is a 431.")
    ] = 128
    max_body_bytes: Annotated[
        int, Field(gt=0, description="Longest body of a request; more is a 413.")
    ] = 10_737_418_240
    max_connections: Annotated[
        int, Field(gt=0, le=1_000_000, description="Most client connections; more get a 503.")
    ] = 4_096
    max_connections_per_client: Annotated[
        int, Field(ge=0, description="Most connections from one address; 0 sets no limit.")
    ] = 0
    max_loop_lag_ms: Annotated[
        int,
        Field(
            ge=0,
            le=60_000,
            description="Event loop late by more, for a second: a share gets 503; 0: never.",
        ),
    ] = 1_000
    trusted_proxies: Annotated[
        Networks,
        Field(description="Addresses or networks whose X-Forwarded-For is taken and extended."),
    ] = ""
    drain_delay_seconds: Annotated[
        int,
        Field(ge=0, description="At the end, time between readiness 503 and closing the port."),
    ] = 0
    drain_timeout_seconds: Annotated[
        int, Field(gt=0, description="At the end, longest wait for requests under way.")
    ] = 25
    client_headers: Annotated[
        bool, Field(description="Tell clients label, source and decision id in x-slb- headers.")
    ] = True
    decision_history: Annotated[
        int, Field(gt=0, le=100_000, description="How many decisions the live feed remembers.")
    ] = 500

    @field_validator("general_spill_pool", "high_compute_spill_pool", "fast_path_spill_pool")
    @classmethod
    def _spills_elsewhere(cls, value: str, info: ValidationInfo) -> str:
        own = str(info.field_name).removesuffix("_spill_pool").replace("_", "-")
        if value == own:
            msg = f"{value!r} is the pool itself; name another, or none"
            raise ValueError(msg)
        return value

    @field_validator("eject_max_seconds")
    @classmethod
    def _longest_is_no_shorter(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("eject_seconds", 0):
            msg = f"{value} is less than EJECT_SECONDS; write as much or more"
            raise ValueError(msg)
        return value

    def limits(self) -> Limits:
        """Bounds of what clients may do."""
        return Limits(
            head_bytes=self.max_header_bytes,
            head_fields=self.max_headers,
            body_bytes=self.max_body_bytes,
            head_seconds=self.header_timeout_seconds,
            progress_seconds=self.progress_timeout_seconds,
            keepalive_seconds=self.keepalive_seconds,
            connections=self.max_connections,
            connections_per_client=self.max_connections_per_client,
        )

    def bounds(self) -> Bounds:
        """Bounds of one exchange."""
        return Bounds(
            classify_body_bytes=self.classify_body_bytes,
            total_seconds=self.total_timeout_seconds,
            client_headers=self.client_headers,
        )

    def timeouts(self) -> Timeouts:
        """How long workers are waited for."""
        return Timeouts(
            connect=self.connect_timeout_ms / 1000,
            first_byte=self.first_byte_timeout_ms / 1000,
            idle=self.idle_timeout_seconds,
            keepalive=self.upstream_keepalive_seconds,
        )

    def workers(self, labels: LabelsFile = NO_FILE) -> dict[Label, tuple[Worker, ...]]:
        """The configured workers by label, for each label that has a pool of its own."""
        return {
            Label.FAST_PATH: parse_workers(self.fast_path_pool),
            Label.GENERAL: parse_workers(self.general_pool),
            Label.HIGH_COMPUTE: parse_workers(self.high_compute_pool),
            **own_workers(labels),
        }

    def spills(self, labels: LabelsFile = NO_FILE) -> dict[Label, Label]:
        """The pool that serves in another's place, for each that has one."""
        own = {name: spec.spill_pool for name, spec in labels.labels.items()}
        spills = {
            **own,
            Label.FAST_PATH: self.fast_path_spill_pool,
            Label.GENERAL: self.general_spill_pool,
            Label.HIGH_COMPUTE: self.high_compute_spill_pool,
        }
        return {label: Label(target) for label, target in spills.items() if target}


def own_workers(labels: LabelsFile) -> dict[Label, tuple[Worker, ...]]:
    """The workers of an operator's own labels, for each that has a pool of its own.

    Raises:
        SettingsError: If that is no list of upstreams.
    """
    workers = {}
    for name, spec in labels.labels.items():
        if name in LABELS or spec.shared_pool is not None:
            continue
        try:
            workers[name] = parse_workers(spec.pool)
        except ValueError as exc:
            msg = f"LABELS_FILE: labels.{name}.pool: {exc}"
            raise SettingsError(msg) from exc
    return workers


class AdminSettings(Settings):
    """What is no option of mitmproxy's, for it shows options and their values to everybody."""

    admin_token: Annotated[
        SecretStr,
        AfterValidator(_checked_token),
        Field(description="Needed to write to the control port; empty: only this machine may."),
    ] = SecretStr("")


def option_names() -> Mapping[str, str]:
    """Mitmproxy option name -> settings field, in the order of the fields."""
    return {f"{OPTION_PREFIX}{field}": field for field in RouterSettings.model_fields}
