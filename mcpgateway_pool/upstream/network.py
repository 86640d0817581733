"""Connections that notice when nobody is there any more.

:func:`prepare` puts a :class:`Network` between an HTTP client and the sockets of its connections: below
proxies, TLS, HTTP/2 and ``trust_env``, which stay as the HTTP library treats them. What is set there:

- TCP keepalive and TCP_USER_TIMEOUT, so that a connection whose other end has vanished fails in half a
  minute, where a request on it would wait for five.
- One bound on connecting, whatever takes the time: the name, the address, a proxy, TLS.
- Names are looked up by :mod:`.name_lookups`.
- How long an idle connection may be used again: see :mod:`.network_stream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import math
import socket
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from mcpgateway_pool.config import NetworkSettings

from . import name_lookups, sdk
from .network_stream import NetworkStream, note_keep_alive

SocketOption = tuple[int, int, int]

# RFC 8305: an address that does not answer in this time gets a rival.
_NEXT_ADDRESS_SECONDS = 0.25
# What the kernel takes at most.
_MAX_KEEPALIVE_SECONDS = 32767
_MAX_KEEPALIVE_PROBES = 127
_MAX_MILLISECONDS = 2**31 - 1

# The loop keeps only weak references to tasks.
_closing: set[asyncio.Task[None]] = set()


def prepare(client: Any, settings: NetworkSettings) -> None:
    """Make the connections of an HTTP client as the settings say; the latest settings count.

    A transport that somebody gives the client later, as the gateway does, is treated at the next request.
    One that has no sockets, such as a mock, stays as it is.

    Args:
        client: an ``AsyncClient`` of the HTTP library, or a view of one.
        settings: of the network.
    """
    client = getattr(client, "_mcpgateway_pool_client", client)
    _prepare_transports(client, settings)
    hooks = client.event_hooks
    for hook in hooks["request"]:
        if isinstance(hook, _PrepareTransports):
            hook.settings = settings
            return
    hooks["request"].append(_PrepareTransports(client, settings))
    hooks["response"].append(_note_keep_alive)


def preparing(factory: sdk.ClientFactory, settings: NetworkSettings) -> sdk.ClientFactory:
    """The same factory, its clients prepared."""

    @functools.wraps(factory)
    def preparing_factory(*arguments: Any, **options: Any) -> Any:
        client = factory(*arguments, **options)
        if isinstance(client, sdk.http_library().AsyncClient):
            prepare(client, settings)
        return client

    return preparing_factory


class _PrepareTransports:
    """The client's hook that runs before each request."""

    __slots__ = ("_client", "settings")

    def __init__(self, client: Any, settings: NetworkSettings) -> None:
        self._client = weakref.ref(client)  # which holds this
        self.settings = settings

    async def __call__(self, _request: Any) -> None:
        client = self._client()
        if client is not None:
            _prepare_transports(client, self.settings)


def _pools(client: Any) -> list[Any]:
    """What makes the connections of a client: the library has no way to change that for a client that keeps
    its proxies and the rest of its defaults.
    """
    mounts: dict[Any, Any] = getattr(client, "_mounts", {})
    return [
        getattr(transport, "_pool", None)
        for transport in (getattr(client, "_transport", None), *mounts.values())
    ]


def add_socket_options(client: Any, options: Iterable[SocketOption]) -> None:
    """Give a new HTTP client socket options of its connections, after those that it has."""
    for pool in _pools(client):
        if pool is not None:
            pool._socket_options = [*(getattr(pool, "_socket_options", None) or ()), *options]


def _prepare_transports(client: Any, settings: NetworkSettings) -> None:
    for pool in _pools(client):
        backend = getattr(pool, "_network_backend", None)
        if isinstance(backend, Network):
            backend.settings = settings
        elif pool is not None and backend is not None:
            pool._network_backend = Network(backend, settings)


async def _note_keep_alive(response: Any) -> None:
    """The client's hook that runs at the head of each response."""
    stream = response.extensions.get("network_stream")
    if isinstance(stream, NetworkStream):
        note_keep_alive(stream, response.headers.get("keep-alive"))


class Network:
    """A network backend of the HTTP library; see there (``httpcore.AsyncNetworkBackend``) for its methods.

    Args:
        inner: the backend that makes the sockets.
        settings: of the network.

    Attributes:
        settings: the same, for connections from now on.
    """

    def __init__(self, inner: Any, settings: NetworkSettings) -> None:
        self._inner = inner
        self.settings = settings

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> NetworkStream:
        """Connect to the first address of the host that answers."""
        core = sdk.http_core()
        limit = self.settings.connect_timeout_seconds
        if timeout is not None:
            limit = min(limit, timeout)
        deadline = asyncio.get_running_loop().time() + limit
        connect = functools.partial(
            self._inner.connect_tcp, port=port, local_address=local_address, socket_options=socket_options
        )
        try:
            async with asyncio.timeout_at(deadline) as bound:
                stream = await _first_connection(await _addresses(host, port), connect)
        except (OSError, UnicodeError) as error:
            # As argument, too: httpcore takes causes off its exceptions, and whose fault it was with them.
            if bound.expired():
                late = TimeoutError(f"no connection within {limit:g} s")
                late.__cause__ = error
                raise core.ConnectTimeout(late) from late
            raise core.ConnectError(error) from error
        self._set_options(stream, socket_options)
        return NetworkStream(stream, deadline, self.settings.idle_connection_seconds)

    def _set_options(self, stream: Any, callers: Iterable[SocketOption] | None) -> None:
        theirs = {option[:2] for option in callers or ()}
        connection = stream.get_extra_info("socket")
        for option in socket_options_of(self.settings):
            if option[:2] not in theirs:
                # Not every socket has them all, and the other end may have reset the connection by now.
                with contextlib.suppress(OSError, AttributeError):
                    connection.setsockopt(*option)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SocketOption] | None = None
    ) -> Any:
        """As the inner backend: what is on this machine does not vanish in silence."""
        return await self._inner.connect_unix_socket(path, timeout=timeout, socket_options=socket_options)

    async def sleep(self, seconds: float) -> None:
        """As the inner backend."""
        await self._inner.sleep(seconds)


@functools.lru_cache(maxsize=16)
def socket_options_of(settings: NetworkSettings) -> tuple[SocketOption, ...]:
    """Those that this system has, as arguments of ``setsockopt()``."""
    wanted: list[tuple[int, Sequence[str], int]] = []
    if settings.tcp_keepalive_idle_seconds > 0:
        idle = _whole(settings.tcp_keepalive_idle_seconds, _MAX_KEEPALIVE_SECONDS)
        interval = _whole(settings.tcp_keepalive_interval_seconds, _MAX_KEEPALIVE_SECONDS)
        wanted += [
            (socket.SOL_SOCKET, ("SO_KEEPALIVE",), 1),
            (socket.IPPROTO_TCP, ("TCP_KEEPIDLE", "TCP_KEEPALIVE"), idle),  # the second on macOS
            (socket.IPPROTO_TCP, ("TCP_KEEPINTVL",), interval),
            (socket.IPPROTO_TCP, ("TCP_KEEPCNT",), min(settings.tcp_keepalive_probes, _MAX_KEEPALIVE_PROBES)),
        ]
    if settings.tcp_user_timeout_seconds > 0:
        milliseconds = _whole(settings.tcp_user_timeout_seconds * 1000, _MAX_MILLISECONDS)
        wanted.append((socket.IPPROTO_TCP, ("TCP_USER_TIMEOUT",), milliseconds))
    found = ((level, _first_constant(names), value) for level, names, value in wanted)
    return tuple((level, number, value) for level, number, value in found if number is not None)


def _whole(number: float, most: int) -> int:
    return min(max(1, math.ceil(number)), most)


def _first_constant(names: Sequence[str]) -> int | None:
    return next((getattr(socket, name) for name in names if hasattr(socket, name)), None)


async def _addresses(host: str, port: int) -> list[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return await name_lookups.addresses_of(host, port)
    return [host]


async def _first_connection(
    addresses: Sequence[str], connect: Callable[[str], Coroutine[Any, Any, Any]]
) -> Any:
    """The connection to the first address that answers: each later one is tried when those before have
    failed, or have not answered for a while.

    Raises:
        Exception: what ``connect`` raised for a single address.
        OSError: no address answered; caused by the group of what ``connect`` raised.
    """
    if len(addresses) == 1:
        return await connect(addresses[0])
    untried = list(reversed(addresses))
    attempts: set[asyncio.Task[Any]] = set()
    failures: list[Exception] = []
    try:
        while untried or attempts:
            if untried:
                attempts.add(asyncio.get_running_loop().create_task(connect(untried.pop())))
            patience = _NEXT_ADDRESS_SECONDS if untried else None
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                error = attempt.exception()
                if error is None:
                    return attempt.result()
                if not isinstance(error, Exception):
                    raise error
                failures.append(error)
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_close_unused)
    raise OSError("no address of the host could be connected to") from ExceptionGroup("attempts", failures)


def _close_unused(attempt: asyncio.Task[Any]) -> None:
    """An attempt that has lost may have a connection all the same."""
    if not attempt.cancelled() and attempt.exception() is None:
        closing = asyncio.get_running_loop().create_task(attempt.result().aclose())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
