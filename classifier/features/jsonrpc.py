"""JSON-RPC and its relatives: the method, its parameters, batches of calls."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from typing import Final

from pydantic import JsonValue

from classifier.features.intent import NAME
from classifier.features.magnitudes import bucket, log
from classifier.features.request import Parts
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, split_name


def read_jsonrpc(document: JsonValue, bag: dict[str, float]) -> list[str]:
    """The methods of a call or of a batch of calls, none if the document is no such thing."""
    calls = document if isinstance(document, list) else [document]
    names: list[str] = []
    for call in calls[:20]:
        if not isinstance(call, dict):
            return []
        method = call.get("method")
        if not isinstance(method, str) or _HTTP.match(method) or not _CALL_KEYS & call.keys():
            return []
        params = call.get("params", call.get("arguments", call.get("args")))
        names.append(_inner(method, params))
        _params(params, bag)
    if isinstance(document, list):
        bag[f"rpc.batch={bucket(len(document))}"] = 1.0
        bag["rpc.batch.log"] = log(len(document))
    return names


_HTTP: Final = re.compile(r"(GET|POST|PUT|DELETE|PATCH)$", re.IGNORECASE)
_CALL_KEYS: Final = frozenset(("params", "jsonrpc", "id"))
_GENERIC: Final = vocabulary("""
    call query execute invoke tools request rpc run kw method send dispatch
""")


_INNER_KEYS: Final = (
    "name",
    "method",
    "request_type",
    "action",
    "operation",
    "function",
    "type",
    "command",
)


def _inner(method: str, params: JsonValue) -> str:
    """The name inside the parameters where the method itself is only `call` or `execute`."""
    if not all(word in _GENERIC for word in split_name(method)):
        return method
    if isinstance(params, dict):
        args = params.get("args")
        named = [params.get(key) for key in _INNER_KEYS]
        listed = list(args[2:6]) if isinstance(args, list) else []
    else:
        named, listed = [], list(params[:6]) if isinstance(params, list) else []
    texts = [
        text for text in (*reversed(listed), *named) if isinstance(text, str) and NAME.match(text)
    ]
    known = [
        text
        for text in texts
        if any(groups(word) for word in split_name(text))
        and text not in _GENERIC
        and "execute" not in text
    ]
    return known[0] if known else method


def argument_document(parts: Parts) -> JsonValue:
    """What carries the arguments: of a JSON-RPC call its parameters, else the whole document."""
    document = parts.document
    if (
        isinstance(document, list)
        and document
        and isinstance(document[0], dict)
        and "method" in document[0]
    ):
        document = document[0]
    if isinstance(document, dict) and isinstance(document.get("method"), str):
        for key in ("params", "arguments", "args"):
            inner = document.get(key)
            if isinstance(inner, dict | list):
                return (
                    inner
                    if isinstance(inner, dict)
                    else {f"p{at}": item for at, item in enumerate(inner[:20])}
                )
        if "jsonrpc" in document:
            return {}
    return document


def _params(params: JsonValue, bag: dict[str, float]) -> None:
    items = (
        params
        if isinstance(params, list)
        else list(params.values())
        if isinstance(params, dict)
        else []
    )
    bag[f"rpc.params={min(4, len(items))}"] = 1.0
    if items and len(items) <= 2 and _is_key(items[0]):
        bag["rpc.key"] = 1.0
    if any(item is True for item in items):
        bag["rpc.true"] = 1.0
    for item in items[:8]:
        if isinstance(item, dict):
            bag["rpc.object"] = 1.0
            _block_range(item, bag)
        elif isinstance(item, list):
            bag[f"rpc.list={bucket(len(item))}"] = 1.0


def _is_key(item: JsonValue) -> bool:
    """Whether the first parameter is a key: a hash, an address, a number."""
    if isinstance(item, str):
        return len(item) > 1 and " " not in item and any(sign.isdigit() for sign in item)
    return isinstance(item, int) and not isinstance(item, bool)


def _block_range(item: dict[str, JsonValue], bag: dict[str, float]) -> None:
    """A range of heights or slots, in hexadecimal as blockchain nodes send it."""
    ends = [item.get(key) for key in ("fromBlock", "toBlock")]
    numbers = [
        int(e, 16) for e in ends if isinstance(e, str) and re.match(r"0x[0-9a-fA-F]{1,15}$", e)
    ]
    if len(numbers) == 2:
        bag[f"rpc.range={bucket(abs(numbers[1] - numbers[0]))}"] = 1.0
    elif ends[0] in ("earliest", "0x0"):
        bag["rpc.range=huge"] = 1.0
    elif ends[0] is not None:
        bag["rpc.range=open"] = 1.0
