"""The key of a request: equal for two requests exactly when the classifier would see the same.

A key says the same in every process, so that one may tell another what it has learned. A short
request is its own key; of a longer one it is a SHA-256 digest, which is faster here than BLAKE2b.

No two requests share a key: parts are joined by bytes that none of them holds, or measured first.
All other keys begin with a line feed, which a short request's never does.
"""

import hashlib
from collections.abc import Sequence

MAX_PLAIN_BYTES = 200
"""Longest request that is its own key."""

type Semantic = Sequence[tuple[bytes, bytes]]
"""Lower-case name and value of the fields in `SEMANTIC_HEADERS`, in any order."""


def head_key(method: bytes, target: bytes, content_type: bytes, semantic: Semantic) -> bytes:
    """The part of the key that the head gives, and all of it for a request without a body.

    Args:
        method: In any case.
        target: In origin form.
        content_type: The first that is not empty; b"" if there is none.
        semantic: The other header fields that the classifier may see.
    """
    parts = [method.upper(), target, content_type]
    for field in sorted(semantic) if len(semantic) > 1 else semantic:
        parts += field
    plain = b"\0".join(parts)
    # HTTP allows neither byte here, but a caller of the service may send anything.
    # (Counting is several times faster than `in`.)
    is_plain = plain.count(b"\0") == len(parts) - 1 and not plain.count(b"\n")
    if not is_plain:
        lengths = ",".join(str(len(part)) for part in parts)
        return b"\n" + hashlib.sha256(b"odd %b:%b" % (lengths.encode(), plain)).digest()
    if len(plain) <= MAX_PLAIN_BYTES:
        return plain
    return b"\n" + hashlib.sha256(b"head:" + plain).digest()


def with_body(head: bytes, body: bytes | memoryview, body_bytes: int) -> bytes:
    """The key of a request.

    Args:
        head: Its `head_key`.
        body: As much of its body as the classifier sees.
        body_bytes: Length of the whole body, or -1 if it is not known yet.
    """
    if not body_bytes and not body:
        return head
    if len(head) + len(body) <= MAX_PLAIN_BYTES:
        return b"".join((head, b"\n%d\n" % body_bytes, body))
    digest = hashlib.sha256(b"body %d:%b%d:" % (len(head), head, body_bytes))
    digest.update(body)
    return b"\n" + digest.digest()
