"""What proxy processes of one machine tell each other. Pure: values and their form on the wire.

What comes in is checked as if it came from a stranger, although only this very user can send it: a
process of another release, or with other settings, is a stranger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from addons.health import Check, Reason
from classifier.contracts import (
    MAX_LABEL_CHARS,
    MAX_WEIGHED_FEATURES,
    Classification,
    Label,
    ReasonCode,
    Source,
    WeighedFeature,
)

MAX_BYTES = 32_768
"""Of one datagram."""
MAX_KEY_BYTES = 256
"""A short request may be its own key: what is told here is nobody else's to read, or to log."""
MAX_REASON_CHARS = 1_000
MAX_EJECTIONS = 1_000_000
MAX_EJECTED_SECONDS = 86_400.0
KEPT_SOURCES = frozenset({Source.LOCAL, Source.LLM, Source.RULE, Source.EXAMPLE})
"""Of what may be in a cache; the rest is no answer of the classifier's."""

type Name = Annotated[str, Field(max_length=300)]
type Key = Annotated[str, Field(pattern=f"^(?:[0-9a-f]{{2}}){{1,{MAX_KEY_BYTES}}}$")]
type Digest = Annotated[str, Field(pattern="^(?:[0-9a-f]{2}){8,32}$")]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Greeting(_Message):
    """A process is new, and asks for what the others know."""

    kind: Literal["greeting"] = "greeting"
    slot: Annotated[int, Field(ge=0)]


class Checked(_Message):
    """A health check has found something out about a worker, named by its URL."""

    kind: Literal["checked"] = "checked"
    worker: Name
    check: Check
    why: Reason


class Ejected(_Message):
    """A worker of a pool, named by `host:port`, was ejected for so many seconds from now on."""

    kind: Literal["ejected"] = "ejected"
    pool: Name
    worker: Name
    why: Reason
    seconds: Annotated[float, Field(gt=0, le=MAX_EJECTED_SECONDS)]
    ejections: Annotated[int, Field(gt=0, le=MAX_EJECTIONS)]


class Drained(_Message):
    """An operator has drained a worker of a pool, named by `host:port`; or does so no more."""

    kind: Literal["drained"] = "drained"
    pool: Name
    worker: Name
    draining: bool


class Labelled(_Message):
    """The classifier has answered, and the answer is kept.

    Attributes:
        realm: Which classifier, and which labels: it is of no use to who has others.
        exact: Key of the request, in hexadecimal.
        shape: Key of its shape, likewise; None if its label is not told to its shape.
    """

    kind: Literal["labelled"] = "labelled"
    realm: Digest
    exact: Key
    shape: Key | None
    label: Annotated[Label, Field(max_length=MAX_LABEL_CHARS)]
    confidence: Annotated[float, Field(ge=0, le=1)]
    source: Source
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)]
    code: ReasonCode
    weighed: Annotated[tuple[WeighedFeature, ...], Field(max_length=MAX_WEIGHED_FEATURES)] = ()

    def answer(self) -> Classification:
        """The answer as it is kept."""
        weighed = tuple((one.feature, one.weight) for one in self.weighed)
        return Classification(
            self.label,
            self.confidence,
            self.source,
            self.reason,
            cached=True,
            code=self.code,
            weighed=weighed,
        )


type Message = Greeting | Checked | Ejected | Drained | Labelled
type Tell = Callable[[Message], None]
"""Tells all other processes, without waiting for them."""

_ONE: TypeAdapter[Message] = TypeAdapter(
    Annotated[Greeting | Checked | Ejected | Drained | Labelled, Field(discriminator="kind")]
)


def labelled(
    realm: str, exact: bytes, shape: bytes | None, answer: Classification
) -> Labelled | None:
    """The message about an answer; None if it is not to be told."""
    if answer.provisional or answer.source not in KEPT_SOURCES:
        return None
    if max(len(exact), len(shape or b"")) > MAX_KEY_BYTES:
        return None
    # Nothing is checked here: it is our own, and checked where it arrives.
    return Labelled.model_construct(
        realm=realm,
        exact=exact.hex(),
        shape=None if shape is None else shape.hex(),
        label=answer.label,
        confidence=answer.confidence,
        source=answer.source,
        reason=answer.reason[:MAX_REASON_CHARS],
        code=answer.code,
        weighed=tuple(
            WeighedFeature.model_construct(feature=name, weight=weight)
            for name, weight in answer.weighed[:MAX_WEIGHED_FEATURES]
        ),
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """What was in a datagram, and how many lines of it were no messages."""

    messages: tuple[Message, ...]
    refused: int


def pack(messages: list[Message]) -> list[bytes]:
    """Datagrams that hold these messages, a line each; one that is too long is left out."""
    datagrams: list[bytes] = []
    lines: list[bytes] = []
    size = 0
    for message in messages:
        line = message.model_dump_json().encode()
        if len(line) > MAX_BYTES:
            continue
        if size + len(line) + 1 > MAX_BYTES:
            datagrams.append(b"\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        datagrams.append(b"\n".join(lines))
    return datagrams


def unpack(datagram: bytes) -> Heard:
    """The messages of a datagram; what is none of ours is counted, not believed."""
    messages, refused = [], 0
    for line in datagram.split(b"\n"):
        try:
            message = _ONE.validate_json(line)
        except ValidationError:
            refused += 1
            continue
        if isinstance(message, Labelled) and message.source not in KEPT_SOURCES:
            refused += 1
            continue
        messages.append(message)
    return Heard(tuple(messages), refused)
