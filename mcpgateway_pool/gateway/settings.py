"""The settings of our own that an operator gives by environment variables; all begin with MCPGATEWAY_POOL_.

The gateway's own settings (MCP_SESSION_POOL_*) are read from ``mcpgateway.config.settings``, where they are
used. These here are read from the process environment only.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from _mcpgateway_pool_switch import FALSE, TRUE
from mcpgateway_pool import config
from mcpgateway_pool.prometheus.collector import DEFAULT_RETENTION_SECONDS, set_metrics_retention
from mcpgateway_pool.redact import safe_text

from . import calls_without_session
from .calls_without_session import CallsWithoutSession

PREFIX = "MCPGATEWAY_POOL_"

# Variables with this prefix that are not read here.
READ_ELSEWHERE = ("MCPGATEWAY_POOL_METRICS_DIR", "MCPGATEWAY_POOL_TOKEN")

_NO_WORD = re.compile(r"[^A-Z0-9]")
_BARE_PREFIX = _NO_WORD.sub("", PREFIX)

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")

Concurrency = Literal["exclusive", "shared"]


class SettingError(ValueError):
    """Environment variables have values that they cannot have; the message names each, and what it can have.

    Args:
        problems: one text for each variable.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


_POOLED = CallsWithoutSession()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What the environment says.

    Attributes:
        enabled: MCPGATEWAY_POOL_ENABLED: whether the gateway gets this pool; default false.
        isolation: MCPGATEWAY_POOL_ISOLATION: ``"identity"``, the default, or ``"session"``.
        max_waiters: MCPGATEWAY_POOL_MAX_WAITERS: callers waiting for one key, default 0, unlimited.
        max_total_sessions: MCPGATEWAY_POOL_MAX_TOTAL_SESSIONS: default 0, unlimited.
        max_total_keys: MCPGATEWAY_POOL_MAX_TOTAL_KEYS: default 0, unlimited.
        min_idle: MCPGATEWAY_POOL_MIN_IDLE: sessions that are kept ready for each key in use, default 0; from
            1.0.0 on for calls without a downstream session only, as is the next.
        replace_sessions: MCPGATEWAY_POOL_REPLACE_SESSIONS: whether a session in use is replaced in the
            background before its lifetime ends; default true.
        leak_detection_seconds: MCPGATEWAY_POOL_LEAK_DETECTION_SECONDS: a session that is checked out for
            longer is warned of, with the stack that acquired it; default 0, never.
        gateway_names: MCPGATEWAY_POOL_GATEWAY_NAMES: whether the series say the names of gateways beside
            their ids; default true.
        shared_tls: MCPGATEWAY_POOL_SHARED_TLS: whether sessions share one TLS context; default true.
        connect_timeout_seconds: MCPGATEWAY_POOL_CONNECT_TIMEOUT_SECONDS: this and the next five are those of
            :class:`mcpgateway_pool.NetworkSettings`, with its defaults.
        tcp_keepalive_idle_seconds: MCPGATEWAY_POOL_TCP_KEEPALIVE_IDLE_SECONDS.
        tcp_keepalive_interval_seconds: MCPGATEWAY_POOL_TCP_KEEPALIVE_INTERVAL_SECONDS.
        tcp_keepalive_probes: MCPGATEWAY_POOL_TCP_KEEPALIVE_PROBES.
        tcp_user_timeout_seconds: MCPGATEWAY_POOL_TCP_USER_TIMEOUT_SECONDS.
        idle_connection_seconds: MCPGATEWAY_POOL_IDLE_CONNECTION_SECONDS.
        metrics_retention_seconds: MCPGATEWAY_POOL_METRICS_RETENTION_SECONDS: the series of a gateway that
            nobody used for so long are dropped; default 86400, 0: never.

    Only for 1.0.0 and later; 0 seconds stand for no limit. Where two defaults are given, the first is for the
    sessions of downstream sessions, the second for calls without one:

    Attributes:
        calls_without_session: MCPGATEWAY_POOL_CALLS_WITHOUT_SESSION: ``"pooled"``, the default; ``"own"``:
            such calls go the gateway's own way; or a list, by commas, of the ids or names of gateways whose
            calls do.
        call_headers: MCPGATEWAY_POOL_CALL_HEADERS: names of headers, by commas, whose values change with each
            call; default none beside those that are known to.
        max_sessions_per_key: MCPGATEWAY_POOL_MAX_SESSIONS_PER_KEY: sessions for calls of one user to one
            gateway, with the same credentials; default 10.
        concurrency: MCPGATEWAY_POOL_CONCURRENCY: ``"exclusive"``, the default, one call at a time on a
            session; or ``"shared"``, all calls of a downstream session at once on its session.
        max_calls_per_session: MCPGATEWAY_POOL_MAX_CALLS_PER_SESSION: so many at once, where they are shared;
            default 32, 0 is unlimited.
        session_ttl_seconds: MCPGATEWAY_POOL_SESSION_TTL_SECONDS: lifetime of a session; default 0,
            and 300.
        idle_timeout_seconds: MCPGATEWAY_POOL_IDLE_TIMEOUT_SECONDS: an idle session unused for so long is
            closed; default 0, and 600.
        circuit_breaker_threshold: MCPGATEWAY_POOL_CIRCUIT_BREAKER_THRESHOLD: consecutive failures to open a
            session that stop further attempts to its URL; default 0, no breaker.
        circuit_breaker_reset_seconds: MCPGATEWAY_POOL_CIRCUIT_BREAKER_RESET_SECONDS: for how long; default
            60.
        acquire_timeout_seconds: MCPGATEWAY_POOL_ACQUIRE_TIMEOUT_SECONDS: how long a call waits for its
            session; default 0, and 30: then it gets one of its own.
    """

    enabled: bool = False
    isolation: config.Isolation = "identity"
    max_waiters: int = 0
    max_total_sessions: int = 0
    max_total_keys: int = 0
    min_idle: int = 0
    replace_sessions: bool = True
    leak_detection_seconds: float = 0.0
    gateway_names: bool = True
    shared_tls: bool = True
    connect_timeout_seconds: float = config.DEFAULT_NETWORK.connect_timeout_seconds
    tcp_keepalive_idle_seconds: float = config.DEFAULT_NETWORK.tcp_keepalive_idle_seconds
    tcp_keepalive_interval_seconds: float = config.DEFAULT_NETWORK.tcp_keepalive_interval_seconds
    tcp_keepalive_probes: int = config.DEFAULT_NETWORK.tcp_keepalive_probes
    tcp_user_timeout_seconds: float = config.DEFAULT_NETWORK.tcp_user_timeout_seconds
    idle_connection_seconds: float = config.DEFAULT_NETWORK.idle_connection_seconds
    metrics_retention_seconds: float = DEFAULT_RETENTION_SECONDS
    concurrency: Concurrency = "exclusive"
    max_calls_per_session: int = 32
    calls_without_session: CallsWithoutSession = _POOLED
    call_headers: frozenset[str] = frozenset()
    max_sessions_per_key: int = 10
    session_ttl_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    circuit_breaker_threshold: int = 0
    circuit_breaker_reset_seconds: float = 60.0
    acquire_timeout_seconds: float | None = None

    def use_retention(self) -> None:
        """Drop the series of gateways that nobody uses after the time that the environment says."""
        set_metrics_retention(self.metrics_retention_seconds)

    @property
    def network(self) -> config.NetworkSettings:
        """How connections to servers notice that nobody is there any more."""
        return config.NetworkSettings(**{name: getattr(self, name) for name in _OF_NETWORK})

    def check_min_idle(self, limit: int, variable: str) -> None:
        """Refuse to keep more sessions ready for a key than it may have.

        Args:
            limit: on the sessions of a key.
            variable: the environment variable of that.

        Raises:
            SettingError: there are to be more.
        """
        if self.min_idle > limit:
            raise SettingError(
                f"{variable_of('min_idle')} must be at most {variable}, which is {limit}, not {self.min_idle}"
            )

    def of_pool(self) -> dict[str, Any]:
        """Those that the pool's constructor takes, where they differ from its defaults."""
        options = {name: getattr(self, name) for name in _OF_POOL if getattr(self, name) != _DEFAULTS[name]}
        if self.network != config.DEFAULT_NETWORK:
            options["network"] = self.network
        return options


_OF_POOL = (
    "isolation",
    "max_waiters",
    "max_total_sessions",
    "max_total_keys",
    "min_idle",
    "replace_sessions",
    "leak_detection_seconds",
)
_OF_NETWORK = tuple(setting.name for setting in fields(config.NetworkSettings))
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


def _duration(variable: str, text: str) -> float:
    value = _seconds(variable, text)
    if value <= 0:
        raise SettingError(f"{variable} must be more than 0 seconds, not {safe_text(text, 60)!r}")
    return value


def _calls_without_session(variable: str, text: str) -> CallsWithoutSession:
    try:
        return calls_without_session.parse(text)
    except ValueError as error:
        raise SettingError(
            f"{variable} must be 'pooled', 'own', or the ids or names of gateways, by commas: {error}"
        ) from None


def _header_names(variable: str, text: str) -> frozenset[str]:
    names = frozenset(name.strip().lower() for name in text.split(","))
    for name in names:
        if not _HEADER_NAME.fullmatch(name):
            raise SettingError(f"{variable} must be names of headers, by commas, not {safe_text(text, 60)!r}")
    wrong = names & frozenset(config.DEFAULT_IDENTITY_HEADERS)
    if wrong:
        raise SettingError(f"{variable}: {min(wrong)} says who calls; sessions are kept apart by it")
    return names


def _positive_count(variable: str, text: str) -> int:
    value = _count(variable, text)
    if value < 1:
        raise SettingError(f"{variable} must be at least 1, not {safe_text(text, 60)!r}")
    return value


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "enabled": _boolean,
    "isolation": _isolation,
    "max_waiters": _count,
    "max_total_sessions": _count,
    "max_total_keys": _count,
    "min_idle": _count,
    "replace_sessions": _boolean,
    "leak_detection_seconds": _seconds,
    "gateway_names": _boolean,
    "shared_tls": _boolean,
    "connect_timeout_seconds": _duration,
    "tcp_keepalive_idle_seconds": _seconds,
    "tcp_keepalive_interval_seconds": _duration,
    "tcp_keepalive_probes": _positive_count,
    "tcp_user_timeout_seconds": _seconds,
    "idle_connection_seconds": _seconds,
    "metrics_retention_seconds": _seconds,
    "concurrency": _concurrency,
    "max_calls_per_session": _count,
    "calls_without_session": _calls_without_session,
    "call_headers": _header_names,
    "max_sessions_per_key": _positive_count,
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
        SettingError: variables with values that they cannot have, all of them in one.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name in _PARSERS:
        try:
            values[name] = read(name, environ)
        except SettingError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingError(*problems)
    return GatewaySettings(**values)


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[tuple[str, str | None]]:
    """Variables that look like ours and are not, as they may be shown, each with the nearest that is.

    Upper and lower case, and where the underscores are, make no difference to what looks like ours.
    """
    known = {variable_of(name) for name in _PARSERS} | set(READ_ELSEWHERE)
    found = []
    for name in sorted(os.environ if environ is None else environ):
        bare = _NO_WORD.sub("", name.upper())
        if name not in known and bare.startswith(_BARE_PREFIX):
            likeness = {_NO_WORD.sub("", other).removeprefix(_BARE_PREFIX): other for other in known}
            nearest = difflib.get_close_matches(bare.removeprefix(_BARE_PREFIX), likeness, n=1)
            found.append((safe_text(name, 100), likeness[nearest[0]] if nearest else None))
    return found


def did_you_mean(nearest: str | None) -> str:
    """The end of a message about a name."""
    return f"; did you mean {nearest}?" if nearest else ""
