"""Who owns a session: claim, refresh, reclaim from a dead worker, release. Each is one step in Redis."""

from __future__ import annotations

from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text

from .context import Context
from .heartbeat import Heartbeat
from .keys import MAX_WORKER_ID, is_valid_mcp_session_id, pool_owner_key, short, worker_of

# KEYS[1] is the owner key, ARGV[1] this worker, ARGV[2] the lifetime in seconds.
# 1: claimed; 2: was ours, refreshed; 0: another worker's, untouched.
CLAIM_OR_REFRESH = """
local owner = redis.call('GET', KEYS[1])
if not owner then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  return 1
elseif owner == ARGV[1] then
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  return 2
end
return 0
"""

# KEYS[1] is the owner key, ARGV[1] the dead worker, ARGV[2] this one, ARGV[3] the lifetime in seconds.
# 1: taken; 0: not the dead worker's any more.
RECLAIM = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""

# KEYS[1] is the owner key, ARGV[1] this worker. 1: deleted; 0: not ours, untouched.
RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
"""


# KEYS[1] is the owner key, ARGV[1] the longest worker id. 1: deleted, as it named no worker; 0: untouched.
FORGET_WHAT_IS_NO_OWNER = r"""
local owner = redis.call('GET', KEYS[1])
if not owner then
  return 0
end
local is_text = #owner > 0 and #owner <= tonumber(ARGV[1])
for _, no_utf8 in ipairs({
  '\224[\128-\159]', '\237[\160-\191]', '\240[\128-\143]', '\244[\144-\191]'
}) do
  is_text = is_text and not string.find(owner, no_utf8)
end
local rest = owner
rest = string.gsub(rest, '[\194-\223][\128-\191]', '')
rest = string.gsub(rest, '[\224-\239][\128-\191][\128-\191]', '')
rest = string.gsub(rest, '[\240-\244][\128-\191][\128-\191][\128-\191]', '')
if is_text and not string.find(rest, '[^\33-\126]') then
  return 0
end
return redis.call('DEL', KEYS[1])
"""


class Ownership:
    """This worker's view of who owns what; the truth is in Redis."""

    def __init__(self, context: Context, heartbeat: Heartbeat) -> None:
        self._context = context
        self.heartbeat = heartbeat

    @property
    def _ttl(self) -> int:
        return int(self._context.settings().ttl_seconds)

    async def read(self, client: Any, mcp_session_id: str) -> str | None:
        """The owner's id, or None. An entry that names no worker is no owner, and is deleted, so that the
        session can be claimed. Lets Redis errors through.
        """
        key = pool_owner_key(mcp_session_id)
        try:
            value = await client.get(key)
        except UnicodeDecodeError:  # a client that decodes what it reads
            value = b""
        owner = worker_of(value)
        if (
            owner is None
            and value is not None
            and await client.eval(FORGET_WHAT_IS_NO_OWNER, 1, key, MAX_WORKER_ID)
        ):
            self._context.logger().warning(
                "The owner of session %s... is no worker, its entry is deleted", short(mcp_session_id)
            )
        return owner

    async def claim(self, client: Any, mcp_session_id: str) -> None:
        """Claim a session that nobody owns, or refresh an ownership of ours. Lets Redis errors through."""
        worker = self._context.worker_id()
        key = pool_owner_key(mcp_session_id)
        if await client.set(key, worker, nx=True, ex=self._ttl):
            self._context.logger().debug(
                "Session ownership claimed (SET NX): %s... → worker %s", short(mcp_session_id), worker
            )
        else:
            outcome = await self.claim_or_refresh(client, mcp_session_id)
            self._context.logger().debug(
                "Session ownership already claimed by %s: %s...",
                "us" if outcome else "another worker",
                short(mcp_session_id),
            )

    async def refresh(self, client: Any, mcp_session_id: str) -> None:
        """Let an ownership that was just read as ours last longer. Lets Redis errors through."""
        await client.expire(pool_owner_key(mcp_session_id), self._ttl)

    async def claim_or_refresh(self, client: Any, mcp_session_id: str) -> Any:
        """See CLAIM_OR_REFRESH. Lets Redis errors through."""
        key = pool_owner_key(mcp_session_id)
        return await client.eval(CLAIM_OR_REFRESH, 1, key, self._context.worker_id(), self._ttl)

    async def register(self, mcp_session_id: str) -> None:
        """Claim or refresh; without Redis, nothing."""
        logger = self._context.logger()
        if not self._context.settings().enabled:
            return
        if not is_valid_mcp_session_id(mcp_session_id):
            logger.debug("Invalid mcp_session_id for owner registration, skipping")
            return
        try:
            async with self._context.redis() as client:
                if client:
                    outcome = await self.claim_or_refresh(client, mcp_session_id)
                    logger.debug(
                        "Owner registration outcome=%s for session %s...", outcome, short(mcp_session_id)
                    )
        except Exception as error:
            logger.debug("Failed to register pool session owner in Redis: %s", safe_error(error))

    async def owner_of(self, mcp_session_id: str) -> str | None:
        """The owner's id; None where there is none, or Redis is unavailable."""
        if not self._context.settings().enabled or not is_valid_mcp_session_id(mcp_session_id):
            return None
        try:
            async with self._context.redis() as client:
                return await self.read(client, mcp_session_id) if client else None
        except Exception as error:
            self._context.logger().debug("Failed to get pool session owner from Redis: %s", safe_error(error))
            return None

    async def release(self, mcp_session_id: str) -> None:
        """Give the ownership up if it is ours; without Redis, nothing (it ends with its lifetime)."""
        logger = self._context.logger()
        if not is_valid_mcp_session_id(mcp_session_id):
            return
        try:
            async with self._context.redis() as client:
                if client and await client.eval(
                    RELEASE, 1, pool_owner_key(mcp_session_id), self._context.worker_id()
                ):
                    logger.debug("Cleaned up pool session owner: %s...", short(mcp_session_id))
        except Exception as error:
            logger.debug("Failed to cleanup pool session owner in Redis: %s", safe_error(error))

    async def reclaim(self, client: Any, mcp_session_id: str, dead_worker: str) -> bool:
        """Take a session from a dead worker; False when somebody was quicker. Lets Redis errors through."""
        worker = self._context.worker_id()
        is_ours = bool(
            await client.eval(RECLAIM, 1, pool_owner_key(mcp_session_id), dead_worker, worker, self._ttl)
        )
        if is_ours:
            self._context.logger().warning(
                "[AFFINITY] Worker %s | Session %s... | Reclaimed from dead worker %s",
                worker,
                short(mcp_session_id),
                safe_text(dead_worker),
            )
        return is_ours

    async def settle(self, mcp_session_id: str, owner: str | None) -> str | None:
        """The owner after making sure of it: ours is refreshed, a dead worker's is reclaimed.

        Args:
            mcp_session_id: the session.
            owner: who owned it just now, or None.

        Returns:
            Who owns it now; ``owner`` itself where Redis is unavailable.
        """
        if owner is None or not is_valid_mcp_session_id(mcp_session_id):
            return owner
        worker = self._context.worker_id()
        try:
            async with self._context.redis() as client:
                if not client:
                    return owner
                if owner == worker:
                    await self.refresh(client, mcp_session_id)
                elif not await self.heartbeat.is_alive(client, owner):
                    if await self.reclaim(client, mcp_session_id, owner):
                        return worker
                    return await self.read(client, mcp_session_id)
        except Exception as error:
            self._context.logger().debug("Failed to check a session's owner: %s", safe_error(error))
        return owner
