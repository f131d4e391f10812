"""Hooks of other addons, fired without asking each addon each time whether it has one.

mitmproxy's own dispatch looks at some forty addons for every event, and at all of them again for
`update`: over half of the time of an inspected request. Here the functions are looked up once for
each set of addons; order, errors and `AddonHalt` are as with mitmproxy's. What returns no awaitable
is called and done: no task, no coroutine.

Most of mitmproxy's own addons have nothing to do until an option says so. What is said of them here
rests on their source, of which a test holds digests; it is looked at anew when an option changes.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

from mitmproxy import addonmanager, exceptions
from mitmproxy.addons import (
    anticache,
    anticomp,
    blocklist,
    disable_h2c,
    dumper,
    maplocal,
    mapremote,
    modifybody,
    modifyheaders,
    onboarding,
    proxyauth,
    save,
    savehar,
    serverplayback,
    stickyauth,
    stickycookie,
    tlsconfig,
    update_alt_svc,
    upstream_auth,
)
from mitmproxy.flow import Flow

HOOKS = ("requestheaders", "request", "responseheaders", "response", "error", "update")

QUIET_BY_OPTION: dict[object, tuple[str, object]] = {
    anticache.AntiCache.request: ("anticache", False),
    anticomp.AntiComp.request: ("anticomp", False),
    onboarding.Onboarding.request: ("onboarding", False),
    savehar.SaveHar.response: ("hardump", ""),
    savehar.SaveHar.error: ("hardump", ""),
    dumper.Dumper.response: ("flow_detail", 0),
    dumper.Dumper.error: ("flow_detail", 0),
    update_alt_svc.UpdateAltSvc.responseheaders: ("keep_alt_svc_header", True),
}
"""Hooks that do nothing while an option has this value."""

QUIET_BY_STATE: dict[object, str] = {
    blocklist.BlockList.request: "items",
    maplocal.MapLocal.request: "replacements",
    mapremote.MapRemote.request: "replacements",
    modifybody.ModifyBody.request: "replacements",
    modifybody.ModifyBody.response: "replacements",
    modifyheaders.ModifyHeaders.requestheaders: "replacements",
    modifyheaders.ModifyHeaders.responseheaders: "replacements",
    proxyauth.ProxyAuth.requestheaders: "validator",
    save.Save.request: "stream",
    save.Save.response: "stream",
    save.Save.error: "stream",
    stickyauth.StickyAuth.request: "flt",
    stickycookie.StickyCookie.request: "flt",
    stickycookie.StickyCookie.response: "flt",
    upstream_auth.UpstreamAuth.requestheaders: "auth",
}
"""Hooks that do nothing while this attribute of their addon is empty or None; options set it."""

NEEDLESS: frozenset[object] = frozenset({
    # h2c and its preface never get past our parser and our headers.
    disable_h2c.DisableH2C.request,
    # Answers for a list of revoked certificates, which only certificates name that are copied from
    # an upstream's; we ask no upstream for one.
    tlsconfig.TlsConfig.request,
})  # fmt: skip
"""Hooks that look for what cannot come here."""

QUIET_WHILE_EMPTY: dict[object, str] = {serverplayback.ServerPlayback.request: "flowmap"}
"""The same, but commands set it as well: called each time, but no flow is made for it."""


class Dispatcher:
    """Fires hooks on the addons of one mitmproxy."""

    def __init__(self, manager: addonmanager.AddonManager, own: object) -> None:
        """A dispatcher for the addons of this manager, as they are when it fires.

        Args:
            manager: Knows the addons.
            own: The addon for which no flow is made: our own.
        """
        self._manager = manager
        self._own = own
        self._known: list[object] = []
        self._functions: dict[str, list[Callable[..., Any]]] = {}
        self._listens = False
        self._dormant: list[tuple[object, str]] = []
        manager.master.options.changed.connect(self._forget)

    def is_heard(self) -> bool:
        """Whether there is anybody who would see a flow."""
        self._look_again()
        if self._listens:
            return True
        return any(getattr(addon, attribute) for addon, attribute in self._dormant)

    def fire(self, name: str, flow: Flow) -> Coroutine[Any, Any, None] | None:
        """Fire a hook, tell of the changed flow, and wait while somebody intercepts it.

        Args:
            name: Of the hook.
            flow: Its argument.

        Returns:
            What is still to be awaited; None if all is done.
        """
        self._look_again()
        rest, updates = iter(self._functions[name]), self._functions["update"]
        pending = _call(rest, flow)
        if pending is None and not updates:
            return flow.wait_for_resume() if flow.intercepted else None
        return self._go_on(pending, rest, iter(updates), flow)

    async def _go_on(
        self,
        pending: Awaitable[object] | None,
        rest: Iterator[Callable[..., Any]],
        updates: Iterator[Callable[..., Any]],
        flow: Flow,
    ) -> None:
        await _finish(pending, rest, flow)
        await _finish(_call(updates, [flow]), updates, [flow])
        await flow.wait_for_resume()

    def _forget(self, updated: set[str]) -> None:
        """Options have changed: another set of hooks may have nothing to do."""
        del updated
        self._known = []

    def _look_again(self) -> None:
        # Every addon that comes or goes, a reloaded script's as well, changes this table.
        now = [*self._manager.lookup.values()]
        if now == self._known and now:
            return
        self._known = now
        self._functions = {name: [] for name in HOOKS}
        self._listens, self._dormant = False, []
        for addon in addonmanager.traverse(self._manager.chain):
            for name in HOOKS:
                function = getattr(addon, name, None)
                if callable(function) and not self._is_quiet(addon, function):
                    self._functions[name].append(function)
                    self._note_listener(addon, function)

    def _is_quiet(self, addon: object, function: Callable[..., Any]) -> bool:
        plain = _plain(function)
        if (attribute := QUIET_BY_STATE.get(plain)) is not None:
            return not getattr(addon, attribute)
        name, value = QUIET_BY_OPTION.get(plain, ("", None))
        options = self._manager.master.options
        return plain in NEEDLESS or (name in options and getattr(options, name) == value)

    def _note_listener(self, addon: object, function: Callable[..., Any]) -> None:
        if addon is self._own:
            return
        if (attribute := QUIET_WHILE_EMPTY.get(_plain(function))) is not None:
            self._dormant.append((addon, attribute))
        else:
            self._listens = True


def _plain(function: Callable[..., Any]) -> object:
    """The function of a bound method."""
    return getattr(function, "__func__", None)


def _call(rest: Iterator[Callable[..., Any]], argument: object) -> Awaitable[object] | None:
    """Call the functions in turn, up to the first that has to be awaited; None if all are done."""
    for function in rest:
        try:
            result = function(argument)
        except exceptions.AddonHalt:
            return None
        except Exception:
            # In mitmproxy's own words; it lets only faults of options pass.
            with addonmanager.safecall():
                raise
            continue
        if result is not None and inspect.isawaitable(result):
            return result
    return None


async def _finish(
    pending: Awaitable[object] | None, rest: Iterator[Callable[..., Any]], argument: object
) -> None:
    """Await what is pending, and call the rest."""
    while pending is not None:
        try:
            with addonmanager.safecall():
                await pending
        except exceptions.AddonHalt:
            return
        pending = _call(rest, argument)
