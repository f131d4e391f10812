"""The addon in mitmproxy's own test harness: hooks, options, commands."""

import json
from pathlib import Path

import pytest
from mitmproxy import ctx, exceptions
from mitmproxy.addons.onboarding import Onboarding
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.io import FlowWriter
from mitmproxy.test import taddons, tflow, tutils

from addons import flowview, options
from addons.classification import fallback
from addons.router import SemanticRouter
from classifier.contracts import Classification, Label, Source

HEAVY = Classification(Label.HIGH_COMPUTE, 0.913, Source.LOCAL, "aggregation over a table")


class FixedLabels:
    """Stands at the seam between the addon and its label source."""

    cache_hits = cache_misses = cache_entries = inflight = 0

    def __init__(self, answer):
        self.answer = answer
        self.seen = []

    async def classify(self, view):
        self.seen.append(view)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
async def router(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    addon = SemanticRouter()
    with taddons.context(Proxyserver(), Onboarding()) as context:
        context.master.addons.add(addon)
        addon.configure(set(context.options.keys()))
        addon._labels = FixedLabels(HEAVY)
        yield addon


def a_flow(**request):
    return tflow.tflow(req=tutils.treq(**{"content": b'{"q": 1}', **request}))


async def test_a_request_goes_to_the_pool_of_its_label(router) -> None:
    flow = a_flow(host="client.example.com", port=80)
    flow.request.headers["Host"] = "client.example.com"

    await router.request(flow)

    assert (flow.request.host, flow.request.port, flow.request.scheme) == (
        "localhost",
        9002,
        "http",
    )
    assert flow.request.headers["Host"] == "client.example.com"
    assert flow.request.headers["X-Route-Label"] == "high-compute"
    assert flow.request.headers["X-Route-Confidence"] == "0.913"
    assert flow.request.headers["X-Route-Source"] == "local"
    assert flow.request.raw_content == b'{"q": 1}'


async def test_nothing_but_the_routing_headers_changes(router) -> None:
    flow = a_flow(path=b"/a%2Fb?x=1&x=2")
    before = list(flow.request.headers.fields)

    await router.request(flow)

    added = [field for field in flow.request.headers.fields if field not in before]
    assert [name for name, _ in added] == [
        b"X-Route-Label",
        b"X-Route-Confidence",
        b"X-Route-Source",
    ]
    assert [field for field in before if field not in flow.request.headers.fields] == []
    assert flow.request.path == "/a%2Fb?x=1&x=2"


async def test_routing_headers_of_a_client_are_dropped(router) -> None:
    flow = a_flow()
    flow.request.headers.set_all("x-route-label", ["fast-path", "fast-path"])
    flow.request.headers["X-SLB-Decision-Id"] = "1"

    await router.request(flow)

    assert flow.request.headers.get_all("X-Route-Label") == ["high-compute"]
    assert "x-slb-decision-id" not in flow.request.headers


async def test_an_absolute_target_becomes_origin_form(router) -> None:
    flow = a_flow(authority=b"elsewhere.example.com")

    await router.request(flow)

    assert flow.request.authority == ""
    assert flow.request.host == "localhost"


async def test_the_classifier_sees_a_prefix_and_only_meaningful_headers(router) -> None:
    flow = a_flow(content=b"z" * 100_000, path=b"/x?y=1")
    flow.request.headers["Authorization"] = "Bearer secret"
    flow.request.headers["X-Amz-Target"] = "DynamoDB_20120810.Scan"

    await router.request(flow)

    view = router._labels.seen[0]
    assert (len(view.body), view.body_bytes) == (65_536, 100_000)
    assert view.path == "/x?y=1"
    assert view.headers == (("x-amz-target", "DynamoDB_20120810.Scan"),)


async def test_comment_marker_and_metadata_tell_the_decision(router, tmp_path) -> None:
    flow = a_flow()

    await router.request(flow)

    assert flow.comment == ("high-compute -> localhost:9002 (local 0.91) aggregation over a table")
    assert flow.marked == ":snail:"
    assert flow.metadata["router"]["label"] == "high-compute"
    with (tmp_path / "flows").open("wb") as file:
        FlowWriter(file).add(flow)


async def test_an_error_in_routing_is_answered_with_503_and_never_forwarded(router, caplog) -> None:
    router._labels = FixedLabels(ZeroDivisionError())
    flow = a_flow()

    await router.request(flow)

    assert flow.response.status_code == 503
    assert flow.response.headers["retry-after"] == "1"
    assert json.loads(flow.response.content)["error"]["code"] == "routing_failed"
    assert "ZeroDivisionError" not in flow.response.text
    assert "routing failed" in caplog.text


async def test_a_flow_that_another_addon_answered_is_left_alone(router) -> None:
    flow = tflow.tflow(resp=True)

    await router.request(flow)

    assert "router" not in flow.metadata
    assert router._labels.seen == []


async def test_the_worker_is_given_back_once_when_the_response_ends(router) -> None:
    flow = a_flow()
    await router.request(flow)
    state = router.pools[Label.HIGH_COMPUTE].states[0]
    assert state.inflight == 1

    flow.response = tutils.tresp()
    router.responseheaders(flow)
    router.response(flow)
    router.response(flow)

    assert (state.inflight, state.requests, state.errors) == (0, 1, 0)
    assert flow.response.headers["x-slb-label"] == "high-compute"
    assert flow.response.headers["x-slb-source"] == "local"
    event = router._ledger.feed.recent(1)[0]
    assert event.id == flow.response.headers["x-slb-decision-id"]
    assert (event.label, event.worker, event.status) == ("high-compute", "localhost:9002", 200)


async def test_a_client_that_leaves_is_not_the_workers_fault(router) -> None:
    flow = a_flow()
    await router.request(flow)
    flow.error = tflow.terr("Client disconnected.")

    router.error(flow)

    state = router.pools[Label.HIGH_COMPUTE].states[0]
    assert (state.inflight, state.errors) == (0, 0)
    assert router._ledger.feed.recent(1)[0].error == "client_disconnected"


@pytest.mark.parametrize(
    ("message", "request_is_whole", "error"),
    [
        ("stream reset by client (CANCEL)", True, "client_disconnected"),
        ("HTTP/1 protocol error: peer closed", False, "client_disconnected"),
        ("HTTP/1 protocol error: peer closed", True, "worker_failed"),
        ("Request body exceeds mitmproxy's body_size_limit.", False, "client_disconnected"),
    ],
)
async def test_a_client_that_breaks_the_protocol_is_not_the_workers_fault(
    router, message, request_is_whole, error
) -> None:
    flow = a_flow()
    await router.request(flow)
    if not request_is_whole:
        flow.request.timestamp_end = None
    flow.error = tflow.terr(message)

    router.error(flow)

    assert router._ledger.feed.recent(1)[0].error == error


async def test_a_worker_that_fails_is_counted(router) -> None:
    flow = a_flow()
    await router.request(flow)
    flow.error = tflow.terr("connection refused")

    router.error(flow)

    assert router.pools[Label.HIGH_COMPUTE].states[0].errors == 1
    event = router._ledger.feed.recent(1)[0]
    assert (event.status, event.error) == (502, "worker_failed")


async def test_a_body_too_long_to_hold_is_routed_by_its_headers(router) -> None:
    flow = a_flow()
    flow.request.headers["content-length"] = "40000000"
    flow.request.data.content = None

    await router.requestheaders(flow)
    await router.request(flow)

    assert flow.request.stream is True
    assert flow.request.port == 9002
    assert [(view.body, view.body_bytes) for view in router._labels.seen] == [(b"", 40_000_000)]


@pytest.mark.parametrize(
    ("headers", "streams"),
    [
        ({"content-type": "text/event-stream"}, True),
        ({"transfer-encoding": "chunked"}, True),
        ({"content-length": "10"}, False),
        ({"content-length": "99999999"}, True),
    ],
)
async def test_answers_without_an_announced_end_and_long_ones_stream(
    router, headers, streams
) -> None:
    flow = a_flow()
    await router.request(flow)
    flow.response = tutils.tresp(headers=[(k.encode(), v.encode()) for k, v in headers.items()])

    router.responseheaders(flow)

    assert flow.response.stream is streams


async def test_a_workers_values_of_our_headers_are_dropped(router) -> None:
    flow = a_flow()
    await router.request(flow)
    flow.response = tutils.tresp()
    flow.response.headers["X-SLB-Internal"] = "10.0.0.1"
    flow.response.headers["x-slb-label"] = "fast-path"

    router.responseheaders(flow)

    assert "x-slb-internal" not in flow.response.headers
    assert flow.response.headers["x-slb-label"] == "high-compute"


async def test_client_headers_can_be_switched_off(router) -> None:
    router.settings = router.settings.model_copy(update={"client_headers": False})
    flow = a_flow()
    await router.request(flow)
    flow.response = tutils.tresp()

    router.responseheaders(flow)

    assert "x-slb-label" not in flow.response.headers


async def test_connect_is_refused(router) -> None:
    flow = tflow.tflow(req=tutils.treq(method=b"CONNECT"))

    router.http_connect(flow)

    assert flow.response.status_code == 405


async def test_a_bad_value_while_running_is_refused_and_the_old_pools_stay(router) -> None:
    pools = router.pools

    with pytest.raises(exceptions.OptionsError, match="GENERAL_POOL: 'nowhere' is not"):
        ctx.options.update(router_general_pool="nowhere")

    assert router.pools == pools


async def test_new_pools_take_over_and_unchanged_ones_keep_their_state(router) -> None:
    flow = a_flow()
    await router.request(flow)
    heavy = router.pools[Label.HIGH_COMPUTE]

    ctx.options.update(router_general_pool="http://10.0.0.1:80,http://10.0.0.2:80")

    assert [worker.host for worker in router.pools[Label.GENERAL].workers] == [
        "10.0.0.1",
        "10.0.0.2",
    ]
    assert router.pools[Label.HIGH_COMPUTE] is heavy
    assert heavy.states[0].inflight == 1


async def test_a_worker_that_stays_in_a_changed_pool_keeps_its_state(router) -> None:
    flow = a_flow()
    await router.request(flow)

    ctx.options.update(router_high_compute_pool="http://10.0.0.1:80,http://localhost:9002")

    states = router.pools[Label.HIGH_COMPUTE].states
    assert [(state.worker.host, state.inflight) for state in states] == [
        ("10.0.0.1", 0),
        ("localhost", 1),
    ]


async def test_what_is_set_at_the_start_is_not_changed_later(router) -> None:
    with pytest.raises(exceptions.OptionsError, match="METRICS_PORT can only be set at the start"):
        ctx.options.update(router_metrics_port=9999)


async def test_an_unforeseen_error_is_logged_without_its_message(router, caplog) -> None:
    router._labels = FixedLabels(ValueError("canary-secret"))

    await router.request(a_flow())

    assert "routing failed: ValueError" in caplog.text
    assert "canary-secret" not in caplog.text


async def test_a_fallback_is_routed_to_general(router) -> None:
    router._labels = FixedLabels(fallback("timeout"))
    flow = a_flow()

    await router.request(flow)

    assert flow.request.port == 9001
    assert flow.request.headers["X-Route-Source"] == "fallback"


async def test_commands_show_the_pools(router) -> None:
    assert "<Pool fast-path [localhost:9003: 0]>" in router.show_pools()


async def test_mitmproxys_own_options_are_set_for_a_load_balancer(router) -> None:
    opts = ctx.options

    assert opts.keep_host_header is True
    assert opts.connection_strategy == "lazy"
    assert opts.onboarding is False


def test_markers_are_emoji_that_mitmproxy_knows() -> None:
    from mitmproxy.utils import emoji

    assert set(flowview.MARKERS) == set(Label)
    assert set(flowview.MARKERS.values()) <= set(emoji.emoji)


def test_no_addon_file_shadows_a_library() -> None:
    """mitmproxy leaves `addons/` first on sys.path for the whole process."""
    import sys

    names = {path.stem for path in Path(options.__file__).parent.glob("*.py")}

    assert names & set(sys.stdlib_module_names) == set()
    installed = {"cachetools", "fastapi", "httpx", "litellm", "pydantic", "starlette", "uvicorn"}
    assert names & installed == set()
