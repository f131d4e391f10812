"""Whom to ask for labels: the embedded model, a running service, or a cascade in this process.

Every source answers every question: where the service fails, `general` stands in, as in the proxy.
"""

import abc
import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, override

from classifier.client import ClassifierClient, ClassifierError
from classifier.configuration import http_url, load
from classifier.contracts import Classification, Label, ReasonCode, Source
from classifier.evaluation.samples import EMPTY, BadInputError, Sample
from classifier.labels_file import LabelsFile, read_labels_file
from classifier.local_model import LocalModel
from classifier.rules import FilterFits
from classifier.settings import ClassifierSettings

if TYPE_CHECKING:
    from classifier.engine import Engine

logger = logging.getLogger(__name__)

LOCAL: Final = "local"
SERVICE: Final = "service"
CASCADE: Final = "cascade"
RECORDED: Final = "recorded"
KINDS: Final = (
    f"{LOCAL} (the embedded model), {SERVICE} (where CLASSIFIER_HOST and CLASSIFIER_PORT say) or a"
    f" service's URL, {CASCADE} (in this process, with LABELS_FILE and the LLM), a .env file (a"
    f" cascade with its settings), {RECORDED} (what flows say was decided)"
)
CALL_SECONDS: Final = 120.0
READY_SECONDS: Final = 120.0
SETTLE_SECONDS: Final = 30.0
"""How long a better answer is waited for that a service says is on its way."""
_RETRY_SECONDS: Final = 0.1


class Asked(Protocol):
    """A source of labels.

    Attributes:
        name: For people.
        remembers: Whether asking twice is not measuring twice.
    """

    name: str
    remembers: bool

    async def classify(self, sample: Sample) -> Classification:
        """Its label for a request; never raises."""
        ...

    async def settled(self, sample: Sample, first: Classification) -> Classification:
        """Its last word, after a first answer."""
        ...


@dataclass(slots=True)
class LocalSource:
    """The embedded model, in this process."""

    model: LocalModel
    name: str = LOCAL
    remembers: bool = False

    async def classify(self, sample: Sample) -> Classification:
        """Its label for a request."""
        return self.model.classify(sample.view)

    async def settled(self, sample: Sample, first: Classification) -> Classification:
        """Its first answer is its last."""
        del sample
        return first


@dataclass(slots=True)
class RecordedSource:
    """What flows say was decided when they were recorded."""

    name: str = RECORDED
    remembers: bool = False

    async def classify(self, sample: Sample) -> Classification:
        """The recorded decision; a fallback where there is none."""
        return sample.recorded or _fallback(ReasonCode.INTERNAL)

    async def settled(self, sample: Sample, first: Classification) -> Classification:
        """Its first answer is its last."""
        del sample
        return first


class Remembering:
    """Asks again for a better answer that is said to be on its way."""

    remembers = True

    @abc.abstractmethod
    async def classify(self, sample: Sample) -> Classification:
        """Its label for a request."""

    async def settled(self, sample: Sample, first: Classification) -> Classification:
        """Its label once it calls none better on its way, or after `SETTLE_SECONDS`."""
        answer = first
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                while answer.provisional:
                    await asyncio.sleep(_RETRY_SECONDS)
                    answer = await self.classify(sample)
        return answer


class ServiceSource(Remembering):
    """A running classifier service; like the proxy, it is not shown what only rules may see."""

    def __init__(self, client: ClassifierClient, name: str) -> None:
        """Asks through `client`, which others close."""
        self.client = client
        self.name = name

    @override
    async def classify(self, sample: Sample) -> Classification:
        try:
            return await self.client.classify(sample.view)
        except ClassifierError as exc:
            return _fallback(ReasonCode(exc.reason))


class CascadeSource(Remembering):
    """The engine of a service, in this process: an operator's rules, examples, model, LLM."""

    def __init__(self, engine: "Engine", name: str) -> None:
        """Asks `engine`, which others close."""
        self.engine = engine
        self.name = name

    @override
    async def classify(self, sample: Sample) -> Classification:
        return await self.engine.classify(sample.view, None, sample.facts)


def _fallback(code: ReasonCode) -> Classification:
    return Classification(Label.GENERAL, 0.0, Source.FALLBACK, str(code), code=code)


@contextlib.asynccontextmanager
async def opened(spec: str, samples: Sequence[Sample]) -> AsyncIterator[Asked]:
    """The source that `spec` names, ready to be asked; see `KINDS`.

    Raises:
        BadInputError: If there is no such source, or it does not answer.
        SettingsError: If a cascade's settings cannot be used.
    """
    if spec == LOCAL:
        yield LocalSource(LocalModel.load())
    elif spec == RECORDED:
        _require_recorded(samples)
        yield RecordedSource()
    elif spec == CASCADE or _is_file(spec):
        async with _cascade(spec) as cascade:
            yield cascade
    else:
        async with _client(_url_of(spec)) as client:
            source = ServiceSource(client, spec)
            await _require_answer(source)
            yield source


def _is_file(spec: str) -> bool:
    return Path(spec).is_file()


def _require_recorded(samples: Sequence[Sample]) -> None:
    if all(sample.recorded is None for sample in samples):
        msg = f"{RECORDED}: nothing in the file says what was decided"
        raise BadInputError(msg)


def _url_of(spec: str) -> str:
    if spec == SERVICE:
        settings = load(ClassifierSettings)
        return f"http://{settings.classifier_host}:{settings.classifier_port}"
    try:
        return http_url(spec)
    except ValueError:
        msg = f"{spec!r} is no source; there are {KINDS}"
        raise BadInputError(msg) from None


async def _require_answer(source: ServiceSource) -> None:
    """Fail early: a service that is not there would label all requests `general`."""
    try:
        await source.client.classify(EMPTY.view)
    except ClassifierError as exc:
        msg = f"{source.name}: the classifier gives no answer ({exc.reason})"
        raise BadInputError(msg) from exc


def _client(url: str) -> ClassifierClient:
    return ClassifierClient(url, timeout_seconds=CALL_SECONDS, max_connections=1, labels=None)


@contextlib.asynccontextmanager
async def _cascade(spec: str) -> AsyncIterator[CascadeSource]:
    """A classifier service without a port: the same parts, asked in this process."""
    # Only here: a service is more than the embedded model needs.
    from classifier.app import build, create_app  # noqa: PLC0415

    overrides = {} if spec == CASCADE else {"_env_file": spec}
    settings = load(ClassifierSettings, **overrides)
    _tell_of_filters(read_labels_file(settings.labels_file))
    service = build(settings)
    app = create_app(service)
    async with app.router.lifespan_context(app):
        if service.llm is not None:
            # Once it has been looked for, it is there or it is not.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READY_SECONDS):
                    await service.llm.looked_for.wait()
        yield CascadeSource(service.engine, spec)


def _tell_of_filters(file: LabelsFile) -> None:
    """Say which rules take no part: flow filters are compiled by the proxy alone."""
    filtered = [
        rule.name
        for rule in file.rules
        if any(isinstance(condition, FilterFits) for condition in rule.conditions)
    ]
    if filtered:
        logger.warning("rules with a flow filter fit nothing here: %s", ", ".join(filtered))
