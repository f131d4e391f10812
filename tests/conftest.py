"""Fixtures that more than one file of tests uses."""

import pytest

from tests.servers import Ollama, serving


@pytest.fixture
def ollama():
    server = Ollama()
    with serving(server.app()) as url:
        server.url = url
        yield server
