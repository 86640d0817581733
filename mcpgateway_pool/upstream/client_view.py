"""A session's own view of an HTTP client.

A caller's factory may return one client for many sessions. Each session then needs a ``send`` of its own, or
it would meet the requests of the others; and none of them may close what the others still use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mcpgateway_pool.redact import safe_text

from . import sdk

# In the client's own __dict__, which all its views share: how many of them have entered it, or that its owner
# has opened it, and will close it.
_USERS = "_mcpgateway_pool_users"
_OWNERS = -1


def check_client(client: Any) -> Any:
    """A client of a caller's factory; what the installed SDK cannot use is refused.

    Raises:
        TypeError: an object of another kind, such as the client of another HTTP library.
        ValueError: the client is closed.
    """
    expected = sdk.http_library().AsyncClient
    if not isinstance(client, expected):
        kind = type(client)
        raise TypeError(
            f"httpx_client_factory must return an {expected.__module__.partition('.')[0]}.AsyncClient, not "
            f"{safe_text(f'{kind.__module__}.{kind.__name__}', 100)}"
        )
    if client.is_closed:
        raise ValueError(
            "httpx_client_factory returned a client that is closed; one that is shared between sessions is "
            "to be opened and closed by its owner"
        )
    return client


def view_of(client: Any, send: Callable[..., Any]) -> Any:
    """The same client, with another ``send``.

    Everything else is the client's own, its state included: a view that is entered opens it where nobody has,
    and the last one that is left closes it again.

    Args:
        client: an ``AsyncClient`` of the HTTP library, or a view of one.
        send: called in place of the client's ``send``.
    """
    client = getattr(client, "_mcpgateway_pool_client", client)  # of a view, what it is a view of
    view = object.__new__(_view_class(client.__class__))
    object.__setattr__(view, "__dict__", client.__dict__)
    view._mcpgateway_pool_client = client
    view._mcpgateway_pool_send = send
    return view


def restore(view: Any) -> None:
    """Give a view the client's own ``send`` again, so that it holds nothing of its session any more."""
    view._mcpgateway_pool_send = view._mcpgateway_pool_client.send


# Bounded: a factory may define a class anew at each call.
@functools.lru_cache(maxsize=32)
def _view_class(base: type) -> Any:
    class ClientView(base):  # type: ignore[misc]
        __slots__ = ("_mcpgateway_pool_client", "_mcpgateway_pool_send")

        @property
        def send(self) -> Any:
            return self._mcpgateway_pool_send

        def __getattr__(self, name: str) -> Any:
            # What a subclass keeps in slots of its own.
            return getattr(object.__getattribute__(self, "_mcpgateway_pool_client"), name)

        async def __aenter__(self) -> Any:
            await _enter(self._mcpgateway_pool_client)
            return self

        async def __aexit__(self, *error: object) -> None:
            await _leave(self._mcpgateway_pool_client, *error)

    return ClientView


async def _enter(client: Any) -> None:
    users = client.__dict__.get(_USERS, 0)
    if users == _OWNERS:
        return
    client.__dict__[_USERS] = users + 1
    if users > 0:
        return
    try:
        await client.__aenter__()
    except RuntimeError:
        # Opened already: by its owner, unless it is closed.
        if client.is_closed:
            raise
        client.__dict__[_USERS] = _OWNERS
    except BaseException:
        client.__dict__[_USERS] = 0
        raise


async def _leave(client: Any, *error: Any) -> None:
    users = client.__dict__.get(_USERS, 0)
    if users == _OWNERS:
        return
    client.__dict__[_USERS] = users - 1
    if users == 1:
        await client.__aexit__(*error)
