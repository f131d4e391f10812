"""How sure an LLM is, by the probabilities of its tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.contracts import LABELS, Label
from classifier.label_odds import Token, label_share

HIGH = Label.HIGH_COMPUTE


def token(text: str) -> Token:
    return Token(text, {text: 0.0})


def test_the_share_is_that_of_the_label_among_all_labels() -> None:
    tokens = [
        token('{"label":"'),
        Token("high", {"high": math.log(0.5), "gen": math.log(0.3), "!": math.log(0.2)}),
        token('-compute"'),
    ]

    assert label_share(tokens, HIGH, LABELS) == pytest.approx(0.5 / 0.8)


def test_a_token_may_hold_the_quote_before_the_label_and_what_follows_it() -> None:
    tokens = [
        token('{"label": '),
        Token('"high', {'"high': math.log(0.4), '"general",': math.log(0.4), "null": -1.0}),
        token('-compute", "confidence"'),
    ]

    assert label_share(tokens, HIGH, LABELS) == pytest.approx(0.5)


def test_labels_that_begin_alike_are_followed_until_they_part() -> None:
    labels = (*LABELS, Label("high-memory"), Label("high"))
    tokens = [
        token('{"label": "'),
        Token("high", {"high": math.log(0.8), "general": math.log(0.2)}),
        Token("-", {"-": math.log(0.5), '"': math.log(0.5)}),
        Token("compute", {"compute": math.log(0.25), "memory": math.log(0.75)}),
    ]

    assert label_share(tokens, HIGH, labels) == pytest.approx(0.8 * 0.5 * 0.25)
    assert label_share(tokens, Label("high-memory"), labels) == pytest.approx(0.8 * 0.5 * 0.75)
    assert label_share(tokens, Label("high"), labels) == pytest.approx(0.8 * 0.5)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [token("fast-path")],
        [token('{"label": "'), Token("high", {})],
        [token('{"label": "'), Token("high", {"general": 0.0})],
        [token('{"label": "'), Token("high", {"high": float("nan")})],
        [token('{"label": "'), Token("", {"": 0.0})],
    ],
)
def test_tokens_that_do_not_tell_give_no_share(tokens) -> None:
    assert label_share(tokens, HIGH, LABELS) is None


PIECES = st.sampled_from(['{"label"', ": ", '"', "fast", "-", "path", "high", "compute", "x", ""])
TOKENS = st.lists(
    st.builds(Token, PIECES, st.dictionaries(PIECES, st.floats())),
    max_size=12,
)


@given(TOKENS, st.sampled_from(LABELS))
def test_whatever_a_backend_tells_the_share_is_a_share(tokens, label) -> None:
    share = label_share(tokens, label, LABELS)

    assert share is None or 0 < share <= 1.0000001
