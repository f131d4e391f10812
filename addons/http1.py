"""HTTP/1 on the wire, pure: bytes in, heads and bodies out. RFC 9110 and RFC 9112, read strictly.

House rules:
* What two parsers could read in two ways is refused, not repaired: bare CR or LF, folded lines,
  space before a colon, two lengths, any Transfer-Encoding but a single `chunked`.
* The one repair is the target: absolute form becomes origin form, its authority the Host.
* Time is linear in what is fed, memory is bounded by the limits given.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

type Fields = list[tuple[bytes, bytes]]
"""Names as they were sent, values without white space around them."""

MAX_METHOD_BYTES = 32
MAX_LENGTH_DIGITS = 18
MAX_CHUNK_LINE_BYTES = 1_024
MAX_TRAILER_BYTES = 8_192
MAX_REMEMBERED_BYTES = 2_048
MAX_REMEMBERED = 512
MAX_SEEN = 4_096
NO_CONTENT = frozenset({204, 304})

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb":" + _VALUE + rb"\r\n)*")
_FIELD = re.compile(_TOKEN + rb":" + _VALUE)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e]+) HTTP/([0-9])\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + _VALUE + rb"))?")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;" + _VALUE + rb")?")


class ProtocolError(Exception):
    """What came is no HTTP/1 that we take.

    Attributes:
        status: What to answer a client that sent it.
        code: The same for programs; a closed set.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def bad_request(message: str) -> ProtocolError:
    """A request that is not valid HTTP."""
    return ProtocolError(400, "bad_request", message)


class Head:
    """What requests' and responses' heads have in common."""

    __slots__ = ()

    minor: int
    fields: Fields
    connection: frozenset[bytes]

    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow on the same connection."""
        if self.minor == 0:
            return b"keep-alive" in self.connection and b"close" not in self.connection
        return b"close" not in self.connection

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by its lower-case name."""
        for known, value in self.fields:
            if known.lower() == name:
                return value
        return None


@dataclass(slots=True)
class RequestHead(Head):
    """Request line and fields of a request, checked.

    Attributes:
        target: Origin form (`/path?query`), or `*`.
        minor: 0 or 1, of HTTP/1.x.
        fields: All fields as they came.
        host: The one Host, or the authority of an absolute target; b"" if HTTP/1.0 has none.
        content_length: Announced body bytes; None without a Content-Length.
        connection: Lower-case tokens of the Connection fields.
        known: What has been worked out of these very fields before.
    """

    method: bytes
    target: bytes
    minor: int
    fields: Fields
    host: bytes = b""
    content_length: int | None = None
    chunked: bool = False
    connection: frozenset[bytes] = frozenset()
    expects_continue: bool = False
    upgrade: bytes = b""
    known: "Known | None" = None

    @property
    def has_body(self) -> bool:
        """Whether at least one byte of a body may follow."""
        return self.chunked or bool(self.content_length)

    @property
    def is_websocket(self) -> bool:
        """Whether the client asks for a WebSocket (RFC 6455, section 4.1)."""
        return (
            self.upgrade.lower() == b"websocket"
            and b"upgrade" in self.connection
            and self.method == b"GET"
            and self.minor == 1
            and not self.has_body
        )


@dataclass(slots=True)
class ResponseHead(Head):
    """Status line and fields of a response, checked.

    Attributes:
        content_length: Announced body bytes; None without a Content-Length.
        connection: Lower-case tokens of the Connection fields.
        known: What has been worked out of this very head before.
    """

    status: int
    reason: bytes
    minor: int
    fields: Fields
    content_length: int | None = None
    chunked: bool = False
    connection: frozenset[bytes] = frozenset()
    upgrade: bytes = b""
    known: "Known | None" = None


@dataclass(slots=True, eq=False)
class Known:
    """What has been worked out of a head that came again, byte for byte.

    Attributes:
        head: What its fields say; nobody changes it.
        passed: The fields as they go on, and what else they depend on.
        facts: What the classifier sees of the fields.
        counted: Of an answer: its head as it goes on where its length is all that frames it.
    """

    head: "RequestHead | ResponseHead"
    passed: tuple[object, bytes] | None = None
    facts: tuple[bytes, Fields] | None = None
    counted: bytes = b""


class Memory:
    """Remembers heads that come again and again, byte for byte.

    On a connection that is kept, most clients send the same fields with each request, and what a
    busy worker answers within a second bears one date. Equal bytes say the same, so nothing goes
    unchecked. What is always new costs no more than a look: a head is remembered the second time.
    Bounded: when it is full, it forgets all.
    """

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._known: dict[bytes, Known] = {}
        self._seen: set[int] = set()

    def recall(self, raw: bytes) -> Known | None:
        """What is known of these bytes."""
        return self._known.get(raw)

    def keep(self, raw: bytes, head: "RequestHead | ResponseHead") -> None:
        """Remember what was read out of these bytes, if they have come before."""
        if len(raw) > MAX_REMEMBERED_BYTES:
            return
        mark = hash(raw)
        if mark in self._seen:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[raw] = Known(replace(head))
            return
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(mark)


def parse_request_head(head: bytes, max_fields: int, memory: Memory | None = None) -> RequestHead:
    """Read a request's head: everything up to the empty line, without it.

    Args:
        head: Lines separated by CRLF.
        max_fields: Most fields taken.
        memory: Of fields that were read before, with the same `max_fields`.

    Raises:
        ProtocolError: If it is not strictly valid, or asks for what is not offered here.
    """
    line, _, block = head.partition(b"\r\n")
    method, target, minor = _parse_request_line(line)
    known = memory.recall(block) if memory is not None else None
    if known is not None and isinstance(said := known.head, RequestHead):
        parsed = RequestHead(
            method, target, minor, said.fields, said.host, said.content_length, said.chunked,
            said.connection, said.expects_continue, said.upgrade, known,
        )  # fmt: skip
    else:
        parsed = RequestHead(method, target, minor, _parse_fields(block, max_fields))
        _read_framing(parsed)
        if memory is not None:
            memory.keep(block, parsed)
    _check_request(parsed)
    return parsed


def make_request_head(method: bytes, target: bytes, minor: int, fields: Fields) -> RequestHead:
    """A request's head from its parts, checked like one that was read.

    Raises:
        ProtocolError: If it is not strictly valid.
    """
    if not is_well_formed(fields):
        raise bad_request("a header field is malformed")
    line = b"%b %b HTTP/1.%d" % (method, target, minor)
    parsed = RequestHead(*_parse_request_line(line), fields)
    _read_framing(parsed)
    _check_request(parsed)
    return parsed


def _check_request(parsed: RequestHead) -> None:
    if parsed.minor == 0:
        if parsed.chunked:
            raise bad_request("HTTP/1.0 has no Transfer-Encoding")
        # It knows no interim answers.
        parsed.expects_continue = False
    if parsed.host and parsed.target.startswith(b"/") and parsed.method != b"CONNECT":
        return
    _normalise_target(parsed)


def check_partial_head(head: bytes, checked: int) -> None:
    """Refuse at once what cannot become a request any more, though its head is not whole yet.

    Args:
        head: What has come.
        checked: How many bytes of it an earlier call has seen.

    Raises:
        ProtocolError: If a line does not end in CRLF, or the request line is malformed.
    """
    # The CR of a line's end may have come before its LF.
    start = checked - head.endswith(b"\r", 0, checked)
    if head.count(b"\n", start) != head.count(b"\r\n", start):
        raise bad_request("a line does not end in CRLF")
    end = head.find(b"\r\n")
    if checked <= end + 1 and end >= 0:
        _parse_request_line(head[:end])


def _parse_request_line(line: bytes) -> tuple[bytes, bytes, int]:
    matched = _REQUEST_LINE.fullmatch(line)
    if matched is None:
        raise bad_request("the request line is malformed")
    method, target, major, minor = matched.groups()
    if major != b"1" or minor not in b"01":
        raise ProtocolError(505, "version_not_supported", "only HTTP/1.0 and HTTP/1.1 are spoken")
    if len(method) > MAX_METHOD_BYTES:
        raise ProtocolError(501, "method_not_supported", "the method is too long")
    return method, target, int(minor)


def parse_response_head(head: bytes, max_fields: int, memory: Memory | None = None) -> ResponseHead:
    """Read a response's head: everything up to the empty line, without it.

    Args:
        head: Lines separated by CRLF.
        max_fields: Most fields taken.
        memory: Of heads that were read before, with the same `max_fields`.

    Raises:
        ProtocolError: If it is not strictly valid.
    """
    known = memory.recall(head) if memory is not None else None
    if known is not None and isinstance(said := known.head, ResponseHead):
        return ResponseHead(
            said.status, said.reason, said.minor, said.fields, said.content_length, said.chunked,
            said.connection, said.upgrade, known,
        )  # fmt: skip
    line, _, block = head.partition(b"\r\n")
    matched = _STATUS_LINE.fullmatch(line)
    if matched is None:
        raise bad_request("the status line is malformed")
    minor, status, reason = matched.groups()
    fields = _parse_fields(block, max_fields)
    parsed = ResponseHead(int(status), reason or b"", int(minor), fields)
    _read_framing(parsed)
    if memory is not None:
        memory.keep(head, parsed)
    return parsed


def _parse_fields(block: bytes, max_fields: int) -> Fields:
    if not block:
        return []
    if block.count(b"\r\n") >= max_fields:
        raise ProtocolError(431, "too_many_headers", f"more than {max_fields} header fields")
    if _FIELDS.fullmatch(block + b"\r\n") is None:
        raise bad_request("a header field is malformed")
    fields = []
    for line in block.split(b"\r\n"):
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    return fields


def _read_framing(head: RequestHead | ResponseHead) -> None:
    """Fill in what the fields say about the message and its connection."""
    for name, value in head.fields:
        reader = _READERS.get(name.lower())
        if reader is not None:
            reader(head, value)
    if head.chunked and head.content_length is not None:
        raise bad_request("Content-Length and Transfer-Encoding contradict each other")


def _read_content_length(head: RequestHead | ResponseHead, value: bytes) -> None:
    if head.content_length is not None:
        raise bad_request("two Content-Length fields")
    if not value.isdigit():
        raise bad_request("Content-Length is not a whole number")
    if len(value) > MAX_LENGTH_DIGITS:
        raise ProtocolError(413, "request_too_large", "Content-Length is too large")
    head.content_length = int(value)


def _read_transfer_encoding(head: RequestHead | ResponseHead, value: bytes) -> None:
    if head.chunked or value.lower() != b"chunked":
        raise bad_request("the only Transfer-Encoding taken is a single chunked")
    head.chunked = True


def _read_connection(head: RequestHead | ResponseHead, value: bytes) -> None:
    head.connection |= {token.strip(b" \t") for token in value.lower().split(b",")}


def _read_upgrade(head: RequestHead | ResponseHead, value: bytes) -> None:
    # Two of them are one list, and a list is no WebSocket.
    head.upgrade = value if not head.upgrade else head.upgrade + b"," + value


def _read_host(head: RequestHead | ResponseHead, value: bytes) -> None:
    if not isinstance(head, RequestHead):
        return
    if head.host:
        raise bad_request("two Host fields")
    if _HOST.fullmatch(value) is None:
        raise bad_request("Host is not a host name")
    head.host = value


def _read_expect(head: RequestHead | ResponseHead, value: bytes) -> None:
    if not isinstance(head, RequestHead):
        return
    if value.lower() != b"100-continue":
        raise ProtocolError(417, "expectation_failed", "only 100-continue can be expected")
    head.expects_continue = True


_READERS = {
    b"connection": _read_connection,
    b"content-length": _read_content_length,
    b"expect": _read_expect,
    b"host": _read_host,
    b"transfer-encoding": _read_transfer_encoding,
    b"upgrade": _read_upgrade,
}


def _normalise_target(head: RequestHead) -> None:
    target = head.target
    if head.method == b"CONNECT":
        raise ProtocolError(405, "connect_not_allowed", "this is a reverse proxy: no CONNECT")
    if head.minor == 1 and not head.host:
        raise bad_request("HTTP/1.1 needs a Host")
    if target.startswith(b"/") or (target == b"*" and head.method == b"OPTIONS"):
        return
    matched = _ABSOLUTE.fullmatch(target)
    if matched is None or _HOST.fullmatch(matched[1]) is None:
        raise bad_request("the request target is malformed")
    head.host = matched[1]
    rest: bytes = matched[2]
    if not rest and head.method == b"OPTIONS":
        head.target = b"*"
    else:
        head.target = rest if rest.startswith(b"/") else b"/" + rest


def serialise(start_line: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A head as it goes over the wire, empty line included."""
    return start_line + b"\r\n" + field_lines(fields) + b"\r\n"


def field_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Fields as they go over the wire, each with its CRLF."""
    return b"".join([name + b": " + value + b"\r\n" for name, value in fields])


def is_well_formed(fields: Fields) -> bool:
    """Whether fields that did not come from a parser could be sent."""
    return all(_FIELD.fullmatch(name + b":" + value) for name, value in fields)


def chunk(payload: bytes) -> bytes:
    """A chunk of a chunked body; `payload` must not be empty, for that would end it."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def chunk_parts(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """The same, without a copy of the payload."""
    return b"%x\r\n" % len(payload), payload, b"\r\n"


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body."""
    return serialise(b"0", trailers)


class Body(Protocol):
    """A body that is being read.

    Attributes:
        done: All of it has been fed.
        rest: What was fed beyond its end: the next message's.
        trailers: Fields after the end of a chunked body.
        remaining: Bytes that are announced and have not come, as far as that is known.
    """

    done: bool
    rest: bytes
    remaining: int

    @property
    def trailers(self) -> Fields:
        """Fields after its end."""
        ...

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`.

        Raises:
            ProtocolError: If the framing is broken.
        """
        ...


class LengthBody:
    """A body of an announced length."""

    __slots__ = ("done", "remaining", "rest")

    def __init__(self, remaining: int) -> None:
        """A body of which `remaining` bytes will come."""
        self.remaining = remaining
        self.done = remaining == 0
        self.rest = b""

    @property
    def trailers(self) -> Fields:
        """It has none."""
        return []

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`."""
        missing = self.remaining - len(data)
        if missing > 0:
            self.remaining = missing
            return data
        self.remaining = 0
        self.done = True
        if missing == 0:
            return data
        self.rest = data[missing:]
        return data[:missing]


@dataclass(slots=True)
class UntilCloseBody:
    """A body that the end of the connection ends; whoever reads sets `done`."""

    done: bool = False
    rest: bytes = b""
    trailers: Fields = field(default_factory=list)
    remaining: int = 0

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`: all of it."""
        return data


@dataclass(slots=True)
class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1). Chunk extensions are dropped."""

    done: bool = False
    rest: bytes = b""
    trailers: Fields = field(default_factory=list)
    remaining: int = 0
    _line: bytes = b""
    _after_data: bool = False
    _in_trailers: bool = False
    _trailer_bytes: int = 0

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`.

        Raises:
            ProtocolError: If the framing is broken, or a line or the trailers are too long.
        """
        payload, start, end = [], 0, len(data)
        while start < end and not self.done:
            if self.remaining:
                part = data[start : start + self.remaining]
                payload.append(part)
                start += len(part)
                self.remaining -= len(part)
                self._after_data = self.remaining == 0
                continue
            newline = data.find(b"\n", start, start + MAX_CHUNK_LINE_BYTES + 1)
            stop = end if newline < 0 else newline + 1
            line = self._line + data[start:stop]
            if len(line) > MAX_CHUNK_LINE_BYTES:
                raise bad_request("a line of the chunked body is too long")
            start = stop
            self._line = b"" if newline >= 0 else line
            if newline >= 0:
                self._take_line(line)
        self.rest = data[start:]
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise bad_request("a line of the chunked body does not end in CRLF")
        text = line[:-2]
        if self._in_trailers:
            self._take_trailer(text)
        elif self._after_data:
            if text:
                raise bad_request("a chunk is longer than its size")
            self._after_data = False
        else:
            self._take_size(text)

    def _take_size(self, text: bytes) -> None:
        matched = _CHUNK_SIZE.fullmatch(text)
        if matched is None:
            raise bad_request("a chunk's size is malformed")
        self.remaining = int(matched[1], 16)
        self._in_trailers = self.remaining == 0

    def _take_trailer(self, text: bytes) -> None:
        if not text:
            self.done = True
            return
        self._trailer_bytes += len(text)
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise ProtocolError(431, "trailers_too_large", "the trailers are too long")
        if _FIELD.fullmatch(text) is None:
            raise bad_request("a trailer field is malformed")
        name, _, value = text.partition(b":")
        self.trailers.append((name, value.strip(b" \t")))


NO_BODY = LengthBody(0)
"""Shared by all messages without one: nothing is ever fed to it."""


def request_body(head: RequestHead) -> Body:
    """How the body of this request is read."""
    return ChunkedBody() if head.chunked else LengthBody(head.content_length or 0)


def response_body(head: ResponseHead, method: bytes) -> Body:
    """How the body of the response to a `method` request is read (RFC 9112, section 6.3)."""
    if method == b"HEAD" or head.status in NO_CONTENT or head.status < 200:  # noqa: PLR2004
        return LengthBody(0)
    if head.chunked:
        return ChunkedBody()
    if head.content_length is not None:
        return LengthBody(head.content_length)
    return UntilCloseBody()
