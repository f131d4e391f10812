"""What of a request may be shown or sent on: never a value that could be a secret.

Shown is what has a known harmless shape (words, short numbers, the words of a query); all else is
masked, for a list of secrets always misses one. Work is linear in a bounded start of the input.
"""

# The bounds are part of the shapes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import codecs
import html
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Final
from urllib.parse import unquote, unquote_plus

from classifier.contracts import RequestView

type Json = dict[str, Json] | list[Json] | str | int | float | bool | None

MASK: Final = "***"
MAX_SHOWN_CHARS: Final = 200
MAX_EXCERPT_CHARS: Final = 1_500
MAX_REASON_CHARS: Final = 200
_MAX_READ, _MAX_TARGET, _MAX_TEXT, _MAX_ITEMS, _MAX_KEYS, _MAX_DEPTH = 65_536, 800, 6_000, 5, 60, 12
_PROSE_WORDS: Final = 20
# Ends a text that was cut off: nothing that holds it is ever shown, so no half of a secret is.
_CUT: Final = "@"


def _names(names: str) -> frozenset[str]:
    return frozenset(names.split())


_PART = (
    r"(?:v\d{1,3}(?:alpha|beta|rc)\d{0,3}|[A-Za-z]\d{1,2}[a-z]|\d{1,8}[A-Za-z]{0,2}"
    r"|[A-Za-z]{1,20}\d{0,3}|[A-Z]{0,4}[a-z]{1,15}(?:[A-Z]{1,4}[a-z]{1,15}){1,8})"
)
_JOIN = r"[-_.$:~*]"
_WORD = re.compile(rf"{_JOIN}{{0,2}}+(?:{_PART}(?:{_JOIN}{{1,2}}+{_PART})*+)?{_JOIN}{{0,2}}+")
_PLAIN_WORD = re.compile(r"[a-z]{1,12}|")
_NUMBER = re.compile(r"\d{1,12}|v?\d{1,4}(?:\.\d{1,3}){1,2}|\d{4}-\d\d(?:-\d\d)?", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_RARE = r"(?:q[^uls\W\d_]|j[b-df-hk-nqrtvxz]|[vz][bcdfghjkmnpqtwxz]|x[bdfgjknqrvwxz]|[bfghkmpvwz]q|[cfghkmpqtvwxz]j|[fghjkpqwz]v|[cdgjkvz]x|[bcdfghjkmpqvwx]z)"  # noqa: E501 - one list
# Letters that are no word of any language, and the beginnings of well-known keys.
_SOUP = re.compile(
    rf"[b-df-hj-np-tv-xz]{{6}}|[B-DF-HJ-NP-TV-XZ]{{6}}|(?i:{_RARE}[a-z]{{0,20}}?{_RARE})|[A-Z]{{15}}"
    r"|(?<![A-Za-z])(?:AKIA|ASIA|eyJ|xox[a-z]-|gh[a-z]_|[spr]k[-_])"
)
_HUMP = re.compile(r"[a-z](?=[A-Z])")
_MIXED = re.compile(r"[A-Za-z]\d|\d[A-Za-z]")
_NO_DIGITS = re.compile(r"[^0-9]+")
_FOREIGN_LETTER = re.compile(r"[^\W\d_a-zA-Z]")
_NO_NAME = re.compile(r"[\W_]+")
_SENSITIVE = re.compile(
    r"(?<!by)(?<!com)pass(?!age|eng|ing|iv)|pwd|secret|token(?!iz)|credential|cookie|session|jwt"
    r"|signature|auth(?!or(?!i))|iban|cvv|cvc|ssn(?!ame|o)|otp(?!rin)|(?:^|user|card)pin(?![a-z])"
    r"|(?:pin|sig|sid)(?:$|\d|code|number|hash)|(?<!dis)(?<!wild)card(?!inal)|accountn|identified$"
    r"|key(?!s|w|b|f|p)|(?:api|access|private|secret)keys"
)
_COUNTED_TOKENS = re.compile(r"(?:max|min|num|n|new|total|prompt|completion|input|output)\w*tokens")
_COUNTS = _names(
    "limit offset page perpage pagesize size first last top skip depth step start end"
    " count take rows maxresults maxtokens n k topk"
)
_CHOICES = _names("sort order orderby sortby format expand include fields")
_COUNT = re.compile(r"-?\d{1,9}(?:ms|[smhdwy])?", re.ASCII)
_RANGES = _names(
    "interval range from to since until gte lte gt lt window step start end fixedinterval"
)
_RANGE = re.compile(
    r"\d{1,9} ?[a-z]{0,7}|now(?:-\d{1,6}[a-z])?(?:/[a-z])?|\d{4}-\d\d-\d\d(?:T[\d:.]{5,15}Z?)?"
    r"|-?P[\dTDHMSWY]{2,10}", re.ASCII
)  # fmt: skip
_BLOCKS = _names("params fromblock toblock block blocknumber")
_BLOCK = re.compile(r"0x[0-9a-fA-F]{1,9}|latest|earliest|pending|safe|finalized")
_ALWAYS_QUERY = _names("sql statement stmt gql cypher ksql kql promql flux")
_QUERIES = _ALWAYS_QUERY | _names("query q expr expression mutation command")
_TERMS = _names(
    "operationname method action op operation operator command cmd type model format interval"
    " function kind verb mode task event jsonrpc object dtype encoding methodname sort order"
    " role encodingformat calendarinterval fixedinterval unit aggregation aggregator metric"
)
_LABELS = _names("name key field header param parameter id")
_QUERY = re.compile(
    r"[\s(]*+(?:\{|select\b|(?:insert|merge|replace)\s+into\b|update\s+\S{1,80}\s+set\b|delete\s+from\b"
    r"|(?:create|drop|alter|truncate|show|rename)\s+(?:or\s+replace\s+|temporary\s+|unique\s+)?(?:table"
    r"|database|index|view|user|role|materialized|schema|function|tables|databases|columns|full)"
    r"|(?:explain|describe|analyze|optimize|pragma|vacuum|kill|grant|revoke)\b|with\s+\S{1,80}\s+as\b"
    r"|(?:optional\s+)?match\s*\(|(?:merge|unwind)\b|(?:query|mutation|subscription|fragment)\b[^{]{0,900}\{"
    r"|from\s*\(|[\w:.]{1,80}(?:\s+by\s*)?[({\[]|[^|]{1,900}\|>)", re.IGNORECASE
)  # fmt: skip
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?P<closed>")?|[\[\]{},]', re.DOTALL)
_XML_TOKEN = re.compile(
    r"<!--(?:.*?-->|.*)|<!\[CDATA\[(?P<cdata>.*?)(?:\]\]>|\Z)|<[?!][^>]*+>?"
    r"|<(?P<close>/?)(?P<tag>[^\s<>/]*+)(?P<rest>[^<>]*+)>?|(?P<text>[^<]+)", re.DOTALL
)  # fmt: skip
_ATTRIBUTE = re.compile(r"([^\s=\"']++)(?:\s*+=\s*+(?:\"[^\"]*+\"?|'[^']*+'?|[^\s\"']*+))?+|[=\"']")
_TEXT_TOKEN = re.compile(
    r"(?P<line>\n\s*+)|(?P<gap>\s++)"
    r"|(?P<hidden>/\*(?:.*?\*/|.*)|--[^\n]*+|\#(?![>&|-])[^\n]*+|(?i:bearer|basic)[ ]++\S++)"
    r'|(?P<quoted>"""(?:.*?"""|.*)|"(?:[^"\\]|\\.)*+(?:"|\Z|\\)'
    # Dialects differ on \': what follows it may or may not be inside.
    r"|'[^'\\]*+(?:\\[^'][^'\\]*+)*+(?:'|\\.*|\Z)|\$(?P<tag>\w*)\$(?:.*?\$(?P=tag)\$|.*))"
    r"|(?P<date>\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d[\d:.]*+Z?)?(?![\w-]))"
    r"|(?P<digits>\d(?:[ .-]?\d){8,}+\w*+)"
    r"|(?P<chunk>(?:[\w@%+~=.:]|/(?!\*)|-(?!-))++)|(?P<other>.)",
    re.DOTALL,
)
_ASSIGNED = re.compile(
    r"(?P<name>[\"']?[\w.%+/~\\-]{0,80}+[\"']?)[ \t]{0,9}+"
    r"(?P<by>[:=]{1,2}+>?|(?i:by|is)\b)[ \t]{0,9}+"
)
_NAMES = re.compile(r"\s{0,9}+:")
_SHORT_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,8})?", re.ASCII)
_COMPOUND = re.compile(r"[a-z][A-Z_.:/-]")
_LINE_VALUE = re.compile(r"[|>][^\n]*+(?:\n[ \t]++[^\n]*+)*+|[^\n]*+")
_WORD_VALUE = re.compile(r"[^\s,;&)\]}]*+")
_PIECES = re.compile(r"[%+/~=.:-]+")
_BOUNDARY = re.compile(r"boundary=\"?([^\";,\s]{1,70})", re.IGNORECASE)
_PART_NAME = re.compile(r"[\s;]name=\"?([^\";\r\n]{1,64})", re.IGNORECASE)
_PART_TYPE = re.compile(r"content-type:\s*([a-z]{1,15}/[a-z.+-]{1,40})", re.IGNORECASE)
_FORM = re.compile(r"[\w.%\[\]+~$-]{1,100}+=\S*+\s*+\Z")
_BINARY = re.compile(r"[\x00-\x08\x0e-\x1f]")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_REASON_HIDES = re.compile(r"[\d@]|\w{25}")
_LETTERS = re.compile(r"[^\W\d_]{4,}")


def shown_path(target: str) -> str:
    """A request target fit for people: bounded, printable ASCII, words and short numbers only.

    Query values are masked but for numbers and words under names such as `limit` and `sort`.
    """
    if len(target) > _MAX_TARGET:
        target = target[:_MAX_TARGET] + _CUT
    path, question_mark, query = target.partition("?")
    shown, before = [], ""
    for segment in path.split("/"):
        hidden = segment.isdigit() and _is_sensitive(before)
        shown.append(MASK if hidden else _shown_segment(segment))
        before = segment
    tail = "&".join(map(_shown_parameter, query.split("&"))) if question_mark else ""
    return f"{'/'.join(shown)}{question_mark}{tail}"[:MAX_SHOWN_CHARS]


def _shown_segment(segment: str) -> str:
    if _is_word(segment) or _UUID.fullmatch(segment):
        return segment
    word, semicolon, _ = segment.partition(";")
    if semicolon:
        return f"{_shown_segment(word)};{MASK}"
    decoded = unquote(segment)
    return decoded if _is_word(decoded) else MASK


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    decoded = unquote_plus(value)
    # Nothing but `=` after it is the padding of base64.
    padded = bool(value) and not value.strip("=")
    shown = name if _is_key(unquote(name)) and name.isascii() and not padded else MASK
    allowed = not value or _is_harmless(_plain(name), decoded)
    return f"{shown}{equals}{decoded if allowed else MASK}"


def _is_word(text: str, digits: int = 8) -> bool:
    """Whether a text reads as words or as one number, and not as a key or token."""
    return len(text) <= 64 and _reads_as_word(text, digits)


# The same few segments and names come again and again; what is kept is short and bounded.
@lru_cache(maxsize=4_096)
def _reads_as_word(text: str, digits: int) -> bool:
    if _PLAIN_WORD.fullmatch(text):
        return not _SOUP.search(text)
    if not _WORD.fullmatch(text):
        return False
    numerals = len(_NO_DIGITS.sub("", text))
    if numerals and text.upper() == text.lower():
        return bool(_NUMBER.fullmatch(text))
    if numerals and (len(text) > 48 or numerals > digits or len(_MIXED.findall(text)) > 4):
        return False
    return 3 * len(_HUMP.findall(text)) <= len(text) and not _SOUP.search(text)


def _is_key(name: str) -> bool:
    """Whether a name of a parameter or member is one; `user[name]` and `größe` are."""
    if not name.isascii():
        name = _FOREIGN_LETTER.sub("e", name)
    return _is_word(name.lstrip("@#").replace("[", ".").replace("]", ""))


def _plain(name: str) -> str:
    return _NO_NAME.sub("", name).lower()


def _is_sensitive(name: str) -> bool:
    plain = _plain(_unescaped(unquote(name)))
    return bool(_SENSITIVE.search(plain)) and not _COUNTED_TOKENS.fullmatch(plain)


def _is_harmless(name: str, value: str) -> bool:
    if name in _COUNTS:
        return bool(_COUNT.fullmatch(value))
    return value in {"true", "false"} or (
        name in _CHOICES
        and len(value) <= 100
        and all(_is_word(word.lstrip("+-")) and not word.isdigit() for word in value.split(","))
    )


def excerpt(view: RequestView) -> str:
    """What a body says of the work it asks for, without the values in it: for the LLM."""
    raw, media = view.body[:_MAX_READ], view.content_type.lower()
    if media.startswith("multipart/") or b"content-disposition:" in raw[:300].lower():
        return _multipart(raw.decode("utf-8", "replace"), view.content_type)[:MAX_EXCERPT_CHARS]
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(raw)
    except UnicodeDecodeError:
        text = "\0"
    if _BINARY.search(text):
        return f"(binary, {max(view.body_bytes, len(view.body))} bytes)"
    if max(view.body_bytes, len(view.body)) > len(raw):
        text += _CUT
    return _shown_text(text.strip(), media)[:MAX_EXCERPT_CHARS]


def _shown_text(text: str, media: str) -> str:
    if text[:1] in {"{", "[", '"'} and (shown := _json_text(text)):
        return shown
    if text.startswith("<"):
        return "".join(islice(_xml(text), MAX_EXCERPT_CHARS))
    if "form-urlencoded" in media or _FORM.match(text):
        return _form(text)
    words = text.split()
    if _QUERY.match(text) or len(words) <= _PROSE_WORDS:
        return _query(text)
    left = len(words) - _PROSE_WORDS
    return f"{_query(' '.join(words[:_PROSE_WORDS]))} ... {left} more words"


def _json_text(text: str) -> str:
    """A JSON text, whole, cut off or one per line, masked; "" if it is none."""
    if shown := _loaded(text):
        return shown
    lines = text.splitlines()
    if len(lines) > 1 and _loaded(lines[0]):
        shown = "\n".join(_loaded(line) or MASK for line in lines[:_MAX_ITEMS])
        return shown + (f"\n... {left} more lines" if (left := len(lines) - _MAX_ITEMS) > 0 else "")
    return next(filter(None, map(_loaded, _repaired(text))), "")


def _loaded(text: str) -> str:
    try:
        return _json(json.loads(text), "", 0)
    except (ValueError, RecursionError):
        return ""


def _repaired(text: str) -> Iterator[str]:
    """Ways to end a JSON text that was cut off."""
    closers, comma, closers_at_comma, is_open = "", 0, "", False
    for token in _JSON_TOKEN.finditer(text):
        piece = token[0]
        if piece[0] == '"':
            is_open = token["closed"] is None
        elif piece == ",":
            comma, closers_at_comma = token.start(), closers
        else:
            closers = ("}" if piece == "{" else "]") + closers if piece in "{[" else closers[1:]
        if len(closers) > _MAX_DEPTH:
            return
    if is_open:
        yield text.removesuffix(_CUT).rstrip("\\") + _CUT + '"' + closers
    yield text[:comma] + closers_at_comma


def _json(value: Json, name: str, depth: int) -> str:
    if _is_sensitive(name) or depth > _MAX_DEPTH:
        return f'"{MASK}"'
    match value:
        case str():
            return json.dumps(_string(name, value), ensure_ascii=False)
        case dict():
            return _members(value, depth)
        case list():
            # Under `command` the first item is the command, the others are its arguments.
            rest = "" if _plain(name) in _TERMS | _QUERIES else name
            items = [
                _json(v, rest if i else name, depth + 1) for i, v in enumerate(value[:_MAX_ITEMS])
            ]
            left = len(value) - _MAX_ITEMS
            return f"[{','.join([*items, f'... {left} more'] if left > 0 else items)}]"
        case bool() | None:
            return json.dumps(value)
        case _:
            return _number(value)


def _number(value: float) -> str:
    if not abs(value) < 1e9:
        return MASK
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _members(members: dict[str, Json], depth: int) -> str:
    # One member may name what another one holds.
    told = any(
        isinstance(value, str) and _plain(key) in _LABELS and _is_sensitive(value)
        for key, value in members.items()
    )
    shown = [
        f'"{key if _is_key(key) else MASK}":'
        + (f'"{MASK}"' if told and _plain(key) not in _LABELS else _json(value, key, depth + 1))
        for key, value in list(members.items())[:_MAX_KEYS]
    ]
    left = len(members) - _MAX_KEYS
    return f"{{{','.join([*shown, f'... {left} more'] if left > 0 else shown)}}}"


def _string(name: str, text: str) -> str:
    """A string value: shown as far as its name says that it is no data."""
    plain = _plain(name)
    first, _, rest = text.partition(" ")
    if _is_sensitive(name):
        return MASK
    if plain in _QUERIES and (plain in _ALWAYS_QUERY or _QUERY.match(text)):
        return _query(text)
    told = plain in _TERMS or (plain == "name" and not rest and _COMPOUND.search(first))
    if told and all(_is_word(word, 12) for word in first.split("/")):
        return f"{first} {MASK}" if rest else first
    in_range = plain in _RANGES and _RANGE.fullmatch(text)
    if in_range or (plain in _BLOCKS and _BLOCK.fullmatch(text)) or _is_harmless(plain, text):
        return text
    return MASK if len(text) <= 40 else f"{MASK} ({len(text)} chars)"


def _form(text: str) -> str:
    pairs = text.split("&")
    shown = []
    for pair in pairs[:_MAX_KEYS]:
        name, equals, value = map(unquote_plus, pair.partition("="))
        number = re.fullmatch(r"\d{1,9}", value) and not _is_sensitive(name)
        shown.append(
            f"{name if _is_key(name) else MASK}{equals}"
            f"{value if number or not value else _string(name, value)}"
        )
    left = len(pairs) - _MAX_KEYS
    return "&".join([*shown, f"... {left} more"] if left > 0 else shown)


def _xml(text: str) -> Iterator[str]:
    name = hidden = ""
    for token in islice(_XML_TOKEN.finditer(text), _MAX_TEXT):
        tag, inside = token["tag"], token["text"] or token["cdata"]
        if inside and inside.strip():
            yield MASK if hidden else _string(name, html.unescape(inside.strip()))
        if not tag:
            continue
        name = "" if token["close"] else tag.rpartition(":")[2]
        if token["close"] and hidden == tag:
            hidden = ""
        elif not hidden and _is_sensitive(name):
            hidden = tag
        attributes = (found[1] for found in _ATTRIBUTE.finditer(token["rest"]) if found[1])
        shown = [f' {a}="{MASK}"' for a in attributes if _is_word(a)]
        yield f"<{token['close']}{tag if _is_word(tag) else MASK}{''.join(shown)}>"


def _multipart(text: str, content_type: str) -> str:
    found = _BOUNDARY.search(content_type)
    boundary = f"--{found[1]}" if found else text.lstrip().split("\n", 1)[0].strip()
    shown = []
    for part in text.split(boundary or "--")[1 : _MAX_KEYS + 1]:
        head, _, content = part.replace("\r\n", "\n").partition("\n\n")
        name, media = _PART_NAME.search(head), _PART_TYPE.search(head)
        if name is None:
            continue
        known = name[1] if _is_key(name[1]) else MASK
        shown.append(f"{known}: {media[1] if media else ''} {MASK} ({len(content)} chars)")
    return "\n".join(shown)


def _query(text: str) -> str:
    """The words, short numbers and operators of a query or of prose; literals are masked."""
    if len(text) > _MAX_TEXT:
        text = text[:_MAX_TEXT] + _CUT
    shown: list[str] = []
    position, starts_line = 0, True
    while len(shown) < MAX_EXCERPT_CHARS and (token := _TEXT_TOKEN.match(text, position)):
        piece, position = token[0], token.end()
        assigned = _ASSIGNED.match(text, token.start())
        if assigned and token.lastgroup in {"chunk", "quoted"} and _is_sensitive(assigned["name"]):
            value = (_LINE_VALUE if starts_line else _WORD_VALUE).match(text, assigned.end())
            quoted = text[assigned.end() : assigned.end() + 1] in {'"', "'"}
            name = assigned["name"].strip("\"'")
            shown.append(
                f"{name if _is_key(name) else MASK}{assigned['by']} {'' if quoted else MASK}"
            )
            position = assigned.end() if quoted or value is None else value.end()
        else:
            shown.append(_shown_token(token))
        starts_line = token.lastgroup == "line" or (
            starts_line and (piece.isspace() or piece == "-")
        )
    return "".join(shown).strip()


def _shown_token(token: re.Match[str]) -> str:
    piece = token[0]
    match token.lastgroup:
        case "line" | "gap":
            return " "
        case "chunk":
            return _shown_chunk(piece)
        case "digits":
            return piece if len(piece) <= 9 and piece.isdigit() else MASK
        case "quoted":
            is_name = _NAMES.match(token.string, token.end()) and _is_key(piece[1:-1])
            return piece if is_name else f"{piece[0]}{MASK}{piece[0]}"
        case "hidden":
            return MASK
        case _:
            return piece if piece.isprintable() and piece.isascii() else "?"


def _shown_chunk(chunk: str) -> str:
    """What stands between two spaces or brackets, whole or not at all: keys hold punctuation."""
    bare = chunk.strip("%+/~=.:-")
    *names, value = re.split("[:=]", bare)
    if "@" in chunk or (value and any(map(_is_sensitive, names))):
        return MASK
    if bare.upper() == bare.lower() and bare.isascii():
        return chunk if not bare.strip("_") or _SHORT_NUMBER.fullmatch(bare) else MASK
    short = len(_NO_DIGITS.sub("", bare)) < 10
    return chunk if short and all(map(_is_key, _PIECES.split(bare))) else MASK


def clean_reason(text: str, view: RequestView) -> str:
    """What an LLM gives as its reason, without anything that it may have from the request."""
    body = view.body[:_MAX_READ].decode("utf-8", "replace")
    raw = f"{view.path[:_MAX_READ]} {body}"
    forms = (raw, unquote_plus(raw), html.unescape(raw), _unescaped(raw))
    hidden = set().union(*map(_stems, forms)) - _stems(f"{shown_path(view.path)} {excerpt(view)}")
    printable = "".join(char if char.isprintable() else " " for char in text[:1_000])
    words = (
        MASK if _REASON_HIDES.search(word) or not hidden.isdisjoint(_stems(word)) else word
        for word in printable.split()
    )
    return " ".join(words)[:MAX_REASON_CHARS]


def _stems(text: str) -> set[str]:
    return {word.casefold().removesuffix("s") for word in _LETTERS.findall(text)}


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
