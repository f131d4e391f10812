"""Who may change a running proxy by its control port.

That is who has the ADMIN_TOKEN; only if there is none, who is on this machine. The latter has to be
a program: a page in a browser on this machine, wherever it is from, could ask as well (cross-site
requests, and names that a stranger's DNS points at 127.0.0.1), and so could anybody by way of a
proxy on it. Of proxies only those are known that say so: where there is one, it takes the token.
"""

import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping

ON_BEHALF_OF = "x-slb-on-behalf-of"
"""Field in which a supervisor tells its processes whose request it hands on."""

_LOOPBACK_HOST = re.compile(
    r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE
)
_BROWSERS_SEND = frozenset({"origin", "referer", "sec-fetch-mode", "sec-fetch-site"})
_PROXIES_SEND = re.compile(r"forwarded|via|x-real-ip|(x-forwarded|x-envoy)-.*")

WRONG_TOKEN = "The Authorization header does not hold the ADMIN_TOKEN."  # noqa: S105 - a sentence
NO_TOKEN = "It takes Authorization: Bearer ADMIN_TOKEN."  # noqa: S105
NO_BROWSER = "Pages in browsers may not write; from a program leave Origin and the like out."
NO_PROXY = "By way of a proxy it takes an ADMIN_TOKEN, and there is none."
NO_NAME = "The Host header has to be localhost or a loopback address."


def looks_at(name: str) -> bool:
    """Whether a field of this name, in lower case, has a say in `refusal`; Host has as well."""
    known = name == "authorization" or name in _BROWSERS_SEND
    return known or _PROXIES_SEND.fullmatch(name) is not None


def refusal(peer: str, headers: Iterable[tuple[str, str]], token: str) -> str | None:
    """Why a request may not change anything; None if it may.

    Args:
        peer: IP address that it comes from.
        headers: All its header fields, names in lower case.
        token: The ADMIN_TOKEN; empty if there is none.
    """
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value)
    if given := fields.get("authorization"):
        return None if _is_token(given, token) else WRONG_TOKEN
    return NO_TOKEN if token or not _is_loopback(peer) else _refusal_here(fields)


def _refusal_here(fields: Mapping[str, list[str]]) -> str | None:
    """Why a request from this machine may not change anything without a token."""
    if fields.keys() & _BROWSERS_SEND:
        return NO_BROWSER
    if any(_PROXIES_SEND.fullmatch(name) for name in fields):
        return NO_PROXY
    hosts = fields.get("host", [])
    return None if len(hosts) == 1 and _LOOPBACK_HOST.fullmatch(hosts[0]) else NO_NAME


def _is_token(given: list[str], token: str) -> bool:
    scheme, _, credentials = given[0].partition(" ")
    same = hmac.compare_digest(credentials.strip().encode(), token.encode())
    return same and bool(token) and len(given) == 1 and scheme.lower() == "bearer"


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
