"""mitmproxy without what a load balancer never uses: the master of the command `slb`.

Order matters as in mitmproxy's own list: the router comes before scripts, whose hooks therefore see
a request that has its label, and before mitmproxy's choice of layers, which it overrules.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from mitmproxy import exceptions, master, optmanager
from mitmproxy.addons.core import Core
from mitmproxy.addons.dumper import Dumper
from mitmproxy.addons.errorcheck import ErrorCheck
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.script import ScriptLoader
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.hooks import ConfigureHook
from mitmproxy.options import Options
from mitmproxy.tools.main import process_options
from mitmproxy.utils import debug

from addons import command_line, options, router
from classifier.configuration import SettingsError, exit_with

QUIET_LOGGERS = ("asyncio", "hpack", "quic", "tornado")
"""Those that mitmproxy's own programs quieten as well."""


class Tls(TlsConfig):
    """mitmproxy's TLS, without its page: a list of the certificates that it has revoked, none."""

    name = "tlsconfig"
    request = None  # type: ignore[assignment]  # mitmproxy asks whether there is such a hook


class LeanMaster(master.Master):
    """mitmproxy's master with the addons that the router needs, and those that users ask for.

    Left out beside the addons that change or replay traffic is `keepserving`: it looks at options
    of the replays, without which it fails at the start, and a load balancer always keeps serving.
    """

    def __init__(self, opts: Options) -> None:
        """A master without a router; `add_router` brings it once the options are known."""
        super().__init__(opts, with_termlog=True)
        self._scripts = ScriptLoader()
        # Its options alone, for now: a dumper in the chain looks at each flow, shown or not.
        self._dumper = self.addons.register(Dumper())
        self.addons.add(Core(), Proxyserver(), self._scripts, NextLayer(), Tls())
        self.addons.add(ErrorCheck())

    def add_router(self) -> None:
        """Put the router before the scripts, and the dumper last, if flows are to be shown.

        Raises:
            SettingsError: If the mode is one in which there is nothing to route.
        """
        addon = router.SemanticRouter()
        self._insert(self.addons.register(addon), self.addons.chain.index(self._scripts))
        # Now, and not as under mitmdump once its own default port has been opened.
        options.ensure_reverse_mode(addon.settings.proxy_port)
        if self.options.flow_detail:
            self._insert(self._dumper, len(self.addons.chain))

    def _insert(self, addon: object, place: int) -> None:
        self.addons.chain.insert(place, addon)
        self.addons.invoke_addon_sync(addon, ConfigureHook(set(self.options.keys())))

    def load_scripts(self) -> None:
        """Load the scripts at once, for their options; a running master has them loaded later."""
        for script in self._scripts.addons:
            if script.ns is None:
                script.loadscript()


async def run(arguments: Sequence[str]) -> None:
    """Run the router until it is told to end, or do what the command line asks for instead."""
    _quieten()
    lean = LeanMaster(Options())
    args = command_line.parse(lean.options, arguments)
    try:
        _take_options(lean, args)
    except (exceptions.OptionsError, SettingsError) as exc:
        exit_with(str(exc))
    if args.options or args.commands:
        _list(lean, args)
        return
    # As little as will be shown, for even lines that nobody sees cost time.
    logging.getLogger().setLevel(lean.options.termlog_verbosity.upper())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lean.shutdown)
    await lean.run()


def _quieten() -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    debug.register_info_dumpers()


def _take_options(lean: LeanMaster, args: argparse.Namespace) -> None:
    """Take over `--set`, config.yaml and flags, in mitmproxy's order, then the settings.

    Raises:
        OptionsError: If mitmproxy cannot use a value.
        SettingsError: If we cannot.
    """
    opts = lean.options
    opts.set(*args.setoptions, defer=True)
    config = Path(opts.confdir)
    optmanager.load_paths(opts, config / "config.yaml", config / "config.yml")
    process_options(None, opts, args)
    refuse_second_router(opts.scripts)
    lean.add_router()
    command_line.refuse_left_out(opts, args.setoptions)


def _list(lean: LeanMaster, args: argparse.Namespace) -> None:
    lean.load_scripts()
    if args.options:
        optmanager.dump_defaults(lean.options, sys.stdout)
    else:
        lean.commands.dump()


def refuse_second_router(scripts: Sequence[str]) -> None:
    """Refuse the router as a script.

    Raises:
        SettingsError: If one of the scripts is the router's own file.
    """
    own = Path(str(router.__file__))
    for script in scripts:
        path = os.path.expanduser(script.strip("'\" "))  # noqa: PTH111 - as mitmproxy reads it
        if os.path.exists(path) and own.samefile(path):  # noqa: PTH110
            msg = f"slb has the router built in; start it without -s {script}"
            raise SettingsError(msg)
