"""What of a request may be shown or sent on: never a value that could be a secret.

`shown_path` is for the decision feed and the dashboard, `excerpt` for the LLM.
"""

import re

from classifier.contracts import RequestView

MASK = "***"
MAX_SHOWN_CHARS = 200
MAX_EXCERPT_CHARS = 1_500
MAX_STRING_CHARS = 120

_SHOWN_VALUE = re.compile(r"-?\d{1,9}(\.\d{1,6})?|true|false|asc|desc", re.ASCII | re.IGNORECASE)
# Long and mixed, or after a colon (bot tokens): plain numbers and UUIDs stay readable.
_KEY_LIKE = re.compile(
    r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[\w.~+=:%-]{24,}|[^:/]*:[\w%-]{16,}", re.ASCII
)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

_SENSITIVE_NAME = (
    r"[\w.-]*(?:passw(?:or)?d|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|authorization|cookie|credential|signature|session[_-]?id|card[_-]?number|cvv|pin)[\w.-]*"
)
_SECRET_JSON = re.compile(
    rf'("{_SENSITIVE_NAME}"\s*:\s*)("(?:[^"\\]|\\.){{0,4096}}"?|[^\s,}}\]]+)', re.IGNORECASE
)
_SECRET_FORM = re.compile(rf"(^|[?&\s;])({_SENSITIVE_NAME}=)[^&\s;]*", re.IGNORECASE)
_SECRET_XML = re.compile(rf"(<{_SENSITIVE_NAME}[^>]{{0,200}}>)[^<]*", re.IGNORECASE)
_SECRET_WORD = re.compile(
    r"(?:bearer|basic)\s+[\w.~+/=-]{8,}|eyJ[\w-]{8,}\.[\w.-]+|\b(?:sk|pk|rk|ghp|gho|xox[abp]|AKIA)[-_\w]{12,}",
    re.IGNORECASE,
)
_LONG_STRING = re.compile(rf'"((?:[^"\\]|\\.){{{MAX_STRING_CHARS}}})(?:[^"\\]|\\.)+"')


def shown_path(target: str) -> str:
    """A request target fit for people: bounded, printable, without secrets.

    Query values are masked but for numbers and flags (`limit=50` explains a decision, a token
    does not), and so are path segments that look like keys.
    """
    path, question_mark, query = target[: 4 * MAX_SHOWN_CHARS].partition("?")
    shown = "/".join(_shown_segment(segment) for segment in path.split("/"))
    if question_mark:
        shown += "?" + "&".join(_shown_parameter(part) for part in query.split("&"))
    return _UNPRINTABLE.sub("?", shown)[:MAX_SHOWN_CHARS]


def _shown_segment(segment: str) -> str:
    if _UUID.fullmatch(segment) or not _KEY_LIKE.fullmatch(segment):
        return segment
    return MASK


def _shown_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        # Without a name it may be the value itself.
        return name if not _KEY_LIKE.fullmatch(name) else MASK
    return f"{name}={value if _SHOWN_VALUE.fullmatch(value) else MASK}"


def excerpt(view: RequestView) -> str:
    """The start of a body, bounded, with secrets masked and long strings cut: for the LLM."""
    text = view.body[: 4 * MAX_EXCERPT_CHARS].decode("utf-8", "replace")
    text = _CONTROL.sub(" ", text)
    text = _SECRET_JSON.sub(rf'\1"{MASK}"', text)
    text = _SECRET_FORM.sub(rf"\1\2{MASK}", text)
    text = _SECRET_XML.sub(rf"\1{MASK}", text)
    text = _SECRET_WORD.sub(MASK, text)
    text = _LONG_STRING.sub(r'"\1..."', text)
    return text[:MAX_EXCERPT_CHARS]
