"""Calls by name: JSON-RPC, action fields, X-Amz-Target, SOAP and XML-RPC, gRPC and tRPC paths."""

import re
from typing import Final

from pydantic import JsonValue

from classifier.features.intent import add_intent, intent_of
from classifier.features.magnitudes import bucket, log
from classifier.features.request import Parts
from classifier.features.target import is_id
from classifier.features.words import groups, is_plural, split_name, stem

_NAME: Final = re.compile(r"[A-Za-z_][\w.:/\-# ]{0,79}$")
_ACTION_PARAMS: Final = frozenset("action op operation method cmd command function do request act func mode comp restype verb rpc wsfunction task".split())
_ACTION_KEYS: Final = frozenset(
    "action op operation cmd command function fn procedure request type querytype requesttype "
    "operationname task event do func service messagetype msgtype method verb rpc call jobtype kind "
    "commandname eventtype intent process tasktype job name action_type msg_type".split()
)
_STRONG: Final = frozenset("requete operacion azione aktion vorgang befehl commande operacao accion acao operazione handler svc_method action op operation cmd command function fn procedure method func verb rpc call do request messagetype msgtype querytype".split())
_XML_NAME: Final = re.compile(r"<(?:([\w.-]+):)?([A-Za-z_][\w.-]*)([^<>]{0,400}?)(/?)>")
_METHOD_NAME: Final = re.compile(r"<methodName>\s*([\w.:]{1,80})")
_GRPC: Final = re.compile(r"^[a-zA-Z_][\w]*(\.[\w]+)+$")
_DEFAULT_VERB: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


def read_calls(parts: Parts, bag: dict[str, float]) -> str:
    """Add the features of the operations a request names; gives its protocol, "" if it names none."""
    for protocol, names in _sources(parts, bag):
        if names:
            _operations(protocol, names, bag)
            return protocol
    return ""


def _sources(parts: Parts, bag: dict[str, float]) -> list[tuple[str, list[str]]]:
    target = parts.headers.get("x-amz-target", "")
    return [
        ("amz", [target.rsplit(".", 1)[-1]] if target else []),
        ("soap", _soap(parts)),
        ("jsonrpc", _jsonrpc(parts.document, bag)),
        ("action", _parameter(parts)),
        ("grpc", _path_call(parts, bag)),
        ("action", _field(parts.document)),
        ("command", _command(parts, bag)),
    ]


def _soap(parts: Parts) -> list[str]:
    text = parts.text[:6000]
    header = parts.headers.get("soapaction", "").strip('"')
    if "<" not in text[:200]:
        return [re.split(r"[/#:]", header)[-1]] if header else []
    method = _METHOD_NAME.search(text)
    if method:
        return [method[1]]
    elements = [(m[2], m[1]) for m in _XML_NAME.finditer(text)][:40]
    names = [name for name, _ in elements]
    if names and names[0] == "Envelope":
        body = names.index("Body") + 1 if "Body" in names else 1
        return names[body : body + 1]
    return [re.split(r"[/#:]", header)[-1]] if header else []


def _jsonrpc(document: JsonValue, bag: dict[str, float]) -> list[str]:
    calls = document if isinstance(document, list) else [document]
    names: list[str] = []
    for call in calls[:20]:
        if not isinstance(call, dict):
            return []
        method = call.get("method")
        if not isinstance(method, str) or not ("params" in call or "jsonrpc" in call or "id" in call):
            return []
        if method.upper() in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            return []
        names.append(method)
        _params(call.get("params"), bag)
    if isinstance(document, list):
        bag[f"rpc.batch={bucket(len(document))}"] = 1.0
        bag["rpc.batch.log"] = log(len(document))
    return names


def _params(params: JsonValue, bag: dict[str, float]) -> None:
    items = params if isinstance(params, list) else list(params.values()) if isinstance(params, dict) else []
    bag[f"rpc.params={min(4, len(items))}"] = 1.0
    if any(item is True for item in items):
        bag["rpc.true"] = 1.0
    for item in items[:8]:
        if isinstance(item, dict):
            bag["rpc.object"] = 1.0
            _block_range(item, bag)
        elif isinstance(item, list):
            bag[f"rpc.list={bucket(len(item))}"] = 1.0


def _block_range(item: dict[str, JsonValue], bag: dict[str, float]) -> None:
    """A range of heights or slots, in hexadecimal as blockchain nodes send it."""
    ends = [item.get(key) for key in ("fromBlock", "toBlock")]
    numbers = [int(e, 16) for e in ends if isinstance(e, str) and re.match(r"0x[0-9a-fA-F]{1,15}$", e)]
    if len(numbers) == 2:
        bag[f"rpc.range={bucket(abs(numbers[1] - numbers[0]))}"] = 1.0
    elif ends[0] in ("earliest", "0x0"):
        bag["rpc.range=huge"] = 1.0
    elif ends[0] is not None:
        bag["rpc.range=open"] = 1.0


def _parameter(parts: Parts) -> list[str]:
    for key, value in parts.params[:20]:
        if key.lower() in _ACTION_PARAMS and _NAME.match(value) and not value.isupper():
            return [value]
        if key.lower() in ("request", "action", "cmd") and _NAME.match(value):
            return [value]
    return []


def _path_call(parts: Parts, bag: dict[str, float]) -> list[str]:
    segments = parts.segments
    if len(segments) >= 2 and _GRPC.match(segments[-2]) and segments[-1][:1].isupper():
        return [segments[-1]]
    if "trpc" in segments[:-1]:
        names = segments[-1].split(",")
        if len(names) > 1:
            bag[f"rpc.batch={bucket(len(names))}"] = 1.0
        return names[:20]
    if segments and parts.method in ("POST", "GET") and re.match(r"[a-z]\w*(\.[a-z]\w*)+$", segments[-1], re.I):
        last = segments[-1]
        words = split_name(last)
        if not is_id(last) and sum(bool(groups(w)) for w in words) * 2 >= len(words) and not re.search(r"\.(json|xml|php|html?|csv|aspx?|jsp|pdf|zip|txt|ya?ml|js|css)$", last):
            return [last]
    return []


def _field(document: JsonValue) -> list[str]:
    if isinstance(document, list) and document and isinstance(document[0], dict):
        document = document[0]
    if not isinstance(document, dict):
        return []
    for key, value in list(document.items())[:12]:
        lower = key.lower()
        if lower in _ACTION_KEYS and isinstance(value, str) and _NAME.match(value) and len(value) < 60 and _operates(lower, value):
            return [value]
    for key, value in list(document.items())[:4]:
        if isinstance(value, str) and _CAMEL.match(value) and (key.lower() in _STRONG or _operates(key.lower(), value)):
            return [value]
    return []


_CAMEL: Final = re.compile(r"(?:[\w]+[./:])?[a-zA-Z][a-z]+(?:[A-Z_][a-zA-Z]+)+$|[a-z]+[./][a-z]\w+$")


def _namespaced(name: str) -> tuple[str, str]:
    """`debug_getRawBlock` is `getRawBlock` in the namespace `debug`; `get_user` has none."""
    found = re.match(r"([A-Za-z][A-Za-z0-9]*)[._/:]+(.+)$", name)
    if not found:
        return "", name
    left, right = found[1], found[2]
    words = split_name(right)
    if words and any(group in _VERBS for group in groups(words[0])) and ("." in name or "/" in name or ":" in name or right != right.lower()):
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


_VERBS: Final = frozenset(
    "get describe list search scan count exists create update delete upsert export import start stop train "
    "infer generate embed convert optimize maintain trace send".split()
)


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
    for full in names[:10]:
        space, name = _namespaced(re.sub(r"(?<=[a-z])(Request|Rq|Req|Command|Async)$", "", full))
        words = split_name(name)[:8]
        if not words:
            continue
        for word in split_name(space)[:2]:
            bag[f"ns.w={word}"] = 1.0
        _operation_words(words, bag)
        add_intent(bag, *intent_of(name), "rpc")
        bag[f"op.plural={is_plural(name)}"] = 1.0
        verb = next((g for w in words for g in groups(w) if g in _VERBS), "none")
        bag[f"verb={verb}"] = 1.0
        bag[f"verb&plural={verb}:{is_plural(name)}"] = 1.0
        bag[f"{protocol}&verb={verb}"] = 1.0


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


def read_xml(parts: Parts, bag: dict[str, float]) -> None:
    """Add the element names of an XML body."""
    elements = [m[2] for m in _XML_NAME.finditer(parts.text[:8000])][:60]
    bag["xml.elements"] = log(len(elements))
    for name in elements[:12]:
        for word in split_name(name)[:4]:
            bag[f"xml.w={stem(word)}"] = 1.0
            for group in groups(word):
                bag[f"xml={group}"] = 1.0
    if parts.headers.get("depth", "").lower() == "infinity":
        bag["depth=infinity"] = 1.0
