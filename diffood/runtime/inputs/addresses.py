"""Connections of http and https that reach no private address unasked. Imports aiohttp, as fsspec does for them.

Each address is checked where a socket is made for it, after names were resolved, and again where a connection is used
once more. So a name that resolves to a private address is refused, whatever it resolved to before.
"""

import errno
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import SimpleNamespace
from typing import Any

import aiohttp

from diffood.runtime.inputs.pace import TIMEOUT, PacedResponse

_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits

_redirected: ContextVar[bool] = ContextVar("redirected", default=False)
_may_be_private: ContextVar[bool] = ContextVar("may_be_private", default=False)


def is_public(host: str) -> bool:
    """Whether an IP address is one of the public internet, and so is the IPv4 address inside it, if there is one."""
    address: IPv4Address | IPv6Address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        teredo = address.teredo[1] if address.teredo else None
        last = IPv4Address(int(address) & 0xFFFFFFFF)
        inner = address.ipv4_mapped or address.sixtofour or teredo or (last if address in _NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


@dataclass(frozen=True)
class GuardedClient:
    """Makes the sessions of fsspec's HTTP file system; equal ones share a file system, so its text is its value.

    Attributes:
        private: Whether the URL itself may be at a private address.
        private_redirects: Whether redirects may lead to one.
    """

    private: bool
    private_redirects: bool

    async def __call__(self, **options: Any) -> aiohttp.ClientSession:
        """A session."""
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(_begin)
        trace.on_request_redirect.append(_follow)
        return aiohttp.ClientSession(
            connector=_GuardedConnector(self),
            trace_configs=[trace],
            timeout=TIMEOUT,
            response_class=PacedResponse,
            **options,
        )


async def _begin(session: aiohttp.ClientSession, context: SimpleNamespace, request: Any) -> None:
    _redirected.set(False)


async def _follow(session: aiohttp.ClientSession, context: SimpleNamespace, response: Any) -> None:
    _redirected.set(True)


class _GuardedConnector(aiohttp.TCPConnector):
    def __init__(self, client: GuardedClient) -> None:
        super().__init__(socket_factory=_open_socket)
        self._client = client

    async def connect(self, *request: Any, **options: Any) -> Any:
        client = self._client
        _may_be_private.set(client.private_redirects if _redirected.get() else client.private)
        connection = await super().connect(*request, **options)  # perhaps one that an earlier request opened
        if connection.transport is not None:
            try:
                _require_reachable(connection.transport.get_extra_info("peername")[0])
            except OSError:
                connection.close()
                raise
        return connection


def _open_socket(found: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = found
    _require_reachable(address[0])
    return socket.socket(family, kind, protocol)


def _require_reachable(host: str) -> None:
    if not (_may_be_private.get() or is_public(host)):
        raise PermissionError(
            errno.EACCES, f"{host} is a private address, which lists and redirects reach with --allow-private only"
        )


def http_options(*, private: bool, listed: bool) -> Mapping[str, Any]:
    """Options of fsspec's HTTP file system: what was typed may be private, what others wrote only if `private`."""
    return {"get_client": GuardedClient(private or not listed, private)}
