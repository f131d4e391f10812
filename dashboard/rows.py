"""Decisions as rows of the page's tail, and workers as rows of its table: text and numbers only."""

from dashboard import display
from dashboard.decisions import Decision
from dashboard.workers import WorkerFigures

type Row = dict[str, str | float | bool]

CLIENT_FAULT, SERVER_FAULT = 400, 500


def decision_row(number: int, decision: Decision) -> Row:
    """A row for `assets/tail.js`; it formats nothing but the time, which is the viewer's own."""
    return {
        "number": number,
        "time": decision.time,
        "method": decision.method,
        "path": decision.path,
        "label": decision.label,
        "source": decision.source,
        "cached": decision.cached,
        "confidence": _confidence(decision),
        "reason": decision.reason,
        "worker": decision.worker or display.UNKNOWN,
        "status": _status(decision),
        "fault": _fault(decision.status),
        "classify": _milliseconds(decision.classify_ms),
        "total": _milliseconds(decision.total_ms),
        "pool": decision.pool or display.UNKNOWN,
        "id": decision.id,
    }


def worker_row(worker: WorkerFigures) -> Row:
    """A row of the workers table."""
    return {
        "key": f"{worker.pool} {worker.name}",
        "pool": worker.pool,
        "worker": worker.name,
        "inflight": worker.inflight,
        "per_second": display.rate(worker.per_second),
        "requests": worker.requests,
        "errors": worker.errors,
        "share": -1.0 if worker.share is None else round(worker.share, 4),
        "share_text": display.percent(worker.share),
    }


def _confidence(decision: Decision) -> str:
    return display.UNKNOWN if decision.confidence is None else f"{decision.confidence:.2f}"


def _status(decision: Decision) -> str:
    status = "none" if decision.status is None else str(decision.status)
    return f"{status} {decision.error}" if decision.error else status


def _fault(status: int | None) -> str:
    if status is None or status >= SERVER_FAULT:
        return "server"
    return "client" if status >= CLIENT_FAULT else ""


def _milliseconds(value: float | None) -> str:
    return display.duration(None if value is None else value / 1000)
