"""`python -m classifier`: the classifier service; with arguments, see `classifier.commands`."""

import logging
import sys

import uvicorn

from classifier.app import build, create_app
from classifier.configuration import SettingsError, exit_with, listen, load
from classifier.settings import ClassifierSettings

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main() -> None:
    """Serve, or do what the command line says."""
    if len(sys.argv) > 1:
        # Only here: the service has no use for it.
        from classifier.commands import run  # noqa: PLC0415

        sys.exit(run(sys.argv[1:]))
    serve()


def serve() -> None:
    """Serve until stopped."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = load(ClassifierSettings)
        sock = listen(settings.classifier_host, settings.classifier_port, "CLASSIFIER")
        app = create_app(build(settings))
    except SettingsError as exc:
        exit_with(str(exc))
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=5,
        # Longer than a client's: whose request meets a closing connection sees an error.
        timeout_keep_alive=75,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger(__name__).info("classifier at http://%s:%d", *sock.getsockname()[:2])
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
