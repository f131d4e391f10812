"""The proxy before one recording worker, for tests with hostile clients."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import processes, wire
from tests.malformed import Row
from tests.processes import LABELS
from tests.servers import Classifier, serving

LEAKS = ("mitm", "traceback", "127.0.0.1", "unrouted", ".py", "addons", "asyncio", "error:", "exc")
"""Of what no error page may speak."""


@dataclass
class Site:
    """The proxy, and the worker that serves all its pools.

    Attributes:
        accepted: How many requests were answered with 200 so far.
    """

    proxy: processes.Proxy
    worker: wire.Recorder
    accepted: int = 0

    @property
    def port(self) -> int:
        return self.proxy.port

    @property
    def pid(self) -> int:
        return self.proxy.started.process.pid

    def converse(self, request: bytes, *, tls: bool = False) -> list[wire.Answer]:
        """Send bytes; return the answers, having compared them with what the worker saw."""
        before = len(self.worker.requests)
        answers = wire.converse(self.port, request, tls=tls)
        served = sum(answer.status == 200 for answer in answers)
        self.accepted += served
        # One row's complaints are not the next one's.
        complaints, self.worker.complaints = self.worker.complaints, []
        assert complaints == []
        assert len(self.worker.requests) - before == served, self.worker.requests[before:]
        return answers

    def served(self, request: bytes) -> wire.Seen:
        """What the worker saw of a request that is served."""
        before = len(self.worker.requests)
        assert self.converse(request)[0].status == 200
        return self.worker.requests[before]


@contextmanager
def site(
    folder: Path,
    *flags: str,
    classifier_url: str = "",
    program: str | None = None,
    **settings: object,
) -> Iterator[Site]:
    """A site whose classifier says fast-path to everything, unless another one is given."""
    with wire.recording() as worker, serving(Classifier().app()) as url:
        pools = processes.pool_variables({label: [worker.port] for label in LABELS})
        settings = {"CLASSIFIER_URL": classifier_url or url, **pools, **settings}
        with processes.proxy(folder, *flags, program=program, **settings) as proxy:
            yield Site(proxy, worker)


def is_honest(answer: wire.Answer) -> bool:
    """Whether an error says what it has to, as JSON, and nothing about our insides."""
    error = json.loads(answer.body)["error"]
    return (
        set(error) == {"code", "message"}
        and answer.fields["content-type"] == "application/json"
        and not [word for word in LEAKS if word in answer.text.lower()]
    )


def check(site: Site, row: Row, *, tls: bool = False) -> None:
    """Put a row of the table to the site: its answers are allowed, in time, and honest."""
    answers = site.converse(row.request, tls=tls)

    statuses = [answer.status for answer in answers]
    assert set(statuses) <= row.allowed | {200}, row.name
    assert statuses[0] in row.allowed, (row.name, statuses)
    assert max(answer.seconds for answer in answers) < 1, row.name
    for refusal in (answer for answer in answers if answer.status >= 400):
        assert refusal.last, row.name
        assert is_honest(refusal), row.name
