"""The settings of a pool: their defaults, and what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from functools import partial
from typing import Any, Literal

from .redact import safe_repr, safe_text

Isolation = Literal["identity", "session"]
IdentityExtractor = Callable[[dict[str, str]], str | None]
MessageHandlerFactory = Callable[[str, str | None], Any]

DEFAULT_IDENTITY_HEADERS = (
    "authorization",
    "x-tenant-id",
    "x-user-id",
    "x-api-key",
    "cookie",
    "x-mcp-session-id",
)
DEFAULT_HEALTH_CHECK_METHODS = ("ping", "skip")

_MAX_COUNT = 2**32 - 1
MAX_SECONDS = 10 * 365 * 86400.0  # stands for no limit
_NS = 1_000_000_000


class TransportType(Enum):
    """How to talk to an MCP server."""

    SSE = "sse"
    STREAMABLE_HTTP = "streamablehttp"


def count(name: str, value: object, *, least: int = 0) -> int:
    """Check a whole number.

    Raises:
        TypeError: not an int.
        ValueError: below ``least``, or beyond 32 bits.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {safe_repr(value)}")
    if not least <= value <= _MAX_COUNT:
        raise ValueError(f"{name} must be from {least} to {_MAX_COUNT}, not {safe_repr(value)}")
    return value


def seconds(name: str, value: object) -> float:
    """Check a number of seconds; infinity, and what is longer than ten years, stands for ten years.

    Raises:
        TypeError: not a number.
        ValueError: negative, or NaN.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {safe_repr(value)}")
    if not value >= 0:  # NaN is not; math.isnan() would fail on a huge int
        raise ValueError(f"{name} must not be negative or NaN, not {safe_repr(value)}")
    return float(min(value, MAX_SECONDS))


def duration(name: str, value: object) -> float:
    """Check a number of seconds that is more than none.

    Raises:
        TypeError: not a number.
        ValueError: zero, negative, or NaN.
    """
    result = seconds(name, value)
    if result <= 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {safe_repr(value)}")
    return result


def fraction(name: str, value: object) -> float:
    """Check a number from 0 to 1.

    Raises:
        TypeError: not a number.
        ValueError: outside the range, or NaN.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number from 0 to 1, not {safe_repr(value)}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {safe_repr(value)}")
    return float(value)


def callback(name: str, value: Any) -> Any:
    """Check something callable, or None.

    Raises:
        TypeError: neither.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, not {safe_repr(value)}")
    return value


def label(name: str, value: object) -> str | None:
    """Check a name that is shown, or None.

    Raises:
        TypeError: neither a str nor None.
        ValueError: empty.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str or None, not {safe_repr(value)}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    return value


def copied_headers(value: Mapping[str, str] | None) -> dict[str, str] | None:
    """A copy of a mapping of headers, or None.

    Raises:
        TypeError: neither a mapping nor None.
    """
    if value is not None and not hasattr(value, "keys"):
        raise TypeError(f"headers must be a mapping or None, not {type(value).__name__}")
    return None if value is None else dict(value)


def names(name: str, value: Iterable[str] | None, usual: Sequence[str]) -> tuple[str, ...]:
    """Check a sequence of names; None and an empty one stand for the default, as in the gateway's pool.

    Raises:
        TypeError: not an iterable of str.
    """
    if value is None:
        return tuple(usual)
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a sequence of str, not {safe_repr(value)}")
    try:
        result = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of str, not {safe_repr(value)}") from None
    for item in result:
        if not isinstance(item, str):
            raise TypeError(f"{name} must be a sequence of str: one is {safe_repr(item)}")
    return result or tuple(usual)


def header_names(name: str, value: Iterable[str] | None, usual: Sequence[str]) -> tuple[str, ...]:
    """Check header names: lower-cased, each once, sorted, so that two spellings of a setting are one.

    Raises:
        TypeError: not an iterable of str.
        ValueError: a name that no HTTP header has, or more than 255.
    """
    result = sorted({item.lower() for item in names(name, value, usual)})
    for item in result:
        if not item or not item.isascii() or not item.isprintable() or " " in item or ":" in item:
            raise ValueError(f"{name} must be names of HTTP headers, not {safe_text(item, 60)!r}")
    if len(result) > 255:
        raise ValueError(f"{name} must be at most 255 names, not {len(result)}")
    return tuple(result)


def switch(name: str, value: object) -> bool:
    """Check a bool.

    Raises:
        TypeError: anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {safe_repr(value)}")
    return value


def isolation_name(name: str, value: object) -> Isolation:
    """Check the isolation.

    Raises:
        ValueError: neither ``"identity"`` nor ``"session"``.
    """
    if value == "identity":
        return "identity"
    if value == "session":
        return "session"
    raise ValueError(f"{name} must be 'identity' or 'session', not {safe_repr(value)}")


def _checked(check: Callable[..., Any], *, default: Any = MISSING, **arguments: Any) -> Any:
    """A field whose value is what ``check(name, value, **arguments)`` returns."""
    return field(default=default, metadata={"check": partial(check, **arguments)})


class _Checked:
    """A dataclass whose fields are checked when it is made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for setting in fields(self):  # type: ignore[arg-type]
            value = setting.metadata["check"](setting.name, getattr(self, setting.name))
            object.__setattr__(self, setting.name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings(_Checked):
    """How connections to servers notice that nobody is there any more. Times are in seconds.

    Where the system lacks a socket option, its own default stands.

    Attributes:
        connect_timeout_seconds: for looking up the name, connecting, a proxy's handshake and TLS together,
            default 10. The transport's own time-out bounds it, too.
        tcp_keepalive_idle_seconds: a connection that was silent for so long is probed, default 15; 0: never.
        tcp_keepalive_interval_seconds: between two probes, default 5.
        tcp_keepalive_probes: so many unanswered ones end the connection, default 3.
        tcp_user_timeout_seconds: what was sent and is not acknowledged for so long ends the connection,
            default 30; 0: as the system does.
        idle_connection_seconds: an HTTP connection unused for so long is not used again where the server does
            not say ``Keep-Alive: timeout=``, default 1.5; gunicorn closes its own after 2 s. 0: never used
            again.

    Raises:
        TypeError, ValueError: a setting of the wrong type, or out of its range.
    """

    connect_timeout_seconds: float = _checked(duration, default=10.0)
    tcp_keepalive_idle_seconds: float = _checked(seconds, default=15.0)
    tcp_keepalive_interval_seconds: float = _checked(duration, default=5.0)
    tcp_keepalive_probes: int = _checked(count, default=3, least=1)
    tcp_user_timeout_seconds: float = _checked(seconds, default=30.0)
    idle_connection_seconds: float = _checked(seconds, default=1.5)


DEFAULT_NETWORK = NetworkSettings()


def network_settings(name: str, value: object) -> NetworkSettings:
    """Check the settings of the network.

    Raises:
        TypeError: something else.
    """
    if not isinstance(value, NetworkSettings):
        raise TypeError(f"{name} must be NetworkSettings, not {safe_repr(value)}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(_Checked):
    """The settings of one pool, checked; see :class:`mcpgateway_pool.MCPSessionPool` for their meaning.

    Raises:
        TypeError, ValueError: a setting of the wrong type, or out of its range.
    """

    max_sessions_per_key: int = _checked(count, least=1)
    session_ttl_seconds: float = _checked(seconds)
    health_check_interval_seconds: float = _checked(seconds)
    acquire_timeout_seconds: float = _checked(seconds)
    session_create_timeout_seconds: float = _checked(seconds)
    circuit_breaker_threshold: int = _checked(count, least=1)
    circuit_breaker_reset_seconds: float = _checked(seconds)
    identity_headers: Iterable[str] | None = _checked(header_names, usual=DEFAULT_IDENTITY_HEADERS)
    identity_extractor: IdentityExtractor | None = _checked(callback)
    idle_pool_eviction_seconds: float = _checked(seconds)
    default_transport_timeout_seconds: float = _checked(seconds)
    health_check_methods: Iterable[str] | None = _checked(names, usual=DEFAULT_HEALTH_CHECK_METHODS)
    health_check_timeout_seconds: float = _checked(seconds)
    message_handler_factory: MessageHandlerFactory | None = _checked(callback)
    max_total_keys: int = _checked(count)
    max_total_sessions: int = _checked(count)
    max_waiters: int = _checked(count)
    max_creating_per_url: int = _checked(count)
    max_tracked_urls: int = _checked(count)
    isolation: Isolation = _checked(isolation_name)
    session_ttl_jitter: float = _checked(fraction)
    health_checks_per_second: int = _checked(count)
    cleanup_timeout_seconds: float = _checked(seconds)
    clock: Callable[[], float] | None = _checked(callback)
    name: str | None = _checked(label)
    network: NetworkSettings = _checked(network_settings)
    min_idle: int = _checked(count)
    replace_sessions: bool = _checked(switch)
    leak_detection_seconds: float = _checked(seconds)

    def __post_init__(self) -> None:
        _Checked.__post_init__(self)
        if self.min_idle > self.max_sessions_per_key:
            raise ValueError(
                f"min_idle must be at most max_sessions_per_key, which is {self.max_sessions_per_key}, "
                f"not {self.min_idle}"
            )

    def for_core(self) -> dict[str, Any]:
        """The arguments of ``PoolCore._setup()``."""
        return {
            "limits": (
                self.max_sessions_per_key,
                self.max_total_sessions,
                self.max_total_keys,
                self.max_waiters,
                self.max_creating_per_url,
                self.min_idle,
            ),
            "times": (
                int(self.session_ttl_seconds * _NS),
                int(self.idle_pool_eviction_seconds * _NS),
                int(self.health_check_interval_seconds * _NS),
                self.session_ttl_jitter,
                self.health_checks_per_second,
                self.replace_sessions,
                int(self.leak_detection_seconds * _NS),
            ),
            "breaker": (
                self.circuit_breaker_threshold,
                int(self.circuit_breaker_reset_seconds * _NS),
                self.max_tracked_urls,
            ),
            "identity": (self.identity_headers, self.isolation == "session", self.identity_extractor),
            "clock": self.clock,
        }
