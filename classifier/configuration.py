"""How a program of this product starts: typed settings, a port of its own, errors to act on.

Every program reads its settings through `load` and takes its port through `listen`, so that a
fault looks the same everywhere: one line that names the variable, what is wrong with its value and
what to write instead.
"""

import errno
import socket
import sys
from types import NoneType
from typing import Annotated, Any, NoReturn, get_args
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from classifier.redaction import shown_url

EXIT_CODE_BAD_SETTINGS = 2


class SettingsError(Exception):
    """A setting cannot be used; the message is one line and fit for an operator's eyes."""


class Settings(BaseSettings):
    """Base of all settings: variables named like the fields, `.env` of the working directory."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        env_ignore_empty=False,
        validate_default=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object, info: ValidationInfo) -> object:
        """`NAME=` in an env file means no value, where a setting may have none."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        return None if value == "" and NoneType in get_args(annotation) else value


def http_url(value: str) -> str:
    """Check that `value` is the base URL of an HTTP service; return it without a trailing slash.

    Raises:
        ValueError: If scheme or host is missing or no such thing can be, the port is not a port,
            or there is a query.
    """
    text = value.strip()
    try:
        parts = urlsplit(text)
        _ = parts.port
        # What takes these URLs is pickier about names and addresses.
        _ = httpx.URL(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable or not text.isprintable() or set(text) & set(" ?#"):
        msg = f"{shown_url(text)!r} is not a URL; write it like http://localhost:8001"
        raise ValueError(msg)
    return text.rstrip("/")


def _without_user(url: str) -> str:
    if urlsplit(url).username is not None:
        msg = f"{shown_url(url)!r} holds a user; write it without, for others are shown this URL"
        raise ValueError(msg)
    return url


type HttpUrl = Annotated[str, AfterValidator(http_url)]
type PublicHttpUrl = Annotated[HttpUrl, AfterValidator(_without_user)]
"""Of a setting that is shown to users, and so must hold no password."""
type Port = Annotated[int, Field(ge=1, le=65_535)]


def load[S: Settings](cls: type[S], **overrides: Any) -> S:  # noqa: ANN401 - any field's value
    """Read settings of type `cls`; `overrides` win over the environment.

    Raises:
        SettingsError: If a value does not fit; the message lists every fault.
    """
    try:
        return cls(**overrides)
    except ValidationError as exc:
        raise SettingsError(explain(exc)) from exc
    except UnicodeDecodeError as exc:
        msg = ".env is not UTF-8 text; save it as UTF-8"
        raise SettingsError(msg) from exc


def exit_with(message: str) -> NoReturn:
    """End the program for a fault of its configuration: one line on stderr, exit code 2."""
    sys.stderr.write(f"error: {message}\n")
    sys.exit(EXIT_CODE_BAD_SETTINGS)


def listen(host: str, port: int, prefix: str) -> socket.socket:
    """Take a port, at once, so that a conflict is known before anything else starts.

    Args:
        host: Address or name to listen on.
        port: TCP port; 0 takes any free one.
        prefix: What the settings of this port are called: `{prefix}_HOST`, `{prefix}_PORT`.

    Raises:
        SettingsError: If the port cannot be had; the message says which setting to change.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as exc:
        raise SettingsError(_no_address(host, prefix, exc)) from exc
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        if exc.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(_no_address(host, prefix, exc)) from exc
        msg = f"{prefix}_PORT: cannot listen on {host}:{port} ({exc.strerror}); set a free port"
        raise SettingsError(msg) from exc
    return sock


def _no_address(host: str, prefix: str, error: OSError) -> str:
    return (
        f"{prefix}_HOST: {host!r} is no address of this machine ({error.strerror});"
        " write one like 127.0.0.1"
    )


def explain(error: ValidationError) -> str:
    """All faults of a settings model in one line, each with its variable in front."""
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']).upper()}: {_fault_text(dict(fault))}"
        for fault in error.errors(include_url=False)
    )


def _fault_text(fault: dict[str, Any]) -> str:
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    text = str(fault["msg"]).partition(", unable to ")[0].removeprefix("Input ")
    given = fault["input"]
    return f"{(shown_url(given) if isinstance(given, str) else given)!r} {text}"
