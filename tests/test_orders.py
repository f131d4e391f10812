"""Standing orders: what the operator has decided beforehand, and who may force a label."""

import pytest

from addons.forwarding import Peer
from addons.orders import StandingOrders
from addons.routing import UNKNOWN_LABEL
from classifier.contracts import LABELS, Classification, Label, ReasonCode, RequestView, Source
from classifier.labels_file import parse_labels_file

FILE = parse_labels_file(b"""
[labels.reports]
pool = "http://localhost:9004"
[[rules]]
name = "tenants"
label = "reports"
header = { X-Tenant = "big-*" }
""")
VIEW = RequestView("GET", "/")
TRUSTED, STRANGER = Peer("10.1.2.3", "http"), Peer("192.0.2.1", "http")
BIG = (b"X-Tenant", b"big-one")


def orders(sources: str = "10.0.0.0/8, ::1") -> StandingOrders:
    made = StandingOrders()
    made.take_over(FILE.labels, FILE.rules, sources)
    return made


def force(*labels: bytes):
    return [(b"X-SLB-Force-Label", label) for label in labels]


def test_without_rules_and_sources_nothing_is_given() -> None:
    none = StandingOrders()
    assert not none.given

    none.take_over(LABELS, (), "")
    assert not none.given
    assert none.decide(VIEW, force(b"general"), TRUSTED) is None


def test_without_routing_all_that_nothing_else_decides_is_general() -> None:
    off = StandingOrders()
    assert off.blanket is None

    off.take_over(FILE.labels, FILE.rules, "", routing=False)
    assert off.blanket == Classification(
        Label.GENERAL, 1.0, Source.OVERRIDE, "routing is off", code=ReasonCode.OVERRIDE
    )
    assert off.decide(VIEW, [BIG], STRANGER).label == "reports"

    off.take_over(FILE.labels, FILE.rules, "")
    assert off.blanket is None


def test_a_rule_decides_with_certainty_and_its_name_is_the_reason() -> None:
    assert orders().decide(VIEW, [BIG], STRANGER) == Classification(
        Label("reports"), 1.0, Source.RULE, "rule tenants", code=ReasonCode.RULE
    )
    assert orders().decide(VIEW, [], STRANGER) is None


@pytest.mark.parametrize("label", [*LABELS, "reports"])
def test_a_trusted_client_forces_any_label_there_is(label) -> None:
    decided = orders().decide(VIEW, [BIG, *force(label.encode())], TRUSTED)

    assert (decided.label, decided.source, decided.confidence) == (label, Source.OVERRIDE, 1.0)
    assert decided.code is ReasonCode.OVERRIDE


@pytest.mark.parametrize(
    "labels", [(b"nonsense",), (b"",), (b"General",), (b"general", b"general"), (b"\xff",)]
)
def test_a_trusted_client_that_forces_no_label_there_is_is_refused(labels) -> None:
    assert orders().decide(VIEW, force(*labels), TRUSTED) is UNKNOWN_LABEL


@pytest.mark.parametrize("labels", [(b"general",), (b"nonsense",), (b"a", b"b")])
def test_from_anybody_else_the_header_is_as_if_it_were_not_there(labels) -> None:
    assert orders().decide(VIEW, force(*labels), STRANGER) is None
    assert orders().decide(VIEW, [BIG, *force(*labels)], STRANGER).source is Source.RULE
    assert orders("").decide(VIEW, force(*labels), TRUSTED) is None


def test_the_other_end_of_the_connection_counts_and_no_header() -> None:
    claims = [(b"X-Forwarded-For", b"10.1.2.3"), (b"X-Real-IP", b"10.1.2.3")]
    behind_a_proxy = Peer("192.0.2.1", "http", trusted=True)

    assert orders().decide(VIEW, [*claims, *force(b"general")], behind_a_proxy) is None


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1", "::1", "10.9.9.9"])
def test_sources_are_networks_of_either_kind(address) -> None:
    assert orders().decide(VIEW, force(b"general"), Peer(address, "http")) is not None


def test_trust_that_is_withdrawn_ends_at_once() -> None:
    given = orders()
    assert given.decide(VIEW, force(b"general"), TRUSTED) is not None

    given.take_over(FILE.labels, FILE.rules, "172.16.0.0/12")

    assert given.decide(VIEW, force(b"general"), TRUSTED) is None


def test_who_has_no_peer_is_judged_by_rules_alone() -> None:
    assert orders().by_rule(VIEW, [BIG, *force(b"general")]).source is Source.RULE
