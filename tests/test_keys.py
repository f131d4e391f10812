"""Keys of requests: equal exactly when the classifier would see the same request."""

from hypothesis import given
from hypothesis import strategies as st

from classifier.contracts import RequestView
from classifier.keys import MAX_PLAIN_BYTES, head_key, with_body

# Few letters, among them all that a key is put together with: what can be confused, will be.
tricky = st.text("\0\n:, 01a", max_size=4).map(str.encode)
fields = st.lists(st.tuples(tricky, tricky), max_size=3).map(sorted)
requests = st.tuples(tricky, tricky, tricky, fields, tricky, st.integers(-1, 2))
octets = st.binary(max_size=40) | st.binary(min_size=300, max_size=400)


def key(request) -> bytes:
    *head, body, body_bytes = request
    return with_body(head_key(*head), body, body_bytes)


def text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")


def same(request) -> tuple:
    """A request as its key sees it."""
    method, *rest = request
    return (method.upper(), *rest)


@given(requests, requests)
def test_two_requests_share_a_key_only_if_they_are_the_same(one, other) -> None:
    assert (same(one) == same(other)) == (key(one) == key(other))


@given(octets, octets, st.lists(st.tuples(octets, octets), max_size=3), octets)
def test_bytes_and_the_view_of_them_have_one_key(target, media, semantic, body) -> None:
    view = RequestView(
        method="POST",
        path=text(target),
        content_type=text(media),
        headers=tuple(sorted((text(name), text(value)) for name, value in semantic)),
        body=body,
        body_bytes=len(body),
    )

    head = head_key(b"post", target, media, semantic)

    assert view.fingerprint() == with_body(head, memoryview(body), len(body))


def test_a_short_request_is_its_own_key_in_every_process() -> None:
    head = head_key(b"GET", b"/users?id=7", b"", ((b"accept", b"*/*"),))

    assert head == with_body(head, b"", 0) == b"GET\0/users?id=7\0\0accept\0*/*"
    assert with_body(head, b"{}", 2) == head + b"\n2\n{}"
    assert with_body(head, b"", -1) == head + b"\n-1\n"


def test_the_key_of_a_long_request_is_short_and_the_same_in_every_process() -> None:
    long = b"/" + b"x" * MAX_PLAIN_BYTES
    head, short = head_key(b"GET", long, b"", ()), head_key(b"GET", b"/", b"", ())

    keys = {head, with_body(head, long, -1), with_body(short, long, len(long))}

    assert {len(one) for one in keys} == {33}
    assert len(keys) == 3
    assert head.hex().startswith("0a167be0dd28b99c")


def test_text_that_no_request_can_hold_has_a_key_as_well() -> None:
    one, other = RequestView("GET", "/\ud800"), RequestView("GET", "/\ud801")

    assert one.fingerprint() != other.fingerprint()
