"""Hooks as mitmproxy fires them, but only those that somebody has."""

import asyncio
import contextlib
import hashlib
import inspect
import logging

import pytest
from mitmproxy import exceptions, options
from mitmproxy.addons import (
    default_addons,
    disable_h2c,
    dumper,
    modifybody,
    modifyheaders,
    save,
    savehar,
    serverplayback,
)
from mitmproxy.addons.block import Block
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.update_alt_svc import UpdateAltSvc
from mitmproxy.master import Master
from mitmproxy.test import taddons, tflow

from addons import dispatch
from addons.dispatch import Dispatcher
from addons.options import set_proxy_options

HOOKS = ("requestheaders", "request", "responseheaders", "response", "error")


class Noting:
    """Notes its hooks; does in `request` what it is told."""

    def __init__(self, notes, name, deed=None):
        self.name = name
        self._notes = notes
        self._deed = deed

    def request(self, flow):
        self._notes.append(self.name)
        return self._deed(flow) if self._deed else None


class Watching:
    """Has no hook but `update`."""

    def __init__(self, notes):
        self.name = "watching"
        self._notes = notes

    def update(self, flows):
        self._notes.append(("update", *flows))


class Silent:
    """Has no hook of flows at all."""

    def client_connected(self, client):
        raise AssertionError


def halt(flow):
    raise exceptions.AddonHalt


def fail(flow):
    msg = "a fault of the addon's"
    raise ValueError(msg)


@contextlib.contextmanager
def dispatcher(*addons, own=None):
    with taddons.context(*addons) as context:
        yield Dispatcher(context.master.addons, own), context.master


async def fired(subject, name="request", flow=None):
    pending = subject.fire(name, flow or tflow.tflow())
    if pending is not None:
        await pending


# Firing


async def test_plain_functions_are_called_at_once_and_in_order() -> None:
    notes = []
    with dispatcher(Noting(notes, "a"), Silent(), Noting(notes, "b")) as (subject, _):
        assert subject.fire("request", tflow.tflow()) is None
        assert subject.fire("response", tflow.tflow()) is None

    assert notes == ["a", "b"]


async def test_what_is_awaitable_is_awaited_before_the_next_is_called() -> None:
    notes = []

    async def slowly(_flow):
        await asyncio.sleep(0)
        notes.append("slow end")

    addons = (Noting(notes, "a", slowly), Noting(notes, "b", slowly), Watching(notes))
    with dispatcher(*addons) as (subject, _):
        flow = tflow.tflow()
        await fired(subject, flow=flow)

    assert notes == ["a", "slow end", "b", "slow end", ("update", flow)]


async def halt_later(flow):
    await asyncio.sleep(0)
    raise exceptions.AddonHalt


@pytest.mark.parametrize("how", [halt, halt_later])
async def test_a_halt_keeps_the_rest_from_the_hook_but_not_from_the_update(how) -> None:
    notes = []
    addons = (Noting(notes, "a", how), Noting(notes, "b"), Watching(notes))
    with dispatcher(*addons) as (subject, _):
        flow = tflow.tflow()
        await fired(subject, flow=flow)

    assert notes == ["a", ("update", flow)]


async def fail_later(flow):
    await asyncio.sleep(0)
    fail(flow)


@pytest.mark.parametrize("how", [fail, fail_later])
async def test_an_error_is_told_in_mitmproxys_words_and_the_rest_go_on(how, caplog) -> None:
    notes = []
    with (
        dispatcher(Noting(notes, "a", how), Noting(notes, "b")) as (subject, _),
        caplog.at_level(logging.ERROR),
    ):
        await fired(subject)

    assert notes == ["a", "b"]
    assert [record.message for record in caplog.records] == ["Addon error: a fault of the addon's"]
    assert "in fail" in caplog.text


async def test_an_intercepted_flow_is_waited_for() -> None:
    notes = []
    with dispatcher(Noting(notes, "a", lambda flow: flow.intercept())) as (subject, _):
        flow = tflow.tflow()
        firing = asyncio.ensure_future(fired(subject, flow=flow))
        await asyncio.sleep(0)
        assert not firing.done()

        flow.resume()
        await firing


async def test_addons_that_come_and_go_are_noticed() -> None:
    notes = []
    first, second = Noting(notes, "a"), Noting(notes, "b")
    with dispatcher(first) as (subject, master):
        await fired(subject)
        master.addons.add(second)
        await fired(subject)
        master.addons.remove(first)
        await fired(subject)

    assert notes == ["a", "a", "b", "b"]


# Who listens


async def test_nobody_listens_but_those_who_have_a_hook_of_flows() -> None:
    notes = []
    own, user = Noting(notes, "own"), Noting(notes, "user")
    with dispatcher(own, Silent(), own=own) as (subject, master):
        assert not subject.is_heard()
        for addon in (user, Watching(notes)):
            master.addons.add(addon)
            assert subject.is_heard()
            master.addons.remove(addon)
            assert not subject.is_heard()


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A mitmdump's addons, with its options as we set them, and who dispatches for them."""

    async def build():
        master = Master(options.Options(), with_termlog=False)
        master.addons.add(*default_addons(), dumper.Dumper())
        return master

    master = asyncio.run(build())
    with taddons.context(options=master.options):
        master.options.update(
            confdir=str(tmp_path_factory.mktemp("confdir")), flow_detail=0, onboarding=False,
            keep_alt_svc_header=True,
        )  # fmt: skip
        yield Dispatcher(master.addons, None), master


def test_mitmproxys_own_addons_do_not_listen_as_we_set_their_options(stock) -> None:
    subject, _ = stock

    assert not subject.is_heard()
    called = {type(f.__self__) for name in HOOKS for f in subject._functions[name]}
    assert called == {serverplayback.ServerPlayback}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anticache", True),
        ("anticomp", True),
        ("block_list", [":~all:404"]),
        ("flow_detail", 1),
        ("hardump", "x.har"),
        ("keep_alt_svc_header", False),
        ("map_local", [":~all:."]),
        ("map_remote", [":~all:a:b"]),
        ("modify_body", [":~all:a:b"]),
        ("modify_headers", [":~all:a:b"]),
        ("onboarding", True),
        ("proxyauth", "any"),
        ("save_stream_file", "x.mitm"),
        ("stickyauth", "~all"),
        ("stickycookie", "~all"),
        ("upstream_auth", "user:password"),
    ],
)
def test_an_option_makes_its_addon_listen_and_lets_it_sleep_again(
    stock, name, value, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subject, master = stock
    before = getattr(master.options, name)

    master.options.update(**{name: value})
    assert subject.is_heard()

    master.options.update(**{name: before})
    assert not subject.is_heard()


def test_answers_to_replay_listen_while_there_are_some(stock) -> None:
    subject, master = stock
    playback = master.addons.get("serverplayback")

    playback.load_flows([tflow.tflow(resp=True)])
    assert subject.is_heard()

    playback.clear()
    assert not subject.is_heard()


def test_every_hook_of_mitmproxys_own_addons_was_looked_at(stock) -> None:
    _, master = stock
    known = {*dispatch.QUIET_BY_OPTION, *dispatch.QUIET_BY_STATE, *dispatch.NEEDLESS}
    known |= {*dispatch.QUIET_WHILE_EMPTY}
    hooks = (getattr(addon, name, None) for addon in master.addons.chain for name in HOOKS)

    assert {getattr(hook, "__func__", None) for hook in hooks if hook} <= known


def test_the_router_sets_these_options() -> None:
    with taddons.context(Proxyserver(), Onboarding(), Block(), UpdateAltSvc()) as context:
        set_proxy_options()

        assert context.options.keep_alt_svc_header
        assert not context.options.onboarding


REST = (
    modifybody.ModifyBody.run,
    modifyheaders.ModifyHeaders.run,
    savehar.SaveHar._save_flow,
    save.Save.save_flow,
    dumper.Dumper.match,
    disable_h2c.DisableH2C.process_flow,
)
"""What those hooks leave their work to."""

DIGESTS = {
    "AntiCache.request": "b48d2e8a6a567262",
    "AntiComp.request": "b0d9e97431cee67e",
    "Onboarding.request": "f6e48a4764c85df0",
    "SaveHar.response": "ce22fda770acc25b",
    "SaveHar.error": "dc76bea37b036232",
    "Dumper.response": "958cbd998d735dea",
    "Dumper.error": "409c4347f21cb4ac",
    "UpdateAltSvc.responseheaders": "25ce1b89275c1ea2",
    "BlockList.request": "b57fd28ef2853c16",
    "MapLocal.request": "4c6bf038aa472f3e",
    "MapRemote.request": "e7caae41db682e44",
    "ModifyBody.request": "5fb02b2517e09723",
    "ModifyBody.response": "bbfe8871b747e4bf",
    "ModifyHeaders.requestheaders": "8b201eff589f2090",
    "ModifyHeaders.responseheaders": "bce93c61dc453f1f",
    "ProxyAuth.requestheaders": "27acaafec84601a1",
    "Save.request": "5b91fa00461227c1",
    "Save.response": "1cc915d5098b7270",
    "Save.error": "ff67097fd3999468",
    "StickyAuth.request": "76b0bbaeb50614fa",
    "StickyCookie.request": "d57c78803120ae99",
    "StickyCookie.response": "2cd0720d69afba13",
    "UpstreamAuth.requestheaders": "9222268024657614",
    "ServerPlayback.request": "e39ec867c40b012a",
    "DisableH2C.request": "5fc158d4cd890e20",
    "TlsConfig.request": "84c6d74b564dde72",
    "ModifyBody.run": "02ce875e252ccd49",
    "ModifyHeaders.run": "14324bf81cea64a6",
    "SaveHar._save_flow": "c5d5f275ff36bb17",
    "Save.save_flow": "eba6fbbeeca034bf",
    "Dumper.match": "ae4f996a70cc1b2c",
    "DisableH2C.process_flow": "9cbfa1a9226ff6bf",
}
"""Of hooks of which `addons/dispatch.py` says that they do nothing: read them before a change."""

READ = [
    *dispatch.QUIET_BY_OPTION, *dispatch.QUIET_BY_STATE, *dispatch.QUIET_WHILE_EMPTY,
    *dispatch.NEEDLESS, *REST,
]  # fmt: skip


@pytest.mark.parametrize("function", READ, ids=lambda function: function.__qualname__)
def test_mitmproxys_code_is_the_one_that_was_read(function) -> None:
    source = inspect.getsource(function).encode()

    assert hashlib.sha256(source).hexdigest()[:16] == DIGESTS[function.__qualname__]
