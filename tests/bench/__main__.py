"""How fast this product is, beside its peers, stock mitmdump and the floor for Python.

scripts/bench.sh [--quick] [--targets a,b] [--json FILE] [--plot FILE] [--profile TARGET] ...
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from tests.bench import facts, micro, plot, profiling, programs, report
from tests.bench.cores import pinned, share_out
from tests.bench.measure import LEAD_SECONDS, WARM_SECONDS
from tests.bench.rounds import Plan, cells, left_out, run, say, site, warm_and_start
from tests.bench.summary import Summary
from tests.bench.targets import TARGETS
from tests.bench.wrk import TRACED, Cell

CLIENTS, BODIES = "1,16,64,256", "get,traced,200,10000,1000000"
WITHOUT_BODY = {"get": 0, "traced": TRACED}
QUICK_CLIENTS, QUICK_BODIES = "1,64", "get,10000"
FULL_SECONDS, QUICK_SECONDS = 880.0, 110.0
"""The longest, unless rounds are asked for."""
HOTTEST = 15
AROUND_SECONDS = 0.5
"""Of a measurement, beside its warm-up, its lead and what is measured."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    _fill_in(arguments)
    if fault := _fault(arguments):
        parser.error(fault)
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            return (_profile if arguments.profile else _bench)(arguments, Path(folder))
        except KeyboardInterrupt:
            say("interrupted; everything that was started has ended")
            return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__.splitlines()[0])
    flag = parser.add_argument
    flag("--quick", action="store_true", help="two minutes instead of a quarter of an hour")
    flag("--targets", type=_names, metavar="A,B", help=f"of {', '.join(TARGETS)}")
    flag("--clients", type=_list(_positive), metavar="N,N", help=f"default {CLIENTS}")
    flag("--bodies", type=_list(_body), metavar="SIZE,..", help=f"default {BODIES}")
    flag("--rounds", type=_positive, metavar="N", help="however long it takes")
    flag("--seconds", type=float, metavar="S", help="of one measurement")
    flag("--idle", type=int, metavar="N", default=1000, help="idle connections; 0: none")
    flag("--json", type=Path, metavar="FILE", help="all figures of all rounds")
    flag("--plot", type=Path, metavar="FILE", help="an SVG")
    flag(
        "--profile", choices=TARGETS, metavar="TARGET", help="only a flame graph of it, under load"
    )
    flag("--output", type=Path, metavar="FILE", help="of --profile; default profile-TARGET.svg")
    flag("--force", action="store_true", help="write over files that exist")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in TARGETS]:
        message = f"{unknown[0]!r} is none of {', '.join(TARGETS)}"
        raise argparse.ArgumentTypeError(message)
    return names


def _list(read: Callable[[str], int]) -> Callable[[str], list[int]]:
    return lambda text: [read(part) for part in text.split(",")]


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        message = f"{text!r} is not a number above 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _body(text: str) -> int:
    if text in WITHOUT_BODY:
        return WITHOUT_BODY[text]
    try:
        return len(Cell(1, _positive(text)).body)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _fill_in(arguments: argparse.Namespace) -> None:
    """What was not said, by whether it shall be quick."""
    quick = arguments.quick
    bound = QUICK_SECONDS if quick else FULL_SECONDS
    arguments.most_seconds = float("inf") if arguments.rounds else bound
    values = {
        "targets": [key for key, target in TARGETS.items() if target.by_default],
        "clients": _list(int)(QUICK_CLIENTS if quick else CLIENTS),
        "bodies": _list(_body)(QUICK_BODIES if quick else BODIES),
        "rounds": 2 if quick else 3,
        "seconds": 0.4 if quick else 0.6,
        "output": Path(f"profile-{arguments.profile}.svg"),
    }
    for name, value in values.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def _fault(arguments: argparse.Namespace) -> str:
    """What is wrong with what is asked for; nothing if it can be done."""
    faults = (
        *(_file_fault(file, force=arguments.force) for file in _files(arguments)),
        *(_missing(name) for name in ("nginx", "wrk")),
        "" if 0.05 <= arguments.seconds <= 60 else "--seconds is 0.05 to 60",
        ""
        if cells(arguments.clients, arguments.bodies)
        else "so many clients with such bodies would have too much in flight: no load is left",
        "matplotlib is not installed" if arguments.plot and not plot.is_installed() else "",
        _profile_fault(arguments.profile) if arguments.profile else "",
    )
    return next(filter(None, faults), "")


def _files(arguments: argparse.Namespace) -> list[Path]:
    """What will be written."""
    if arguments.profile:
        return [arguments.output]
    return [file for file in (arguments.json, arguments.plot) if file is not None]


def _file_fault(file: Path, *, force: bool) -> str:
    if not file.absolute().parent.is_dir():
        return f"there is no folder for {file}"
    return f"{file} exists; --force writes over it" if file.exists() and not force else ""


def _missing(name: str) -> str:
    return "" if programs.is_installed(name) else f"{name} is not installed; Debian has it"


def _profile_fault(key: str) -> str:
    if reason := left_out([key]).get(key):
        return reason
    if not TARGETS[key].python:
        return f"{key} is not written in Python: py-spy cannot look into it"
    return "" if programs.is_installed("py-spy") else "py-spy is not installed"


def _bench(arguments: argparse.Namespace, folder: Path) -> int:
    plan = Plan(
        arguments.targets,
        cells(arguments.clients, arguments.bodies),
        arguments.rounds,
        arguments.seconds,
        arguments.idle,
        arguments.most_seconds,
    )
    cores = share_out(sorted(os.sched_getaffinity(0)))
    absent = left_out(plan.targets)
    names = {key: TARGETS[key].name() for key in plan.targets if key not in absent}
    told = facts.facts(cores, names, ["scripts/bench.sh", *sys.argv[1:]])
    one = WARM_SECONDS + LEAD_SECONDS + plan.seconds + AROUND_SECONDS
    whole = one * len(names) * len(plan.cells) * plan.rounds
    say(f"{len(names)} targets, {len(plan.cells)} loads, {plan.rounds} rounds: {whole:.0f} s or so")
    began = time.monotonic()
    with pinned(cores.target):
        parts = micro.parts()
    results = run(plan, folder)
    summary = Summary(results, plan.cells)
    told |= {"load_at_end": os.getloadavg(), "seconds": round(time.monotonic() - began)}
    print(report.text(summary, names, parts, facts.in_words(told, cores)))
    if arguments.json:
        arguments.json.write_text(report.as_json(summary, names, parts, told))
    if arguments.plot:
        plot.draw(summary, names, arguments.plot)
    return 0 if results.measured else 1


def _profile(arguments: argparse.Namespace, folder: Path) -> int:
    load = cells(arguments.clients, arguments.bodies)
    cell = min(load, key=lambda each: (abs(each.body_bytes), abs(each.clients - 64)))
    seconds = max(arguments.seconds, 3.0)
    with ExitStack() as stack:
        place = stack.enter_context(site(folder, seconds))
        target = warm_and_start(arguments.profile, place, folder, stack)
        stacks = profiling.profile(place, target, cell, arguments.output, seconds)
    print(f"{arguments.profile}, {cell.name}: where its own time goes ({arguments.output})")
    for hot in profiling.hottest(stacks, HOTTEST):
        print(f"{hot.share:6.1%}  {hot.line}")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends like Ctrl-C does, so that everything that was started is ended."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
