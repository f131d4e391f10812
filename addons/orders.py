"""What an operator has ordered beforehand: labels forced by trusted clients, rules, or no routing.

Invariant: only what the operator's settings allow decides here. A header from anybody else is as
if it were not there, and no worker ever sees it: its name is reserved.
"""

from collections.abc import Iterable

from addons.forwarding import Network, Peer, is_trusted, parse_networks
from addons.http1 import Fields
from addons.routing import FORCE_LABEL_HEADER, UNKNOWN_LABEL, Rejection
from classifier.contracts import LABELS, Classification, Label, ReasonCode, RequestView, Source
from classifier.rules import RequestFacts, Rule, first_match

_ROUTING_IS_OFF = Classification(
    Label.GENERAL, 1.0, Source.OVERRIDE, "routing is off", code=ReasonCode.OVERRIDE
)
_FORCE_LABEL = FORCE_LABEL_HEADER.encode()
NOBODY = Peer("", "http")


class StandingOrders:
    """The orders in force; one for the life of the process, settings come by `take_over`.

    Attributes:
        given: Whether there are orders that have to be looked at for each request.
        blanket: What is decided of all other requests without asking; None while routing is on.
    """

    def __init__(self) -> None:
        """No orders yet."""
        self.take_over(LABELS, (), "")

    def take_over(
        self,
        labels: Iterable[Label],
        rules: tuple[Rule, ...],
        override_sources: str,
        *,
        routing: bool = True,
    ) -> None:
        """Obey these from now on.

        Args:
            labels: All that there are.
            rules: In order; the first that fits decides.
            override_sources: Addresses and networks whose clients may force a label.
            routing: Whether labels are asked for at all.
        """
        self._labels = {label.encode(): label for label in labels}
        self._rules = rules
        self._networks: tuple[Network, ...] = parse_networks(override_sources)
        self.blanket = None if routing else _ROUTING_IS_OFF
        self.given = bool(self._rules or self._networks)

    def decide(
        self, view: RequestView, fields: Fields, peer: Peer
    ) -> Classification | Rejection | None:
        """What the orders say of a request; None if nothing.

        Args:
            view: The request, as the classifier would see it.
            fields: All its header fields.
            peer: Who has connected: the other end of the connection, whatever headers say.
        """
        if self._networks and (forced := self._forced(fields, peer)) is not None:
            return forced
        return self.by_rule(view, fields, peer)

    def by_rule(
        self, view: RequestView, fields: Fields, peer: Peer = NOBODY
    ) -> Classification | None:
        """What the rules say of a request; None if nothing."""
        if not self._rules:
            return None
        facts = RequestFacts(
            method=view.method,
            path=view.path,
            headers=tuple(_texts(fields)),
            body=view.body,
            scheme=peer.scheme,
            peer=peer.address,
        )
        rule = first_match(self._rules, facts)
        if rule is None:
            return None
        return _ordered(rule.label, Source.RULE, f"rule {rule.name}", ReasonCode.RULE)

    def _forced(self, fields: Fields, peer: Peer) -> Classification | Rejection | None:
        values = [value for name, value in fields if name.lower() == _FORCE_LABEL]
        # Asked for each request, not once per connection: trust can be withdrawn.
        if not values or not is_trusted(peer.address, self._networks):
            return None
        label = self._labels.get(values[0].strip()) if len(values) == 1 else None
        if label is None:
            return UNKNOWN_LABEL
        return _ordered(label, Source.OVERRIDE, "forced by a trusted client", ReasonCode.OVERRIDE)


def _ordered(label: Label, source: Source, reason: str, code: ReasonCode) -> Classification:
    return Classification(label, 1.0, source, reason, code=code)


def _texts(fields: Fields) -> Iterable[tuple[str, str]]:
    for name, value in fields:
        yield name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")
