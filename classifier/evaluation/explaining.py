"""`classifier explain`: why one request has its label."""

import time
from collections.abc import Iterator
from typing import Final

from classifier.client import ClassifierClient, ClassifierError
from classifier.contracts import ExplainResponse, RequestView, Source
from classifier.evaluation.samples import BadInputError
from classifier.local_model import LocalModel
from classifier.redaction import shown_path

_CALL_SECONDS: Final = 60.0
_BAR_CHARS: Final = 30


def ask_model(model: LocalModel, view: RequestView) -> ExplainResponse:
    """The embedded model's explanation, as a service without an LLM gives it."""
    began = time.perf_counter()
    opinion = model.explain(view)
    return ExplainResponse.from_decisions(
        opinion.local,
        opinion,
        min_confidence=model.min_confidence,
        latency_ms=round((time.perf_counter() - began) * 1000, 3),
    )


async def ask_service(url: str, view: RequestView) -> ExplainResponse:
    """The explanation of a running service, its LLM included.

    Raises:
        BadInputError: If it gives none.
    """
    client = ClassifierClient(url, timeout_seconds=_CALL_SECONDS, max_connections=1)
    async with client:
        try:
            return await client.explain(view)
        except ClassifierError as exc:
            msg = f"{url}: the classifier gives no answer ({exc.reason})"
            raise BadInputError(msg) from exc


def as_text(view: RequestView, answer: ExplainResponse) -> Iterator[str]:
    """The explanation, for people; of the request, only what may be shown."""
    yield f"{view.method} {shown_path(view.path)}"
    cached = ", cached" if answer.cached else ""
    yield f"label       {answer.label}"
    yield f"confidence  {answer.confidence:.3f} ({answer.source}{cached})"
    yield f"reason      {answer.reason_code}: {answer.reasoning}"
    if answer.source is not Source.LOCAL:
        reason = f"{answer.local_reason_code}: {answer.local_reasoning}"
        yield f"the model   {answer.local_label}, {reason}"
    yield f"probabilities of the model (below {answer.min_confidence:g} an LLM is worth asking):"
    width = max(map(len, answer.probabilities))
    for label, share in answer.probabilities.items():
        yield f"  {label:{width}}  {share:.3f}  {'#' * round(share * _BAR_CHARS)}".rstrip()
    yield f"what weighed most for {answer.local_label} (log-odds):"
    for one in answer.features:
        yield f"  {one.weight:+.2f}  {one.feature}"
