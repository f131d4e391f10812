"""One request to explain, however it is given: by arguments, as raw HTTP, as a row, as a flow."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from classifier.evaluation.samples import (
    FLOW_SUFFIXES,
    BadInputError,
    Sample,
    read_row,
    read_samples,
    sample_of,
)

MAX_REQUEST_BYTES: Final = 16_777_216
STANDARD_INPUT: Final = "-"
_PLACE: Final = "the request"
_REQUEST_LINE: Final = re.compile(r"([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*) +(\S+)(?: +HTTP/\d.*)?")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_ROW_SUFFIXES: Final = frozenset((".jsonl", ".ndjson"))


def from_arguments(
    method: str | None, path: str | None, headers: Sequence[str], body: str | None
) -> Sample:
    """A request as curl is told it: without a method, one with a body is a POST.

    Args:
        method: None for the usual one.
        path: Target or URL; None for `/`.
        headers: Each `Name: value`.
        body: Text; `@FILE` reads a file, `@-` the standard input.

    Raises:
        BadInputError: If a header has no colon, or the file cannot be read.
    """
    content = b"" if body is None else _content(body)
    usual = "GET" if body is None else "POST"
    pairs = [_header(line) for line in headers]
    return sample_of(_PLACE, method or usual, _target(path or "/"), pairs, content)


def _content(body: str) -> bytes:
    return _read(body[1:]) if body.startswith("@") else body.encode("utf-8", "surrogateescape")


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        msg = f"a header is written 'Name: value', not {name!r}"
        raise BadInputError(msg)
    return name.strip(), value.strip()


def _target(text: str) -> str:
    """Path and query of a target, or of a URL as one has it from a browser."""
    if text.startswith("/") or "://" not in text:
        return text
    parts = urlsplit(text)
    return f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"


def from_file(name: str, index: int, flow_filter: str | None) -> Sample:
    """A request out of a file, by what the file is: flows, JSONL, or one raw HTTP request.

    Args:
        name: Path of the file; `-` is the standard input, which holds a row or raw HTTP.
        index: Which of its requests, from 1.
        flow_filter: Counted are only flows that fit this expression of mitmproxy's.

    Raises:
        BadInputError: If there is no such request.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if name != STANDARD_INPUT and (suffix in FLOW_SUFFIXES or suffix in _ROW_SUFFIXES):
        return _chosen(name, read_samples(path, flow_filter), index)
    content = _read(name)
    if content.lstrip().startswith(b"{"):
        rows = [line for line in content.splitlines() if line.strip()]
        return read_row(_chosen(name, rows, index), f"{name}: line {index}")
    return from_raw_http(content)


def _chosen[T: (Sample, bytes)](name: str, found: Sequence[T], index: int) -> T:
    if not 1 <= index <= len(found):
        msg = f"{name}: there is no request {index}; it holds {len(found)}"
        raise BadInputError(msg)
    return found[index - 1]


def from_raw_http(content: bytes) -> Sample:
    """A request as it goes over the wire, or as an editor has saved it.

    Raises:
        BadInputError: If it does not begin with a request line and headers.
    """
    head, *rest = _END_OF_HEAD.split(content.lstrip(), maxsplit=1)
    first, *lines = head.decode("latin-1").splitlines() or [""]
    match = _REQUEST_LINE.fullmatch(first.strip())
    if match is None:
        msg = "the first line is not like 'GET /users/42 HTTP/1.1'"
        raise BadInputError(msg)
    pairs = [_header(line) for line in lines if line.strip()]
    return sample_of(_PLACE, match[1], _target(match[2]), pairs, rest[0] if rest else b"")


def _read(name: str) -> bytes:
    try:
        if name == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_REQUEST_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(MAX_REQUEST_BYTES + 1)
    except OSError as exc:
        msg = f"{name}: cannot be read ({exc.strerror})"
        raise BadInputError(msg) from exc
    if len(content) > MAX_REQUEST_BYTES:
        msg = f"{name}: has over {MAX_REQUEST_BYTES} bytes"
        raise BadInputError(msg)
    return content
