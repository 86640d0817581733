"""A Pydantic AI agent whose tool calls go over sessions of the pool.

    pip install 'mcpgateway-pool[mcp]' pydantic-ai-slim
    python pydantic_ai_agent.py URL

The server has a tool ``echo``. The model is Pydantic AI's own for tests: it needs no provider, and calls the
tools that it is told to.
"""

import asyncio
import sys
from typing import Any

from mcp import types
from pydantic_ai import Agent, FunctionToolset, ModelRetry, Tool
from pydantic_ai.models.test import TestModel

from mcpgateway_pool import MCPSessionPool, Server


async def pooled_toolset(server: Server) -> FunctionToolset[Any]:
    """The tools of a server, for as long as the pool is open.

    Pydantic AI's own ``MCPToolset`` takes no session: it initializes one by itself, and holds it while an
    agent runs. Here each call checks out a session, so an agent that thinks for a minute holds none.
    """

    def pooled_tool(listed: types.Tool) -> Tool[Any]:
        async def call(**arguments: Any) -> Any:
            async with server.session() as pooled:
                result = await pooled.session.call_tool(listed.name, arguments)
            text = "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))
            if result.isError:
                raise ModelRetry(text)
            return result.structuredContent or text

        return Tool.from_schema(call, listed.name, listed.description, listed.inputSchema)

    async with server.session() as pooled:
        page = await pooled.session.list_tools()
        tools = page.tools
        while page.nextCursor is not None:
            page = await pooled.session.list_tools(
                params=types.PaginatedRequestParams(cursor=page.nextCursor)
            )
            tools += page.tools
    return FunctionToolset([pooled_tool(listed) for listed in tools])


async def main(url: str) -> None:
    async with MCPSessionPool(name="pydantic-ai") as pool:
        server = pool.server(url, headers={"Authorization": "Bearer token"}, gateway_id="first")
        agent = Agent(TestModel(call_tools=["echo"]), toolsets=[await pooled_toolset(server)])
        for word in ("one", "two"):
            run = await agent.run(f"Say {word}.")
            print(run.output)
        print(f"{pool.stats().creates} session")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
