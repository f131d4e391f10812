"""The addon in mitmproxy's own test harness: options, commands, replays, flows of others."""

import json
import sys
from pathlib import Path

import pytest
from mitmproxy import ctx, exceptions
from mitmproxy.addons.block import Block
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons, tflow, tutils

from addons import options
from addons.classification import fallback
from addons.health import Outcome
from addons.pool import Pool, WorkerState
from addons.router import SemanticRouter
from classifier.contracts import LABELS, Classification, Label, Source
from classifier.labels_file import parse_labels_file

HEAVY = Classification(Label.HIGH_COMPUTE, 0.913, Source.LOCAL, "aggregation over a table")


class FixedLabels:
    """Stands at the seam between the addon and its label source."""

    cache_hits = cache_misses = cache_entries = inflight = 0
    shape_hits = shape_misses = shape_entries = 0

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    async def classify(self, view):
        self.seen.append(view)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def serves(self, settings, labels):
        return True

    def clear(self):
        return 3


@pytest.fixture
async def router(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    addon = SemanticRouter()
    with taddons.context(Proxyserver(), Onboarding(), Block()) as context:
        context.master.addons.add(addon)
        addon.configure(set(context.options.keys()))
        addon._labels = FixedLabels(HEAVY)
        yield addon


@pytest.fixture
def outcomes(monkeypatch):
    """How leases end."""
    seen: list[Outcome] = []
    take_back = Pool.take_back

    def noted(pool: Pool, state: WorkerState, outcome: Outcome) -> None:
        seen.append(outcome)
        take_back(pool, state, outcome)

    monkeypatch.setattr(Pool, "take_back", noted)
    return seen


def pools(router):
    return router._fleet.pools


def state_of(router, label=Label.HIGH_COMPUTE):
    return pools(router)[label].states[0]


def a_replay(**request):
    """A flow that mitmproxy is about to send again."""
    flow = tflow.tflow(req=tutils.treq(**{"content": b'{"q": 1}', **request}))
    flow.is_replay = "request"
    return flow


# Replays


async def test_a_replay_goes_to_the_pool_of_its_label(router) -> None:
    flow = a_replay(host="recorded.example.com", port=443, authority=b"recorded.example.com")
    flow.request.scheme = "https"
    flow.request.headers["Host"] = "client.example.com"

    await router.request(flow)

    request = flow.request
    assert (request.host, request.port, request.scheme) == ("localhost", 9002, "http")
    assert request.authority == ""
    assert request.headers["Host"] == "client.example.com"
    assert request.headers["X-Route-Label"] == "high-compute"
    assert request.headers["X-Route-Confidence"] == "0.913"
    assert request.headers["X-Route-Source"] == "local"
    assert request.raw_content == b'{"q": 1}'


async def test_nothing_else_of_a_replay_changes(router) -> None:
    flow = a_replay(path=b"/a%2Fb?x=1&x=2")
    before = list(flow.request.headers.fields)

    await router.request(flow)

    added = [name for name, _ in flow.request.headers.fields if (name, _) not in before]
    assert added == [b"X-Route-Label", b"X-Route-Confidence", b"X-Route-Source"]
    assert [field for field in before if field not in flow.request.headers.fields] == []
    assert flow.request.path == "/a%2Fb?x=1&x=2"


async def test_a_replay_follows_the_rules_but_forces_nothing(router) -> None:
    rules = b'[[rules]]\nname = "r"\nlabel = "fast-path"\nmethod = "GET"\n'
    router._orders.take_over(LABELS, parse_labels_file(rules).rules, "0.0.0.0/0")
    flow = a_replay()
    flow.request.headers["x-slb-force-label"] = "general"

    await router.request(flow)

    assert flow.request.headers["X-Route-Label"] == "fast-path"
    assert flow.request.headers["X-Route-Source"] == "rule"
    assert "x-slb-force-label" not in flow.request.headers


async def test_recorded_routing_headers_are_dropped(router) -> None:
    flow = a_replay()
    flow.request.headers.set_all("x-route-label", ["fast-path", "fast-path"])
    flow.request.headers["X-SLB-Decision-Id"] = "1"

    await router.request(flow)

    assert flow.request.headers.get_all("X-Route-Label") == ["high-compute"]
    assert "x-slb-decision-id" not in flow.request.headers


async def test_a_replays_worker_is_given_back_once_when_it_is_answered(router, outcomes) -> None:
    flow = a_replay()
    await router.request(flow)
    state = state_of(router)
    assert state.inflight == 1

    flow.response = tutils.tresp()
    router.response(flow)
    router.response(flow)
    router.error(flow)

    assert (state.inflight, state.requests, outcomes) == (0, 1, [Outcome.OK])
    event = router._ledger.feed.recent(1)[0]
    assert (event.label, event.worker, event.status) == ("high-compute", "localhost:9002", 200)
    assert len(router._ledger) == 0


async def test_a_replay_that_fails_gives_its_worker_back_as_well(router, outcomes) -> None:
    flow = a_replay()
    await router.request(flow)
    flow.error = tflow.terr("connection refused")

    router.error(flow)

    assert outcomes == [Outcome.RESPONSE_FAILED]
    assert state_of(router).inflight == 0
    assert router._ledger.feed.recent(1)[0].error == "worker_failed"


async def test_a_replay_that_cannot_be_routed_is_not_sent(router) -> None:
    router._fleet.drain("high-compute", "localhost:9002")
    flow = a_replay()

    await router.request(flow)

    assert (flow.response.status_code, flow.response.headers["retry-after"]) == (503, "1")
    assert json.loads(flow.response.content)["error"]["code"] == "no_worker"


async def test_so_it_is_if_routing_fails(router, caplog) -> None:
    router._labels = FixedLabels(ValueError("canary-secret"))
    flow = a_replay()

    await router.request(flow)

    assert flow.response.status_code == 503
    assert json.loads(flow.response.content)["error"]["code"] == "routing_failed"
    assert "ValueError" in caplog.text
    assert "canary-secret" not in caplog.text + flow.response.text
    assert state_of(router).inflight == 0


async def test_a_fallback_is_routed_to_general(router) -> None:
    router._labels = FixedLabels(fallback("timeout"))
    flow = a_replay()

    await router.request(flow)

    assert flow.request.port == 9001
    assert flow.request.headers["X-Route-Source"] == "fallback"


# Flows of others


@pytest.mark.parametrize("replay", [None, "request"])
async def test_a_flow_that_another_addon_answered_is_left_alone(router, replay) -> None:
    flow = tflow.tflow(resp=True)
    flow.is_replay = replay

    await router.request(flow)

    assert "router" not in flow.metadata
    assert flow.response.content == b"message"
    assert router._labels.seen == []


async def test_a_flow_that_is_not_ours_is_answered_and_never_forwarded(router) -> None:
    flow = tflow.tflow()

    await router.request(flow)

    assert flow.response.status_code == 503
    assert json.loads(flow.response.content)["error"]["code"] == "routing_failed"
    assert router._labels.seen == []


async def test_ends_of_flows_that_are_not_ours_are_nothing_to_us(router, outcomes) -> None:
    router.response(tflow.tflow(resp=True))
    router.error(tflow.tflow(err=True))

    assert outcomes == []
    assert router._ledger.feed.recent(1) == []


# Settings


async def test_a_bad_value_while_running_is_refused_and_the_old_pools_stay(router) -> None:
    before = state_of(router, Label.GENERAL)

    with pytest.raises(exceptions.OptionsError, match="GENERAL_POOL: 'nowhere' is not"):
        ctx.options.update(router_general_pool="nowhere")

    assert state_of(router, Label.GENERAL) is before
    assert ctx.options.router_general_pool == "http://localhost:9001"


async def test_new_pools_take_over_and_workers_that_stay_keep_their_state(router) -> None:
    await router.request(flow := a_replay())
    state = state_of(router)

    ctx.options.update(
        router_general_pool="http://10.0.0.1:80,http://10.0.0.2:80",
        router_high_compute_pool="http://10.0.0.1:80,http://localhost:9002;weight=3",
    )

    general = pools(router)[Label.GENERAL].workers
    assert [worker.host for worker in general] == ["10.0.0.1", "10.0.0.2"]
    states = pools(router)[Label.HIGH_COMPUTE].states
    assert [(one.worker.host, one.worker.weight, one.inflight) for one in states] == [
        ("10.0.0.1", 1, 0),
        ("localhost", 3, 1),
    ]
    flow.response = tutils.tresp()
    router.response(flow)
    assert states[1].inflight == state.inflight == 0


async def test_bounds_and_timeouts_that_change_are_those_of_the_next_request(router) -> None:
    ctx.options.update(
        router_max_headers=50, router_first_byte_timeout_ms=700, router_client_headers=False
    )

    transport = router._transport
    assert transport.clients.limits.head_fields == 50
    assert transport.upstreams.timeouts.first_byte == 0.7
    assert transport._backend.bounds.client_headers is False


@pytest.mark.parametrize(
    ("option", "value"),
    [("metrics_port", 9999), ("metrics_host", "::1"), ("proxy_port", 1), ("decision_history", 9)],
)
async def test_what_is_set_at_the_start_is_not_changed_later(router, option, value) -> None:
    with pytest.raises(exceptions.OptionsError, match=f"{option.upper()} can only be set at the"):
        ctx.options.update(**{f"router_{option}": value})


async def test_mitmproxys_own_options_are_set_for_a_load_balancer(router) -> None:
    opts = ctx.options

    assert opts.keep_host_header is True
    assert opts.connection_strategy == "lazy"
    assert opts.onboarding is False
    assert opts.stream_large_bodies is None


# Commands


async def test_commands_show_the_pools(router) -> None:
    assert "<Pool fast-path [localhost:9003: 0]>" in router.show_pools()


async def test_commands_drain_a_worker_and_let_it_back(router) -> None:
    assert router.drain("general", "localhost:9001") == "localhost:9001 of general is draining"
    assert state_of(router, Label.GENERAL).draining
    router.undrain("general", "localhost:9001")
    assert not state_of(router, Label.GENERAL).draining


@pytest.mark.parametrize(("pool", "worker"), [("nope", "localhost:9001"), ("general", "nope:1")])
async def test_a_command_for_an_unknown_worker_says_so(router, pool, worker) -> None:
    for command in (router.drain, router.undrain):
        with pytest.raises(exceptions.CommandError):
            command(pool, worker)


async def test_a_command_forgets_the_labels(router) -> None:
    assert router.clear_cache() == "3 labels forgotten"


# The files


def test_no_addon_file_shadows_a_library() -> None:
    """mitmproxy leaves `addons/` first on sys.path for the whole process."""
    names = {path.stem for path in Path(options.__file__).parent.glob("*.py")}

    assert names & set(sys.stdlib_module_names) == set()
    installed = {"cachetools", "fastapi", "httpx", "litellm", "pydantic", "starlette", "uvicorn"}
    assert names & installed == set()
