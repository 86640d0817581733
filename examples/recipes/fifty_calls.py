"""Fifty calls at once to three servers, over at most four sessions each.

    pip install 'mcpgateway-pool[mcp]'
    python fifty_calls.py URL URL URL

Each of the servers has a tool ``echo``.
"""

import asyncio
import sys

from mcpgateway_pool import MCPSessionPool, Server

CALLS = 50


async def call(server: Server, text: str) -> None:
    # Whoever finds all sessions in use waits: first come, first served.
    async with server.session(wait_timeout=10) as pooled:
        await pooled.session.call_tool("echo", {"text": text})


async def main(urls: list[str]) -> None:
    async with MCPSessionPool(name="fifty", max_sessions_per_key=4) as pool:
        servers = [
            pool.server(url, headers={"Authorization": "Bearer token"}, gateway_id=f"server-{number}")
            for number, url in enumerate(urls, 1)
        ]
        async with asyncio.TaskGroup() as group:
            for number in range(CALLS):
                group.create_task(call(servers[number % len(servers)], f"call {number}"))
        stats = pool.stats()
        print(f"{CALLS} calls over {stats.creates} sessions; {stats.hits} found one open")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
