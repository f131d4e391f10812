"""What of a request may be shown or sent on: never a value that could be a secret.

Shown is what has a known harmless shape (words, short numbers, the words of a query); all else is
masked, for a list of secrets always misses one. Work is linear in a bounded start of the input.
"""

from classifier.redaction.bodies import excerpt
from classifier.redaction.outline import in_known_words, outline
from classifier.redaction.reasons import MAX_REASON_CHARS, clean_reason
from classifier.redaction.shapes import MASK, MAX_EXCERPT_CHARS
from classifier.redaction.targets import MAX_SHOWN_CHARS, shown_path, shown_url

__all__ = [
    "MASK",
    "MAX_EXCERPT_CHARS",
    "MAX_REASON_CHARS",
    "MAX_SHOWN_CHARS",
    "clean_reason",
    "excerpt",
    "in_known_words",
    "outline",
    "shown_path",
    "shown_url",
]
