"""Workers that share a Redis, without a gateway: each has a SessionAffinity and a client of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis.asyncio

from mcpgateway_pool.affinity import AffinitySettings, SessionAffinity
from servers.waiting import until

LOGGER = logging.getLogger("mcpgateway.services.mcp_session_pool")

# What the gateway gives to its client, but for the number of connections.
CLIENT_OPTIONS: dict[str, Any] = {
    "socket_timeout": 2.0,
    "socket_connect_timeout": 2.0,
    "retry_on_timeout": True,
    "health_check_interval": 30,
    "encoding": "utf-8",
}

RPC = {
    "method": "tools/call",
    "params": {"name": "echo"},
    "headers": {"authorization": "Bearer x"},
    "req_id": 7,
}


class Worker:
    """One worker; an async context manager that ends its listener and its client.

    Args:
        url: of Redis.
        name: its worker id.
        decode_responses: as in the gateway's setting for Redis.
        max_connections: of its client.
        settings: of the affinity, beside ``enabled``.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        decode_responses: bool = True,
        max_connections: int = 50,
        host: object | None = None,
        max_concurrent_requests: int = 64,
        **settings: Any,
    ) -> None:
        self.name = name
        self.client: Any = redis.asyncio.from_url(
            url, decode_responses=decode_responses, max_connections=max_connections, **CLIENT_OPTIONS
        )
        # Longer than the default: a loaded machine is no slow Redis.
        self.settings = AffinitySettings(enabled=True, **{"redis_timeout_seconds": 10.0, **settings})
        self.executed: list[dict[str, Any]] = []
        self.on_rpc: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = self._answer_rpc
        self.on_http: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = self._answer_http
        self.has_redis = True
        self.affinity = SessionAffinity(
            redis=self._client,
            worker_id=lambda: self.name,
            settings=lambda: self.settings,
            execute_rpc=self._execute_rpc,
            execute_http=self._execute_http,
            logger=lambda: LOGGER,
            host=host,
            max_concurrent_requests=max_concurrent_requests,
        )
        self.listener: asyncio.Task[None] | None = None

    async def _client(self) -> Any:
        return self.client if self.has_redis else None

    async def _execute_rpc(self, request: dict[str, Any]) -> dict[str, Any]:
        self.executed.append(request)
        return await self.on_rpc(request)

    async def _execute_http(self, request: dict[str, Any]) -> dict[str, Any]:
        self.executed.append(request)
        return await self.on_http(request)

    async def _answer_rpc(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"result": {"by": self.name, "id": request["req_id"]}}

    async def _answer_http(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"status": 202, "headers": {"x-by": self.name}, "body": request["body"]}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_listening()
        await self.affinity.stop()
        await self.client.aclose()

    async def listen(self) -> None:
        """Start the listener, and wait until Redis knows it."""
        self.listener = asyncio.create_task(self.affinity.start_rpc_listener())
        await self.wait_until_listening()

    async def wait_until_listening(self) -> None:
        """Wait until Redis knows this worker's listener."""
        await until(self.is_listening)

    async def is_listening(self) -> bool:
        """Whether Redis knows this worker's listener; False too when Redis does not answer."""
        with contextlib.suppress(redis.RedisError):
            counts = await self.client.pubsub_numsub(
                f"mcpgw:pool_rpc:{self.name}", f"mcpgw:pool_http:{self.name}"
            )
            return all(count == 1 for _, count in counts)
        return False

    async def stop_listening(self) -> None:
        """Cancel the listener, as the gateway does, and wait for its end."""
        if self.listener is not None:
            self.listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.listener
            self.listener = None

    async def forward(self, session: str, timeout: float | None = 30.0) -> dict[str, Any] | None:
        """Forward an RPC request."""
        return await self.affinity.forward_request_to_owner(session, dict(RPC), timeout)

    async def owner(self, session: str) -> str | None:
        """What Redis says, past the affinity."""
        value = await self.client.get(f"mcpgw:pool_owner:{session}")
        return value.decode() if isinstance(value, bytes) else value


def reclaiming_after(
    monkeypatch: pytest.MonkeyPatch, worker: Worker, dead: str, meanwhile: Callable[[], Awaitable[Any]]
) -> None:
    """Let a worker find another one dead, and something happen before it can reclaim that one's session."""
    heartbeat = worker.affinity._heartbeat
    is_alive = heartbeat.is_alive

    async def found_dead(client: Any, worker_id: str) -> bool:
        if worker_id != dead:
            return await is_alive(client, worker_id)
        await meanwhile()
        return False

    monkeypatch.setattr(heartbeat, "is_alive", found_dead)


def pid_beyond_all() -> int:
    """A process id that no process can have."""
    return int(Path("/proc/sys/kernel/pid_max").read_text()) + 1
