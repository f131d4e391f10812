"""Settings of the proxy side, and how they appear as mitmproxy options.

Precedence: `--set router_x=...` > environment > `.env` > the default here.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from addons.pool import Worker, parse_workers
from classifier.configuration import HttpUrl, Port, Settings
from classifier.contracts import MAX_PAYLOAD_BYTES, Label

OPTION_PREFIX = "router_"


def _checked_upstreams(value: str) -> str:
    parse_workers(value)
    return value


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
        Upstreams, Field(description="Upstreams for general requests, comma-separated.")
    ] = "http://localhost:9001"
    high_compute_pool: Annotated[
        Upstreams, Field(description="Upstreams for high-compute requests, comma-separated.")
    ] = "http://localhost:9002"
    fast_path_pool: Annotated[
        Upstreams, Field(description="Upstreams for fast-path requests, comma-separated.")
    ] = "http://localhost:9003"
    classifier_url: Annotated[HttpUrl, Field(description="Base URL of the classifier service.")] = (
        "http://localhost:8001"
    )
    classify_timeout_ms: Annotated[
        int,
        Field(gt=0, le=60_000, description="Longest wait for a label; then the label is general."),
    ] = 500
    classify_max_inflight: Annotated[
        int,
        Field(gt=0, le=10_000, description="Most questions at once; beyond, label is general."),
    ] = 128
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
    stream_body_bytes: Annotated[
        int,
        Field(gt=0, description="Bodies announced as longer pass unread; headers decide."),
    ] = 33_554_432
    client_headers: Annotated[
        bool, Field(description="Tell clients label, source and decision id in x-slb- headers.")
    ] = True
    decision_history: Annotated[
        int, Field(gt=0, le=100_000, description="How many decisions the live feed remembers.")
    ] = 500

    def workers(self) -> dict[Label, tuple[Worker, ...]]:
        """The configured workers by label."""
        return {
            Label.FAST_PATH: parse_workers(self.fast_path_pool),
            Label.GENERAL: parse_workers(self.general_pool),
            Label.HIGH_COMPUTE: parse_workers(self.high_compute_pool),
        }


def option_names() -> Mapping[str, str]:
    """Mitmproxy option name -> settings field, in the order of the fields."""
    return {f"{OPTION_PREFIX}{field}": field for field in RouterSettings.model_fields}
