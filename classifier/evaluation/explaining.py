"""`classifier explain`: why one request has its label."""

import time
from collections.abc import Iterator
from typing import Final

from classifier.client import ClassifierClient, ClassifierError
from classifier.contracts import ExplainResponse, RequestView, Source
from classifier.evaluation.samples import BadInputError, Sample
from classifier.labels_file import read_labels_file
from classifier.local_model import LocalModel
from classifier.policy import Policy
from classifier.redaction import shown_path
from classifier.settings import ClassifierSettings
from classifier.shape import shown_key

_CALL_SECONDS: Final = 60.0
_BAR_CHARS: Final = 30


def ask_here(settings: ClassifierSettings, sample: Sample) -> ExplainResponse:
    """The explanation of a service with these settings, but for the LLM.

    Raises:
        SettingsError: If the labels file cannot be used.
    """
    policy = Policy.of(read_labels_file(settings.labels_file))
    model = LocalModel.load()
    least = settings.local_min_confidence
    began = time.perf_counter()
    opinion = model.explain(sample.view)
    own = policy.ordered(sample.facts) or policy.exemplified(sample.view)
    return ExplainResponse.from_decisions(
        own or opinion.local,
        opinion,
        min_confidence=policy.min_confidence(
            opinion.local.label, model.min_confidence if least is None else least
        ),
        shape=shown_key(sample.view),
        latency_ms=round((time.perf_counter() - began) * 1000, 3),
    )


async def ask_service(url: str, view: RequestView) -> ExplainResponse:
    """The explanation of a running service, its LLM included; it is sent no header but a few.

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
    yield f"shape       {answer.shape or 'none: only equal requests share its label'}"
    yield f"probabilities of the model (below {answer.min_confidence:g} an LLM is worth asking):"
    width = max(map(len, answer.probabilities))
    for label, share in answer.probabilities.items():
        yield f"  {label:{width}}  {share:.3f}  {'#' * round(share * _BAR_CHARS)}".rstrip()
    yield f"what weighed most for {answer.local_label} (log-odds):"
    for one in answer.features:
        yield f"  {one.weight:+.2f}  {one.feature}"
