"""Which user uses which session for which upstream server: known here, and shared through Redis."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text, safe_url

from .context import Context
from .keys import digest, is_valid_mcp_session_id, session_mapping_key, short, user_hash
from .ownership import Ownership

# The most recently used mappings are kept; the gateway's own module keeps all of them for ever.
MAX_KNOWN = 10_000

# A warning that each request of a user can cause is logged at most this often, in seconds.
WARN_EVERY_SECONDS = 60.0

MappingKey = tuple[str, str, str, str]
PoolKey = tuple[str, str, str, str, str]


class SessionMapping:
    """Mappings and their counters.

    A mapping is a hint and no more. Whoever can write to Redis, or guess a session id, could otherwise have
    another user's session: so a mapping that names another user than the caller is no mapping.

    Attributes:
        known: the mappings of this worker, least recently used first.
        local_hits: look-ups answered from ``known``.
        redis_hits: look-ups answered from Redis.
        misses: the others.
    """

    def __init__(self, context: Context, ownership: Ownership) -> None:
        self._context = context
        self._ownership = ownership
        self.known: dict[MappingKey, PoolKey] = {}
        self.local_hits = 0
        self.redis_hits = 0
        self.misses = 0
        self._warned: dict[str, float] = {}

    async def register(
        self, mcp_session_id: str, url: str, gateway_id: str, transport_type: str, user_email: str | None
    ) -> None:
        """Note a mapping here and in Redis, and claim the session."""
        logger = self._context.logger()
        settings = self._context.settings()
        if not settings.enabled:
            return
        if not is_valid_mcp_session_id(mcp_session_id):
            logger.warning(
                "Invalid mcp_session_id format, skipping session mapping: %s...",
                safe_text(str(mcp_session_id)[:20]),
            )
            return
        pool_key = (user_hash(user_email), url, digest(mcp_session_id), transport_type, gateway_id)
        self._keep((mcp_session_id, url, transport_type, gateway_id), pool_key)
        logger.debug(
            "Session affinity pre-registered (local): %s... → %s", short(mcp_session_id), safe_url(url)
        )
        try:
            async with self._context.redis() as client:
                if not client:
                    return
                # The claim comes before any session is created: of two workers, one creates.
                key = session_mapping_key(mcp_session_id, url, transport_type, gateway_id)
                # setex is what the gateway calls, though newer clients prefer set(…, ex=).
                await client.setex(key, int(settings.ttl_seconds), _dumps(pool_key))
                await self._ownership.claim(client, mcp_session_id)
                logger.debug(
                    "Session affinity pre-registered (Redis): %s... TTL=%ss",
                    short(mcp_session_id),
                    settings.ttl_seconds,
                )
        except Exception as error:
            logger.debug("Failed to store session mapping in Redis: %s", safe_error(error))

    async def look_up(
        self, mcp_session_id: str, url: str, gateway_id: str, transport_type: str, user_identity: str
    ) -> bool:
        """Whether the caller has a mapping; counted."""
        if not self._context.settings().enabled or not is_valid_mcp_session_id(mcp_session_id):
            self.misses += 1
            return False
        # The gateway registers its servers' transports as its database has them, in capitals.
        names = list(dict.fromkeys((transport_type, transport_type.upper())))
        keys: list[MappingKey] = [(mcp_session_id, url, name, gateway_id) for name in names]
        for key in keys:
            if key in self.known:
                found = self._keep(key, self.known[key])
                return self._judge(mcp_session_id, found[0], user_identity, is_local=True)
        user = await self._read(keys)
        if user is None:
            self.misses += 1
            return False
        is_callers = self._judge(mcp_session_id, user, user_identity, is_local=False)
        if is_callers:
            # Made of what the caller is, not of what Redis said.
            self._keep(keys[0], (user, url, digest(mcp_session_id), transport_type, gateway_id))
        return is_callers

    async def _read(self, keys: list[MappingKey]) -> str | None:
        """The user of the first mapping that is in Redis; None without one, or without Redis."""
        try:
            async with self._context.redis() as client:
                for session_id, url, transport, gateway_id in keys if client else ():
                    value = await client.get(session_mapping_key(session_id, url, transport, gateway_id))
                    if value:
                        return str(json.loads(value)["user_hash"])
        except Exception as error:
            self._context.logger().debug("Failed to check Redis for session mapping: %s", safe_error(error))
        return None

    def _judge(self, mcp_session_id: str, found: str, user_identity: str, *, is_local: bool) -> bool:
        logger = self._context.logger()
        where = "local" if is_local else "Redis"
        if found != user_hash(user_identity):
            self.misses += 1
            text = "Session mapping (%s) of another user ignored: %s..."
            logger.log(self._level_of_warning(where), text, where, short(mcp_session_id))
            return False
        if is_local:
            self.local_hits += 1
        else:
            self.redis_hits += 1
        logger.debug("Session affinity hit (%s): %s...", where, short(mcp_session_id))
        return True

    def _level_of_warning(self, where: str) -> int:
        now = time.monotonic()
        if now - self._warned.get(where, -WARN_EVERY_SECONDS) < WARN_EVERY_SECONDS:
            return logging.DEBUG
        self._warned[where] = now
        return logging.WARNING

    def _keep(self, key: MappingKey, pool_key: PoolKey) -> PoolKey:
        self.known.pop(key, None)
        self.known[key] = pool_key
        while len(self.known) > MAX_KNOWN:
            del self.known[next(iter(self.known))]
        return pool_key


def _dumps(pool_key: PoolKey) -> bytes:
    names = ("user_hash", "url", "identity_hash", "transport_type", "gateway_id")
    value: dict[str, Any] = dict(zip(names, pool_key, strict=True))
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
