"""Read views of a pool: ``get_metrics()``, and the private attributes that gateway code reads."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mcpgateway_pool.redact import safe_url

if TYPE_CHECKING:
    from .mcp_session_pool import MCPSessionPool
    from .protocol import Pool

PoolKey = tuple[str, ...]


# The part ``session_affinity`` of ``get_metrics()`` where there is no session affinity.
NO_AFFINITY = {
    "local_hits": 0,
    "redis_hits": 0,
    "misses": 0,
    "hit_rate": 0.0,
    "forwarded_requests": 0,
    "forwarded_failures": 0,
    "forwarded_timeouts": 0,
}


def digest(text: str) -> str:
    """SHA-256 in hex, for display only: keys are compared byte for byte."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def identity_digest(identity: bytes) -> str:
    """How the header identity of a key is shown: what an overridden hook returned is shown as it is."""
    kind, value = identity[:1], identity[5:]
    if kind == b"A":
        return "anonymous"
    if kind == b"C":
        return value.decode("utf-8", "surrogatepass")
    if kind in (b"E", b"S"):  # one string: as the gateway's own pool shows it
        return hashlib.sha256(value).hexdigest()
    return hashlib.sha256(identity).hexdigest()


def shown_user(user_identity: str) -> str:
    """How a user is shown: ``anonymous``, or SHA-256 in hex."""
    return user_identity if user_identity == "anonymous" else digest(user_identity)


def shown_key(parts: tuple[Any, ...]) -> PoolKey:
    """The key as ``_make_pool_key()`` returns it; what an overridden one returned, as it is."""
    if len(parts) == 2:
        made, session = parts
        return made if session is None else (*made, digest(session))
    user, url, gateway_id, transport, session, identity = parts
    key = (shown_user(user), url, identity_digest(identity), transport, gateway_id)
    return key if session is None else (*key, digest(session))


class IdleView:
    """The idle sessions of a key, in the shape of the queue that the gateway's own pool has."""

    def __init__(self, sessions: list[Any]) -> None:
        self._queue = deque(reversed(sessions))

    def qsize(self) -> int:
        """How many there are."""
        return len(self._queue)

    def empty(self) -> bool:
        """Whether there is none."""
        return not self._queue


class KeysView(Mapping[PoolKey, Any]):
    """A mapping by pool key, read anew at each use: idle sessions (`_pools`), or those in use (`_active`)."""

    def __init__(self, pool: Pool, *, active: bool) -> None:
        self._pool = pool
        self._is_active = active

    def _read(self) -> dict[PoolKey, Any]:
        if self._is_active:
            return {shown_key(parts): set(leased) for parts, _, leased in self._pool._keys()}
        return {shown_key(parts): IdleView(idle) for parts, idle, _ in self._pool._keys()}

    def __getitem__(self, key: PoolKey) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[PoolKey]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._pool._keys())

    def __repr__(self) -> str:
        return f"<{len(self)} pool keys>"


def _shown_url(url: str) -> str:
    """A URL as a key of a dict: without secrets, but two URLs stay two."""
    shown = safe_url(url)
    return shown if shown == url else f"{shown}#{digest(url)[:8]}"


def _pool_name(parts: tuple[Any, ...]) -> str:
    key = shown_key(parts)
    if len(key) not in (5, 6):
        return "|".join(key)
    user, url, identity, transport, gateway_id, *session = key
    return "|".join([_shown_url(url), identity, transport, user, gateway_id or "none", *session])


def _by_name(entries: Iterable[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> dict[str, Any]:
    """A dict that loses no entry where two have the same name."""
    result: dict[str, Any] = {}
    for name, parts, entry in entries:
        result[name if name not in result else f"{name}#{digest(repr(parts))[:8]}"] = entry
    return result


def read_metrics(pool: Pool) -> dict[str, Any]:
    """What ``get_metrics()`` returns."""
    counts = pool._counts()
    settings = pool._settings
    # Under the names that the gateway's own pool has: there, code may have assigned them.
    hits, misses = pool._hits, pool._misses
    now = time.time()
    return {
        "hits": hits,
        "misses": misses,
        "evictions": pool._evictions,
        "health_check_failures": pool._health_check_failures,
        "circuit_breaker_trips": pool._circuit_breaker_trips,
        "pool_keys_evicted": pool._pool_keys_evicted,
        "sessions_reaped": pool._sessions_reaped,
        "anonymous_identity_count": pool._anonymous_identity_count,
        "hit_rate": hits / (hits + misses) if hits + misses else 0.0,
        "pool_key_count": counts["keys"],
        "total_active_sessions": counts["active"],
        "max_total_keys": settings.max_total_keys,
        "max_total_sessions": settings.max_total_sessions,
        "session_affinity": pool._affinity_metrics(),
        "pools": _by_name(
            (
                _pool_name(parts),
                parts,
                {"available": len(idle), "active": len(leased), "max": settings.max_sessions_per_key},
            )
            for parts, idle, leased in pool._keys()
        ),
        "circuit_breakers": {
            _shown_url(url): {
                "failures": failures,
                "open_until": None if seconds is None else now + seconds,
            }
            for url, failures, seconds in pool._breakers()
        },
    }


# Private names under which the gateway's own pool keeps its counters and settings.
_COUNTERS = {
    "_hits": "hits",
    "_misses": "misses",
    "_health_check_failures": "health_check_failures",
    "_circuit_breaker_trips": "circuit_breaker_trips",
}
_COUNTS = {"_pool_keys_evicted": "keys_evicted", "_sessions_reaped": "sessions_reaped"}
SETTINGS = {
    "_max_sessions": "max_sessions_per_key",
    "_session_ttl": "session_ttl_seconds",
    "_health_check_interval": "health_check_interval_seconds",
    "_acquire_timeout": "acquire_timeout_seconds",
    "_session_create_timeout": "session_create_timeout_seconds",
    "_circuit_breaker_threshold": "circuit_breaker_threshold",
    "_circuit_breaker_reset": "circuit_breaker_reset_seconds",
    "_identity_headers": "identity_headers",
    "_identity_extractor": "identity_extractor",
    "_idle_pool_eviction": "idle_pool_eviction_seconds",
    "_default_transport_timeout": "default_transport_timeout_seconds",
    "_health_check_methods": "health_check_methods",
    "_health_check_timeout": "health_check_timeout_seconds",
    "_message_handler_factory": "message_handler_factory",
    "_max_total_keys": "max_total_keys",
    "_max_total_sessions": "max_total_sessions",
}


def add_read_views(cls: type[MCPSessionPool]) -> None:
    """Give the class properties of these names."""

    def of_totals(stem: str) -> property:
        return property(lambda self: self._totals()[stem])

    def of_counts(name: str) -> property:
        return property(lambda self: self._counts()[name])

    def of_settings(name: str) -> property:
        return property(lambda self: getattr(self._settings, name))

    def evictions(self: MCPSessionPool) -> int:
        return sum(self._totals()["evictions"].values())

    def anonymous(self: MCPSessionPool) -> int:
        return int(self._totals()["anonymous_acquires"]) + self._direct_anonymous_count

    cls._evictions = property(evictions)  # type: ignore[assignment]
    cls._anonymous_identity_count = property(anonymous)  # type: ignore[assignment]
    cls._pools = property(partial(KeysView, active=False))  # type: ignore[assignment]
    cls._active = property(partial(KeysView, active=True))  # type: ignore[assignment]
    for name, stem in _COUNTERS.items():
        setattr(cls, name, of_totals(stem))
    for name, key in _COUNTS.items():
        setattr(cls, name, of_counts(key))
    for name, setting in SETTINGS.items():
        setattr(cls, name, of_settings(setting))
