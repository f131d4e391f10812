"""The tables of a labels file: the border, where nothing is taken for granted.

A typing error must not pass for a rule with one condition less: unknown keys are faults.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from classifier.contracts import (
    MAX_HEADER_CHARS,
    MAX_METHOD_CHARS,
    MAX_PATH_CHARS,
    MAX_PAYLOAD_BYTES,
    Label,
)
from classifier.redaction import shown_url
from classifier.rules import MAX_PATTERN_CHARS

MAX_LABELS = 32
"""With the built-in ones: each costs series of metrics."""
MAX_RULES = 200
MAX_EXAMPLES = 200
"""Of one label."""
MAX_DESCRIPTION_CHARS = 1_000


def _label_name(value: str) -> str:
    return str(Label(value))


def _one_line(value: str) -> str:
    if not value.replace("\n", " ").isprintable():
        msg = "it holds characters that cannot be printed; write plain text"
        raise ValueError(msg)
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        msg = "write text, a number, true or false"
        raise ValueError(msg)  # noqa: TRY004 - pydantic tells of ValueErrors
    return value


type Name = Annotated[str, AfterValidator(_label_name)]
type Pattern = Annotated[str, Field(min_length=1, max_length=MAX_PATTERN_CHARS)]
type Header = Annotated[str, Field(max_length=MAX_HEADER_CHARS)]
type Method = Annotated[str, Field(min_length=1, max_length=MAX_METHOD_CHARS)]
type Methods = Annotated[list[Method], Field(min_length=1), BeforeValidator(_as_list)]
type Expected = Annotated[Any, BeforeValidator(_scalar)]


class _Table(BaseModel):
    """A typing error must not pass for a rule with one condition less."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ExampleTable(_Table):
    """A request that has the label."""

    method: Method | None = None
    path: Annotated[str, Field(pattern="^/", max_length=MAX_PATH_CHARS)] = "/"
    content_type: Header | None = None
    headers: dict[str, Header] = Field(default_factory=dict)
    body: Annotated[str, Field(max_length=MAX_PAYLOAD_BYTES)] = ""


class LabelTable(_Table):
    """`[labels.NAME]`."""

    description: Annotated[
        str, Field(max_length=MAX_DESCRIPTION_CHARS), AfterValidator(_one_line)
    ] = ""
    pool: str = ""
    spill_pool: str = ""
    min_confidence: Annotated[float | None, Field(ge=0, le=1)] = None
    examples: Annotated[list[ExampleTable], Field(max_length=MAX_EXAMPLES)] = Field(
        default_factory=list
    )


class RuleTable(_Table):
    """`[[rules]]`."""

    name: Name
    label: str
    method: Methods | None = None
    path: Pattern | None = None
    path_regex: Pattern | None = None
    header: dict[str, Pattern] = Field(default_factory=dict)
    body: Pattern | None = None
    body_json: dict[str, Expected] = Field(default_factory=dict)
    filter: Pattern | None = None


class FileTable(_Table):
    """The whole file."""

    labels: Annotated[dict[Name, LabelTable], Field(max_length=MAX_LABELS)] = Field(
        default_factory=dict
    )
    rules: Annotated[list[RuleTable], Field(max_length=MAX_RULES)] = Field(default_factory=list)


_KEYS: Mapping[str | int, type[_Table]] = {
    "labels": LabelTable,
    "rules": RuleTable,
    "examples": ExampleTable,
}


def faults_of(error: ValidationError) -> Iterator[str]:
    """What is wrong with a file, each with its place in front; no line breaks in it."""
    for fault in error.errors(include_url=False):
        where, given = fault["loc"], fault["input"]
        place = "".join(_step(part) for part in where if part != "[key]").removeprefix(".")
        if fault["type"] == "value_error":
            yield f"{place}: {fault['ctx']['error']}"
        elif fault["type"] == "extra_forbidden":
            yield f"{place}: there is no such key; there are {', '.join(_known_keys(where))}"
        elif fault["type"] == "missing":
            yield f"{place}: it is missing"
        else:
            text = fault["msg"].removeprefix("Input ")
            shown = repr(shown_url(given[:60])) if isinstance(given, str) else "the value"
            yield f"{place}: {shown} {text[:1].lower()}{text[1:]}"


def _step(part: str | int) -> str:
    # Names in the file are an operator's, but a line of the log stays one line.
    return (
        f"[{part}]" if isinstance(part, int) else f".{part[:60].encode('unicode_escape').decode()}"
    )


def _known_keys(where: tuple[str | int, ...]) -> tuple[str, ...]:
    tables = [_KEYS[part] for part in where[:-1] if part in _KEYS]
    return tuple((tables[-1] if tables else FileTable).model_fields)
