"""The classifier's public face: what goes over the wire and what it becomes."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from classifier.contracts import (
    Classification,
    ClassifyRequest,
    ClassifyResponse,
    Label,
    RequestView,
    Source,
    semantic_headers,
)

views = st.builds(
    RequestView,
    method=st.sampled_from(["GET", "POST", "PROPFIND"]),
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    content_type=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    headers=st.sampled_from([(), (("depth", "1"),), (("accept", "a"), ("range", "b"))]),
    body=st.binary(max_size=200),
    body_bytes=st.integers(-1, 10**9),
)


@given(views)
def test_a_view_survives_the_wire(view) -> None:
    sent = ClassifyRequest.from_view(view, deadline_ms=50).model_dump_json(exclude_none=True)

    assert ClassifyRequest.model_validate_json(sent).view() == view


@given(views, views)
def test_only_equal_views_have_equal_fingerprints(one, other) -> None:
    assert (one == other) == (one.fingerprint() == other.fingerprint())


@pytest.mark.parametrize(
    ("payload", "body", "content_type"),
    [
        ({"a": [1]}, b'{"a":[1]}', "application/json"),
        ([1, 2], b"[1,2]", "application/json"),
        ("SELECT 1", b"SELECT 1", ""),
        ("", b"", ""),
        (7, b"7", "application/json"),
    ],
)
def test_a_bare_payload_is_enough(payload, body, content_type) -> None:
    view = ClassifyRequest.model_validate({"payload": payload}).view()

    assert (view.method, view.path, view.body, view.content_type) == (
        "POST",
        "/",
        body,
        content_type,
    )
    assert view.body_bytes == len(body)


def test_a_binary_payload_comes_in_base64() -> None:
    encoded = base64.b64encode(b"\x00\xff").decode()

    assert ClassifyRequest(payload_base64=encoded).view().body == b"\x00\xff"


@pytest.mark.parametrize(
    ("question", "fault"),
    [
        ({"payload_base64": "%%%"}, "not valid base64"),
        ({"payload": 1, "payload_base64": "aGk="}, "not both"),
        ({"deadline_ms": 0}, "deadline_ms"),
    ],
)
def test_a_bad_question_is_refused_with_its_fault(question, fault) -> None:
    with pytest.raises(ValidationError, match=fault):
        ClassifyRequest.model_validate(question)


def test_a_fallback_is_no_answer() -> None:
    with pytest.raises(ValueError, match="no answer"):
        ClassifyResponse.from_classification(
            Classification(Label.GENERAL, 0.0, Source.FALLBACK, "timeout"), 1.0
        )


def test_fields_of_a_later_version_are_ignored() -> None:
    assert ClassifyRequest.model_validate({"payload": "x", "later": 1}).view().body == b"x"


def test_a_classification_survives_the_wire() -> None:
    decided = Classification(Label.HIGH_COMPUTE, 0.5, Source.LLM, "why", provisional=True)
    sent = ClassifyResponse.from_classification(decided, 1.5).model_dump_json()

    assert json.loads(sent)["label"] == "high-compute"
    assert ClassifyResponse.model_validate_json(sent).classification() == decided


def test_only_headers_with_meaning_reach_the_classifier() -> None:
    headers = [("Authorization", "x"), ("Depth", "1"), ("Cookie", "y"), ("ACCEPT", "z")]

    assert semantic_headers(headers) == (("accept", "z"), ("depth", "1"))
