"""Why a request has its label, as one code of a closed set: for all requests with a known label."""

import re
from collections import defaultdict

import pytest

from classifier.contracts import LABELS, MAX_WEIGHED_FEATURES, Label, ReasonCode, RequestView
from classifier.features.phrases import explain
from classifier.local_model import LocalModel
from classifier.training.rows import read_rows
from tests.processes import ROOT

MODEL = LocalModel.load()
DECIDED = [MODEL.classify(row.view) for row in read_rows()]
OTHERS_OR_NONE = list(ReasonCode)[list(ReasonCode).index(ReasonCode.UNCLEAR) + 1 :]
OF_THE_MODEL = [code for code in ReasonCode if code not in OTHERS_OR_NONE]
CHEAP = {"auth", "fields", "health", "lookup", "metadata", "status"}
COSTLY = {"aggregation", "bulk", "export", "inference", "job", "join", "media", "nesting", "scan"}


def test_a_cheap_reason_never_explains_a_heavy_request_nor_a_costly_one_a_light_one() -> None:
    seen = defaultdict(set)
    for decided in DECIDED:
        seen[decided.label].add(str(decided.code))

    assert not seen[Label.HIGH_COMPUTE] & CHEAP
    assert not seen[Label.FAST_PATH] & (COSTLY | {"write", "range"})
    assert not seen[Label.GENERAL] & {"health", "inference"}


@pytest.mark.parametrize("code", OF_THE_MODEL)
def test_every_code_of_the_model_occurs(code) -> None:
    assert any(decided.code is code for decided in DECIDED)


def test_nearly_every_request_has_a_telling_code() -> None:
    vague = [one for one in DECIDED if one.code in {ReasonCode.OTHER, ReasonCode.UNCLEAR}]

    assert len(vague) < 0.05 * len(DECIDED)


def test_the_model_gives_no_code_of_another_source() -> None:
    assert not {decided.code for decided in DECIDED} & set(OTHERS_OR_NONE)


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("GET", "/healthz", "", "health"),
        ("GET", "/users/42", "", "lookup"),
        ("GET", "/users?page=2&per_page=20", "", "list"),
        ("GET", "/exports/17/status", "", "status"),
        ("POST", "/users", '{"name": "x"}', "write"),
        ("POST", "/auth/login", '{"user": "x", "password": "y"}', "auth"),
        ("POST", "/", "SELECT a, count(*) FROM t GROUP BY a", "aggregation"),
        ("POST", "/v1/embeddings", '{"model": "m", "input": ["a", "b"]}', "inference"),
        ("POST", "/exports", '{"format": "csv", "source": "orders"}', "export"),
    ],
)
def test_plain_cases_have_the_code_that_one_would_give_them(method, path, body, code) -> None:
    media = "application/json" if body.startswith("{") else "text/plain" if body else ""
    view = RequestView(method, path, media, (), body.encode(), len(body))

    assert MODEL.classify(view).code == code


def test_a_request_without_a_known_feature_is_unclear() -> None:
    sentence, code = explain({}, [], Label.GENERAL)

    assert code is ReasonCode.UNCLEAR
    assert sentence == "A request, nothing that stands out"


def test_an_operators_own_label_may_have_any_reason() -> None:
    assert explain({}, ["q=agg-all"], Label("reports")).code is ReasonCode.AGGREGATION
    assert explain({}, ["q=agg-all"], Label.FAST_PATH).code is ReasonCode.UNCLEAR


def test_what_weighed_are_few_features_of_the_model_the_heaviest_first() -> None:
    for decided in DECIDED:
        weights = [weight for _, weight in decided.weighed]
        assert len(weights) <= 3
        assert weights == sorted(weights, reverse=True)
        assert all(weight > 0 for weight in weights)
        assert all(name in MODEL.weights for name, _ in decided.weighed)


def test_an_explanation_is_the_decision_with_more_features_and_all_probabilities() -> None:
    view = RequestView("GET", "/users/42")
    decided, told = MODEL.classify(view), MODEL.explain(view)

    assert told.local.weighed[:3] == decided.weighed
    assert 3 < len(told.local.weighed) <= MAX_WEIGHED_FEATURES
    assert (told.local.label, told.local.code, told.local.reason) == (
        decided.label,
        decided.code,
        decided.reason,
    )
    assert list(told.probabilities) == list(LABELS)
    assert sum(told.probabilities.values()) == pytest.approx(1)
    assert max(told.probabilities, key=told.probabilities.__getitem__) == decided.label


def test_the_readme_explains_every_code() -> None:
    section = (ROOT / "README.md").read_text("utf-8").partition("### Why a label")[2]
    table = section.partition("\n## ")[0]

    assert set(re.findall(r"`([a-z_]+)`", table)) >= {str(code) for code in ReasonCode}
