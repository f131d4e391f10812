"""Bodies and answers by their kind, and XML by its elements."""

import re
from itertools import islice
from typing import Final

from classifier.features.magnitudes import bucket, log
from classifier.features.request import Parts
from classifier.features.words import groups, split_name, stem

XML_NAME: Final = re.compile(r"<(?:([\w.-]++):)?([A-Za-z_][\w.-]*+)[^<>]{0,401}+>")
_MAX_PRINTED: Final = 8_192
_ACCEPTED: Final = (
    "event-stream", "csv", "pdf", "zip", "html", "image", "octet-stream", "excel", "sheet",
    "parquet",
)  # fmt: skip


def read_body(parts: Parts, bag: dict[str, float]) -> None:
    """Add what kind of body there is and what kind of answer is wanted."""
    if "xml" in parts.media or parts.text[:1] == "<":
        read_xml(parts, bag)
    kind = "none" if parts.body_bytes == 0 else _kind(parts)
    bag[f"body={kind}"] = 1.0
    if parts.lines:
        bag[f"lines={bucket(parts.lines)}"] = 1.0
        bag["lines.log"] = log(parts.lines)
    if parts.headers:
        _read_headers(parts, bag)


def _read_headers(parts: Parts, bag: dict[str, float]) -> None:
    accept = parts.headers.get("accept", "").lower()
    for word in _ACCEPTED:
        if word in accept:
            bag[f"accept={word}"] = 1.0
    for name in ("prefer", "range", "depth"):
        if name in parts.headers:
            bag[f"header={name}"] = 1.0
    if "count=exact" in parts.headers.get("prefer", ""):
        bag["header=count-exact"] = 1.0


def _kind(parts: Parts) -> str:
    if parts.lines:
        return "lines"
    if parts.document is not None:
        return "list" if isinstance(parts.document, list) else "json"
    if parts.form:
        return "form"
    if parts.media.startswith("multipart/"):
        return "multipart"
    if "xml" in parts.media or parts.text[:1] == "<":
        return "xml"
    printable = parts.media.startswith("text/") or parts.text[:_MAX_PRINTED].isprintable()
    return "text" if printable else "other"


def read_xml(parts: Parts, bag: dict[str, float]) -> None:
    """Add the element names of an XML body."""
    elements = [m[2] for m in islice(XML_NAME.finditer(parts.text[:8000]), 60)]
    bag["xml.elements"] = log(len(elements))
    for name in elements[:12]:
        for word in split_name(name)[:4]:
            bag[f"xml.w={stem(word)}"] = 1.0
            for group in groups(word):
                bag[f"xml={group}"] = 1.0
    if parts.headers.get("depth", "").lower() == "infinity":
        bag["depth=infinity"] = 1.0
