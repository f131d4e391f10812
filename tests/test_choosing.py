"""Which requests become flows."""

import pytest

from addons.choosing import Choice
from addons.forwarding import Peer, parse_networks
from addons.http1 import RequestHead, parse_request_head

CLIENT = Peer("10.1.2.3", "http")
STRANGER = Peer("192.0.2.1", "http")
OURS = parse_networks("10.0.0.0/8")


def fits_all(*_) -> bool:
    return True


def fits_nothing(*_) -> bool:
    return False


def head(*lines: str, path: str = "/x") -> RequestHead:
    text = "\r\n".join([f"GET {path} HTTP/1.1", "Host: a.test", *lines])
    return parse_request_head(text.encode(), 100)


def test_all_and_off_ask_for_nothing_else() -> None:
    choice = Choice()
    assert choice.wanted(head(), CLIENT)
    for mode, wanted in (("all", True), ("off", False)):
        choice.take_over(mode, fits_nothing if wanted else fits_all, 0 if wanted else 100, OURS)

        assert choice.wanted(head("x-slb-inspect: 1"), CLIENT) is wanted
        assert not choice.chooses_nothing


def test_matching_without_anything_to_match_chooses_nothing_and_says_so() -> None:
    choice = Choice()
    choice.take_over("matching")

    assert choice.chooses_nothing
    assert not choice.wanted(head("x-slb-inspect: 1"), CLIENT)


def test_a_filter_is_asked_about_head_and_peer() -> None:
    choice = Choice()
    choice.take_over("matching", lambda head, peer: head.target == b"/a" and peer is CLIENT)

    assert not choice.chooses_nothing
    assert choice.wanted(head(path="/a"), CLIENT)
    assert not choice.wanted(head(path="/b"), CLIENT)
    assert not choice.wanted(head(path="/a"), STRANGER)


@pytest.mark.parametrize(
    ("percent", "chosen"), [(0, 0), (0.5, 5), (12.5, 125), (99.5, 995), (100, 1_000)]
)
def test_a_share_is_chosen_by_chance(percent, chosen) -> None:
    numbers = iter(range(1_000))
    choice = Choice(lambda: next(numbers) / 1_000)
    choice.take_over("matching", percent=percent)

    assert sum(choice.wanted(head(), CLIENT) for _ in range(1_000)) == chosen


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (["x-slb-inspect: 1"], True),
        (["X-SLB-Inspect: 1"], True),
        (["x-slb-inspect: 0"], False),
        (["x-slb-inspect: true"], False),
        (["x-slb-inspect:"], False),
        (["x-slb-inspect: 1", "x-slb-inspect: 1"], False),
        (["x-inspect: 1"], False),
        ([], False),
    ],
)
def test_a_trusted_client_asks_by_its_header(lines, chosen) -> None:
    choice = Choice()
    choice.take_over("matching", networks=OURS)

    assert choice.wanted(head(*lines), CLIENT) is chosen


def test_from_anybody_else_the_header_is_as_if_absent() -> None:
    choice = Choice()
    choice.take_over("matching", networks=OURS)
    asking = head("x-slb-inspect: 1", "X-Forwarded-For: 10.1.2.3")

    assert not choice.wanted(asking, STRANGER)


def test_trust_that_is_withdrawn_counts_at_once() -> None:
    choice = Choice()
    asking = head("x-slb-inspect: 1")
    choice.take_over("matching", networks=OURS)
    assert choice.wanted(asking, CLIENT)

    choice.take_over("matching", networks=parse_networks("192.0.2.0/24"))

    assert not choice.wanted(asking, CLIENT)
    assert choice.wanted(asking, STRANGER)


def test_one_reason_is_enough() -> None:
    choice = Choice(lambda: 0.99)
    choice.take_over("matching", lambda head, _: head.target == b"/a", 1, OURS)

    assert choice.wanted(head(path="/a"), STRANGER)
    assert choice.wanted(head("x-slb-inspect: 1"), CLIENT)
    assert not choice.wanted(head(), CLIENT)
