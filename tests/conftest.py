"""Fixtures that more than one file of tests uses."""

import pytest

from tests import processes
from tests.servers import Ollama, serving


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long loads as well")
    parser.addoption("--slb", action="store_true", help="start proxies as slb, not as mitmdump -s")


def pytest_configure(config):
    if config.getoption("--slb"):
        processes.PROXIES["program"] = "slb"


def pytest_collection_modifyitems(config, items):
    """Leave the long loads out unless they are asked for."""
    if config.getoption("--soak"):
        return
    soaks = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if item not in soaks]
    config.hook.pytest_deselected(items=soaks)


@pytest.fixture
def ollama():
    server = Ollama()
    with serving(server.app()) as url:
        server.url = url
        yield server
