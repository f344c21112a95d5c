"""What a web server may take and give: least rates and most bytes of its answers. Imports aiohttp, as fsspec does.

aiohttp has limits of its own on headers (128 of 8 kB) and redirects (10).
"""

import asyncio
import re
import time
from typing import Any

import aiohttp

LEAST_RATE = 1024  # bytes per second: less than the slowest links of devices have
PATIENCE = 30.0  # seconds that an answer may be behind the least rate; each wait, and each answer's headers, too
MOST_LISTED = 2**24
"""Limit of bytes of an answer that is no range of a file: the page of a folder."""
TIMEOUT = aiohttp.ClientTimeout(total=None, connect=2 * PATIENCE, sock_connect=PATIENCE, sock_read=PATIENCE)


class PacedResponse(aiohttp.ClientResponse):
    """An answer that fails, with a ClientError, where it is slow or larger than what was asked for."""

    async def start(self, connection: Any) -> "PacedResponse":
        """Read the headers."""
        try:
            await asyncio.wait_for(super().start(connection), PATIENCE)
        except asyncio.TimeoutError:
            raise aiohttp.ClientPayloadError(f"the server sent no complete headers in {PATIENCE:g} s") from None
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.request_info.headers.get("Range", ""))
        most = int(asked[2]) - int(asked[1]) + 1 if asked else MOST_LISTED
        self.content = _PacedBody(self.content, most)  # type: ignore[assignment]  # it stands for it
        return self


class _PacedBody:
    """The body of an answer. most: bytes that it may have where it is read whole."""

    def __init__(self, body: aiohttp.StreamReader, most: int) -> None:
        self._body, self._most, self._left = body, most, PATIENCE

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    async def read(self, count: int = -1) -> bytes:
        """The next bytes, at most `count`, or all."""
        if count >= 0:
            return await self._read(count)
        pieces, size = [], 0
        while piece := await self._read(2**16):
            pieces.append(piece)
            size += len(piece)
            if size > self._most:
                raise aiohttp.ClientPayloadError(f"the server sent more than the {self._most} bytes it may")
        return b"".join(pieces)

    async def _read(self, count: int) -> bytes:
        start = time.monotonic()
        try:
            data = await asyncio.wait_for(self._body.read(count), max(0.0, self._left))
        except asyncio.TimeoutError:
            raise aiohttp.ClientPayloadError(
                f"the server sent fewer than {LEAST_RATE} bytes per second for {PATIENCE:g} s"
            ) from None
        self._left = min(PATIENCE, self._left - (time.monotonic() - start) + len(data) / LEAST_RATE)
        return data
