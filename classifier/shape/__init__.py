"""The shape of a request: what it asks for, without what it asks it about.

`GET /users/7` and `GET /users/42` have one shape, and so have two calls of one GraphQL operation
for different ids. Kept are names, structure, words of the lexicon, and the magnitudes of numbers
that scale the work; ids, texts and all other literals are not. Requests of one shape get one label.

Pure, bounded in time whatever the bytes, and never raises.
"""

import hashlib
from typing import Final

from classifier.contracts import RequestView
from classifier.shape.bodies import body_shape
from classifier.shape.scales import length
from classifier.shape.targets import METHODS, headers_shape, pairs_of, pairs_shape, path_shape
from classifier.shape.values import ShapelessError, Values

__all__ = ["shape_key", "shape_of", "shared_key", "shown_key"]

_MAX_MEDIA_CHARS: Final = 256
_SHORT_BODY: Final = 31


def shape_key(view: RequestView) -> bytes | None:
    """A 16-byte digest of a request's shape; None if it has none that is safe to share."""
    shape = shape_of(view)
    if shape is None:
        return None
    return hashlib.blake2b(shape.encode(), digest_size=16, person=b"shape").digest()


def shared_key(view: RequestView) -> bytes:
    """The key of a request's shape, or of the request itself if it has none."""
    return shape_key(view) or view.fingerprint()


def shown_key(view: RequestView) -> str | None:
    """The key of a request's shape for people, in hexadecimal; None if it has none."""
    key = shape_key(view)
    return None if key is None else key.hex()


def shape_of(view: RequestView) -> str | None:
    """The shape as text; it holds no literal of the request, and is for tests and for reading.

    None if the request is too large, too deep, cut off, or of a kind that is not understood.
    """
    try:
        return _shape(view)
    except ShapelessError:
        return None


def _shape(view: RequestView) -> str:
    override = next((value for name, value in view.headers if name == _OVERRIDE), "")
    method = (override or view.method).upper()
    if method not in METHODS or len(view.content_type) > _MAX_MEDIA_CHARS:
        raise ShapelessError
    values = Values()
    raw_path, _, raw_query = view.path.partition("?")
    path = path_shape(values, method, raw_path)
    query = pairs_shape(values, pairs_of(raw_query)) if raw_query else ""
    media = view.content_type.partition(";")[0].strip().lower()
    headers = headers_shape((("type", media), *view.headers)) if media or view.headers else ""
    body = ""
    if view.body or view.body_bytes:
        whole = view.body_bytes in (-1, len(view.body))
        body = body_shape(values, media, view.body, whole=whole)
    size = length(max(view.body_bytes, len(view.body)), _SHORT_BODY) if body else 0
    told = f"{length(values.longest)} {length(values.longest_item)} {size} {values.ranges.told()}"
    return f"{method} {path}?{query}\n{headers}\n{body}\n{told}"


_OVERRIDE: Final = "x-http-method-override"
