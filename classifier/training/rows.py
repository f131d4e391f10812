"""Labelled requests: reading them, and which APIs are siblings that must not be split apart."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from classifier.contracts import Label, RequestView, semantic_headers

_DATA: Final = Path(__file__).parent / "data"
RECORDED: Final = "recorded"
FILES: Final = (
    RECORDED,
    "query_apis",
    "graphql_rpc_apis",
    "ai_media_jobs_apis",
    "rest_apis",
    "inhouse_apis",
    "business_apis",
    "infrastructure_apis",
    "endpoint_apis",
    "ai_data_apis",
    "further_apis",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled request.

    Attributes:
        file: Which of `FILES` it stands in.
        same_endpoint: Method and path alone tell (nearly) nothing about the cost.
    """

    file: str
    api: str
    view: RequestView
    label: Label
    clear: bool
    same_endpoint: bool
    why: str


def read_rows() -> list[Row]:
    """All labelled rows, in the order of the files."""
    rows: list[Row] = []
    for file in FILES:
        path = _DATA / f"{file}.jsonl"
        if path.exists():
            with path.open(encoding="utf-8") as lines:
                rows.extend(_row(file, json.loads(line)) for line in lines if line.strip())
    return rows


def _row(file: str, raw: dict[str, object]) -> Row:
    encoded = raw.get("body_b64")
    body = base64.b64decode(str(encoded)) if encoded else str(raw.get("body") or "").encode()
    headers = raw["headers"]
    pairs = headers.items() if isinstance(headers, dict) else ()
    lower = {str(name).lower(): str(value) for name, value in pairs}
    view = RequestView(
        method=str(raw["method"]).upper(),
        path=str(raw["path"]),
        content_type=lower.get("content-type", ""),
        headers=semantic_headers(lower.items()),
        body=body,
        body_bytes=len(body),
    )
    return Row(
        file=file,
        api=str(raw["api"]),
        view=view,
        label=Label(str(raw["label"])),
        clear=raw["confidence"] == "clear",
        same_endpoint=bool(raw.get("same_endpoint")),
        why=str(raw.get("why", "")),
    )
