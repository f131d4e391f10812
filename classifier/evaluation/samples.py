"""Requests to label: read from JSONL, one request a line, or from flows; see `read_samples`.

What is not fit to be read ends with one line that names the place, never with a traceback: these
files come from anywhere.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, NoReturn

from classifier.contracts import (
    MAX_METHOD_CHARS,
    MAX_PATH_CHARS,
    Classification,
    Label,
    RequestView,
    semantic_headers,
)
from classifier.rules import RequestFacts

MAX_LINE_BYTES: Final = 16_777_216
MAX_BODY_BYTES_READ: Final = 65_536
"""As much of a body is looked at as the proxy sends by default."""
FLOW_SUFFIXES: Final = frozenset((".flow", ".flows", ".mitm", ".mitmproxy", ".dump"))
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class BadInputError(Exception):
    """A file cannot be used; the message is one line, names the place and repeats no payload."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A request to label.

    Attributes:
        place: Where it stands, for people: "line 12", "flow 3".
        view: What the classifier may see of it.
        facts: What an operator's rules may see.
        truth: The label that is right; None if nobody has said.
        api: What it is drawn with when resampling; "" if unknown.
        clear: Whether the right label is beyond debate; None if nobody has said.
        same_endpoint: Whether method and path alone tell next to nothing; None likewise.
        recorded: What was decided about it when it was recorded.
    """

    place: str
    view: RequestView
    facts: RequestFacts
    truth: Label | None = None
    api: str = ""
    clear: bool | None = None
    same_endpoint: bool | None = None
    recorded: Classification | None = None


EMPTY: Final = Sample("nowhere", RequestView("GET", "/"), RequestFacts("GET", "/"))
"""The least that can be asked: what is left of a call when there is nothing to read."""


def read_samples(path: Path, flow_filter: str | None = None) -> list[Sample]:
    """The requests of a file of flows (by its suffix, see `FLOW_SUFFIXES`) or of JSONL.

    Args:
        path: The file.
        flow_filter: A filter expression of mitmproxy's, for flows only.

    Raises:
        BadInputError: If there is no such file, it holds no request, or one that cannot be read.
    """
    if path.suffix.lower() in FLOW_SUFFIXES:
        # Only here: importing mitmproxy takes a while.
        from classifier.flows import read_flows  # noqa: PLC0415

        samples = list(read_flows(path, flow_filter))
    elif flow_filter is not None:
        msg = f"{path}: a filter is for files of flows ({', '.join(sorted(FLOW_SUFFIXES))})"
        raise BadInputError(msg)
    else:
        samples = list(_read_jsonl(path))
    if not samples:
        msg = f"{path}: there is no request in it"
        raise BadInputError(msg)
    return samples


def _read_jsonl(path: Path) -> Iterator[Sample]:
    try:
        with path.open("rb") as file:
            for number, line in _lines(path, file):
                try:
                    yield read_row(line, f"line {number}")
                except BadInputError as exc:
                    msg = f"{path}: {exc}"
                    raise BadInputError(msg) from exc
    except OSError as exc:
        msg = f"{path}: cannot be read ({exc.strerror})"
        raise BadInputError(msg) from exc


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            msg = f"{path}: line {number}: has over {MAX_LINE_BYTES} bytes"
            raise BadInputError(msg)
        if line := line.removeprefix(_BYTE_ORDER_MARK).strip():
            yield number, line


def read_row(line: bytes, place: str) -> Sample:
    """One row of JSONL.

    Raises:
        BadInputError: If it is none; the message begins with the place.
    """
    try:
        raw = json.loads(line, parse_constant=_refuse_constant)
        return _sample(raw, place)
    except UnicodeDecodeError:
        fault = "is not UTF-8 text"
    except json.JSONDecodeError as exc:
        fault = f"is not JSON ({exc.msg} at column {exc.colno})"
    except RecursionError:
        fault = "is nested too deeply"
    except ValueError as exc:
        fault = str(exc)
    msg = f"{place}: {fault}"
    raise BadInputError(msg)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is no JSON number"
    raise ValueError(msg)


def _sample(raw: object, place: str) -> Sample:
    if not isinstance(raw, dict):
        msg = "is not a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - all faults of a row are of one kind
    label = _text(raw, "label", "")
    certainty = _text(raw, "confidence", "")
    same_endpoint = raw.get("same_endpoint")
    return replace(
        _request_of_row(raw, place),
        truth=Label(label) if label else None,
        api=_text(raw, "api", ""),
        clear=certainty == "clear" if certainty else None,
        same_endpoint=None if same_endpoint is None else bool(same_endpoint),
    )


def _request_of_row(raw: Mapping[str, object], place: str) -> Sample:
    headers = raw.get("headers") or {}
    if not isinstance(headers, dict):
        msg = "headers must be an object"
        raise ValueError(msg)  # noqa: TRY004
    pairs = [(str(name), str(value)) for name, value in headers.items()]
    if content_type := _text(raw, "content_type", ""):
        pairs.append(("content-type", content_type))
    return sample_of(place, _text(raw, "method"), _text(raw, "path"), pairs, _body(raw))


def _text(raw: Mapping[str, object], name: str, default: str | None = None) -> str:
    value = raw.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or not (value or default == ""):
        msg = f"{name} must be a text" if name in raw else f"there is no {name}"
        raise ValueError(msg)
    return value


def _body(raw: Mapping[str, object]) -> bytes:
    """The body: a text as it is, other JSON as JSON, or base64; by the name `payload` as well."""
    encoded = raw.get("body_b64", raw.get("payload_base64"))
    if encoded is not None:
        try:
            return base64.b64decode(str(encoded), validate=True)
        except (binascii.Error, ValueError):
            msg = "body_b64 is not base64"
            raise ValueError(msg) from None
    body = raw.get("body", raw.get("payload"))
    if body is None:
        return b""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def sample_of(
    place: str,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    body_bytes: int | None = None,
    peer: str = "",
) -> Sample:
    """A request as classifier and rules see it, cut to what the contract allows.

    Args:
        place: Where it stands.
        method: In any case.
        target: Path and query.
        headers: All of them, names in any case.
        body: The body, or its beginning.
        body_bytes: Length of the whole body; None if `body` is all of it.
        peer: Address of whoever sent it.
    """
    pairs = tuple((name.lower(), value) for name, value in headers)
    view = RequestView(
        method=method.upper()[:MAX_METHOD_CHARS],
        path=target[:MAX_PATH_CHARS],
        content_type=next((value for name, value in pairs if name == "content-type" and value), ""),
        headers=semantic_headers(pairs),
        body=body[:MAX_BODY_BYTES_READ],
        body_bytes=len(body) if body_bytes is None else body_bytes,
    )
    facts = RequestFacts(view.method, view.path, pairs, view.body, peer=peer)
    return Sample(place, view, facts)
