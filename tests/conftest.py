"""Fixtures that more than one file of tests uses."""

import ipaddress
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy import certs

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


@pytest.fixture
def certified(tmp_path):
    """Contexts of a server for 127.0.0.1 and worker.test, and of a client that trusts it."""
    store = certs.CertStore.from_store(tmp_path, "slb", 2048)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("worker.test")]
    entry = store.get_cert("127.0.0.1", names)
    chain = tmp_path / "worker.pem"
    key = entry.privatekey.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    chain.write_bytes(key + entry.cert.to_pem())
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain)
    return server, ssl.create_default_context(cadata=store.default_ca.to_pem().decode())
