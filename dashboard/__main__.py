"""`python -m dashboard` serves the dashboard."""

import contextlib
import ipaddress
import logging

import uvicorn

from classifier.configuration import SettingsError, exit_with, listen, load
from dashboard.settings import DashboardSettings

logger = logging.getLogger("dashboard")


def main() -> None:
    """Serve until a signal says to stop; exit code 2 for bad settings."""
    try:
        settings = load(DashboardSettings)
        listener = listen(settings.dashboard_host, settings.dashboard_port, "DASHBOARD")
    except SettingsError as exc:
        exit_with(str(exc))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        logger.warning(
            "there is no login: who reaches %s:%d sees the paths of requests",
            settings.dashboard_host,
            settings.dashboard_port,
        )
    # Imported only now: it takes a second, and a bad setting should not wait for it.
    from dashboard.app import build_app  # noqa: PLC0415

    logger.info("dashboard: http://%s:%d", settings.dashboard_host, settings.dashboard_port)
    config = uvicorn.Config(
        build_app(settings),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    # uvicorn ends by itself on Ctrl-C, then raises it once more for whoever called.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
