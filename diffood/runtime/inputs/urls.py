"""Which URLs may be opened, and how a URL is written where people read it. Opens none."""

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

from diffood.errors import UsageError

PROTOCOLS = ("http", "https", "s3", "gs", "az")
"""What is opened. Others of fsspec run code (reference), write caches, or lead back to files of this machine."""
WEB = ("http", "https")
OBJECT_STORES = ("s3", "gs", "az")
LOCAL = ("file", "local")
"""Opened where the URL was typed: it says no more than a path does."""
CHAIN = "::"
"""How fsspec joins URLs, each of which says how the one after it is read."""

HIDDEN = "***"
_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_BROKEN_USER = re.compile(r"(?<=://)[^/?#\s@\[\]]*:(?!\d*(?:[/?#\s'\"),;\]]|$))\S*@")  # a password with a slash in it
_VALUE = re.compile(r"(?<=[?&;#])([^=&;#\s]+)=([^&#\s]+?)(?=['\"),.\]>]*(?:[&#\s]|$))")
_SECRET_NAME = re.compile(
    r"signature|sig$|token|secret|passw|pwd|^pass$|^pw$|credential|auth|session|jwt|hmac|sas$|^key|key(id)?$|accessid"
    r"|policy|ticket|^(code|s|sid|user|username|login)$"
)
_SECRET_VALUE = re.compile(
    r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d)[\w\-+/=.~%]{24,}"
)  # base64, of any name; no UUID and no hash


@dataclass(frozen=True)
class UrlRules:
    """Which URLs are opened.

    Attributes:
        zipped: Whether the members of a zip may be named: zip://*.png::https://host/a.zip.
        private: Whether lines of lists, and redirects, may lead to private addresses.
        listed: Whether the URL is a line of a list or of standard input, which its user may not have seen.
    """

    zipped: bool = False
    private: bool = False
    listed: bool = False


DEFAULT_URLS = UrlRules()


def is_url(name: str) -> bool:
    """Whether a name is a URL: protocol://path, or several joined by "::"."""
    return "://" in name


def protocol_of(url: str) -> str:
    """What precedes ://, as fsspec takes it."""
    return url.partition("://")[0]


def path_of(url: str) -> str:
    """A URL without the ones joined to it, and without a query, which signed ones have."""
    path = url.partition(CHAIN)[0]
    return path.partition("?")[0] if protocol_of(url) in WEB else path


def require_allowed(url: str, rules: UrlRules) -> None:
    """Raise UsageError for a URL that is not opened."""
    first, chained, rest = url.partition(CHAIN)
    if protocol_of(first) == "zip" and chained and CHAIN not in rest and not rules.listed:
        if not rules.zipped:
            raise _refusal(url, "members of a zip are read with --allow-protocol zip; or give the zip itself")
        first, chained = rest, ""
    if chained:
        raise _refusal(url, "URLs joined by '::' are not opened; give the file itself")
    protocol = protocol_of(first)
    if protocol in LOCAL and rules.listed:
        raise _refusal(url, "a list names files of this machine by their paths; write the path")
    if protocol not in (*PROTOCOLS, *LOCAL):
        raise _refusal(url, f"its protocol is none of {', '.join(PROTOCOLS)}; copy the file to one of them, or here")
    if protocol in OBJECT_STORES and rules.listed and "@" in first.partition("://")[2].partition("/")[0]:
        raise _refusal(url, "a list names a bucket without an account; set the account in the environment")


def _refusal(url: str, why: str) -> UsageError:
    return UsageError(f"The URL {hide_secrets(url)!r} is refused: {why}.")


def hide_secrets(text: str) -> str:
    """A URL, or a message with URLs in it, without user names, passwords, signatures and tokens."""
    if not ("://" in text or "=" in text):
        return text
    hidden = _USER.sub(f"{HIDDEN}@", _BROKEN_USER.sub(f"{HIDDEN}@", text))
    return _VALUE.sub(_hide_value, hidden)


def _hide_value(found: "re.Match[str]") -> str:
    name = re.sub(r"[-_.\[\]]", "", unquote_plus(found[1]).lower())
    secret = _SECRET_NAME.search(name) or _SECRET_VALUE.fullmatch(found[2])
    return f"{found[1]}={HIDDEN}" if secret else found[0]
