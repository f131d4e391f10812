"""Flows that mitmproxy itself sends again: they too go to a worker of their label's pool.

A replay takes mitmproxy's own way to the worker; only the choice of the worker is ours.
"""

import time
from dataclasses import dataclass, field

from mitmproxy import http

from addons import flowview
from addons.accounting import Active, Failure, Ledger
from addons.admission import Admission
from addons.exchange import Labels
from addons.health import Outcome
from addons.orders import StandingOrders
from addons.routing import Rejection


@dataclass
class Replays:
    """Replays under way, by flow id."""

    ledger: Ledger
    orders: StandingOrders
    _active: dict[str, Active] = field(default_factory=dict)

    async def route(
        self, flow: http.HTTPFlow, labels: Labels, admission: Admission, max_body_bytes: int
    ) -> None:
        """Give a replay a worker, or an answer if there is none.

        Args:
            flow: The replay.
            labels: Says what it is.
            admission: The door to the pools.
            max_body_bytes: How much of its body the classifier reads.
        """
        arrived = time.monotonic()
        view = flowview.view_of(flow.request, max_body_bytes)
        fields = list(flow.request.headers.fields)
        ordered = self.orders.by_rule(view, fields) if self.orders.given else None
        decided = ordered or self.orders.blanket or await labels.classify(view)
        lease = await admission.lease(decided.label)
        if isinstance(lease, Rejection):
            flowview.reject(flow, lease)
            return
        data = flow.request.data
        active = self._active[flow.id] = self.ledger.open(data.method, data.path, decided, arrived)
        active.lease = lease
        flowview.address(flow, decided, lease.worker)
        flowview.show_decision(flow, decided, lease.worker)

    def end(self, flow: http.HTTPFlow, failure: Failure | None = None) -> None:
        """Account for a flow that was answered, or failed; others than replays are ignored."""
        active = self._active.pop(flow.id, None)
        if active is None:
            return
        status = None if failure or flow.response is None else flow.response.status_code
        if active.lease is not None:
            active.lease.release(_outcome(status, failure))
        self.ledger.close(active, status, failure)


def _outcome(status: int | None, failure: Failure | None) -> Outcome:
    if failure is not None:
        return Outcome.RESPONSE_FAILED
    return Outcome.SERVER_ERROR if status is not None and status >= 500 else Outcome.OK  # noqa: PLR2004
