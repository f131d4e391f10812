"""A script for mitmproxy, loaded after the addon: makes a function of ours raise on demand.

The file that SLB_TEST_BREAKAGE names says which one, now: `module:name.in.it`. It is asked at each
call, so that one proxy serves all faults.
"""

import functools
import importlib
import inspect
import os
from pathlib import Path

SWITCH = Path(os.environ["SLB_TEST_BREAKAGE"])
MESSAGE = "secret-of-the-breakage"

TARGETS = (
    "addons.takeover:Doorman.client_connected",
    "addons.takeover:Doorman.next_layer",
    "addons.takeover:PlainConnection.data_received",
    "addons.downstream:Clients.enter",
    "addons.downstream:ClientConnection._read_head",
    "addons.downstream:RequestBody.feed",
    "addons.http1:parse_request_head",
    "addons.exchange:Exchange.__init__",
    "addons.exchange:Exchange.view",
    "addons.exchange:Exchange._label",
    "addons.exchange:Exchange._lease",
    "addons.exchange:Exchange._connect",
    "addons.exchange:Exchange._send",
    "addons.exchange:Exchange._answer",
    "addons.exchange:Exchange._start_answer",
    "addons.exchange:Exchange._close",
    "addons.exchange:upstream_head",
    "addons.classification:LabelSource.classify",
    "addons.admission:Admission.lease",
    "addons.accounting:Ledger.open",
    "addons.accounting:Ledger.close",
    "addons.upstream:UpstreamPool.take",
    "addons.upstream:UpstreamPool.give_back",
    "addons.upstream:UpstreamConnection.begin",
    "addons.upstream:UpstreamConnection.data_received",
    "addons.choosing:Choice.wanted",
    "addons.dispatch:Dispatcher.is_heard",
    "addons.dispatch:Dispatcher.fire",
    "addons.flowmaking:flow_of",
    "addons.flowmaking:request_of",
    "addons.flowmaking:response_of",
    "addons.flowmaking:server_of",
    "addons.flowview:head_of",
    "addons.flowview:address",
    "addons.flowview:show_decision",
)


def breakable(target: str, original):
    """The same function, which raises while the switch names it."""

    def check() -> None:
        if SWITCH.read_text() == target:
            raise RuntimeError(MESSAGE)

    @functools.wraps(original)
    def call(*args, **kwargs):
        check()
        return original(*args, **kwargs)

    @functools.wraps(original)
    async def call_later(*args, **kwargs):
        check()
        return await original(*args, **kwargs)

    return call_later if inspect.iscoroutinefunction(original) else call


def load(_loader) -> None:
    for target in TARGETS:
        module, _, path = target.partition(":")
        owner = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, name, breakable(target, getattr(owner, name)))
