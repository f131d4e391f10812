"""The recorded requests of public APIs, with their labels."""

import base64
import json
from functools import cache

from tests.processes import ROOT

PATH = ROOT / "classifier" / "training" / "data" / "recorded.jsonl"


@cache
def rows() -> tuple[dict, ...]:
    """All of them, in the order of the file."""
    return tuple(json.loads(line) for line in PATH.read_text("utf-8").splitlines())


def body_of(row: dict) -> bytes:
    """The body as it goes over the wire."""
    if "body_b64" in row:
        return base64.b64decode(row["body_b64"])
    return row["body"].encode("utf-8")
