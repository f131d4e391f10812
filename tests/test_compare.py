"""The command that puts the same faults to this product and to its peers."""

import json
import subprocess
import sys

import pytest

from tests import compare, processes
from tests.peers import PEERS

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("proxy", ["off", "all", "nginx", "haproxy", "envoy"])
def test_one_command_puts_a_fault_to_a_proxy_and_prints_what_came_of_it(tmp_path, proxy) -> None:
    if not PEERS[proxy].installed:
        pytest.skip(f"{PEERS[proxy].title} is not installed")
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.compare", "--rows", "upgrade", "huge-head"]

    done = subprocess.run(
        [*command, "--proxies", proxy, "--json", str(figures)],
        cwd=processes.ROOT, env=processes.clean_env(), capture_output=True, text=True, check=True,
    )  # fmt: skip

    cells = [row["cells"][proxy] for row in json.loads(figures.read_text())["rows"]]
    header, _, upgrade, head = done.stdout.splitlines()
    assert header == f"| fault | expected | {PEERS[proxy].name()} |"
    assert upgrade.endswith(f"{cells[0]['text']} |")
    assert cells[0]["figures"]["websocket_fault"] == "", cells
    assert head.endswith(f"{cells[1]['text']} |")
    assert cells[1]["figures"]["closed"], cells
    if proxy in {"off", "all"}:
        assert all(cell["met"] for cell in cells), done.stdout


def test_a_proxy_that_does_not_start_costs_only_its_own_cells(tmp_path) -> None:
    def start(setup):
        message = "no port"
        raise OSError(message)

    broken = compare.Peer("broken", start)

    cells = compare.compare(compare.ROWS["upgrade"], {"broken": broken}, tmp_path)

    assert cells["broken"].text == "broke: OSError"
    assert not cells["broken"].met
    assert compare.MISSED in compare.table({"broken": "broken"}, {"upgrade": cells})
