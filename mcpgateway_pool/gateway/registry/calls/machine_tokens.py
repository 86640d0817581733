"""Tokens that the release gets for itself, as a client of the server's authorization server: a new one for
each call. Compared by their value, each call would have a session of its own; compared is what they say.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

# Grants in which nobody but the release's configuration says who calls.
_GRANTS = frozenset({"client_credentials", "password"})

# What a JWT says of its bearer and its rights (RFC 9068, RFC 8693, and widespread names for the same), but
# nothing that is new in each token.
_CLAIMS = (
    "act",
    "appid",
    "aud",
    "azp",
    "cid",
    "client_id",
    "cnf",
    "entitlements",
    "groups",
    "iss",
    "permissions",
    "roles",
    "scope",
    "scp",
    "sub",
    "tid",
)


class MachineToken(NamedTuple):
    """A token.

    Attributes:
        header: what the release sends of it, in the header ``Authorization``.
        client: all that the authorization server was told for it, but certificates, which stand in the key by
            themselves; and what the token says.
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
            client = repr((sorted(credentials.items()), claims_of(token)))
            of_call.set(MachineToken(f"Bearer {token}", client))
        return token

    return noting


def claims_of(token: str) -> str:
    """What a token says of its bearer, without a look at its signature: nothing is trusted for it. Empty for
    a token that is no JWT.
    """
    _, _, payload = token.partition(".")
    payload = payload.partition(".")[0]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return ""
    if not isinstance(claims, dict):
        return ""
    return json.dumps({name: claims[name] for name in _CLAIMS if name in claims}, sort_keys=True)


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
