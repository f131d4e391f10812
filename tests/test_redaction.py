"""Nothing that could be a secret is shown or sent to the LLM."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.contracts import RequestView
from classifier.redaction import MAX_EXCERPT_CHARS, MAX_SHOWN_CHARS, excerpt, shown_path

CANARY = "cAnArY0123456789abcdefghij"


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/users/42", "/users/42"),
        ("/users?limit=50&sort=desc", "/users?limit=50&sort=desc"),
        ("/s?q=blue%20shoes", "/s?q=***"),
        ("/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "/o/3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
        ("/bucket?location", "/bucket?location"),
        ("/a\r\nb\x1b[31m", "/a??b?[31m"),
    ],
)
def test_a_shown_path_says_what_was_asked(target, shown) -> None:
    assert shown_path(target) == shown


@pytest.mark.parametrize(
    "target",
    [
        f"/login?token={CANARY}",
        f"/{CANARY}/files",
        f"/bot123456:{CANARY}/getMe",
        f"/x?{CANARY}",
        f"/x?a=1&sig={CANARY}&b=2",
    ],
)
def test_a_shown_path_holds_no_key(target) -> None:
    assert CANARY not in shown_path(target)


@given(st.text(max_size=3_000))
def test_a_shown_path_is_short_and_printable(target) -> None:
    shown = shown_path(target)

    assert len(shown) <= MAX_SHOWN_CHARS
    assert shown.isprintable() or shown == ""
    assert shown.isascii()


def view(body: str | bytes) -> RequestView:
    raw = body if isinstance(body, bytes) else body.encode()
    return RequestView("POST", "/", body=raw, body_bytes=len(raw))


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"user": "a", "password": CANARY}),
        json.dumps({"deep": {"api_key": CANARY, "clientSecret": CANARY}}),
        json.dumps({"accessToken": f'quo"te {CANARY}'}),
        '{"password" : "' + CANARY,
        f"grant_type=password&client_secret={CANARY}&x=1",
        f"<auth><Password type='t'>{CANARY}</Password></auth>",
        f"Authorization: Bearer {CANARY}",
        '{"note": "my key is sk-' + CANARY + '"}',
        f'{{"jwt": "eyJhbGciOiJIUzI1NiJ9.{CANARY}.x"}}',
    ],
)
def test_an_excerpt_holds_no_secret(body) -> None:
    assert CANARY not in excerpt(view(body))


def test_an_excerpt_keeps_what_says_the_meaning() -> None:
    body = json.dumps({"query": "query { user(id: 1) { name } }", "limit": 5})

    assert excerpt(view(body)) == body


@given(st.binary(max_size=20_000))
def test_an_excerpt_is_bounded_whatever_the_body(body) -> None:
    assert len(excerpt(view(body))) <= MAX_EXCERPT_CHARS


def test_long_strings_are_cut() -> None:
    text = excerpt(view(json.dumps({"input": "word " * 1_000, "model": "m"})))

    assert len(text) < 200
    assert text.startswith('{"input": "word word')
