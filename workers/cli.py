"""Runs one worker: settings, socket, server."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import uvicorn

from classifier.configuration import SettingsError, exit_with, listen
from workers.app import create_app
from workers.settings import load_config

# Longer than any proxy keeps an idle upstream connection: the side that reuses it closes it.
KEEP_ALIVE_S = 75
SHUTDOWN_S = 20
MAX_HEAD_BYTES = 262_144


def main(argv: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM; exit code 2 for bad settings or a port in use."""
    try:
        config = load_config(argv)
        listener = listen(config.host, config.port, "WORKER")
    except SettingsError as exc:
        exit_with(str(exc))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(replace(config, port=listener.getsockname()[1])),
            # httptools knows a fixed list of methods and refuses the others.
            http="h11",
            ws="none",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            log_config=None,
            access_log=config.access_log,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    # uvicorn raises Ctrl-C again after it has shut down.
    with listener, suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0
