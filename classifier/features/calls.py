"""Calls by name: JSON-RPC, action fields, X-Amz-Target, SOAP and XML-RPC, gRPC and tRPC paths."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Final

from pydantic import JsonValue

from classifier.features.bodies import XML_NAME
from classifier.features.gist import thing_of_call
from classifier.features.intent import NAME, add_intent, intent_of
from classifier.features.jsonrpc import read_jsonrpc
from classifier.features.magnitudes import bucket
from classifier.features.request import Parts
from classifier.features.target import is_id
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, is_plural, split_name, stem

_ACTION_PARAMS: Final = vocabulary("""
    action op operation method cmd command function do request act func mode comp restype verb
    rpc wsfunction task
""")


_ACTION_KEYS: Final = vocabulary("""
    action op operation cmd command function fn procedure request type querytype requesttype
    operationname task event do func service messagetype msgtype method verb rpc call jobtype
    kind commandname eventtype intent process tasktype job name action_type msg_type
""")


_STRONG: Final = vocabulary("""
    requete operacion azione aktion vorgang befehl commande operacao accion acao operazione
    handler svc_method action op operation cmd command function fn procedure method func verb
    rpc call do request messagetype msgtype querytype
""")


_METHOD_NAME: Final = re.compile(r"<methodName>\s*([\w.:]{1,80})")


_SOAP_PATH: Final = re.compile(r"[/#:]")


_GRPC: Final = re.compile(r"^[a-zA-Z_]\w*(\.[a-zA-Z]\w*)+$")


_PASCAL: Final = re.compile(r"[A-Z]\w*$")


_DEFAULT_VERB: Final = {
    "GET": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "update",
    "DELETE": "delete",
}


def read_calls(parts: Parts, bag: dict[str, float]) -> str:
    """Add the features of the operations a request names; gives its protocol, "" if it has none."""
    for protocol, names in _sources(parts, bag):
        if names:
            _operations(protocol, names, bag)
            return protocol
    return ""


def _sources(parts: Parts, bag: dict[str, float]) -> Iterator[tuple[str, list[str]]]:
    # These add features of their own, whichever source has the name.
    calls = read_jsonrpc(parts.document, bag)
    path_call = _path_call(parts, bag)
    command = _command(parts, bag)
    target = parts.headers.get("x-amz-target", "")
    yield "amz", [target.rsplit(".", 1)[-1]] if target else []
    yield "soap", _soap(parts)
    yield "jsonrpc", calls
    yield "action", _parameter(parts)
    yield "grpc", path_call
    yield "action", _field(parts.document)
    yield "command", command


def _soap(parts: Parts) -> list[str]:
    header = parts.headers.get("soapaction", "").strip('"')
    if "<" not in parts.text[:200]:
        return [_SOAP_PATH.split(header)[-1]] if header else []
    text = parts.text[:6000]
    method = _METHOD_NAME.search(text)
    if method:
        return [method[1]]
    names = [element[2] for element in islice(XML_NAME.finditer(text), 40)]
    if names and names[0] == "Envelope":
        body = names.index("Body") + 1 if "Body" in names else 1
        return names[body : body + 1]
    return [_SOAP_PATH.split(header)[-1]] if header else []


def _parameter(parts: Parts) -> list[str]:
    for key, value in parts.params[:20]:
        lower = key.lower()
        if lower not in _ACTION_PARAMS or not NAME.match(value):
            continue
        if not value.isupper() or lower in ("request", "action", "cmd"):
            return [value]
    return []


def _path_call(parts: Parts, bag: dict[str, float]) -> list[str]:
    segments = parts.segments
    if (
        parts.method == "POST"
        and len(segments) >= 2
        and "." in segments[-2]
        and _GRPC.match(segments[-2])
        and _PASCAL.match(segments[-1])
    ):
        return [segments[-1]]
    if "trpc" in segments[:-1]:
        names = segments[-1].split(",")
        if len(names) > 1:
            bag[f"rpc.batch={bucket(len(names))}"] = 1.0
        return names[:20]
    dotted = bool(segments) and "." in segments[-1] and parts.method in ("POST", "GET")
    return [segments[-1]] if dotted and _is_dotted_call(segments[-1]) else []


def _is_dotted_call(name: str) -> bool:
    """Whether a last segment such as `users.list` is the name of an operation."""
    if not _DOTTED.match(name) or is_id(name) or _EXTENSION.search(name):
        return False
    words = split_name(name)
    return sum(bool(groups(word)) for word in words) * 2 >= len(words)


_DOTTED: Final = re.compile(r"[a-z]\w*(\.[a-z]\w*)+$", re.IGNORECASE)


_EXTENSION: Final = re.compile(r"\.(json|xml|php|html?|csv|aspx?|jsp|pdf|zip|txt|ya?ml|js|css)$")


def _field(document: JsonValue) -> list[str]:
    if isinstance(document, list) and document and isinstance(document[0], dict):
        document = document[0]
    if not isinstance(document, dict):
        return []
    for key, value in islice(document.items(), 12):
        lower = key.lower()
        if (
            lower in _ACTION_KEYS
            and isinstance(value, str)
            and NAME.match(value)
            and len(value) < 60
            and _operates(lower, value)
        ):
            return [value]
    for key, value in islice(document.items(), 4):
        if (
            isinstance(value, str)
            and _CAMEL.match(value)
            and (key.lower() in _STRONG or _operates(key.lower(), value))
        ):
            return [value]
    return []


# An upper-case letter could begin a part or go on with one: only a "_" begins one here, or a
# name of many capitals would be tried in every division.
_CAMEL: Final = re.compile(
    r"(?:\w++[./:])?[a-zA-Z][a-z]++[A-Z_][a-zA-Z]++(?:_[a-zA-Z]++)*+$|[a-z]++[./][a-z]\w++$"
)


_NAMESPACE: Final = re.compile(r"([A-Za-z][A-Za-z0-9]*)[._/:]+(.+)$")


def _namespaced(name: str) -> tuple[str, str]:
    """`debug_getRawBlock` is `getRawBlock` in the namespace `debug`; `get_user` has none."""
    found = _NAMESPACE.match(name)
    if not found:
        return "", name
    left, right = found[1], found[2]
    words = split_name(right)
    if (
        words
        and any(group in _VERBS for group in groups(words[0]))
        and ("." in name or "/" in name or ":" in name or right != right.lower())
    ):
        return left, right
    if "." in name or "/" in name:
        deeper = _namespaced(right)
        return (left, deeper[1]) if deeper[0] else ("", name)
    return "", name


def _operates(key: str, value: str) -> bool:
    """Whether a field's value names an operation, rather than a status or a kind of thing."""
    if " " in value or is_id(value):
        return False
    if key in _STRONG:
        return True
    words = split_name(value)
    return len(words) >= 2 and any(group in _VERBS for group in groups(words[0]))


_VERBS: Final = vocabulary("""
    get describe list search scan count exists create update delete upsert export import start
    stop train infer generate embed convert optimize maintain trace send
""")


def _command(parts: Parts, bag: dict[str, float]) -> list[str]:
    """A command given as a list of words: `["HGET", "user:1", "name"]`."""
    document = parts.document
    if isinstance(document, list) and document and isinstance(document[0], list):
        bag[f"rpc.batch={bucket(len(document))}"] = 1.0
        document = document[0]
    if isinstance(document, list) and document and isinstance(document[0], str):
        name = document[0]
        if name.isalpha() and name.isupper() and len(name) < 16:
            return [name.lower()]
    return []


def _operations(protocol: str, names: list[str], bag: dict[str, float]) -> None:
    for name in names[:10]:
        # Cut before the cache; longer names come from paths and headers alone.
        bag.update(_operation(protocol, name[:_MAX_NAME]))


@lru_cache(maxsize=4096)
def _operation(protocol: str, full: str) -> dict[str, float]:
    space, name = _namespaced(_SUFFIX.sub("", full))
    words = split_name(name)[:8]
    bag: dict[str, float] = {}
    if not words:
        return bag
    for word in split_name(space)[:2]:
        bag[f"ns.w={word}"] = 1.0
    _operation_words(words, bag)
    bag[f"call={thing_of_call(name)}"] = 1.5
    add_intent(bag, *intent_of(name), "rpc")
    bag[f"op.plural={is_plural(name)}"] = 1.0
    verb = next((g for w in words for g in groups(w) if g in _VERBS), "none")
    bag[f"verb={verb}"] = 1.0
    bag[f"verb&plural={verb}:{is_plural(name)}"] = 1.0
    bag[f"{protocol}&verb={verb}"] = 1.0
    return bag


_MAX_NAME: Final = 160


_SUFFIX: Final = re.compile(r"(?<=[a-z])(Request|Rq|Req|Command|Async)$")


def _operation_words(words: tuple[str, ...], bag: dict[str, float]) -> None:
    for word in words:
        bag[f"op.w={stem(word)}"] = 1.0
        for group in groups(word):
            bag[f"op={group}"] = 1.0
    bag[f"op1.w={stem(words[0])}"] = 1.0
    for group in groups(words[0]):
        bag[f"op1={group}"] = 1.0
    for group in groups(words[-1]):
        bag[f"opn={group}"] = 1.0


def read_rest_verb(parts: Parts, shape: str, bag: dict[str, float]) -> None:
    """The verb of a request that names no operation: its method on the shape of its target."""
    verb = _DEFAULT_VERB.get(parts.method, parts.method.lower())
    if parts.method == "GET" and shape in ("list", "sub-list"):
        verb = "list"
    if parts.method == "POST" and "action" in shape:
        verb = "act"
    if parts.method == "HEAD":
        verb = "head"
    bag[f"rest.verb={verb}"] = 1.0
