"""The affinity as one object: what the gateway's pool delegates its methods to."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from .context import AffinitySettings, Context, RedisSource
from .execution import Execution
from .forwarding import Counts, Forwarding
from .heartbeat import Heartbeat
from .keys import is_valid_mcp_session_id
from .listener import Listener
from .mapping import SessionMapping
from .ownership import Ownership


class SessionAffinity:
    """Which worker owns a downstream session, and how the others reach it.

    No method lets a Redis error through: without Redis, requests are served by the worker that received them,
    but for those that an owner may have received before.

    Args:
        redis: an async callable that gives the ``redis.asyncio`` client, or None; called at each use.
        worker_id: gives this worker's id (``hostname:pid``); called at each use.
        settings: gives the :class:`AffinitySettings`; called at each use.
        execute_rpc: executes a forwarded RPC request (``method, params, headers, req_id, mcp_session_id``)
            in this process; gives ``{"result": …}`` or ``{"error": {"code": …, "message": …}}``.
        execute_http: executes a forwarded HTTP request (``method, path, query_string, headers, body`` in hex,
            ``mcp_session_id, original_worker``); gives ``{"status": int, "headers": dict, "body": hex}``.
        logger: gives the logger; called at each use.
        host: the pool that delegates to this. Its methods ``_get_pool_session_owner``,
            ``_execute_forwarded_request`` and ``_execute_forwarded_http_request``, where it has them, are
            called in place of those here, so that one that was replaced on the pool is what runs; its
            attribute ``_closed``, when true, ends the listener.
        max_concurrent_requests: forwarded requests that this worker executes at a time; others wait.
    """

    def __init__(
        self,
        *,
        redis: RedisSource,
        worker_id: Callable[[], str],
        settings: Callable[[], AffinitySettings],
        execute_rpc: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        execute_http: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        logger: Callable[[], logging.Logger],
        host: object | None = None,
        max_concurrent_requests: int = 64,
    ) -> None:
        context = Context(redis, worker_id, settings, logger)
        self._context = context
        self._host = host
        self._execution = Execution(context, execute_rpc, execute_http)
        self._heartbeat = Heartbeat(context)
        self._ownership = Ownership(context, self._heartbeat)
        self._mapping = SessionMapping(context, self._ownership)
        self._forwarding = Forwarding(context, self._ownership, execute_http)
        self._listener = Listener(
            context,
            ownership=self._ownership,
            heartbeat=self._heartbeat,
            execution=self._execution,
            execute_rpc=self._execute_rpc,
            execute_http=self._execute_http,
            is_closed=self._is_closed,
            max_concurrent=max_concurrent_requests,
        )

    def _step(self, name: str, default: Callable[..., Any]) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(self._host, name, default)
        return found

    def _is_closed(self) -> bool:
        try:
            return bool(getattr(self._host, "_closed", False))
        except ReferenceError:  # the host was given as a weak proxy, and is gone
            return True

    async def _execute_rpc(self, request: dict[str, Any]) -> dict[str, Any]:
        step = self._step("_execute_forwarded_request", self.execute_forwarded_request)
        response: dict[str, Any] = await step(request)
        return response

    async def _execute_http(self, request: dict[str, Any], client: Any) -> None:
        step = self._step("_execute_forwarded_http_request", self.execute_forwarded_http_request)
        await step(request, client)

    # --- Session mapping ---

    @property
    def mappings(self) -> dict[tuple[str, str, str, str], tuple[str, str, str, str, str]]:
        """Mappings known to this worker: (session id, url, transport, gateway id) to (user hash, url,
        identity hash, transport, gateway id). The pool's ``_mcp_session_mapping``.
        """
        return self._mapping.known

    async def register_session_mapping(
        self,
        mcp_session_id: str,
        url: str,
        gateway_id: str | None,
        transport_type: str,
        user_email: str | None = None,
    ) -> None:
        """Note which user uses a session for an upstream server, and claim the session for this worker if
        nobody owns it.

        Args:
            mcp_session_id: the downstream session; an invalid one is logged, and ignored.
            url: of the upstream server.
            gateway_id: None counts as ``""``.
            transport_type: ``"sse"`` or ``"streamablehttp"``.
            user_email: None counts as ``anonymous``.
        """
        await self._mapping.register(mcp_session_id, url, gateway_id or "", transport_type, user_email)

    async def look_up_session_mapping(
        self, mcp_session_id: str, url: str, gateway_id: str | None, transport_type: str, user_identity: str
    ) -> bool:
        """Whether there is a mapping of the caller's own; counted as a local hit, a hit in Redis, or a miss.

        The answer must never make a key: the pool's key is computed from the caller's own identity. A mapping
        of another user is logged and counts as a miss.

        Args:
            mcp_session_id: the value of the caller's ``x-mcp-session-id``; an invalid one is a miss.
            url: of the upstream server.
            gateway_id: None counts as ``""``.
            transport_type: ``"sse"`` or ``"streamablehttp"``.
            user_identity: of the caller; empty counts as ``anonymous``.
        """
        return await self._mapping.look_up(
            mcp_session_id, url, gateway_id or "", transport_type, user_identity
        )

    # --- Ownership ---

    async def register_pool_session_owner(self, mcp_session_id: str) -> None:
        """Claim a session that nobody owns for this worker, or refresh its own ownership. Never steals."""
        await self._ownership.register(mcp_session_id)

    async def get_pool_session_owner(self, mcp_session_id: str) -> str | None:
        """The id of the worker that owns a session; None where nobody does or Redis is unavailable."""
        return await self._ownership.owner_of(mcp_session_id)

    async def cleanup_pool_session_owner(self, mcp_session_id: str) -> None:
        """Give up the ownership of a session, if it is this worker's."""
        await self._ownership.release(mcp_session_id)

    async def get_streamable_http_session_owner(self, mcp_session_id: str) -> str | None:
        """As :meth:`get_pool_session_owner`; but a session whose owner is dead is reclaimed first, so that
        the gateway serves its requests here, and this worker's own ownership is refreshed.
        """
        owner = await self._step("_get_pool_session_owner", self.get_pool_session_owner)(mcp_session_id)
        return await self._ownership.settle(mcp_session_id, owner)

    async def may_create_session(self, mcp_session_id: str) -> str | None:
        """Before a session is created upstream: None when this worker may, else the id of the live worker
        that owns the downstream session. A session whose owner is dead is reclaimed.
        """
        if not is_valid_mcp_session_id(mcp_session_id):
            return None
        owner = await self.get_streamable_http_session_owner(mcp_session_id)
        return None if owner is None or owner == self._context.worker_id() else owner

    # --- Forwarding ---

    async def forward_request_to_owner(
        self, mcp_session_id: str, request_data: dict[str, Any], timeout: float | None = None
    ) -> dict[str, Any] | None:
        """Let the owner of a session execute an RPC request.

        Args:
            mcp_session_id: the downstream session.
            request_data: ``method, params, headers, req_id``.
            timeout: seconds, default ``forward_timeout_seconds``.

        Returns:
            ``{"result": …}`` or ``{"error": …}`` from the owner; an error of this worker's where the owner
            has received the request, or may have, and its answer was lost. None when the caller is to
            execute it here: no owner can have received it.

        Raises:
            TimeoutError: the owner lives, and did not answer in time. It may have executed the request.
        """
        return await self._forwarding.forward_rpc(mcp_session_id, request_data, timeout)

    async def forward_streamable_http_to_owner(
        self,
        owner_worker_id: str,
        mcp_session_id: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query_string: str = "",
    ) -> dict[str, Any] | None:
        """Let the owner of a session execute an HTTP request.

        Returns:
            ``status`` (int), ``headers`` (dict) and ``body`` (bytes): the owner's answer; this worker's own
            where no owner can have received the request; status 504 where one has, or may have, and did not
            answer in time, or its answer was lost. None where the affinity is off.
        """
        return await self._forwarding.forward_http(
            owner_worker_id, mcp_session_id, method, path, headers, body, query_string
        )

    # --- Being the owner ---

    async def start_rpc_listener(self) -> None:
        """Listen for forwarded requests until cancelled, or until the host is closed; returns at once when
        the affinity is off, or there is no Redis. Lost connections are made again. Keeps the heartbeat going.
        """
        await self._listener.run()

    async def execute_forwarded_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute an RPC request that another worker forwarded. Raises nothing but CancelledError.

        Returns:
            ``{"result": …}`` or ``{"error": {"code": …, "message": …}}``.
        """
        return await self._execution.rpc(request)

    async def execute_forwarded_http_request(self, request: dict[str, Any], redis: Any) -> None:
        """Execute an HTTP request that another worker forwarded, and publish the answer on the request's
        ``response_channel``. Raises nothing but CancelledError.

        Args:
            request: as it came from Redis.
            redis: the client to publish with; None for no answer.
        """
        await self._execution.http(request, redis)

    def start_heartbeat(self) -> None:
        """Keep this worker's heartbeat key alive; twice is harmless. Needs a running event loop."""
        self._heartbeat.start()

    async def stop(self) -> None:
        """Stop the heartbeat, and take the key away, so that others need not wait for its end. The listener
        is a task of its caller's, who cancels it.
        """
        await self._heartbeat.stop()

    # --- Metrics ---

    @property
    def counts(self) -> Counts:
        """What was forwarded; its attributes can be set (the pool's ``_forwarded_requests`` and so on)."""
        return self._forwarding.counts

    def get_metrics(self) -> dict[str, Any]:
        """The part ``session_affinity`` of the pool's ``get_metrics()``."""
        mapping, counts = self._mapping, self._forwarding.counts
        hits = mapping.local_hits + mapping.redis_hits
        total = hits + mapping.misses
        return {
            "local_hits": mapping.local_hits,
            "redis_hits": mapping.redis_hits,
            "misses": mapping.misses,
            "hit_rate": hits / total if total else 0.0,
            "forwarded_requests": counts.requests,
            "forwarded_failures": counts.failures,
            "forwarded_timeouts": counts.timeouts,
        }
