"""A connection of an HTTP client, which knows how long it may be idle and be used again.

Servers close connections that were idle for a while. A request that is sent at that very moment is lost, and
nobody knows whether it was carried out. So a connection is left in time: before its server closes it, where
the server says when (``Keep-Alive: timeout=``), and before the hastiest of the usual servers does elsewhere.
A later request makes a new connection, on the same session.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from typing import Any

from . import sdk

# For the way to the server and back: the request has to arrive before the server's time is up.
_MARGIN_SECONDS = 1.0
_TIMEOUT = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
# How requests to a proxy begin that come before anything of the server's: an HTTP proxy's, a SOCKS 5 proxy's.
_PROXY_REQUESTS = (b"CONNECT ", b"\x05", b"\x01")


class NetworkStream:
    """A network stream of the HTTP library; see there (``httpcore.AsyncNetworkStream``) for its methods.

    Args:
        inner: the library's own.
        deadline: of the event loop's clock; the connection must be usable by then.
        idle_seconds: how long it may be idle and be used again.

    Attributes:
        idle_seconds: the same; the server may say so.
    """

    __slots__ = (
        "_deadline",
        "_inner",
        "_is_in_handshake",
        "_is_unused",
        "_last_use",
        "idle_seconds",
    )

    def __init__(self, inner: Any, deadline: float, idle_seconds: float) -> None:
        self._inner = inner
        self._deadline = deadline
        self._is_unused = True
        self._is_in_handshake = False
        self._last_use = time.monotonic()
        self.idle_seconds = idle_seconds

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read; what a proxy answers before the connection is usable is bounded as connecting is."""
        data: bytes
        if self._is_in_handshake:
            core = sdk.http_core()
            try:
                data = await self._inner.read(max_bytes, self._left(timeout))
            except core.ReadTimeout as error:
                raise core.ConnectTimeout("the proxy does not answer") from error
        else:
            data = await self._inner.read(max_bytes, timeout)
        self._last_use = time.monotonic()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write."""
        if self._is_unused and buffer:  # a request without a body ends by an empty one
            self._is_unused = self._is_in_handshake = buffer.startswith(_PROXY_REQUESTS)
        await self._inner.write(buffer, timeout)
        self._last_use = time.monotonic()

    async def aclose(self) -> None:
        """Close."""
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        """The same connection under TLS."""
        inner = await self._inner.start_tls(ssl_context, server_hostname, self._left(timeout))
        return NetworkStream(inner, self._deadline, self.idle_seconds)

    def get_extra_info(self, info: str) -> Any:
        """See there. An idle connection that is readable is one that its server has closed: so the library
        does not use it again.
        """
        if info == "is_readable" and time.monotonic() - self._last_use >= self.idle_seconds:
            return True
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        left = max(0.0, self._deadline - asyncio.get_running_loop().time())
        return left if timeout is None else min(left, timeout)


def note_keep_alive(stream: NetworkStream, header: str | None) -> None:
    """What the server says of its idle connections.

    Args:
        stream: the connection on which it says so.
        header: the value of ``Keep-Alive``, where it has sent one.
    """
    found = _TIMEOUT.search(header or "")
    if found is not None:
        said = float(found[1])
        stream.idle_seconds = max(said - _MARGIN_SECONDS, said / 2)
