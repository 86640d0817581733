"""The types of what callers get, as type checkers see them: kept by ``make lint``, and never run."""

from __future__ import annotations

from typing import assert_type

from mcp import ClientSession

from mcpgateway_pool import MCPSessionPool, PooledSession, PoolStats, Server


async def types_of_what_callers_get(url: str) -> None:
    async with MCPSessionPool() as pool:
        assert_type(pool, MCPSessionPool)
        async with pool.session(url) as pooled:
            assert_type(pooled, PooledSession)
            assert_type(pooled.session, ClientSession)
        server = pool.server(url)
        assert_type(server, Server)
        async with server.session() as pooled:
            assert_type(pooled.session, ClientSession)
        assert_type(await server.acquire(), PooledSession)
        assert_type((await pool.acquire(url)).session, ClientSession)
        assert_type(await pool.warm(url), int)
        assert_type(pool.stats(), PoolStats)
