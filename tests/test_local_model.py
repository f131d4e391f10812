"""The packaged model: it answers, it explains, it survives, it can be made again."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.contracts import LABELS, Label, RequestView, Source
from classifier.local_model import LocalModel

MODEL = LocalModel.load()
MANY = 65_536


def view(method: str, path: str, body: object = None, media: str = "") -> RequestView:
    text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
    content_type = media or ("application/json" if body is not None else "")
    return RequestView(method, path, content_type, (), text.encode(), len(text.encode()))


@pytest.mark.parametrize(
    ("request_view", "label"),
    [
        (view("GET", "/health"), Label.FAST_PATH),
        (view("GET", "/api/v1/users/42"), Label.FAST_PATH),
        (view("HEAD", "/files/report.csv"), Label.FAST_PATH),
        (view("POST", "/graphql", {"query": "{ user(id: 1) { name } }"}), Label.FAST_PATH),
        (view("POST", "/", "SELECT * FROM t WHERE id = 1", "text/plain"), Label.FAST_PATH),
        (
            view(
                "POST", "/", {"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []}
            ),
            Label.FAST_PATH,
        ),
        (view("GET", "/exports/17/status"), Label.FAST_PATH),
        (view("GET", "/api/users?page=2&per_page=20"), Label.GENERAL),
        (view("POST", "/api/users", {"name": "x"}), Label.GENERAL),
        (view("DELETE", "/api/users/42"), Label.GENERAL),
        (
            view("POST", "/graphql", {"query": "{ users(first: 20) { nodes { id } } }"}),
            Label.GENERAL,
        ),
        (view("POST", "/exports/17/cancel"), Label.GENERAL),
        (
            view(
                "POST",
                "/v1/chat/completions",
                {"model": "m", "messages": [{"role": "user", "content": "x"}]},
            ),
            Label.HIGH_COMPUTE,
        ),
        (view("POST", "/v1/embeddings", {"model": "m", "input": ["a", "b"]}), Label.HIGH_COMPUTE),
        (
            view("POST", "/", "SELECT a, count(*) FROM t GROUP BY a", "text/plain"),
            Label.HIGH_COMPUTE,
        ),
        (view("POST", "/exports", {"format": "csv", "source": "orders"}), Label.HIGH_COMPUTE),
        (
            view("POST", "/graphql", {"query": "{ users { posts { comments { id } } } }"}),
            Label.HIGH_COMPUTE,
        ),
    ],
)
def test_plain_cases_of_the_label_policy_hold(request_view: RequestView, label: Label) -> None:
    assert MODEL.classify(request_view).label is label


def test_the_answer_says_where_it_comes_from() -> None:
    decided = MODEL.classify(view("GET", "/users/1"))
    assert decided.source is Source.LOCAL
    assert 1 / 3 <= decided.confidence <= 0.999
    assert not decided.provisional


def test_probabilities_add_up() -> None:
    assert sum(MODEL.probabilities(view("GET", "/users/1")).values()) == pytest.approx(1)


def test_the_threshold_lies_between_guessing_and_certainty() -> None:
    assert 0.34 < MODEL.min_confidence < 0.999


def test_the_reason_names_the_protocol_and_what_weighed() -> None:
    reason = MODEL.classify(
        view("POST", "/", "SELECT a, sum(b) FROM t GROUP BY a", "text/plain")
    ).reason
    assert reason.startswith("SQL:")


def test_the_reason_never_holds_payload_text() -> None:
    secret = "xqzzyplugh"
    for asked in (
        view("POST", f"/{secret}/{secret}s", {secret: secret, "action": secret}),
        view(
            "POST", "/", f"SELECT {secret} FROM {secret} WHERE {secret} = '{secret}'", "text/plain"
        ),
        view("POST", "/graphql", {"query": f"{{ {secret}(id: 1) {{ {secret} }} }}"}),
    ):
        assert secret not in MODEL.classify(asked).reason


def test_the_reason_is_one_short_line() -> None:
    reason = MODEL.classify(view("GET", "/api/users?page=2")).reason
    assert re.fullmatch(r"[^\n]{5,200}", reason)


@pytest.mark.parametrize(
    "unit", ["{", "[", "(", '"', "<", "{a(", '{"a":', "<a>", "PREFIX ", "%", "é", "\0"]
)
@pytest.mark.parametrize(
    "media", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_64_kb_of_anything_is_answered(unit: str, media: str) -> None:
    body = (unit * MANY)[:MANY]
    for path in ("/graphql", f"/x?query={body[:4000]}"):
        assert MODEL.classify(view("POST", path, body, media)).label in LABELS


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00", b'{"a": \xc3\x28}', b'{"limit": 1e999, "n": NaN}', b"[" * 150 + b"]" * 150],
)
def test_broken_encodings_and_numbers_are_answered(body: bytes) -> None:
    asked = RequestView("POST", "/%zz%f/%", "application/json", (), body, len(body))
    assert MODEL.classify(asked).label in LABELS


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "POST", "PROPFIND", "", "é"]),
    path=st.text(max_size=300),
    media=st.sampled_from(
        ["", "application/json", "text/xml", "multipart/form-data", "text/plain"]
    ),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["x-amz-target", "soapaction", "depth", "prefer"]), st.text(max_size=30)
        ),
        max_size=3,
    ),
    body=st.binary(max_size=3000),
)
def test_no_request_makes_it_raise(
    method: str, path: str, media: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    asked = RequestView(method, path, media, tuple(headers), body, -1)
    decided = MODEL.classify(asked)
    assert 0 <= decided.confidence <= 0.999


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    body=st.dictionaries(
        st.sampled_from(
            ["query", "variables", "method", "params", "messages", "input", "limit", "filter",
             "aggs", "pipeline", "action", "args", "statements", "id", "requests", "data", "size"]
        ),
        JSON,
        max_size=6,
    )
)  # fmt: skip
def test_no_json_makes_it_raise(body: dict[str, object]) -> None:
    assert MODEL.classify(view("POST", "/api", body)).label in LABELS


def test_a_broken_artifact_is_refused() -> None:
    for text in ("", "{}", "[]", '{"scale": 1, "labels": ["no-such-label"]}'):
        with pytest.raises(ValueError, match=r"artifact|label|Expecting"):
            LocalModel.parse(text)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_training_gives_the_packaged_artifact() -> None:
    train = pytest.importorskip("classifier.training.train")
    rows = pytest.importorskip("classifier.training.rows")
    assert train.artifact(rows.read_rows()) == train.ARTIFACT.read_text(encoding="utf-8")
