"""What the cascade goes by: an operator's labels file, worked out for one use after the other."""

from dataclasses import dataclass
from typing import Self

from classifier.contracts import Classification, Label, ReasonCode, RequestView, Source
from classifier.examples import Examples
from classifier.labels_file import NO_FILE, LabelsFile
from classifier.prompt import Prompt
from classifier.rules import RequestFacts, first_match


@dataclass(frozen=True, slots=True)
class Policy:
    """One labels file, ready for use.

    Attributes:
        file: What it says.
        examples: Its examples, to compare requests with.
        prompt: How an LLM is asked under it.
    """

    file: LabelsFile
    examples: Examples
    prompt: Prompt

    @classmethod
    def of(cls, file: LabelsFile) -> Self:
        """Work out a file; takes a while if there are many examples."""
        return cls(file, Examples.of(file), Prompt.of(file))

    def ordered(self, facts: RequestFacts) -> Classification | None:
        """What a rule says of a request; None if none fits."""
        rule = first_match(self.file.rules, facts) if self.file.rules else None
        if rule is None:
            return None
        return Classification(rule.label, 1.0, Source.RULE, rule.name, code=ReasonCode.RULE)

    def exemplified(self, view: RequestView) -> Classification | None:
        """The label of the example that a request is like; None if it is like none."""
        return self.examples.match(view)

    def min_confidence(self, label: Label, otherwise: float) -> float:
        """Below which confidence a second opinion on this label is asked for."""
        spec = self.file.labels.get(label)
        own = None if spec is None else spec.min_confidence
        return otherwise if own is None else own


BUILT_IN_POLICY = Policy.of(NO_FILE)
"""Without a file."""
