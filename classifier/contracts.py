"""The public face of the classifier: labels, the request it sees, the answer it gives.

The proxy imports this module, `classifier.client`, `classifier.keys` and `classifier.shape`, what
every program of the product shares (`classifier.configuration`, `classifier.redaction`), an
operator's labels and rules (`classifier.labels_file`, `classifier.rules`), and nothing else of this
package. Values inside a
process are frozen dataclasses; the two pydantic models are what goes over the wire.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self, override

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import CoreSchema, core_schema

from classifier.keys import head_key, with_body

MAX_PAYLOAD_BYTES = 1_048_576
"""The largest payload `POST /classify` takes; callers send a prefix of longer bodies."""

MAX_METHOD_CHARS = 32
MAX_PATH_CHARS = 65_536
MAX_HEADER_CHARS = 1_024

SEMANTIC_HEADERS = frozenset({
    "accept",
    "depth",
    "prefer",
    "range",
    "soapaction",
    "x-amz-target",
    "x-clickhouse-format",
    "x-http-method-override",
})  # fmt: skip
"""Request headers that say what is asked for. No other header reaches the classifier."""


LABEL_PATTERN = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
MAX_LABEL_CHARS = 40
_LABEL = re.compile(LABEL_PATTERN)


class Label(str):
    """What it costs to serve a request: one of the three in `LABELS`, or an operator's own.

    A string that is known to be a label: lower-case words joined by `-`. Stable and public.
    """

    __slots__ = ()

    FAST_PATH: ClassVar["Label"]
    GENERAL: ClassVar["Label"]
    HIGH_COMPUTE: ClassVar["Label"]

    def __new__(cls, name: str) -> "Label":
        """The label of that name; the same object each time for the three of `LABELS`.

        Raises:
            ValueError: If no label can be called so.
        """
        if (known := _KNOWN.get(name)) is not None:
            return known
        if len(name) > MAX_LABEL_CHARS or not _LABEL.fullmatch(name):
            msg = f"{name[:60]!r} is no label; write lower-case words joined by -, like batch-jobs"
            raise ValueError(msg)
        return super().__new__(cls, name)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        """A string on the wire."""
        del source, handler
        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return (Label, (str(self),))


_KNOWN: dict[str, Label] = {}
LABELS = tuple(Label(name) for name in ("fast-path", "general", "high-compute"))
"""The labels that need no file."""
_KNOWN.update({str(label): label for label in LABELS})
Label.FAST_PATH, Label.GENERAL, Label.HIGH_COMPUTE = LABELS


class Source(StrEnum):
    """Who decided. An answer out of a cache keeps the source that first gave it."""

    LOCAL = "local"
    """The embedded model."""
    LLM = "llm"
    RULE = "rule"
    """A rule of the operator's."""
    EXAMPLE = "example"
    """The request is like an example that the operator gave for a label."""
    OVERRIDE = "override"
    """A trusted client said it in a header."""
    FALLBACK = "fallback"
    """Nobody; `general` stands in for a decision."""


class ReasonCode(StrEnum):
    """Why a request has its label: a closed set, for programs, filters and statistics."""

    # What the embedded model went by most.
    HEALTH = "health"
    METADATA = "metadata"
    LOOKUP = "lookup"
    FIELDS = "fields"
    STATUS = "status"
    LIST = "list"
    SEARCH = "search"
    WRITE = "write"
    AUTH = "auth"
    QUERY = "query"
    AGGREGATION = "aggregation"
    SCAN = "scan"
    JOIN = "join"
    NESTING = "nesting"
    RANGE = "range"
    BULK = "bulk"
    EXPORT = "export"
    JOB = "job"
    INFERENCE = "inference"
    MEDIA = "media"
    OTHER = "other"
    UNCLEAR = "unclear"
    # Other sources.
    LLM = "llm"
    RULE = "rule"
    EXAMPLE = "example"
    OVERRIDE = "override"
    # Why there was no decision.
    TIMEOUT = "timeout"
    QUEUE = "queue"
    SATURATED = "saturated"
    BREAKER_OPEN = "breaker_open"
    INTERNAL = "internal"
    UNREACHABLE = "unreachable"
    BAD_STATUS = "bad_status"
    BAD_ANSWER = "bad_answer"


@dataclass(frozen=True, slots=True)
class RequestView:
    """What the classifier may know of a request: nothing that identifies its sender.

    Attributes:
        method: Upper-case HTTP method.
        path: Request target in origin form, query string included.
        content_type: Value of the Content-Type header, "" if there is none.
        headers: Lower-case name and value of those in `SEMANTIC_HEADERS`, sorted.
        body: The body, or the first bytes of a long one; still encoded as on the wire.
        body_bytes: Length of the whole body, or -1 if it is not known yet.
    """

    method: str
    path: str
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    body_bytes: int = 0

    def fingerprint(self) -> bytes:
        """The key of `classifier.keys`: equal views are the same request to the classifier."""
        head = head_key(
            _octets(self.method),
            _octets(self.path),
            _octets(self.content_type),
            [(_octets(name), _octets(value)) for name, value in self.headers],
        )
        return with_body(head, self.body, self.body_bytes)


@dataclass(frozen=True, slots=True)
class Classification:
    """A label with where it came from.

    Attributes:
        confidence: 0 to 1; the probability that the label is right, as the source sees it.
        reason: One short sentence for an operator; never holds payload text.
        provisional: A better answer is on its way: use this one, but do not keep it.
        cached: It came out of a cache.
        code: The reason as one word of a closed set.
        weighed: What spoke most for the label: names of the model's features (a closed set, never
            payload text) and their weight in log-odds, the heaviest first.
    """

    label: Label
    confidence: float
    source: Source
    reason: str
    provisional: bool = False
    cached: bool = False
    code: ReasonCode = ReasonCode.UNCLEAR
    weighed: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Explained:
    """What the embedded model thinks of a request, in full.

    Attributes:
        local: Its decision, with up to `MAX_WEIGHED_FEATURES` features.
        probabilities: The calibrated probability of every label.
    """

    local: Classification
    probabilities: Mapping[Label, float]


def semantic_headers(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Keep the headers that the classifier may see, in the form `RequestView` wants them."""
    return tuple(
        sorted((name.lower(), value) for name, value in headers if name.lower() in SEMANTIC_HEADERS)
    )


def _octets(text: str) -> bytes:
    """HTTP's own text as it was sent: bytes that are not UTF-8 stand in it as surrogates."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # Neither HTTP nor the wire brings such text.
        return b"\0" + text.encode("utf-8", "surrogatepass")


def _wire_text(text: str, max_chars: int) -> str:
    """`text` as JSON can hold it: HTTP's own text may be any bytes, kept as surrogates."""
    return text[:max_chars].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class ClassifyRequest(BaseModel):
    """Body of `POST /classify`. `{"payload": <anything>}` alone is enough."""

    # A newer proxy may ask an older classifier while both are rolled out.
    model_config = ConfigDict(extra="ignore")

    method: Annotated[str, Field(max_length=MAX_METHOD_CHARS, description="HTTP method")] = "POST"
    path: Annotated[
        str, Field(max_length=MAX_PATH_CHARS, description="request target, query string included")
    ] = "/"
    content_type: Annotated[
        str | None, Field(max_length=MAX_HEADER_CHARS, description="Content-Type of the request")
    ] = None
    headers: Annotated[
        dict[str, str], Field(max_length=64, description="headers; all but a few are ignored")
    ] = Field(default_factory=dict)
    payload: Annotated[
        JsonValue, Field(description="the body: a string as it is, or any other JSON value")
    ] = None
    payload_base64: Annotated[
        str | None, Field(description="the body in base64, for what is not text")
    ] = None
    body_bytes: Annotated[
        int | None, Field(ge=-1, description="length of the whole body, if payload is a prefix")
    ] = None
    deadline_ms: Annotated[
        int | None, Field(gt=0, le=600_000, description="answer within this time at the latest")
    ] = None

    @model_validator(mode="after")
    def _one_payload(self) -> Self:
        if self.payload is not None and self.payload_base64 is not None:
            msg = "give payload or payload_base64, not both"
            raise ValueError(msg)
        if len(self.body) > MAX_PAYLOAD_BYTES:
            msg = f"the payload has over {MAX_PAYLOAD_BYTES} bytes; send its beginning"
            raise ValueError(msg)
        return self

    @cached_property
    def body(self) -> bytes:
        """The payload as bytes, worked out once: it is checked, and then looked at."""
        if self.payload_base64 is not None:
            try:
                return base64.b64decode(self.payload_base64, validate=True)
            except binascii.Error as exc:
                msg = "payload_base64 is not valid base64"
                raise ValueError(msg) from exc
        if self.payload is None:
            return b""
        if isinstance(self.payload, str):
            return self.payload.encode("utf-8", "surrogatepass")
        return json.dumps(self.payload, ensure_ascii=False, separators=(",", ":")).encode()

    def view(self) -> RequestView:
        """The request as the classifier's engine sees it."""
        body = self.body
        content_type = self.content_type
        if content_type is None:
            is_json = self.payload is not None and not isinstance(self.payload, str)
            content_type = "application/json" if is_json else ""
        return RequestView(
            method=self.method.upper(),
            path=self.path,
            content_type=content_type,
            headers=semantic_headers(self.headers.items()),
            body=body,
            body_bytes=len(body) if self.body_bytes is None else self.body_bytes,
        )

    @classmethod
    def from_view(cls, view: RequestView, deadline_ms: int | None = None) -> "ClassifyRequest":
        """The wire form of a view; the body travels as text when it is UTF-8.

        Whatever the client sent, the question fits the contract: what is too long is cut, what is
        not UTF-8 is replaced. Nothing is checked a second time, for this runs once per cache miss.
        """
        text: str | None = None
        encoded: str | None = None
        try:
            text = view.body.decode("utf-8")
        except UnicodeDecodeError:
            encoded = base64.b64encode(view.body).decode("ascii")
        return cls.model_construct(
            method=_wire_text(view.method, MAX_METHOD_CHARS),
            path=_wire_text(view.path, MAX_PATH_CHARS),
            content_type=_wire_text(view.content_type, MAX_HEADER_CHARS),
            headers={name: _wire_text(value, MAX_HEADER_CHARS) for name, value in view.headers},
            payload=text,
            payload_base64=encoded,
            body_bytes=view.body_bytes,
            deadline_ms=deadline_ms,
        )


class WeighedFeature(BaseModel):
    """What spoke for a label, and how much."""

    feature: Annotated[str, Field(max_length=100)]
    weight: Annotated[float, Field(description="log-odds", allow_inf_nan=False)]


MAX_WEIGHED_FEATURES = 8
MAX_EXPLAINED_LABELS = 64


class ClassifyResponse(BaseModel):
    """Answer of `POST /classify`."""

    label: Annotated[Label, Field(json_schema_extra={"examples": list(LABELS)})]
    confidence: Annotated[float, Field(ge=0, le=1)]
    # A service that cannot decide says so by its status: a fallback is the caller's to make.
    source: Literal[Source.LOCAL, Source.LLM, Source.RULE, Source.EXAMPLE]
    reasoning: Annotated[str, Field(max_length=1_000)]
    reason_code: ReasonCode = ReasonCode.UNCLEAR
    features: Annotated[
        list[WeighedFeature],
        Field(max_length=MAX_WEIGHED_FEATURES, description="what spoke most for the label"),
    ] = Field(default_factory=list)
    latency_ms: Annotated[float, Field(ge=0, description="time spent inside the classifier")]
    cached: bool = False
    provisional: Annotated[
        bool, Field(description="a better answer is on its way; do not keep this one")
    ] = False

    @classmethod
    def from_classification(cls, decided: Classification, latency_ms: float) -> Self:
        """The wire form of a classification.

        Raises:
            ValueError: If it is a fallback.
        """
        if decided.source is Source.FALLBACK:
            msg = "a fallback is no answer"
            raise ValueError(msg)
        return cls(
            label=decided.label,
            confidence=decided.confidence,
            source=decided.source,
            reasoning=decided.reason,
            reason_code=decided.code,
            features=[
                WeighedFeature(feature=feature, weight=round(weight, 3))
                for feature, weight in decided.weighed[:MAX_WEIGHED_FEATURES]
            ],
            latency_ms=latency_ms,
            cached=decided.cached,
            provisional=decided.provisional,
        )

    def classification(self) -> Classification:
        """The value that travels inside the caller's process."""
        return Classification(
            label=self.label,
            confidence=self.confidence,
            source=self.source,
            reason=self.reasoning,
            provisional=self.provisional,
            cached=self.cached,
            code=self.reason_code,
            weighed=tuple((one.feature, one.weight) for one in self.features),
        )


class ExplainResponse(ClassifyResponse):
    """Answer of `POST /explain`: that of `/classify`, and what the embedded model thinks of it.

    `features` are those of the model's own decision, whoever decided.
    """

    probabilities: Annotated[
        dict[Label, Annotated[float, Field(ge=0, le=1)]],
        Field(max_length=MAX_EXPLAINED_LABELS, description="the embedded model's, by label"),
    ]
    local_label: Annotated[Label, Field(description="what the embedded model would say")]
    local_reasoning: Annotated[str, Field(max_length=1_000)]
    local_reason_code: ReasonCode
    min_confidence: Annotated[
        float, Field(ge=0, le=1, description="below it the model's answer is worth a second one")
    ]
    shape: Annotated[
        Annotated[str, Field(max_length=64)] | None,
        Field(description="requests of one shape share a label in the caches; null: it has none"),
    ] = None

    @classmethod
    def from_decisions(
        cls,
        decided: Classification,
        opinion: Explained,
        *,
        min_confidence: float,
        shape: str | None,
        latency_ms: float,
    ) -> Self:
        """The wire form of a decision with the embedded model's opinion.

        Args:
            decided: Whoever decided.
            opinion: The embedded model's.
            min_confidence: Below it, the model's decision is worth a second opinion.
            shape: The key of the request's shape.
            latency_ms: Time spent on both.

        Raises:
            ValueError: If the decision is a fallback.
        """
        told = replace(decided, weighed=opinion.local.weighed)
        answer = ClassifyResponse.from_classification(told, latency_ms)
        return cls(
            **{name: getattr(answer, name) for name in ClassifyResponse.model_fields},
            probabilities={
                label: round(share, 4) for label, share in opinion.probabilities.items()
            },
            local_label=opinion.local.label,
            local_reasoning=opinion.local.reason,
            local_reason_code=opinion.local.code,
            min_confidence=min_confidence,
            shape=shape,
        )
