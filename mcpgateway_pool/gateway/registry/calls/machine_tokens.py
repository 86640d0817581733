"""Tokens that the release gets for itself, as a client of the server's authorization server: a new one for
each call, and all of them say the same.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

# Grants in which nobody but the release's configuration says who calls.
_GRANTS = frozenset({"client_credentials", "password"})


class MachineToken(NamedTuple):
    """A token.

    Attributes:
        header: what the release sends of it, in the header ``Authorization``.
        client: all that the authorization server was told for it, but certificates, which stand in the key by
            themselves.
    """

    header: str
    client: str


of_call: ContextVar[MachineToken | None] = ContextVar("mcpgateway_pool_machine_token", default=None)


def noting_token(method: Callable[..., Awaitable[str]]) -> Callable[..., Awaitable[str]]:
    """The release's ``OAuthManager.get_access_token``; its tokens are remembered for the rest of the call."""

    @functools.wraps(method)
    async def noting(manager: Any, credentials: Mapping[str, Any], *args: Any, **kwargs: Any) -> str:
        token = await method(manager, credentials, *args, **kwargs)
        if credentials.get("grant_type") in _GRANTS:
            of_call.set(MachineToken(f"Bearer {token}", repr(sorted(credentials.items()))))
        return token

    return noting


def client_of(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The header with this call's own machine token, and the client that the token stands for; None where the
    call authenticates with anything else.
    """
    token = of_call.get()
    if token is None:
        return None
    for name, value in headers.items():
        if name.lower() == "authorization" and value == token.header:
            return name, token.client
    return None
