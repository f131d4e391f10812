"""Settings of the dashboard."""

from typing import Annotated

from pydantic import Field

from classifier.configuration import HttpUrl, Port, Settings


class DashboardSettings(Settings):
    """Everything an operator can say about the dashboard."""

    dashboard_host: Annotated[
        str, Field(min_length=1, description="Address of the dashboard; it has no login.")
    ] = "127.0.0.1"
    dashboard_port: Annotated[Port, Field(description="Port of the dashboard.")] = 3000
    proxy_metrics_url: Annotated[
        HttpUrl, Field(description="Base URL of the proxy's control port, for the dashboard.")
    ] = "http://localhost:9090"
    classifier_url: Annotated[HttpUrl, Field(description="Base URL of the classifier service.")] = (
        "http://localhost:8001"
    )
    dashboard_refresh_seconds: Annotated[
        float, Field(ge=0.2, le=60, description="Time between two looks of the dashboard.")
    ] = 1.0
