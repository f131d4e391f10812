"""The benchmark: its arithmetic, what it reads, and one short real round. No figure is judged."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests import processes
from tests.bench import cpu, figures, micro, profiling, programs, report, rounds, targets, wrk
from tests.bench.cores import pinned, share_out
from tests.bench.measure import Measurement
from tests.bench.rounds import Results
from tests.bench.summary import Summary
from tests.bench.wrk import Cell

GET_64, GET_16 = Cell(64, 0), Cell(16, 0)
FAMILY = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < {}: pass\\n"
subprocess.run([sys.executable, "-c", burn.format(0.3)])
child = subprocess.Popen([sys.executable, "-c", burn.format(0.2) + "time.sleep(60)"])
exec(burn.format(0.1))
print(child.pid, flush=True)
time.sleep(60)
"""
"""A process with a child that lives and one that has ended; each burns some CPU time."""

needs_programs = pytest.mark.skipif(
    not all(map(programs.is_installed, ("wrk", "nginx"))), reason="wrk or nginx is not installed"
)


def bench(*arguments: str, cwd: Path, **popen) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *arguments], cwd=cwd, env=processes.clean_env(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen,
    )  # fmt: skip


# Arithmetic


def test_a_figure_is_the_median_with_its_spread_over_the_rounds() -> None:
    assert figures.stat([3.0, None, 1.0, 10.0]) == figures.Stat(3.0, 1.0, 10.0, 2.0)
    assert figures.stat([None]) is None


def test_ratios_are_taken_round_by_round_so_that_a_slow_round_cancels_out() -> None:
    ratio = figures.paired([100.0, 900.0, 120.0], [10.0, 90.0, 10.0])

    assert ratio == figures.Stat(10.0, 10.0, 12.0, 0.0)


def test_a_ratio_needs_both_figures_and_something_to_divide_by() -> None:
    assert figures.ratio(1.0, None) is None
    assert figures.ratio(None, 1.0) is None
    assert figures.ratio(1.0, 0.0) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.1234, "0.12"), (12.34, "12.3"), (123.4, "123"), (61234.0, "61,234")],
)
def test_numbers_are_shown_with_the_digits_that_count(value, text) -> None:
    assert report.number(value) == text


def measured(cpu_us: float | None, rps: float = 100.0, p99: float = 2.0, **values) -> Measurement:
    defaults = {"busy": 1.0, "p50_ms": 1.0, "requests": 50, "clients_requests": 60, "errors": {}}
    defaults |= {"connections": 2, "connection_requests": 70, **values}
    return Measurement(cpu_us=cpu_us, rps=rps, p99_ms=p99, **defaults)


def summary_of(**targets: dict[Cell, list[Measurement]]) -> Summary:
    return Summary(Results(measured=targets), [GET_16, GET_64])


def test_capacity_is_the_ratio_of_cpu_times() -> None:
    summary = summary_of(
        mitmdump={GET_64: [measured(1000), measured(1200)]},
        floor={GET_64: [measured(20), measured(20)]},
    )

    assert summary.capacity("floor", "mitmdump", GET_64) == figures.Stat(55.0, 50.0, 60.0, 5.0)
    assert summary.capacity("floor", "nginx", GET_64) is None


def test_a_target_with_errors_is_marked_and_not_ranked() -> None:
    failed = [measured(10, errors={"status": 3}), measured(10)]
    summary = summary_of(
        mitmdump={GET_64: [measured(1000)] * 2}, floor={GET_64: [measured(20)] * 2},
        fast={GET_64: failed},
    )  # fmt: skip
    names = {key: key for key in ("mitmdump", "floor", "fast")}

    assert summary.capacity("fast", "mitmdump", GET_64) is None
    (line,) = [
        line for line in report.details(summary, names, GET_64).splitlines() if "fast" in line
    ]
    assert "fast (**errors**: 3 status)" in line
    assert line.count(report.ERRORS) == 3


def test_scaling_is_many_clients_to_sixteen() -> None:
    summary = summary_of(
        fast={GET_16: [measured(10, rps=1000, p99=2)], GET_64: [measured(10, rps=900, p99=8)]}
    )
    scaling = summary.scaling("fast")

    assert scaling is not None
    assert (scaling.many, scaling.throughput, scaling.p99) == (64, 0.9, 4.0)


def test_the_hit_ratio_and_the_connections_are_sums_over_rounds() -> None:
    summary = summary_of(
        ours={GET_64: [measured(10, hits=90, misses=0), measured(10, hits=6, misses=4)]}
    )

    assert summary.hit_ratio("ours") == pytest.approx(0.96)
    assert summary.connections("ours", GET_64) == (4, 140)


def test_loads_that_slow_targets_would_not_finish_are_left_out() -> None:
    left = rounds.cells([1, 64], [0, 1_000_000])

    assert left == [Cell(1, 0), Cell(64, 0), Cell(1, 1_000_000)]


# What is read


def test_the_figures_of_wrk_are_found_in_what_it_prints() -> None:
    output = (
        "Running 600s test\n  Requests/sec: 1\n"
        'wrk-figures {"requests": 10, "seconds": 0.5, "p50_ms": 1.5, "p99_ms": 9.25, "errors": '
        '{"connect": 0, "read": 2, "write": 0, "timeout": 0, "status": 1}}\n'
    )

    assert wrk.parse(output) == wrk.Figures(10, 0.5, 1.5, 9.25, {"read": 2, "status": 1})
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:9: Connection refused\n")


@pytest.mark.parametrize("length", [0, 200, 10_000])
def test_a_body_has_the_length_that_is_asked_for(length) -> None:
    assert len(wrk.body(length)) == length
    assert not length or json.loads(wrk.body(length))["sql"]


def test_the_cpu_time_of_a_tree_is_that_of_parent_child_and_those_that_have_ended() -> None:
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True)
    child = 0
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())

        assert cpu.tree(parent.pid) == [parent.pid, child]
        assert processes.until(lambda: cpu.cpu_seconds(child) >= 0.2)
        # The one that has ended is counted in ticks.
        assert cpu.cpu_seconds(parent.pid) >= cpu.cpu_seconds(child) + 0.1 + 0.3 - 0.03
        assert cpu.resident_bytes(parent.pid) > cpu.resident_bytes(child) > 1_000_000
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
        parent.kill()
        parent.communicate()
    assert cpu.resident_bytes(parent.pid) == 0


def test_targets_get_a_core_of_their_own_where_there_are_two() -> None:
    one, two, four = share_out([5]), share_out([1, 0]), share_out([0, 1, 2, 3])

    assert not one.apart
    assert two.apart
    assert two.upstream == two.load
    assert len({four.target, four.load, four.upstream}) == 3


def test_what_is_started_while_pinned_stays_on_its_core() -> None:
    before = os.sched_getaffinity(0)
    core = frozenset({min(before)})

    with pinned(core):
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert os.sched_getaffinity(process.pid) == core
        assert os.sched_getaffinity(0) == before
    finally:
        process.communicate(b"\n")


def test_the_hottest_lines_are_those_with_most_samples_of_their_own() -> None:
    stacks = "main (a.py:1);read (a.py:9) 30\nmain (a.py:1) 10\nmain (a.py:1);read (a.py:9) 60\n"

    assert profiling.hottest(stacks, 5) == [
        profiling.Hot("read (a.py:9)", 0.9),
        profiling.Hot("main (a.py:1)", 0.1),
    ]


def test_the_addon_s_own_parts_are_measured_by_themselves() -> None:
    parts = micro.parts(samples=2)

    assert all(part.us.low > 0 for part in parts)
    assert {part.name for part in parts} >= {"key, GET", "label that is in the cache"}


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "floor,apache"], "'apache' is none of"),
        (["--bodies", "10"], "a body has at least"),
        (["--clients", "0"], "not a number above 0"),
        (["--json", "here.json"], "here.json exists; --force writes over it"),
        (["--plot", "nowhere/plot.svg"], "there is no folder"),
        (["--clients", "64", "--bodies", "1000000"], "no load is left"),
        (["--profile", "nginx"], "is not"),
    ],
)
@needs_programs
def test_what_cannot_be_done_is_said_before_anything_is_started(
    tmp_path, arguments, message
) -> None:
    (tmp_path / "here.json").touch()

    refused = bench(*arguments, cwd=tmp_path)

    assert message in refused.communicate()[1]
    assert refused.returncode == 2


MINI = ["--clients", "2", "--bodies", "get", "--rounds", "1", "--seconds", "0.5", "--idle", "20"]


@needs_programs
@pytest.mark.integration
def test_one_short_round_measures_the_floor_and_stock_mitmdump(tmp_path) -> None:
    command = bench(
        "--targets", "floor,mitmdump,router-off", *MINI, "--json", "all.json", cwd=tmp_path
    )
    out, err = command.communicate()

    assert command.returncode == 0, err
    told = json.loads((tmp_path / "all.json").read_text())
    assert told["facts"]["command"].startswith("scripts/bench.sh --targets floor,mitmdump")
    for key in ("floor", "mitmdump", "router-off"):
        target = told["targets"][key]
        for load in target["loads"].values():
            (only,) = load["rounds"]
            assert only["cpu_us"] > 0
            assert only["requests"] > 0
            assert load["errors"] == {}
            assert load["capacity_to_floor"]["median"] > 0
        assert target["resident_bytes"] > 1_000_000
        assert f"| {target['name']} |" in out
    assert "## Summary: 2 GET" in out
    assert told["targets"]["router-off"]["cache_hit_ratio"] == 1


def test_a_target_that_is_not_there_is_left_out_and_it_is_said_why(monkeypatch) -> None:
    gone = replace(targets.TARGETS["nginx"], missing=lambda: "nginx is not installed")
    monkeypatch.setitem(targets.TARGETS, "nginx", gone)

    left_out = rounds.left_out(["nginx", "floor"])

    assert left_out == {"nginx": "nginx is not installed"}
    summary = Summary(Results(skipped=left_out), [GET_64])
    assert report.text(summary, {}, [], "").endswith("* nginx: nginx is not installed")


@needs_programs
@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_started_ends_when_the_benchmark_is_interrupted(tmp_path, number) -> None:
    command = bench("--targets", "floor", *MINI, "--seconds", "60", cwd=tmp_path)
    assert processes.until(lambda: len(cpu.tree(command.pid)) >= 3)
    started = cpu.tree(command.pid)[1:]
    time.sleep(0.2)

    command.send_signal(number)

    assert "interrupted" in command.communicate(timeout=20)[1]
    assert command.returncode == 130
    assert not any(cpu.resident_bytes(pid) for pid in started)
