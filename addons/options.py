"""Our settings as mitmproxy options, and mitmproxy's own options as a load balancer needs them."""

import asyncio
import difflib
import gc
import logging
import os
import resource
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.mode_specs import ProxyMode

from addons.choosing import HeadTest
from addons.filters import compile_filter
from addons.headfilters import compile_head_filter
from addons.settings import OPTION_PREFIX, RouterSettings, option_names, own_workers
from classifier.configuration import SettingsError, exit_with, load
from classifier.labels_file import LabelsFile, read_labels_file

UNROUTED_MODE = "reverse:http://unrouted.invalid:9"
"""The upstream of a request that nobody routed: a name that never resolves."""

PROXY_OPTIONS: dict[str, Any] = {
    # Eager would connect every client to the placeholder upstream.
    "connection_strategy": "lazy",
    # Workers see the Host that the client sent.
    "keep_host_header": True,
    # With the Host header kept, mitmproxy would serve its own pages to `Host: mitm.it`.
    "onboarding": False,
    # mitmproxy forwards an HTTP/2 body of unknown length to an HTTP/1 worker without framing: the
    # worker takes it for a second request.
    "http2": False,
    # Its protection is for open proxies, which this is not: workers are all that can be reached.
    "block_global": False,
    # It would stream to the mode's own target before the request hook chose a worker.
    "stream_large_bodies": None,
}


CHATTY_LOGGERS = ("mitmproxy.proxy.server", "httpx", "httpcore")
"""Log each connection or each question. mitmproxy has everything logged and filters later: even
lines that nobody sees cost time."""


ACCEPT_BACKLOG = 1_024
MAX_OPEN_FILES = 65_536


class _Unconverted(Protocol):
    """How mitmproxy keeps a `--set` of an option that it does not know yet."""

    val: list[str]


def add_options(loader: Loader, settings: RouterSettings) -> None:
    """Declare our options; their defaults are what environment and `.env` say: these settings."""
    for option, field in option_names().items():
        default = _as_option(getattr(settings, field))
        loader.add_option(
            option, type(default), default, str(RouterSettings.model_fields[field].description)
        )


def take_given() -> frozenset[str]:
    """Look at the `--set router_...` that mitmproxy has put aside until our options exist.

    mitmproxy drops an addon whose option gets a value of a wrong type, and serves on without it;
    a name that it does not know it ignores. Neither may happen to a router.

    Returns:
        The settings that were given so.

    Raises:
        SettingsError: If there is such a value or name.
    """
    names = option_names()
    deferred = ctx.options.deferred
    given = {name: deferred[name] for name in deferred if name.startswith(OPTION_PREFIX)}
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(names)}"
            msg = f"unknown option {name}{hint}"
            raise SettingsError(msg)
    load(RouterSettings, **{names[name]: _plain(name, value) for name, value in given.items()})
    try:
        # What we could read mitmproxy may still refuse (`yes` for a bool), and then drop us.
        ctx.options.process_deferred()
    except (exceptions.OptionsError, TypeError) as exc:
        raise SettingsError(str(exc)) from exc
    return frozenset(names[name] for name in given)


def change(values: Mapping[str, object]) -> None:
    """Change settings, all of these or none.

    Raises:
        SettingsError: If they do not fit; then the old ones stay in force.
    """
    try:
        ctx.options.update(
            **{f"{OPTION_PREFIX}{field}": _as_option(value) for field, value in values.items()}
        )
    except exceptions.OptionsError as exc:
        raise SettingsError(str(exc)) from exc


def _as_option(value: object) -> object:
    """A setting as mitmproxy keeps it: it cannot read fractions from a `--set`."""
    return str(value) if isinstance(value, float) else value


def _plain(name: str, value: _Unconverted | object) -> object:
    texts = getattr(value, "val", None)
    if texts is None:
        expected = type(ctx.options.default(name))
        if type(value) is not expected:
            msg = f"{name}: {value!r} in mitmproxy's config.yaml is not of type {expected.__name__}"
            raise SettingsError(msg)
        return value
    if len(texts) != 1:
        msg = f"{name}: give one value, like --set {name}=VALUE"
        raise SettingsError(msg)
    return texts[0]


def settings_from_options() -> RouterSettings:
    """The settings as the options say now.

    Raises:
        SettingsError: If a value does not fit.
    """
    values = {field: getattr(ctx.options, option) for option, field in option_names().items()}
    settings = load(RouterSettings, **values)
    try:
        head_filter(settings)
    except ValueError as exc:
        msg = f"INSPECT_FILTER: {exc}"
        raise SettingsError(msg) from exc
    return settings


def head_filter(settings: RouterSettings) -> HeadTest | None:
    """The filter that chooses what becomes a flow; None if there is none.

    Raises:
        ValueError: If it is none, or one that cannot be answered when a request's head is there.
    """
    return compile_head_filter(settings.inspect_filter) if settings.inspect_filter else None


def read_labels(path: str) -> LabelsFile:
    """What the labels file at this path says, checked in all that a proxy needs of it.

    Raises:
        SettingsError: If anything in it cannot be used.
    """
    labels = read_labels_file(path, compile_filter)
    own_workers(labels)
    return labels


def set_proxy_options() -> None:
    """Set mitmproxy's own options as a load balancer needs them, and quieten its log.

    One line for each flow shows query strings, which hold secrets: ask for it with
    `--set flow_detail=2` or more.
    """
    # Only the known: the command `slb` leaves out the addons that some are of.
    ctx.options.update_known(**PROXY_OPTIONS)
    if "keep_alt_svc_header" in ctx.options:
        # Inspected or not, it passes as it came: rewritten, it would name a port without HTTP/3.
        ctx.options.update(keep_alt_svc_header=True)
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    if "flow_detail" in ctx.options and ctx.options.flow_detail == 1:
        ctx.options.update(flow_detail=0)


def ensure_reverse_mode(port: int) -> bool:
    """Turn mitmproxy's default mode, a forward proxy, into our reverse proxy.

    Returns:
        Whether mitmproxy now opens its port anew.

    Raises:
        SettingsError: If the user chose a mode in which there is nothing to route.
    """
    before = list(ctx.options.mode)
    modes = [UNROUTED_MODE] if before == ["regular"] else before
    if not all(mode.startswith("reverse:http") for mode in modes):
        msg = f"mode {', '.join(modes)} cannot be routed; start with --mode {UNROUTED_MODE}"
        raise SettingsError(msg)
    if len(modes) == 1 and not ctx.options.listen_port:
        mode = ProxyMode.parse(modes[0])
        # Its default port mitmproxy has opened already.
        if mode.custom_listen_port is None and mode.listen_port() != port:
            modes = [f"{modes[0]}@{port}"]
    if modes == before:
        return False
    ctx.options.update(mode=modes)
    return True


def widen_limits() -> None:
    """Take what the system grants for many connections: open files, and a longer accept queue.

    mitmproxy listens with asyncio's backlog of 100; a burst of new connections would overflow it,
    and each of those turned away would try again only after a second.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    for instance in ctx.master.addons.get("proxyserver").servers:
        for server in getattr(instance, "_servers", ()):
            for sock in getattr(server, "sockets", ()):
                # asyncio hides `listen` on its sockets; a duplicate is the same socket.
                with socket.socket(fileno=os.dup(sock.fileno())) as same:
                    same.listen(ACCEPT_BACKLOG)


def shorten_collections() -> None:
    """Have the garbage collector look no more at what lives as long as the program.

    mitmproxy brings more than 100,000 objects, and to look through all of them takes a tenth of a
    second in which no request moves. Those from before a hot reload are looked at once more.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def upstream_tls() -> ssl.SSLContext:
    """How workers are spoken to over TLS, by mitmproxy's own options for upstream servers."""
    options = ctx.options
    context = ssl.create_default_context(
        cafile=options.ssl_verify_upstream_trusted_ca,
        capath=options.ssl_verify_upstream_trusted_confdir,
    )
    if options.ssl_insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def exit_unless_listening(port: int) -> None:
    """End the program if mitmproxy could not open its port anew: it would only log that."""
    server = ctx.master.addons.get("proxyserver")
    while server.servers.is_updating:  # noqa: ASYNC110 - mitmproxy has no event for it
        await asyncio.sleep(0.02)
    if not server.listen_addrs():
        exit_with(f"PROXY_PORT: cannot listen on port {port}; set a free port")
    widen_limits()
