"""Who calls: what a service of the release was told about its caller, for as long as it works on the call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self

ANONYMOUS = "anonymous"

# How releases spell that they do not know who calls.
_NOBODY = frozenset({"", "unknown", ANONYMOUS})


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of one call.

    Attributes:
        service: what it calls: ``tools``, ``resources``, ``prompts`` or ``completion``.
        users: who it is, in each of the roles that the release tells apart; empty where nobody is known.
        teams: the teams of its token; None where the token is not bound to teams.
    """

    service: str
    users: tuple[str, ...]
    teams: tuple[str, ...] | None

    @property
    def is_anonymous(self) -> bool:
        """Whether it stands for all callers of a release that authenticates none."""
        return self.users == (ANONYMOUS,)


current: ContextVar[Caller | None] = ContextVar("mcpgateway_pool_caller", default=None)


class CallWithoutSession(str):
    """Takes the place of a downstream session id where a call has none and is pooled; it says who calls."""

    __slots__ = ("caller",)
    caller: Caller

    def __new__(cls, caller: Caller) -> Self:
        call = super().__new__(cls, "(call without a downstream session)")
        call.caller = caller
        return call


def caller_of(service: str, arguments: Mapping[str, Any], users: Sequence[str], teams: str) -> Caller:
    """The caller as a service's arguments name it.

    Args:
        service: see :class:`Caller`.
        arguments: of the service's method, by name.
        users: the names of those that may say who calls.
        teams: the name of the one with the teams of the token.
    """
    scope = arguments.get(teams)
    found = tuple(user for name in users if (user := _user_in(arguments.get(name))) is not None)
    if not found and scope is None:
        # An administrator without restrictions: the release leaves the user out, so that nothing is filtered.
        ambient = _user_in(_ambient_user())
        found = () if ambient is None else (ambient,)
    return Caller(
        service, found, tuple(sorted(map(str, scope))) if isinstance(scope, (list, tuple, set)) else None
    )


def authenticated_user() -> str | None:
    """Who makes the call that is being worked on; None where nobody has proved to be somebody. Of several
    roles the first: it is the authenticated user, whatever the token's rights.
    """
    caller = current.get()
    users = () if caller is None else known_users(caller)
    return users[0] if users else None


def known_users(caller: Caller) -> tuple[str, ...]:
    """The users of a caller who have proved to be somebody. Without authentication, releases give the name of
    their administrator to some calls of nobody, and none to others.
    """
    if is_authentication_on():
        return caller.users
    administrator = getattr(release_settings(), "platform_admin_email", None)
    return tuple(user for user in caller.users if user != administrator)


def _user_in(value: object) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("sub")
    return value if isinstance(value, str) and value not in _NOBODY else None


def _ambient_user() -> str | None:
    """Whom the release's authentication has recorded for this request."""
    try:
        module = importlib.import_module("mcpgateway.utils.trace_context")
        user = module.get_trace_user_email()
    except (ImportError, AttributeError):
        return None
    return user if isinstance(user, str) else None


def is_authentication_on() -> bool:
    """Whether the release authenticates its callers."""
    return getattr(release_settings(), "auth_required", True) is not False


def release_settings() -> Any:
    """The release's own settings."""
    return importlib.import_module("mcpgateway.config").settings
