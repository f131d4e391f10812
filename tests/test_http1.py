"""The strict reader of HTTP/1: what it takes, h11 and llhttp read in the very same way."""

import contextlib
import time
from collections import deque
from dataclasses import dataclass, replace

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons import http1
from addons.forwarding import Peer, upstream_head
from tests.malformed import TABLE
from tests.wire import complaints_of

MAX_FIELDS = 100


@dataclass(frozen=True)
class Reading:
    """What somebody understood of a message."""

    start: tuple[bytes, ...]
    fields: http1.Fields
    payload: bytes
    rest: bytes
    trailers: http1.Fields


def lowered(fields: http1.Fields) -> http1.Fields:
    """Names in lower case, and values where they are only names themselves, as h11 tells them."""
    lower = [(name.lower(), value) for name, value in fields]
    coding = b"transfer-encoding"
    return [(name, value.lower() if name == coding else value) for name, value in lower]


def read(
    head: http1.RequestHead | http1.ResponseHead, payload: bytes, body: http1.Body
) -> tuple[http1.Fields, bytes, bytes, http1.Fields]:
    return lowered(head.fields), payload, body.rest, lowered(body.trailers)


def take_request(message: bytes) -> tuple[http1.RequestHead, Reading] | None:
    """A request as we read it; None if it is refused or not whole."""
    raw, blank, rest = message.partition(b"\r\n\r\n")
    try:
        head = http1.parse_request_head(raw, MAX_FIELDS)
        body = http1.request_body(head)
        payload = body.feed(rest)
    except http1.ProtocolError:
        return None
    if not (blank and body.done):
        return None
    return head, Reading((head.method, head.target), *read(head, payload, body))


def take_response(message: bytes, method: bytes = b"GET") -> Reading | None:
    """A response as we read it; None if it is refused or not whole."""
    raw, blank, rest = message.partition(b"\r\n\r\n")
    try:
        head = http1.parse_response_head(raw, MAX_FIELDS)
        body = http1.response_body(head, method)
        payload = body.feed(rest)
    except http1.ProtocolError:
        return None
    if not (blank and body.done):
        return None
    return Reading((b"%d" % head.status,), *read(head, payload, body))


def read_by_h11(message: bytes, connection: h11.Connection) -> Reading:
    connection.receive_data(message)
    head = connection.next_event()
    payload = b""
    while isinstance(event := connection.next_event(), h11.Data):
        payload += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage), event
    if isinstance(head, h11.Request):
        start = (head.method, head.target)
    else:
        start = (b"%d" % head.status_code,)
    trailers = list(event.headers)
    return Reading(start, list(head.headers), payload, connection.trailing_data[0], trailers)


def request_by_h11(message: bytes) -> Reading:
    return read_by_h11(message, h11.Connection(h11.SERVER, 1 << 20))


def response_by_h11(message: bytes) -> Reading:
    connection = h11.Connection(h11.CLIENT, 1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    return read_by_h11(message, connection)


class Llhttp:
    """What llhttp calls back while it reads one message."""

    def __init__(self) -> None:
        self.target, self.payload, self.ends = b"", b"", 0
        self.fields: http1.Fields = []
        self.trailers: http1.Fields = []
        self._told = self.fields

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._told.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        # Trailers are told in the same way.
        self._told = self.trailers

    def on_body(self, part: bytes) -> None:
        self.payload += part

    def on_message_complete(self) -> None:
        self.ends += 1

    def read(self, parser: httptools.HttpRequestParser, message: bytes) -> None:
        """Take a whole message; of one that asks for an upgrade, llhttp reads the head only."""
        try:
            parser.feed_data(message)
        except httptools.HttpParserUpgrade:
            self.ends = 0
        else:
            assert self.ends == 1


def llhttp_agrees(ours: Reading, message: bytes) -> bool:
    """Whether llhttp reads the same in this message; it does not tell of what follows it."""
    if {name for name, _ in ours.trailers} & {b"content-length", b"transfer-encoding"}:
        # It refuses such trailers; we drop them.
        return True
    seen = Llhttp()
    is_request = len(ours.start) > 1
    parser = (httptools.HttpRequestParser if is_request else httptools.HttpResponseParser)(seen)
    seen.read(parser, message[: len(message) - len(ours.rest)])
    start = (
        (parser.get_method(), seen.target) if is_request else (b"%d" % parser.get_status_code(),)
    )
    payload, trailers = seen.payload, lowered(seen.trailers)
    if not seen.ends:
        payload, trailers = ours.payload, ours.trailers
    return agrees(ours, Reading(start, lowered(seen.fields), payload, ours.rest, trailers))


def agrees(ours: Reading, theirs: Reading) -> bool:
    """Whether both are the same, but for a target that became origin form."""
    if ours.start[1:] and not theirs.start[1].startswith((b"/", b"*")):
        target, origin = theirs.start[1], ours.start[1]
        assert target.lower().startswith((b"http://", b"https://"))
        assert target.endswith(origin) or origin[:2] in {b"/", b"*", b"/?"}
        theirs = replace(theirs, start=(theirs.start[0], origin))
    return ours == theirs


# Messages: such as are nearly right, with pieces put in or taken out that parsers stumble over.

PIECES = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\r\n ", b"\n\t", b" ", b"\t", b"\x0b", b"\0", b":"),
    *(
        b";",
        b",",
        b'"',
        b"%",
        b"#",
        b"?",
        b"/",
        b"//",
        b"*",
        b"\xff",
        b"\x7f",
        b"0",
        b"+",
        b"-",
        b"0x",
    ),
    *(b"chunked", b"identity", b"close", b"h2c", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"CONNECT "),
    *(b"Host: y\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Upgrade: h2c\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\n", b"0\r\n\r\n", b"5\r\nab"),
    *(b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", b"A: b\r\n", b" A: b\r\n", b"http://y", b"u@"),
]
METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"]
TARGETS = [
    b"/",
    b"/a/b?c=d&e=%20",
    b"*",
    b"http://y/z",
    b"HTTPS://y:1?q",
    b"http://y",
    b"//y",
    b"/a:b",
]
FIELDS = [
    *(b"Accept: */*", b"A:b", b"A: ", b"A:\t b \t", b"Cookie: a=b; c=d", b"A: \xc3\xa4 x"),
    *(b"Connection: close", b"connection: keep-alive, x", b"Te: trailers", b"Upgrade: websocket"),
    *(b"Expect: 100-continue", b"Upgrade: h2c", b"X-Route-Label: spoofed"),
]
BODIES = [
    (b"", b""),
    (b"Content-Length: 5\r\n", b"hello"),
    (b"content-length: 0\r\n", b""),
    (b"Content-Length: 0005\r\n", b"hello"),
    (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
    (b"transfer-encoding: Chunked\r\n", b"5\r\nhello\r\n00\r\n\r\n"),
    (b"Transfer-Encoding: chunked\r\n", b"5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n"),
]

fields = st.lists(st.sampled_from(FIELDS), max_size=4).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@st.composite
def good_requests(draw) -> bytes:
    method, target = draw(st.sampled_from(METHODS)), draw(st.sampled_from(TARGETS))
    if target == b"*":
        method = b"OPTIONS"
    framing, body = draw(st.sampled_from(BODIES))
    before, after = draw(fields), draw(fields)
    head = method + b" " + target + b" HTTP/1.1\r\n" + before + b"Host: x:80\r\n" + framing + after
    return head + b"\r\n" + body + draw(st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n"]))


@st.composite
def good_responses(draw) -> bytes:
    line = b"HTTP/1.1 " + draw(st.sampled_from([b"200 OK", b"404 ", b"500", b"204 No", b"304 x y"]))
    framing, body = draw(st.sampled_from(BODIES[1:]))
    if line[9:12] in {b"204", b"304"}:
        framing, body = b"", b""
    return line + b"\r\n" + draw(fields) + framing + draw(fields) + b"\r\n" + body


@st.composite
def spoilt(draw, messages) -> bytes:
    message = draw(messages)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(message)))
        gone = draw(st.integers(0, 3))
        message = message[:at] + draw(st.sampled_from(PIECES)) + message[at + gone :]
    return message


@given(good_requests())
def test_good_requests_are_taken(message) -> None:
    assert take_request(message) is not None


@given(good_responses())
def test_good_responses_are_taken(message) -> None:
    assert take_response(message) is not None


def compare_request(message: bytes) -> None:
    taken = take_request(message)
    if taken is None:
        return
    head, ours = taken
    assert agrees(ours, request_by_h11(message))
    if head.method in METHODS:
        assert llhttp_agrees(ours, message)
    sent = upstream_head(
        head,
        Peer("::1", "http"),
        b"X-Route-Label: x\r\n",
        content_length=None,
        default_host="x:1",
    )
    seen = request_by_h11(sent + (b"0\r\n\r\n" if head.chunked else ours.payload))
    assert complaints_of(sent[:-4], seen.fields) == []
    assert seen.start == ours.start
    assert seen.rest == b""


@given(spoilt(good_requests()))
def test_a_request_that_is_taken_others_read_the_same(message) -> None:
    compare_request(message)


@pytest.mark.parametrize("row", TABLE, ids=[row.name for row in TABLE])
def test_a_known_trick_that_is_taken_others_read_the_same(row) -> None:
    compare_request(row.request)


@given(spoilt(good_responses()))
def test_a_response_that_is_taken_others_read_the_same(message) -> None:
    ours = take_response(message)
    if ours is None or ours.start[0] < b"200":
        return
    assert agrees(ours, response_by_h11(message))
    assert llhttp_agrees(ours, message)


# Bodies


def fed(body: http1.Body, pieces: list[bytes]) -> tuple[bytes, bool, bytes, http1.Fields] | str:
    """What a body makes of these pieces: payload, whether it ended, what is over, trailers."""
    payload, left = [], deque(pieces)
    while left and not body.done:
        try:
            payload.append(body.feed(left.popleft()))
        except http1.ProtocolError as exc:
            return exc.code
    return b"".join(payload), body.done, body.rest + b"".join(left), body.trailers


CHUNKED = [
    b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\nC:d\r\n\r\nGET /",
    b"0\r\n\r\n",
    b"5\r\nhellow\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nA b\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"\r\n5\r\nhello\r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n",
]


@pytest.mark.parametrize("stream", CHUNKED)
def test_a_chunked_body_reads_the_same_in_any_two_pieces(stream) -> None:
    whole = fed(http1.ChunkedBody(), [stream])

    for split in range(len(stream) + 1):
        assert fed(http1.ChunkedBody(), [stream[:split], stream[split:]]) == whole, split
    assert fed(http1.ChunkedBody(), [bytes([byte]) for byte in stream]) == whole


@given(st.data())
def test_a_chunked_body_reads_the_same_in_any_pieces(data) -> None:
    parts = data.draw(st.lists(st.binary(min_size=1, max_size=20), max_size=5))
    stream = b"".join(map(http1.chunk, parts)) + http1.last_chunk([(b"A", b"b")]) + b"rest"
    for _ in range(data.draw(st.integers(0, 2))):
        at = data.draw(st.integers(0, len(stream)))
        stream = stream[:at] + data.draw(st.sampled_from(PIECES)) + stream[at:]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert fed(http1.ChunkedBody(), pieces) == fed(http1.ChunkedBody(), [stream])


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
def test_what_is_sent_in_chunks_is_read_back(parts) -> None:
    stream = b"".join(map(http1.chunk, parts)) + http1.last_chunk([(b"A", b"b")])

    assert fed(http1.ChunkedBody(), [stream]) == (b"".join(parts), True, b"", [(b"A", b"b")])


@given(st.binary(max_size=50), st.integers(0, 50))
def test_a_body_of_known_length_ends_where_it_ends(stream, length) -> None:
    ends = len(stream) >= length
    for split in range(len(stream) + 1):
        found = fed(http1.LengthBody(length), [stream[:split], stream[split:]])
        assert found == (stream[:length], ends, stream[length:], [])


def test_a_body_without_a_length_takes_all() -> None:
    assert fed(http1.UntilCloseBody(), [b"a", b"b"]) == (b"ab", False, b"", [])


@pytest.mark.parametrize(
    ("method", "head", "kind"),
    [
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5", http1.LengthBody),
        (b"GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", http1.ChunkedBody),
        (b"GET", b"HTTP/1.1 200 OK", http1.UntilCloseBody),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5", http1.LengthBody),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", http1.LengthBody),
        (b"GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", http1.LengthBody),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5", http1.LengthBody),
    ],
)
def test_the_answer_and_its_request_say_how_the_body_ends(method, head, kind) -> None:
    body = http1.response_body(http1.parse_response_head(head, MAX_FIELDS), method)

    assert type(body) is kind
    bodiless = method == b"HEAD" or b" 204 " in head or b" 304 " in head
    assert body.done is bodiless


# Heads that have not come whole


@given(good_requests())
def test_no_beginning_of_a_good_head_is_refused(message) -> None:
    head = message.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    for checked in (0, 1, len(head) // 2):
        for end in range(checked, len(head)):
            http1.check_partial_head(head[:end], checked)
    for end in range(1, len(head)):
        http1.check_partial_head(head[:end], end - 1)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nA: b\n",
        b"\n",
        b"GET / HTTP/9.9\r\n",
        b"GET  / HTTP/1.1\r\nA",
        b"GET /\r\n",
    ],
)
def test_a_head_that_cannot_become_good_is_refused_before_its_end(head) -> None:
    def byte_by_byte() -> None:
        for end in range(1, len(head) + 1):
            http1.check_partial_head(head[:end], end - 1)

    with pytest.raises(http1.ProtocolError):
        byte_by_byte()
    with pytest.raises(http1.ProtocolError):
        http1.check_partial_head(head, 0)


# Limits


def refused(head: bytes, max_fields: int = MAX_FIELDS) -> tuple[int, str]:
    with pytest.raises(http1.ProtocolError) as caught:
        http1.parse_request_head(head, max_fields)
    return caught.value.status, caught.value.code


def test_one_field_over_the_limit_is_refused() -> None:
    head = b"GET / HTTP/1.1\r\nHost: x" + b"\r\nA: b" * 9

    assert len(http1.parse_request_head(head, 10).fields) == 10
    assert refused(head, 9) == (431, "too_many_headers")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"A" * 33 + b" / HTTP/1.1\r\nHost: x", 501),
        (b"GET / HTTP/2.0\r\nHost: x", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 19, 413),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: x", 417),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x", 405),
        (b"GET / HTTP/1.1", 400),
        (b"", 400),
    ],
)
def test_a_refusal_says_why(head, status) -> None:
    assert refused(head)[0] == status


@pytest.mark.parametrize(
    "stream",
    [
        b"5;" + b"a" * http1.MAX_CHUNK_LINE_BYTES,
        b"0\r\n" + b"A: b\r\n" * http1.MAX_TRAILER_BYTES,
        b"0\r\nA: " + b"b" * http1.MAX_TRAILER_BYTES,
        b"0" * (http1.MAX_CHUNK_LINE_BYTES + 1),
    ],
)
def test_lines_of_a_chunked_body_are_bounded(stream) -> None:
    assert isinstance(fed(http1.ChunkedBody(), [stream]), str)
    assert isinstance(fed(http1.ChunkedBody(), [bytes([byte]) for byte in stream]), str)


# Time

LONG = 250_000
# A quadratic reader takes half a minute for these, a linear one some tens of milliseconds.
LINEAR_SECONDS = 0.5

HOSTILE_BLOCKS = {
    "spaces in a value": b"A: a" + b" " * LONG + b"b",
    "spaces in Connection": b"Connection: a" + b" " * LONG + b"b",
    "tabs in Connection": b"Connection: a" + b"\t" * LONG + b"b",
    "commas in Connection": b"Connection: " + b"," * LONG,
    "spaces in Host": b"Host: a" + b" " * LONG + b"b",
    "dots in Host": b"Host: " + b"." * LONG + b"!",
    "colons in Host": b"Host: " + b":" * LONG,
    "digits of a length": b"Content-Length: " + b"1" * LONG,
    "spaces in a length": b"Content-Length: 1" + b" " * LONG + b"1",
    "spaces in a coding": b"Transfer-Encoding: a" + b" " * LONG + b"b",
    "spaces in Upgrade": b"Upgrade: a" + b" " * LONG + b"b",
    "folds": b"A: b" + b"\r\n c" * (LONG // 4),
    "empty folds": b"A: b" + b"\r\n " * (LONG // 3),
    "fields": b"A: b" + b"\r\nA: b" * (LONG // 6),
    "Connection fields": b"A: b" + b"\r\nConnection: %d" * 1_000 % tuple(range(1_000)),
    "Upgrade fields": b"A: b" + b"\r\nUpgrade: b" * 50_000,
    "Via fields": b"A: b" + b"\r\nVia: b" * 50_000,
    "X-Forwarded-For fields": b"A: b" + b"\r\nX-Forwarded-For: b" * 50_000,
    "colons": b":" * LONG,
    "a name": b"a" * LONG,
    "names": b"a:" * (LONG // 2),
    "a NUL at the end": b"A: b\r\n" * (LONG // 6) + b"\0",
    "line ends": b"\r\n" * (LONG // 2),
    "carriage returns": b"\r" * LONG,
}


def seconds_of(work) -> float:
    """Processor time of the faster of two runs."""
    took = []
    for _ in range(2):
        began = time.process_time()
        with contextlib.suppress(http1.ProtocolError):
            work()
        took.append(time.process_time() - began)
    return min(took)


@pytest.mark.parametrize("block", HOSTILE_BLOCKS.values(), ids=HOSTILE_BLOCKS)
def test_a_hostile_head_takes_linear_time(block) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + block

    def read() -> None:
        parsed = http1.parse_request_head(head, LONG)
        upstream_head(parsed, Peer("::1", "http"), b"", content_length=None, default_host="x")

    assert seconds_of(read) < LINEAR_SECONDS


@pytest.mark.parametrize(
    "line",
    [
        b"GET /" + b"a" * LONG + b"\0 HTTP/1.1",
        b"GET http://" + b"a" * LONG + b"@ HTTP/1.1",
        b"GET http://" + b"." * LONG + b"/ HTTP/1.1",
        b"A" * LONG,
        b" " * LONG,
        b"GET " * (LONG // 4),
        b"GET / HTTP/1.1" * (LONG // 14),
    ],
)
def test_a_hostile_request_line_takes_linear_time(line) -> None:
    assert seconds_of(lambda: http1.parse_request_head(line, MAX_FIELDS)) < LINEAR_SECONDS


@pytest.mark.parametrize(
    "stream",
    [
        b"1\r\na\r\n" * (LONG // 6),
        b"1;a=b\r\na\r\n" * (LONG // 10),
        b"0" * LONG,
        b"%x\r\n" % LONG + b"a" * LONG,
        b"0\r\n" + b"A:b\r\n" * (LONG // 5),
        b"5;" + b" ;" * (LONG // 2),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 1_000, 2 * LONG])
def test_a_hostile_chunked_body_takes_linear_time(stream, piece_bytes) -> None:
    # What is dear about single bytes is the calls, here as well as there.
    stream = stream[: piece_bytes * 50_000]
    starts = range(0, len(stream), piece_bytes)
    pieces = [stream[start : start + piece_bytes] for start in starts]

    assert seconds_of(lambda: fed(http1.ChunkedBody(), pieces)) < LINEAR_SECONDS


# Small facts


def parsed(head: bytes) -> http1.RequestHead:
    return http1.parse_request_head(head, MAX_FIELDS)


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"x", True),
        (b"1.1", b"close", False),
        (b"1.1", b"x, Close", False),
        (b"1.0", b"x", False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_version_and_connection_say_whether_it_stays_open(version, connection, keeps) -> None:
    request = b"GET / HTTP/" + version + b"\r\nHost: x\r\nConnection: " + connection
    response = b"HTTP/" + version + b" 200 OK\r\nConnection: " + connection

    assert parsed(request).keep_alive is keeps
    assert http1.parse_response_head(response, MAX_FIELDS).keep_alive is keeps


@pytest.mark.parametrize(
    ("line", "rest", "is_websocket"),
    [
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: WebSocket", True),
        (b"GET / HTTP/1.1", b"Connection: close\r\nUpgrade: websocket", False),
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket, h2c", False),
        (b"GET / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c", False),
        (
            b"GET / HTTP/1.1",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1",
            False,
        ),
        (b"POST / HTTP/1.1", b"Connection: Upgrade\r\nUpgrade: websocket", False),
        (b"GET / HTTP/1.0", b"Connection: Upgrade\r\nUpgrade: websocket", False),
    ],
)
def test_only_a_plain_websocket_handshake_is_one(line, rest, is_websocket) -> None:
    assert parsed(line + b"\r\nHost: x\r\n" + rest).is_websocket is is_websocket


@pytest.mark.parametrize(
    ("target", "origin", "host"),
    [
        (b"/a?b", b"/a?b", b"x"),
        (b"http://y:81/a?b", b"/a?b", b"y:81"),
        (b"HTTPS://y", b"/", b"y"),
        (b"http://y?b", b"/?b", b"y"),
        (b"http://[::1]:80/", b"/", b"[::1]:80"),
        (b"//y/a", b"//y/a", b"x"),
    ],
)
def test_a_target_is_brought_into_origin_form(target, origin, host) -> None:
    head = parsed(b"GET " + target + b" HTTP/1.1\r\nHost: x")

    assert (head.target, head.host) == (origin, host)


def test_fields_are_found_by_their_lower_case_name() -> None:
    head = parsed(b"GET / HTTP/1.1\r\nHost: x\r\nA-b: 1\r\na-B: 2")

    assert head.get(b"a-b") == b"1"
    assert head.get(b"c") is None
    assert http1.parse_response_head(b"HTTP/1.1 200\r\nA: 1", 9).get(b"a") == b"1"


@pytest.mark.parametrize(
    ("field", "fits"),
    [
        ((b"A", b"b c"), True),
        ((b"A", b""), True),
        ((b"A", b"b\r\nC: d"), False),
        ((b"A: b\r\nC", b"d"), False),
        ((b"A", b"b\0"), False),
        ((b"", b"b"), False),
    ],
)
def test_fields_that_would_split_a_head_are_not_well_formed(field, fits) -> None:
    assert http1.is_well_formed([(b"X", b"y"), field]) is fits
