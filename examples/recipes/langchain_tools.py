"""Tools for LangChain whose calls go over sessions of the pool, by ``langchain-mcp-adapters``.

    pip install 'mcpgateway-pool[mcp]' langchain-mcp-adapters
    python langchain_tools.py URL

The server has a tool ``echo``.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from langchain_core.tools import BaseTool
from langchain_mcp_adapters.interceptors import MCPToolCallRequest, MCPToolCallResult
from langchain_mcp_adapters.tools import load_mcp_tools

from mcpgateway_pool import MCPSessionPool, Server


async def pooled_tools(server: Server) -> list[BaseTool]:
    """The tools of a server, for as long as the pool is open.

    ``load_mcp_tools()`` takes a session, and its tools make their calls over that one. These tools outlive
    it: each call checks out a session for itself, so an agent that thinks for a minute holds none.
    """

    async def call_over_pool(
        request: MCPToolCallRequest, handler: Callable[[MCPToolCallRequest], Awaitable[MCPToolCallResult]]
    ) -> MCPToolCallResult:
        async with server.session() as pooled:
            return await pooled.session.call_tool(request.name, request.args)

    async with server.session() as pooled:
        return await load_mcp_tools(pooled.session, tool_interceptors=[call_over_pool])


async def main(url: str) -> None:
    async with MCPSessionPool(name="langchain") as pool:
        server = pool.server(url, headers={"Authorization": "Bearer token"}, gateway_id="first")
        tools = {tool.name: tool for tool in await pooled_tools(server)}
        # An agent takes list(tools.values()).
        for word in ("one", "two", "three"):
            [block] = await tools["echo"].ainvoke({"text": word})
            print(block["text"])
        print(f"{pool.stats().creates} session")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
