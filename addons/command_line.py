"""The command line of `slb`: that of mitmdump, as far as its addons are there.

What is not there is refused with one line that names the way: options that are silently without
effect would be worse than none.
"""

import argparse
import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, override

from mitmproxy import addons
from mitmproxy.addons.keepserving import KeepServing
from mitmproxy.addons.readfile import ReadFileStdin
from mitmproxy.options import Options
from mitmproxy.tools import cmdline

from classifier.configuration import SettingsError, exit_with

DISTRIBUTION = "semantic-load-balancer"
FULL_PROGRAM = "mitmdump -s addons/router.py"
DESCRIPTION = f"""
A reverse proxy that reads what a request means and sends it to the pool built for it: the router
with what it needs of mitmproxy, and nothing else. Options are those of mitmdump; for the rest of
mitmproxy start `{FULL_PROGRAM}`.
"""
EPILOG = """
Settings come from the environment, from `.env` in the working directory, or from --set
router_NAME=VALUE; --options lists all with their values.
"""


class _Parser(argparse.ArgumentParser):
    @override
    def error(self, message: str) -> NoReturn:
        exit_with(f"{message}; see slb --help")


def parse(opts: Options, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what cannot be read ends the program."""
    parser = _Parser(prog="slb", usage="%(prog)s [options]", description=DESCRIPTION, epilog=EPILOG)
    cmdline.common_options(parser, opts)
    opts.make_parser(parser, "flow_detail", metavar="LEVEL")
    # For the help alone: who starts the processes takes it out.
    parser.add_argument(
        "--processes", metavar="N", help="serve with N processes; 0: one for each core"
    )
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        if left_out := _left_out_flags(opts, arguments):
            exit_with(_told(left_out))
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if args.processes is not None:
        exit_with("--processes is to be written in full")
    if args.version:
        print(version())  # noqa: T201 - what was asked for; mitmproxy's own lines follow
    return args


def refuse_left_out(opts: Options, setoptions: Iterable[str]) -> None:
    """Refuse options that nobody here takes; those of scripts are known only later.

    Args:
        opts: The options, with those that were given and not taken.
        setoptions: What was given by `--set`.

    Raises:
        SettingsError: If there is one.
    """
    if not opts.deferred:
        return
    if left_out := sorted(_stock_options().keys() & opts.deferred.keys()):
        raise SettingsError(_told(left_out))
    given = {option.partition("=")[0] for option in setoptions}
    if not opts.scripts and (unknown := sorted(given & set(opts.deferred))):
        msg = f"unknown option {', '.join(unknown)}; slb --options lists all"
        raise SettingsError(msg)


def version() -> str:
    """The version of this product, as far as it is installed."""
    try:
        return f"slb:       {importlib.metadata.version(DISTRIBUTION)}"
    except importlib.metadata.PackageNotFoundError:
        return "slb:       from a checkout"


def _told(left_out: Iterable[str]) -> str:
    return f"slb leaves out {', '.join(left_out)}; for this use {FULL_PROGRAM}"


def _left_out_flags(opts: Options, arguments: Sequence[str]) -> list[str]:
    """The options among these arguments that mitmdump knows and we do not."""
    stock = _stock_options()
    args, _ = cmdline.mitmdump(stock).parse_known_args(arguments)
    given = (name for name, value in vars(args).items() if value is not None)
    return [name for name in given if name in stock and name not in opts]


def _stock_options() -> Options:
    """All options that mitmdump has."""
    stock = _Declared()
    for addon in (*addons.default_addons(), KeepServing(), ReadFileStdin()):
        if load := getattr(addon, "load", None):
            load(stock)
    return stock


class _Declared(Options):
    """Options that addons declare to it as to mitmproxy's loader, and that change nothing."""

    def add_command(self, path: str, func: Callable[..., object]) -> None:
        """Commands are no options."""
