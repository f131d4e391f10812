"""Raw requests that parsers disagree about, and what a proxy may answer to each."""

from dataclasses import dataclass

SERVED = frozenset({200})
BAD = frozenset({400})
EITHER = SERVED | BAD
VERSION = frozenset({400, 505})
CODING = frozenset({400, 501})
TOO_LARGE = frozenset({400, 413})
HEAD_TOO_LARGE = frozenset({400, 414, 431})

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
"""Whatever surrounds it, nobody but a parser's mistake makes a request of this."""

LENGTH = b"Content-Length: %d" % len(SMUGGLED)


@dataclass(frozen=True)
class Row:
    """One hostile request.

    Attributes:
        allowed: Statuses of a right answer. Where 200 is one, the request may be normalised.
    """

    name: str
    request: bytes
    allowed: frozenset[int] = BAD


def get(*lines: bytes, host: bytes = b"Host: x") -> bytes:
    """A GET with these lines after its Host."""
    return b"\r\n".join([b"GET /row HTTP/1.1", host, *lines]) + b"\r\n\r\n"


def line(request_line: bytes) -> bytes:
    """An otherwise good request with this request line."""
    return request_line + b"\r\nHost: x\r\n\r\n"


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with these lines after its Host, and a body as it stands."""
    head = [b"POST /row HTTP/" + version, b"Host: x", *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(body: bytes) -> bytes:
    """A chunked POST."""
    return post(b"Transfer-Encoding: chunked", body=body)


def sized(value: bytes) -> bytes:
    """A POST of five bytes, and this for its length."""
    return post(b"Content-Length:" + value, body=b"12345" + SMUGGLED)


def coded(value: bytes) -> bytes:
    """A POST with this transfer coding; its body is good as chunks, and ends a body of none."""
    return post(b"Transfer-Encoding:" + value, body=b"0\r\n\r\n")


HIDDEN = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
SPACES = b" " * 1_000
MANY_SPACES = b" " * 30_000

FRAMING = (
    Row("CL.TE", post(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG")),
    Row("TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=HIDDEN)),
    Row(
        "TE chunked twice",
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=HIDDEN),
        CODING,
    ),
    Row("TE chunked, chunked", coded(b" chunked, chunked"), CODING),
    Row("TE xchunked", coded(b" xchunked"), CODING),
    Row("TE chunked, identity", coded(b" chunked, identity"), CODING),
    Row("TE identity", coded(b" identity"), CODING),
    Row("TE gzip, chunked", coded(b" gzip, chunked"), CODING),
    Row("TE empty", coded(b""), CODING),
    Row("TE with a trailing comma", coded(b" chunked,"), CODING),
    Row("TE quoted", coded(b' "chunked"'), CODING),
    Row("TE with a parameter", coded(b" chunked;q=1"), CODING),
    Row("TE after a tab", coded(b"\tchunked"), EITHER | CODING),
    Row("TE in upper case", coded(b" CHUNKED"), EITHER),
    Row("TE after a vertical tab", coded(b"\x0bchunked"), CODING),
    Row("TE before a NUL", coded(b" chunked\x00"), CODING),
    Row("TE before a form feed", coded(b" chunked\x0c"), CODING),
    Row(
        "TE with a space before the colon",
        post(b"Transfer-Encoding : chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    ),
    Row("TE with a line break before the value", coded(b"\r\n chunked")),
    Row("TE of HTTP/1.0", post(b"Transfer-Encoding: chunked", body=HIDDEN, version=b"1.0")),
    Row(
        "TE of HTTP/1.0 with a length",
        post(
            b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"
        ),
    ),
    Row(
        "TE with an underscore",
        post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        EITHER,
    ),
    Row("CL twice, equal", post(b"Content-Length: 5", b"Content-Length: 5", body=b"12345")),
    Row("CL twice, different", post(b"Content-Length: 0", LENGTH, body=SMUGGLED)),
    Row("CL as a list", sized(b" 5, 5")),
    Row("CL as a list with spaces", sized(b" 5 , 5")),
    Row("CL +5", sized(b" +5")),
    Row("CL -1", sized(b" -1")),
    Row("CL -0", sized(b" -0")),
    Row("CL 0x5", sized(b" 0x5")),
    Row("CL 5_0", sized(b" 0_5")),
    Row("CL 5.0", sized(b" 5.0")),
    Row("CL 5e0", sized(b" 5e0")),
    Row("CL with a space inside", sized(b" 0 5")),
    Row("CL 10^30", sized(b" 1" + b"0" * 30), TOO_LARGE),
    Row("CL 2^64", sized(b" 18446744073709551616"), TOO_LARGE),
    Row("CL 2^64 + 5", sized(b" 18446744073709551621"), TOO_LARGE),
    Row("CL 10^17", sized(b" 1" + b"0" * 17), TOO_LARGE),
    Row("CL empty", sized(b"")),
    Row("CL with a NUL", sized(b" 5\x00")),
    Row("CL in Arabic digits", sized(" \u0665".encode())),
    Row("CL with a parameter", sized(b" 5;x=1")),
    Row("CL with leading zeros", post(b"Content-Length: 0005", body=b"12345"), EITHER),
    Row("GET with a body", get(LENGTH) + SMUGGLED, EITHER),
    Row("GET with chunks", get(b"Transfer-Encoding: chunked") + HIDDEN, EITHER),
    Row("body that looks like a request", post(LENGTH, body=SMUGGLED), SERVED),
    Row("chunks that look like a request", chunked(HIDDEN), SERVED),
)

LINES = (
    Row("folded field", get(b"A: b", b" c")),
    Row("folded field, with a tab", get(b"A: b", b"\tc")),
    Row("folded first field", get(b"A: b", host=b" Host: x")),
    Row("folded Host", get(b" y")),
    Row("folded length", post(b"Content-Length:", b" 5", body=b"12345")),
    Row("fold of nothing but spaces", get(b"A: b", b"   ")),
    Row("NUL in a name", get(b"A\x00: b")),
    Row("NUL in a value", get(b"A: b\x00c")),
    Row("NUL in the target", line(b"GET /\x00 HTTP/1.1")),
    Row("NUL in the method", line(b"GE\x00T / HTTP/1.1")),
    Row("CR in a name", get(b"A\rB: c")),
    Row("CR in a value", get(b"A: b\r" + LENGTH) + SMUGGLED),
    Row("CR in the target", line(b"GET /\rx HTTP/1.1")),
    Row("CR for a line end", line(b"GET /row HTTP/1.1\rA: b")),
    Row("CR before CRLF", get(b"A: b\r")),
    Row("LF in a name", get(b"A\nB: c")),
    Row("LF in a value", get(b"A: b\nTransfer-Encoding: chunked") + HIDDEN),
    Row("LF in the target", line(b"GET /\nx HTTP/1.1")),
    Row("LF for line ends", b"GET /row HTTP/1.1\nHost: x\n\n"),
    Row("LF for the last line end", b"GET /row HTTP/1.1\r\nHost: x\r\n\n"),
    Row("LF CR for line ends", b"GET /row HTTP/1.1\n\rHost: x\n\r\n\r"),
    Row("bell in a value", get(b"A: b\x07c")),
    Row("escape in a value", get(b"A: \x1b[31m")),
    Row("DEL in a value", get(b"A: b\x7fc")),
    Row("space before the colon", get(b"A : b")),
    Row("tab before the colon", get(b"A\t: b")),
    Row("no colon", get(b"Ab")),
    Row("no name", get(b": b")),
    Row("space in a name", get(b"A b: c")),
    Row("parenthesis in a name", get(b"A(: b")),
    Row("umlaut in a name", get("Ä: b".encode())),
    Row("Host with a space before the colon", get(host=b"Host : x")),
    Row("empty line before the request", b"\r\n" + get(), EITHER),
    Row("many empty lines before the request", b"\r\n" * 1_000 + get(), EITHER),
    Row("space before the request", b" " + get()),
    Row("binary noise", b"\x80\x03\x00\xff\xfe\r\n\r\n"),
    Row("1,000 spaces in a value", get(b"A: b" + SPACES + b"c"), EITHER),
    Row("1,000 spaces around a value", get(b"A:" + SPACES + b"b" + SPACES), EITHER),
    Row(
        "1,000 spaces around a length",
        post(b"Content-Length:" + SPACES + b"5" + SPACES, body=b"12345"),
        EITHER,
    ),
    Row("1,000 spaces before chunked", coded(SPACES + b"chunked"), EITHER),
    Row("30,000 spaces in a value", get(b"A: b" + MANY_SPACES + b"c"), EITHER),
    Row("30,000 spaces in Connection", get(b"Connection: b" + MANY_SPACES + b"c"), EITHER),
    Row("30,000 spaces in Host", get(host=b"Host: x" + MANY_SPACES + b"c")),
    Row("30,000 spaces in TE", coded(b"x" + MANY_SPACES + b"y"), CODING),
    Row("30,000 spaces in Via", get(b"Via: b" + MANY_SPACES + b"c"), EITHER),
    Row("30,000 spaces in Content-Type", get(b"Content-Type: b" + MANY_SPACES + b"c"), EITHER),
    Row("30,000 spaces in Upgrade", get(b"Upgrade: b" + MANY_SPACES + b"c"), EITHER),
    Row("30,000 commas in Connection", get(b"Connection: " + b"," * 30_000), EITHER),
    Row("10,000 tokens in Connection", get(b"Connection: " + b"a, " * 10_000), EITHER),
    Row("one byte over the longest head", get(b"A: " + b"b" * 40_000), HEAD_TOO_LARGE),
    Row("too long a target", line(b"GET /" + b"x" * 40_000 + b" HTTP/1.1"), HEAD_TOO_LARGE),
    Row("too many fields", get(*[b"A: b"] * 2_000), HEAD_TOO_LARGE),
)

HOSTS = (
    Row("two Hosts", get(b"Host: y")),
    Row("two equal Hosts", get(b"Host: x")),
    Row("two Hosts in other cases", get(b"hOST: y")),
    Row("no Host", b"GET /row HTTP/1.1\r\nA: b\r\n\r\n"),
    Row("empty Host", get(host=b"Host:"), EITHER),
    Row("Host with a space", get(host=b"Host: x y")),
    Row("Host with a tab", get(host=b"Host: x\ty")),
    Row("Host with user info", get(host=b"Host: u:p@x")),
    Row("Host with a comma", get(host=b"Host: x, y")),
    Row("Host with a slash", get(host=b"Host: x/y")),
    Row("Host with a backslash", get(host=b"Host: x\\y")),
    Row("Host with a question mark", get(host=b"Host: x?y")),
    Row("Host with a quote", get(host=b'Host: x"y')),
    Row("Host with markup", get(host=b"Host: <script>")),
    Row("Host with a port of letters", get(host=b"Host: x:y")),
    Row("Host with two ports", get(host=b"Host: x:1:2")),
    Row("Host with a huge port", get(host=b"Host: x:" + b"9" * 20)),
    Row("Host with half an IPv6 address", get(host=b"Host: [::1")),
    Row("Host with a NUL", get(host=b"Host: x\x00y")),
    Row("HTTP/1.0 without Host", b"GET /row HTTP/1.0\r\n\r\n", EITHER),
    Row("HTTP/1.0 with two Hosts", b"GET /row HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n"),
    Row("absolute target with another authority", line(b"GET http://y/row HTTP/1.1"), EITHER),
    Row("absolute target with user info", line(b"GET http://u:p@x/row HTTP/1.1")),
    Row("absolute target without Host", b"GET http://x/row HTTP/1.1\r\n\r\n"),
    Row("absolute target of HTTP/1.0 without Host", b"GET http://x/row HTTP/1.0\r\n\r\n", EITHER),
    Row("absolute target with another scheme", line(b"GET ftp://x/row HTTP/1.1")),
    Row("absolute target without authority", line(b"GET http:///row HTTP/1.1")),
    Row("absolute target with a file scheme", line(b"GET file:///etc/passwd HTTP/1.1")),
    Row("absolute target without a path", line(b"GET http://x HTTP/1.1"), EITHER),
    Row("absolute target with a query only", line(b"GET http://x?q HTTP/1.1"), EITHER),
    Row("authority for a target", line(b"GET x:80 HTTP/1.1")),
    Row("relative target", line(b"GET row HTTP/1.1")),
    Row("two slashes", line(b"GET //y/row HTTP/1.1"), EITHER),
    Row("asterisk for GET", line(b"GET * HTTP/1.1")),
    Row("asterisk for OPTIONS", line(b"OPTIONS * HTTP/1.1"), EITHER),
    Row("CONNECT", line(b"CONNECT x:443 HTTP/1.1"), frozenset({400, 405, 501})),
    Row("CONNECT to a path", line(b"CONNECT /row HTTP/1.1"), frozenset({400, 405, 501})),
)

REQUEST_LINES = (
    Row("HTTP/9.9", line(b"GET /row HTTP/9.9"), VERSION),
    Row("HTTP/1.2", line(b"GET /row HTTP/1.2"), VERSION | SERVED),
    Row("HTTP/1.10", line(b"GET /row HTTP/1.10"), VERSION),
    Row("HTTP/01.1", line(b"GET /row HTTP/01.1"), VERSION),
    Row("HTTP/2.0", line(b"GET /row HTTP/2.0"), VERSION),
    Row("HTTP/0.9", line(b"GET /row HTTP/0.9"), VERSION),
    Row("HTTP/1", line(b"GET /row HTTP/1"), VERSION),
    Row("HTTP/1,1", line(b"GET /row HTTP/1,1"), VERSION),
    Row("HTTP/1.1x", line(b"GET /row HTTP/1.1x"), VERSION),
    Row("HTTP /1.1", line(b"GET /row HTTP /1.1"), VERSION),
    Row("http/1.1", line(b"GET /row http/1.1"), VERSION),
    Row("HTPP/1.1", line(b"GET /row HTPP/1.1"), VERSION),
    Row("no version", line(b"GET /row")),
    Row("no version, and nothing else", b"GET /row\r\n\r\n"),
    Row("no target", line(b"GET HTTP/1.1")),
    Row("empty target", line(b"GET  HTTP/1.1")),
    Row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
    Row("space after the version", line(b"GET /row HTTP/1.1 ")),
    Row("tabs for spaces", line(b"GET\t/row\tHTTP/1.1")),
    Row("vertical tabs for spaces", line(b"GET\x0b/row\x0bHTTP/1.1")),
    Row("three spaces", line(b"GET   /row   HTTP/1.1")),
    Row("space in the target", line(b"GET /row row HTTP/1.1")),
    Row("tab in the target", line(b"GET /row\trow HTTP/1.1")),
    Row("control in the target", line(b"GET /row\x01 HTTP/1.1")),
    Row("DEL in the target", line(b"GET /row\x7f HTTP/1.1")),
    Row("fragment in the target", line(b"GET /row#x HTTP/1.1")),
    Row("byte of Latin-1 in the target", line(b"GET /\xff HTTP/1.1")),
    Row("umlaut in the target", line("GET /ä HTTP/1.1".encode())),
    Row("unknown method", line(b"FROBNICATE /row HTTP/1.1"), EITHER | {501}),
    Row("method in lower case", line(b"get /row HTTP/1.1"), EITHER | {501}),
    Row("method with a slash", line(b"GE/T /row HTTP/1.1")),
    Row("method in quotes", line(b'"GET" /row HTTP/1.1')),
    Row("method of 1,000 letters", line(b"A" * 1_000 + b" /row HTTP/1.1"), CODING),
    Row("no method", line(b" /row HTTP/1.1")),
)

CHUNKS = (
    Row("chunk size +5", chunked(b"+5\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size -5", chunked(b"-5\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size 0x5", chunked(b"0x5\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size 0_5", chunked(b"0_5\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size of letters", chunked(b"zz\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size empty", chunked(b"\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size after a space", chunked(b" 5\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size before a space", chunked(b"5 \r\n12345\r\n0\r\n\r\n"), EITHER),
    Row("chunk size before a NUL", chunked(b"5\x00\r\n12345\r\n0\r\n\r\n")),
    Row("chunk size 2^64 + 5", chunked(b"10000000000000005\r\n12345\r\n0\r\n\r\n"), TOO_LARGE),
    Row("chunk size 2^63", chunked(b"8000000000000000\r\n12345\r\n0\r\n\r\n"), TOO_LARGE),
    Row("chunk size of 1,000 zeros", chunked(b"0" * 1_000 + b"5\r\n12345\r\n0\r\n\r\n"), EITHER),
    Row("chunk size in two lines", chunked(b"5\r\r\n12345\r\n0\r\n\r\n")),
    Row("chunk extension", chunked(b"5;a=b\r\n12345\r\n0;c\r\n\r\n"), EITHER),
    Row("chunk extension in quotes", chunked(b'5;a="b;c"\r\n12345\r\n0\r\n\r\n'), EITHER),
    Row("chunk extension with LF", chunked(b"5;a\nb\r\n12345\r\n0\r\n\r\n")),
    Row("chunk extension with CR", chunked(b"5;a\rb\r\n12345\r\n0\r\n\r\n")),
    Row(
        "chunk extension of 30,000 bytes",
        chunked(b"5;" + b"a" * 30_000 + b"\r\n12345\r\n0\r\n\r\n"),
    ),
    Row("chunk size before LF", chunked(b"5\n12345\r\n0\r\n\r\n")),
    Row("chunk data before LF", chunked(b"5\r\n12345\n0\r\n\r\n")),
    Row("chunk data before CR", chunked(b"5\r\n12345\r0\r\n\r\n")),
    Row("chunk data without CRLF", chunked(b"5\r\n123450\r\n\r\n")),
    Row("chunk data longer than its size", chunked(b"5\r\n1234567\r\n0\r\n\r\n")),
    Row("chunk data shorter than its size", chunked(b"7\r\n12345\r\n0\r\n\r\n")),
    Row("chunks that end in LF", chunked(b"5\r\n12345\r\n0\n\n")),
    Row("last chunk of three zeros", chunked(b"5\r\n12345\r\n000\r\n\r\n"), EITHER),
    Row("trailer", chunked(b"0\r\nA: b\r\n\r\n"), EITHER),
    Row("trailer Content-Length", chunked(b"0\r\n" + LENGTH + b"\r\n\r\n"), EITHER),
    Row("trailer Host", chunked(b"0\r\nHost: y\r\n\r\n"), EITHER),
    Row("trailer Transfer-Encoding", chunked(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"), EITHER),
    Row("trailer X-Route-Label", chunked(b"0\r\nX-Route-Label: fast-path\r\n\r\n"), EITHER),
    Row("trailer folded", chunked(b"0\r\nA: b\r\n c\r\n\r\n")),
    Row("trailer with a NUL", chunked(b"0\r\nA: b\x00\r\n\r\n")),
    Row("trailer without a colon", chunked(b"0\r\nAb\r\n\r\n")),
    Row("trailer with a space before the colon", chunked(b"0\r\nA : b\r\n\r\n")),
    Row("trailers of 1 MB", chunked(b"0\r\n" + b"A: b\r\n" * 170_000), HEAD_TOO_LARGE),
    Row("trailer of 1 MB", chunked(b"0\r\nA: " + b"b" * 1_000_000), HEAD_TOO_LARGE),
)

SWITCHES = (
    Row(
        "Expect something else",
        post(b"Expect: 200-ok", b"Content-Length: 5", body=b"12345"),
        frozenset({400, 417}),
    ),
    Row(
        "Expect a list",
        post(b"Expect: 100-continue, x", b"Content-Length: 5", body=b"12345"),
        frozenset({400, 417}),
    ),
    Row(
        "Expect twice",
        post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 5", body=b"12345"),
        EITHER | {417},
    ),
    Row(
        "Expect and a body at once",
        post(b"Expect: 100-continue", b"Content-Length: 5", body=b"12345"),
        EITHER,
    ),
    Row("Upgrade h2c", get(b"Connection: Upgrade", b"Upgrade: h2c"), EITHER),
    Row("Upgrade H2C", get(b"Connection: upgrade", b"Upgrade: H2C"), EITHER),
    Row("Upgrade h2c, x", get(b"Connection: Upgrade", b"Upgrade: h2c, x"), EITHER),
    Row(
        "Upgrade h2c with settings",
        get(
            b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        ),
        EITHER,
    ),
    Row(
        "Upgrade h2c with settings that Connection does not name",
        get(b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        EITHER,
    ),
    Row("Upgrade h2c without Connection", get(b"Upgrade: h2c"), EITHER),
    Row(
        "Upgrade h2c with a body",
        post(b"Connection: Upgrade", b"Upgrade: h2c", LENGTH, body=SMUGGLED),
        EITHER,
    ),
    Row(
        "Upgrade twice", get(b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"), EITHER
    ),
    Row("Upgrade TLS", get(b"Connection: Upgrade", b"Upgrade: TLS/1.2"), EITHER),
    Row(
        "Upgrade websocket by POST",
        post(b"Connection: Upgrade", b"Upgrade: websocket", LENGTH, body=SMUGGLED),
        EITHER,
    ),
    Row(
        "Upgrade websocket of HTTP/1.0",
        b"GET /row HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        EITHER,
    ),
    Row(
        "Connection close, X-Route-Label",
        get(b"Connection: close, X-Route-Label", b"X-Route-Label: fast-path"),
        EITHER,
    ),
    Row(
        "Connection host, content-length",
        post(b"Connection: host, content-length", LENGTH, body=SMUGGLED),
        EITHER,
    ),
    Row(
        "Connection transfer-encoding",
        post(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked", body=HIDDEN),
        EITHER,
    ),
    Row(
        "Connection with every hop-by-hop field",
        get(
            b"Connection: TE, Keep-Alive",
            b"TE: trailers",
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic eDp5",
        ),
        EITHER,
    ),
    Row("Connection with nothing sensible", get(b'Connection: @, \xff,, "x"'), EITHER),
    Row("good request behind a bad one", line(b"GET /row HTTP/9.9") + SMUGGLED, VERSION),
    Row("good request behind a bad field", get(b"A : b") + SMUGGLED),
    Row("good request behind a bad length", sized(b" +5") + SMUGGLED),
    Row("good request behind a bad chunk", chunked(b"+5\r\n12345\r\n0\r\n\r\n") + SMUGGLED),
    Row(
        "good request behind a refused expectation",
        post(b"Expect: x", LENGTH, body=SMUGGLED),
        frozenset({400, 417}),
    ),
    Row("bad request behind a good one", get() + get(b"A : b"), EITHER),
)

TABLE = (*FRAMING, *LINES, *HOSTS, *REQUEST_LINES, *CHUNKS, *SWITCHES)
