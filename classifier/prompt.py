"""What an LLM is asked about a request, and the one form of answer that is accepted.

The request stands in the prompt as an outline in words of a closed list, fenced, and never with
headers. The labels, their descriptions and examples come from the operator's labels file.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from classifier.contracts import Label, RequestView
from classifier.labels_file import NO_FILE, LabelsFile, LabelSpec
from classifier.redaction import outline

_TASK: Final = """\
You judge how expensive an HTTP request is for the server that answers it. Labels:
{labels}
The request stands between <request> and </request>: its build, without its values. *** is a \
value, _ a word that is not shown, large numbers are rounded.
Answer with JSON: label, confidence from 0 to 1, and reasoning of at most twelve words."""

_BUILT_IN: Final[Mapping[Label, str]] = MappingProxyType({
    Label.FAST_PATH: "cheap reads. One object by its key, one field, health, status, version, "
    "small metadata.",
    Label.GENERAL: "everything between. Create, update or delete one object, login, ordinary "
    "paged lists and filtered searches, small batches, and whatever cannot be known.",
    Label.HIGH_COMPUTE: "expensive work. Model inference, text generation, embeddings, "
    "aggregation or scan over many rows, export, report, batch job, transcoding, training, "
    "reindex, backup.",
})  # fmt: skip
# What is longer costs every question time, and small models the thread.
MAX_DESCRIPTION_CHARS: Final = 300
MAX_EXAMPLE_CHARS: Final = 300
MAX_EXAMPLES_OF_LABEL: Final = 2
MAX_EXAMPLES: Final = 8
EXAMPLE_CONFIDENCE: Final = 0.9


class Verdict(BaseModel):
    """What the LLM has to answer."""

    model_config = ConfigDict(strict=True)

    label: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """How the LLM is asked under one labels file.

    Attributes:
        labels: The only answers there are.
        opening: The messages before the request: instructions and examples.
        answer_format: JSON schema of the answer, in OpenAI's envelope.
    """

    labels: tuple[Label, ...]
    opening: tuple[dict[str, str], ...]
    answer_format: Mapping[str, Any]

    @classmethod
    def of(cls, file: LabelsFile) -> Self:
        """The prompt for these labels."""
        labels = tuple(file.labels)
        told = "\n".join(f"{name}: {_description(spec)}" for name, spec in file.labels.items())
        instructions = {"role": "system", "content": _TASK.format(labels=told)}
        return cls(labels, (instructions, *_examples(file)), _format(labels))

    def messages_for(self, view: RequestView) -> list[dict[str, str]]:
        """The conversation that asks about one request."""
        return [*self.opening, {"role": "user", "content": _fenced(outline(view, self.labels))}]

    def read(self, answer: str) -> tuple[Label, Verdict]:
        """What the LLM has answered.

        Raises:
            ValueError: If it is not of the form that was asked for.
        """
        # A model that ran on in its reasoning was cut off there, after what counts.
        verdict = Verdict.model_validate(from_json(answer, allow_partial="trailing-strings"))
        label = next((label for label in self.labels if label == verdict.label), None)
        if label is None:
            msg = "not one of the labels"
            raise ValueError(msg)
        return label, verdict


def _fenced(text: str) -> str:
    # `request` is no known word: no text can close the fence.
    return f"<request>\n{text}\n</request>"


def _description(spec: LabelSpec) -> str:
    said = (_BUILT_IN.get(spec.name, ""), spec.description)
    text = " ".join(" ".join(said).split())
    return text[: MAX_DESCRIPTION_CHARS + len(said[0])]


def _examples(file: LabelsFile) -> Iterator[dict[str, str]]:
    """Requests of the file, as turns of the conversation: the short ones, in all a few."""
    found = [
        (name, text)
        for name, spec in file.labels.items()
        for text in _short_ones(spec.examples, file)
    ]
    for name, text in found[:MAX_EXAMPLES]:
        verdict = {"label": name, "confidence": EXAMPLE_CONFIDENCE, "reasoning": "like an example"}
        yield {"role": "user", "content": _fenced(text)}
        yield {"role": "assistant", "content": json.dumps(verdict)}


def _short_ones(examples: Iterable[RequestView], file: LabelsFile) -> list[str]:
    told = dict.fromkeys(outline(view, file.labels) for view in examples)
    return [text for text in told if len(text) <= MAX_EXAMPLE_CHARS][:MAX_EXAMPLES_OF_LABEL]


def _format(labels: Iterable[Label]) -> dict[str, Any]:
    properties = {
        "label": {"type": "string", "enum": [str(label) for label in labels]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "reasoning": {"type": "string"},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": schema},
    }


BUILT_IN_PROMPT: Final = Prompt.of(NO_FILE)
"""For the three labels that need no file."""
