"""Bodies in a shape: JSON, forms, XML, multipart, query texts; of anything else its size."""

# The bounds are part of the shapes; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final

from pydantic_core import from_json

from classifier.shape.names import Numbers, Texts, name_of, shown
from classifier.shape.queries import MAX_QUERY_CHARS, language_of, query_shape
from classifier.shape.scales import count, length
from classifier.shape.targets import pairs_of, pairs_shape
from classifier.shape.values import ELEMENT, ShapelessError, Values

MAX_BODY_BYTES: Final = 65_536
MAX_LINES: Final = 40
MAX_XML_CHARS: Final = 16_384
MAX_TAGS: Final = 600
MAX_PARTS: Final = 40
MAX_PARTS_BYTES: Final = 16_000
_LINES: Final = re.compile(r"\{[^\n]{0,8000}\}\s*\n\s*\{")
# What such bodies hold says no more about the work than that they are there, and how large.
_MEDIA: Final = re.compile(
    r"(?:image|audio|video|font)/|application/(?:octet-stream|pdf|zip|gzip|x-(?:gzip|tar)|ogg)$"
)
_NUMBERS: Final = re.compile(r"[\d\s.,;eE+-]{3,200}+")
_FORM: Final = re.compile(r"[\w.\[\]-]{1,40}=[^\s]*$")


def body_shape(values: Values, media: str, body: bytes, *, whole: bool) -> str:
    """The shape of a body.

    Args:
        values: Takes in what the body says.
        media: Its content type in lower case, without parameters.
        body: It, or its beginning.
        whole: Whether it is all of it.

    Raises:
        ShapelessError: If it has none that is safe.
    """
    if media.startswith("multipart/"):
        return _multipart(values, body)
    if _is_binary(body):
        if not _MEDIA.match(media):
            raise ShapelessError
        return "binary"
    if not whole or len(body) > MAX_BODY_BYTES:
        raise ShapelessError
    text = body.decode("utf-8", "replace")
    return _text_shape(values, media, text)


def _is_binary(body: bytes) -> bool:
    head = body[:512]
    return head.count(b"\0") > 1 or head.decode("utf-8", "replace").count("�") > 2


def _text_shape(values: Values, media: str, text: str) -> str:
    head = text[:64].lstrip()
    if head and (head[0] in '{["' or "json" in media):
        return _json(values, media, text)
    if _is_form(text, media):
        return f"form {pairs_shape(values, pairs_of(text))}"
    if "xml" in media or text[:1] == "<":
        return _xml(values, text)
    return _plain(values, media, text)


def _is_form(text: str, media: str) -> bool:
    if media == "application/x-www-form-urlencoded":
        return "=" in text[:200]
    return not media and _FORM.match(text[:2000]) is not None


def _json(values: Values, media: str, text: str) -> str:
    if "ndjson" not in media and "jsonl" not in media:
        try:
            document = from_json(text)
        except ValueError:
            return _lines(values, text) if _LINES.match(text) else _plain(values, media, text)
        return f"json {values.node(ELEMENT, document, 0)}"
    return _lines(values, text)


def _lines(values: Values, text: str) -> str:
    """JSON in lines: the different ones and how many there are."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    if len(lines) < 2 and "\n" not in text.rstrip("\n") and not text.startswith("{"):
        raise ShapelessError
    try:
        shapes = {values.node(ELEMENT, from_json(line), 1) for line in lines[:MAX_LINES]}
    except ValueError:
        return _plain(values, "", text)
    return f"lines {'|'.join(sorted(shapes))}{count(len(lines))}"


def _plain(values: Values, media: str, text: str) -> str:
    """A query text, prose, or rows of values."""
    if len(text) > MAX_QUERY_CHARS:
        raise ShapelessError
    if "csv" not in media and (language := language_of(text, Texts.QUERY)):
        found = query_shape(text, language, values.ranges)
        if found is None:
            raise ShapelessError
        return found
    if media not in ("text/plain", "text/csv", ""):
        raise ShapelessError
    kind = "numbers" if _NUMBERS.match(text) else "text"
    return f"{kind}{'' if text.isprintable() else '!'}{length(text.count(chr(10)))}"


_TAG: Final = re.compile(
    r"<(/?)(?:[\w.-]{1,40}+:)?([A-Za-z_][\w.-]{0,80}+)([^<>]{0,400}+)>([^<]*+)"
)
_ATTRIBUTE: Final = re.compile(r"([\w.:-]{1,60}+)\s*+=\s*+[\"']([^\"']*+)[\"']")


def _xml(values: Values, text: str) -> str:
    """Elements in the order of their first appearance, with kinds of their texts, and how many."""
    if len(text) > MAX_XML_CHARS or "<!" in text:
        raise ShapelessError
    seen: dict[str, int] = {}
    under = ""
    tags = _TAG.findall(text)
    if len(tags) > MAX_TAGS:
        raise ShapelessError
    for closing, tag, attributes, content in tags:
        piece = f"/{shown(tag)}" if closing else _element(values, tag, attributes, content, under)
        under = content.strip()[:60] if tag == "name" and not closing else under
        seen[piece] = seen.get(piece, 0) + 1
    return f"xml {_listed(seen)}"


def _element(values: Values, tag: str, attributes: str, content: str, under: str) -> str:
    """One element; in XML-RPC a value stands under the name in the element before it."""
    shape = shown(tag)
    for key, value in _ATTRIBUTE.findall(attributes):
        if key.startswith("xmlns"):
            continue
        shape += f" {shown(key)}={values.text(name_of(key), value, 1)}"
    content = content.strip()
    if not content:
        return shape
    if tag in ("name", "methodName"):
        return f"{shape}={shown(content)}"
    name = name_of(under or tag)
    if name.numbers is Numbers.ID:
        name = name._replace(numbers=Numbers.DECADE)
    return f"{shape}={values.text(name, content, 1)}"


_PART: Final = re.compile(
    r"Content-Disposition:([^\r\n]{0,400}+)(?:\r?\nContent-Type:\s*+([\w./+-]{1,60}+))?",
    re.IGNORECASE,
)
_PART_NAME: Final = re.compile(r'name="([^"]{1,60}+)"')
_OPERATIONS: Final = re.compile(r'name="operations"[^{\[]{0,200}+(\{[^\r\n]{1,8000}\})')
_FILENAME: Final = re.compile(r'filename="[^"]*+"')


def _multipart(values: Values, body: bytes) -> str:
    """Names, media types and kinds of file of the parts, as far as the beginning shows them."""
    text = "" if _is_binary(body) else body[:MAX_PARTS_BYTES].decode("utf-8", "replace")
    pieces: dict[str, int] = {}
    for disposition, media in _PART.findall(text)[:MAX_PARTS]:
        name, file = _PART_NAME.search(disposition), _FILENAME.search(disposition)
        kind = file[0].rpartition(".")[2].rstrip('"').lower() if file else ""
        piece = f"{shown(name[1]) if name else ''}:{shown(media)}:{shown(kind)}"
        pieces[piece] = pieces.get(piece, 0) + 1
    # A GraphQL request with files.
    found = _OPERATIONS.search(text)
    operations = values.text(name_of("operations"), found[1], 1) if found else ""
    return f"multipart {_listed(pieces)} {operations}"


def _listed(pieces: dict[str, int]) -> str:
    return " ".join(piece + count(times) for piece, times in pieces.items())
