"""The settings of our own that an operator gives by environment variables; all begin with MCPGATEWAY_POOL_.

The gateway's own settings (MCP_SESSION_POOL_*) are read from ``mcpgateway.config.settings``, where they are
used. These here are read from the process environment only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from _mcpgateway_pool_switch import FALSE, TRUE
from mcpgateway_pool import config
from mcpgateway_pool.redact import safe_text

PREFIX = "MCPGATEWAY_POOL_"

Concurrency = Literal["exclusive", "shared"]


class SettingError(ValueError):
    """An environment variable has a value that it cannot have; the message names it and what it can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What the environment says.

    Attributes:
        enabled: MCPGATEWAY_POOL_ENABLED: whether the gateway gets this pool; default false.
        isolation: MCPGATEWAY_POOL_ISOLATION: ``"identity"``, the default, or ``"session"``.
        max_waiters: MCPGATEWAY_POOL_MAX_WAITERS: callers waiting for one key, default 0, unlimited.
        max_total_sessions: MCPGATEWAY_POOL_MAX_TOTAL_SESSIONS: default 0, unlimited.
        max_total_keys: MCPGATEWAY_POOL_MAX_TOTAL_KEYS: default 0, unlimited.
        shared_tls: MCPGATEWAY_POOL_SHARED_TLS: whether sessions share one TLS context; default true.

    Only for the registry of 1.0.0 and later; 0 seconds stand for no limit:

    Attributes:
        concurrency: MCPGATEWAY_POOL_CONCURRENCY: ``"exclusive"``, the default, one call at a time on a
            session; or ``"shared"``, all calls of a downstream session at once on its session.
        max_calls_per_session: MCPGATEWAY_POOL_MAX_CALLS_PER_SESSION: so many at once, where they are shared;
            default 32, 0 is unlimited.
        session_ttl_seconds: MCPGATEWAY_POOL_SESSION_TTL_SECONDS: lifetime of a session; default 0.
        idle_timeout_seconds: MCPGATEWAY_POOL_IDLE_TIMEOUT_SECONDS: an idle session unused for so long is
            closed; default 0.
        circuit_breaker_threshold: MCPGATEWAY_POOL_CIRCUIT_BREAKER_THRESHOLD: consecutive failures to open a
            session that stop further attempts to its URL; default 0, no breaker.
        circuit_breaker_reset_seconds: MCPGATEWAY_POOL_CIRCUIT_BREAKER_RESET_SECONDS: for how long; default
            60.
        acquire_timeout_seconds: MCPGATEWAY_POOL_ACQUIRE_TIMEOUT_SECONDS: how long a call waits for its
            session; default 0.
    """

    enabled: bool = False
    isolation: config.Isolation = "identity"
    max_waiters: int = 0
    max_total_sessions: int = 0
    max_total_keys: int = 0
    shared_tls: bool = True
    concurrency: Concurrency = "exclusive"
    max_calls_per_session: int = 32
    session_ttl_seconds: float = 0.0
    idle_timeout_seconds: float = 0.0
    circuit_breaker_threshold: int = 0
    circuit_breaker_reset_seconds: float = 60.0
    acquire_timeout_seconds: float = 0.0

    def of_pool(self) -> dict[str, Any]:
        """Those that the pool's constructor takes, where they differ from its defaults."""
        return {
            name: getattr(self, name)
            for name in ("isolation", "max_waiters", "max_total_sessions", "max_total_keys")
            if getattr(self, name) != _DEFAULTS[name]
        }


_DEFAULTS: dict[str, Any] = {setting.name: setting.default for setting in fields(GatewaySettings)}


def _boolean(variable: str, text: str) -> bool:
    value = text.strip().lower()
    if value not in TRUE | FALSE:
        raise SettingError(f"{variable} must be true or false, not {safe_text(text, 60)!r}")
    return value in TRUE


def _count(variable: str, text: str) -> int:
    try:
        return config.count(variable, int(text))
    except ValueError:
        raise SettingError(
            f"{variable} must be a whole number, 0 for unlimited, not {safe_text(text, 60)!r}"
        ) from None


def _isolation(variable: str, text: str) -> config.Isolation:
    try:
        return config.isolation_name(variable, text.strip().lower())
    except ValueError:
        raise SettingError(
            f"{variable} must be 'identity' or 'session', not {safe_text(text, 60)!r}"
        ) from None


def _concurrency(variable: str, text: str) -> Concurrency:
    word = text.strip().lower()
    if word == "exclusive":
        return "exclusive"
    if word == "shared":
        return "shared"
    raise SettingError(f"{variable} must be 'exclusive' or 'shared', not {safe_text(text, 60)!r}")


def _seconds(variable: str, text: str) -> float:
    try:
        return config.seconds(variable, float(text))
    except ValueError:
        raise SettingError(
            f"{variable} must be a number of seconds, not negative, not {safe_text(text, 60)!r}"
        ) from None


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "enabled": _boolean,
    "isolation": _isolation,
    "max_waiters": _count,
    "max_total_sessions": _count,
    "max_total_keys": _count,
    "shared_tls": _boolean,
    "concurrency": _concurrency,
    "max_calls_per_session": _count,
    "session_ttl_seconds": _seconds,
    "idle_timeout_seconds": _seconds,
    "circuit_breaker_threshold": _count,
    "circuit_breaker_reset_seconds": _seconds,
    "acquire_timeout_seconds": _seconds,
}


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def read(name: str, environ: Mapping[str, str] | None = None) -> Any:
    """One setting; an empty variable counts as one that is not set.

    Args:
        name: an attribute of :class:`GatewaySettings`.
        environ: default ``os.environ``.

    Raises:
        SettingError: its variable has a value that it cannot have.
    """
    variable = variable_of(name)
    text = (os.environ if environ is None else environ).get(variable, "")
    return _PARSERS[name](variable, text) if text.strip() else _DEFAULTS[name]


def read_all(environ: Mapping[str, str] | None = None) -> GatewaySettings:
    """All settings; see :func:`read`.

    Raises:
        SettingError: the first variable with a value that it cannot have.
    """
    return GatewaySettings(**{name: read(name, environ) for name in _PARSERS})
