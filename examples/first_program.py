import asyncio
import sys

from mcpgateway_pool import MCPSessionPool


async def main(url: str) -> None:
    async with MCPSessionPool(max_sessions_per_key=4) as pool:
        for word in ("one", "two", "three"):
            async with pool.session(url, {"Authorization": "Bearer token"}, gateway_id="first") as pooled:
                result = await pooled.session.call_tool("echo", {"text": word})
                print(result.content[0].text)
        print("hit rate:", pool.get_metrics()["hit_rate"])


asyncio.run(main(sys.argv[1]))
