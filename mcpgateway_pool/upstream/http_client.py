"""HTTP clients for MCP transports, which share a TLS context.

An HTTP client that is made with default settings builds an ``SSLContext`` of its own: about 22 ms
and 800 KiB per session. Here there is one per setting and process, until :func:`drop_tls_contexts`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import urllib.parse
from collections.abc import Iterable
from typing import Any

from mcpgateway_pool import verdict
from mcpgateway_pool.config import DEFAULT_NETWORK, NetworkSettings
from mcpgateway_pool.redact import safe_text, safe_url

from . import sdk
from .network import SocketOption, add_socket_options, prepare

Verify = bool | str | ssl.SSLContext
Cert = str | tuple[str, str] | tuple[str, str, str] | None

_CONNECT_TIMEOUT_SECONDS = 30.0
_READ_TIMEOUT_SECONDS = 300.0
# What a server may say at most of how long it keeps an idle connection: see .network.
_KEEPALIVE_SECONDS = 60.0
# The library's own; it has no way to change the expiry alone.
_MAX_CONNECTIONS = 100
_MAX_KEEPALIVE_CONNECTIONS = 20

_Key = tuple[object, ...]
_tls_contexts: dict[_Key, ssl.SSLContext] = {}
_building: dict[_Key, asyncio.Future[ssl.SSLContext]] = {}


def tls_context(verify: Verify = True, cert: Cert = None, *, trust_env: bool = True) -> ssl.SSLContext:
    """The process-wide TLS context of a setting; built at its first use.

    Args:
        verify: True for the HTTP library's default trust, False for none, a path to a CA file or directory,
            or a context, which is returned as it is.
        cert: client certificate: a file, (certificate, key) or (certificate, key, password).
        trust_env: honour ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``; a change of these makes a new context.

    Raises:
        OSError: a file cannot be read; ssl.SSLError is one of these.
    """
    if isinstance(verify, ssl.SSLContext):
        return verify
    contexts, key = _tls_contexts, _key(verify, cert, trust_env=trust_env)
    context = contexts.get(key)
    if context is None:
        # No lock: two threads at once build two, and the first stays. A lock could be held across a fork.
        context = contexts.setdefault(key, _build_tls_context(verify, cert, trust_env=trust_env))
    return context


async def build_tls_context_aside(verify: Verify = True, cert: Cert = None) -> None:
    """Have the TLS context of a setting, built in a thread where it is not there yet: the event loop goes on
    meanwhile. Arguments and errors as of :func:`tls_context`.
    """
    key = _key(verify, cert, trust_env=True)
    if isinstance(verify, ssl.SSLContext) or key in _tls_contexts:
        return
    building = _building.get(key)
    if building is None or building.get_loop() is not asyncio.get_running_loop():
        building = asyncio.ensure_future(asyncio.to_thread(tls_context, verify, cert))
        _building[key] = building  # for all who want it at once
        building.add_done_callback(functools.partial(_built, key))
    await asyncio.shield(building)


def _built(key: _Key, building: asyncio.Future[ssl.SSLContext]) -> None:
    if _building.get(key) is building:
        del _building[key]
    if not building.cancelled():
        building.exception()  # whoever waits for it gets it


def _key(verify: Verify, cert: Cert, *, trust_env: bool) -> _Key:
    env = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")) if trust_env else None
    return (verify, cert, trust_env, env)


def _build_tls_context(verify: bool | str, cert: Cert, *, trust_env: bool) -> ssl.SSLContext:
    context: ssl.SSLContext
    if isinstance(verify, str):
        is_directory = os.path.isdir(verify)
        context = ssl.create_default_context(
            cafile=None if is_directory else verify, capath=verify if is_directory else None
        )
    else:
        context = sdk.http_library().create_ssl_context(verify=verify, trust_env=trust_env)
    if isinstance(cert, str):
        context.load_cert_chain(cert)
    elif cert is not None:
        context.load_cert_chain(*cert)
    return context


def drop_tls_contexts() -> None:
    """Forget all shared contexts: the next session reads certificates afresh. Sessions that are open keep
    theirs.
    """
    global _tls_contexts  # noqa: PLW0603
    _tls_contexts = {}  # a new one: what a thread builds now has read the old certificates


def client_factory(
    *,
    verify: Verify = True,
    cert: Cert = None,
    limits: Any = None,
    socket_options: Iterable[SocketOption] | None = None,
) -> sdk.ClientFactory:
    """A factory of HTTP clients for ``httpx_client_factory``: as the pool's own, which share TLS contexts and
    notice a silent network, with a trust, a client certificate, limits or socket options of your own.

    Args:
        verify: True for the HTTP library's default trust, False for none, a path to a CA file or directory,
            or an ``ssl.SSLContext``.
        cert: client certificate, for mutual TLS: a file, (certificate, key) or (certificate, key, password).
        limits: ``Limits`` of the HTTP library that the SDK uses, ``httpx`` or ``httpx2``; default 100
            connections, 20 of them idle.
        socket_options: (level, option, value) of each connection, after those of the pool.

    Returns:
        A function of ``headers``, ``timeout`` and ``auth`` (all optional) that returns an ``AsyncClient``.
        Give the same one to each acquire.
    """
    return default_client_factory(
        verify, cert, limits=limits, socket_options=None if socket_options is None else tuple(socket_options)
    )


def default_client_factory(
    verify: Verify = True,
    cert: Cert = None,
    network: NetworkSettings = DEFAULT_NETWORK,
    *,
    limits: Any = None,
    socket_options: Iterable[SocketOption] | None = None,
) -> sdk.ClientFactory:
    """A factory of HTTP clients as the SDK's own makes them, but on the shared TLS context of a setting, and
    with connections that notice a silent network.

    Args:
        verify: see :func:`tls_context`.
        cert: see :func:`tls_context`.
        network: see :func:`.network.prepare`.
        limits: see :func:`client_factory`.
        socket_options: see :func:`client_factory`.

    Returns:
        A function of ``headers``, ``timeout`` and ``auth`` (all optional) that returns an ``AsyncClient``.
        Timeouts are 30 s and 300 s for reading unless given; redirects are followed as the installed SDK's
        clients do.
    """

    def factory(headers: dict[str, str] | None = None, timeout: Any = None, auth: Any = None) -> Any:
        http = sdk.http_library()
        if timeout is None:
            timeout = http.Timeout(_CONNECT_TIMEOUT_SECONDS, read=_READ_TIMEOUT_SECONDS)
        context = tls_context(verify, cert)
        try:
            client = http.AsyncClient(
                headers=headers,
                timeout=timeout,
                auth=auth,
                verify=context,
                limits=limits
                or http.Limits(
                    max_connections=_MAX_CONNECTIONS,
                    max_keepalive_connections=_MAX_KEEPALIVE_CONNECTIONS,
                    keepalive_expiry=_KEEPALIVE_SECONDS,
                ),
                follow_redirects=sdk.follows_redirects(),
            )
        except (http.InvalidURL, ValueError) as error:
            problem = ValueError(_bad_proxy_setting(error))
            verdict.blame(problem, verdict.Fault.MACHINE)
            raise problem from None
        prepare(client, network)
        if socket_options is not None:
            add_socket_options(client, socket_options)
        return client

    return factory


def _bad_proxy_setting(error: Exception) -> str:
    """Which of the environment's variables the HTTP library cannot read. Only ``NO_PROXY`` is quoted from:
    the others may hold a password.
    """
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            value = os.environ.get(variable)
            try:
                if value:
                    sdk.http_library().Proxy(value if "://" in value else f"http://{value}")
            except Exception:
                return f"the proxy that the environment variable {variable} names cannot be used"
    return f"the environment variable NO_PROXY cannot be used: {safe_text(str(error))}"


def check_url(url: str) -> None:
    """Parse a URL as those do who will: the HTTP library, and over SSE the SDK. Their own messages quote what
    is wrong with it, which may be a password.

    Raises:
        InvalidURL: the HTTP library's; the message shows no credentials.
    """
    http = sdk.http_library()
    try:
        http.URL(url)
        urllib.parse.urlsplit(url).port  # noqa: B018
    except (http.InvalidURL, ValueError):
        raise http.InvalidURL(f"not a valid URL: {safe_url(url)}") from None
