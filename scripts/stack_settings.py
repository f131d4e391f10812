"""Settings as the local scripts need them: environment over `.env`, standard library only."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

_ASSIGNMENT = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")

# Every variable that a service of ours reads begins like this, or is called so.
_SETTING = re.compile(
    "(ADMIN|BREAKER|CACHE|CLASSIFIER|CLASSIFY|CLIENT|CONNECT|DASHBOARD|DECISION|DRAIN|EJECT"
    "|FALLBACK|FAST_PATH|FIRST_BYTE|GENERAL|HEADER|HEALTH|HIGH_COMPUTE|IDLE|INSPECT|KEEPALIVE|LABELS"
    "|LLM|LOCAL|MAX|METRICS|OLLAMA|OVERRIDE|PANIC|PROGRESS|PROVISIONAL|PROXY|QUEUE|SLOW_START"
    "|STREAM|TOTAL|TRUSTED|UPSTREAM|WORKER)_"
    "|(BALANCING|INSPECT|ROUTING)$"
)

MAX_PORT = 65_535


class SettingsError(Exception):
    """A setting cannot be used; the message is one line and names it."""


def read_settings(home: Path) -> dict[str, str]:
    """The variables of `home/.env`, then those of the environment, which win.

    Raises:
        SettingsError: If the file is not text.
    """
    settings: dict[str, str] = {}
    file = home / ".env"
    try:
        settings.update(parse_dotenv(file.read_text("utf-8")))
    except FileNotFoundError:
        pass
    except UnicodeDecodeError as exc:
        msg = f"{file} is not UTF-8 text; save it as UTF-8"
        raise SettingsError(msg) from exc
    settings.update(os.environ)
    return settings


def settings_in(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may be settings of a service; they are read whatever their case."""
    return {name: value for name, value in environment.items() if _SETTING.match(name.upper())}


def parse_dotenv(text: str) -> dict[str, str]:
    """`NAME=value` lines; values may be quoted, and ` #` starts a comment outside of quotes."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        assignment = _ASSIGNMENT.match(line)
        if assignment is None:
            continue
        name, value = assignment.groups()
        if value[:1] in {'"', "'"} and (end := value.find(value[0], 1)) > 0:
            found[name] = value[1:end]
        else:
            found[name] = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].strip()
    return found


def port_setting(settings: Mapping[str, str], name: str, default: int) -> int:
    """A TCP port.

    Raises:
        SettingsError: If it is none.
    """
    value = settings.get(name, str(default))
    if value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_PORT:
        return int(value)
    msg = f"{name}: {value!r} is not a port from 1 to {MAX_PORT}"
    raise SettingsError(msg)


def address_of(name: str, url: str, *, like: str = "http://localhost:9001") -> tuple[str, int]:
    """Host and port of a base URL; `like` is an example of one that would do.

    Raises:
        SettingsError: If it is no HTTP URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"{name}: {url!r} is not a URL; write it like {like}"
        raise SettingsError(msg)
    return parts.hostname, port


def is_loopback(host: str) -> bool:
    """Whether `host` can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
