"""One TLS context for the sessions that the gateway's services open, where each would build its own.

Their client factories pass ``verify=get_default_verify()``, which is True, and the HTTP library then builds
an ``SSLContext`` for each client, for ``http://`` URLs too. Here, while such a factory makes a client for the
pool, that function answers with the shared context of
:func:`mcpgateway_pool.upstream.http_client.tls_context`, which the library's own function has built from the
same certificates.

What must stay true: verification never gets weaker. A factory with a context of its own (a custom CA, a
client certificate) does not ask, so nothing changes for it. An answer other than True (``SKIP_SSL_VERIFY``)
passes unchanged. Whoever asks outside of such a factory gets the gateway's answer: clients that speak HTTP/2
set other protocols on their context, which must not be this one.
"""

from __future__ import annotations

import functools
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from mcpgateway_pool.upstream import http_client, sdk

_PACKAGE = "mcpgateway"
_HOME = "mcpgateway.services.http_client_service"
_NAME = "get_default_verify"
_MARK = "_mcpgateway_pool_replaces"

_is_asked_for_pool: ContextVar[bool] = ContextVar("mcpgateway_pool_tls", default=False)

# What the shared context was built from; None before the first.
_built_from: tuple[object, ...] | None = None


def sharing(
    factory: sdk.ClientFactory, transport: sdk.TransportName, namespace: object | None
) -> sdk.ClientFactory:
    """The same factory, its clients on the shared context where they would build one like it.

    Args:
        factory: a gateway's; called with its arguments unchanged, and what it raises passes.
        transport: ``"sse"`` or ``"streamablehttp"``.
        namespace: see :mod:`mcpgateway_pool.upstream.sdk`. Where it replaces the SDK's transport, that gets
            the very factory of its caller.
    """
    if not sdk.is_native(transport, namespace):
        return factory

    @functools.wraps(factory)
    def sharing_factory(*arguments: Any, **options: Any) -> Any:
        _replace()
        token = _is_asked_for_pool.set(True)
        try:
            return factory(*arguments, **options)
        finally:
            _is_asked_for_pool.reset(token)

    return sharing_factory


def restore() -> None:
    """Give the gateway its own function back, everywhere."""
    for module in _gateway_modules():
        original = getattr(vars(module).get(_NAME), _MARK, None)
        if original is not None:
            setattr(module, _NAME, original)


def _replace() -> None:
    """Put ours in place of the gateway's function: where it is defined, and where it was imported to."""
    home = sys.modules.get(_HOME)
    original = getattr(home, _NAME, None)
    if original is None or hasattr(original, _MARK):
        return
    ours = _replacement(original)
    for module in _gateway_modules():
        if vars(module).get(_NAME) is original:
            setattr(module, _NAME, ours)


def _replacement(original: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(original)
    def get_default_verify() -> Any:
        verify = original()
        return _shared_context() if verify is True and _is_asked_for_pool.get() else verify

    setattr(get_default_verify, _MARK, original)
    return get_default_verify


def _gateway_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == _PACKAGE and isinstance(module, ModuleType):
            yield module


def _shared_context() -> ssl.SSLContext:
    """The context for ``verify=True``, built anew when what the library would read has changed."""
    global _built_from  # noqa: PLW0603 - state of the process, as the contexts are
    source = _source()
    if source != _built_from:
        http_client.drop_tls_contexts()
        _built_from = source
    return http_client.tls_context()


def _source() -> tuple[object, ...]:
    """What a context that the library built now would come from: variables, and the state of the file."""
    variables = tuple(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"))
    path = variables[0] or variables[1] or _bundle()
    try:
        state = os.stat(path)
    except OSError:
        return variables
    return (*variables, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)


def _bundle() -> str:
    import certifi  # of the HTTP library

    return certifi.where()
