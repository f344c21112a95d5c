"""Lines of lists that are URLs: what is allowed, what may not be shown. Opens no connection."""

import io
from ipaddress import ip_address

from oracle import attempt, require_message

from diffood.runtime.inputs.addresses import is_public
from diffood.runtime.inputs.files import RefusedLine, list_entries
from diffood.runtime.inputs.remote import require_file_system, url_name
from diffood.runtime.inputs.urls import CHAIN, PROTOCOLS, UrlRules, hide_secrets, is_url, path_of, protocol_of

LISTED = UrlRules(zipped=True, listed=True)
TYPED = UrlRules(zipped=True)
SECRET = "Zq7Secret9Zq7Secret9Zq7x"


def use(data: bytes) -> None:
    """Judge every line, as one of a list and as one that was typed."""
    for entry in list_entries(io.BytesIO(data)):
        if isinstance(entry, RefusedLine):
            require_message(entry.reason)
            continue
        hidden = hide_secrets(entry)
        assert hide_secrets(hidden) == hidden, "what is hidden is hidden once"
        _judge_address(entry)
        if not is_url(entry):
            continue
        url_name(entry).encode()
        path_of(entry)
        attempt(lambda entry=entry: require_file_system(entry, TYPED))
        if attempt(lambda entry=entry: require_file_system(entry, LISTED)):
            assert protocol_of(entry) in PROTOCOLS and CHAIN not in entry, "a list reaches what it may not"
        with_user = entry.replace("://", f"://user:{SECRET}@", 1)
        if protocol_of(entry) in PROTOCOLS and SECRET not in entry:
            assert SECRET not in hide_secrets(with_user), "a password is shown"


def _judge_address(text: str) -> None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return
    assert not (is_public(text.strip()) and (address.is_private or address.is_loopback or address.is_link_local))
