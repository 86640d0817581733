"""A ``fastmcp.Client`` that talks over a session of the pool.

    pip install 'mcpgateway-pool[mcp]' fastmcp
    python fastmcp_client.py URL

The server has a tool ``echo``.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Unpack

from fastmcp import Client
from fastmcp.client.transports import ClientTransport
from fastmcp.client.transports.base import SessionKwargs
from mcp import ClientSession

from mcpgateway_pool import MCPSessionPool, Server

# They are told to the server when a session is opened, and the pool has opened it.
NOT_FOR_OPEN_SESSIONS = (
    "sampling_callback",
    "list_roots_callback",
    "elicitation_callback",
    "read_timeout_seconds",
    "client_info",
)


class PooledTransport(ClientTransport):
    """A client takes no session, but a transport that lends it one for the length of its block.

    What the server sends of itself (logs, list changes) goes to the pool's ``message_handler_factory``.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    @asynccontextmanager
    async def connect_session(self, **session_kwargs: Unpack[SessionKwargs]) -> AsyncIterator[ClientSession]:
        refused = [name for name in NOT_FOR_OPEN_SESSIONS if session_kwargs.get(name) is not None]
        if refused:
            raise ValueError(f"a session of the pool is open already, too late for: {', '.join(refused)}")
        async with self._server.session() as pooled:
            yield pooled.session


def pooled_client(server: Server) -> Client[PooledTransport]:
    """A client whose session has been initialized by the pool."""
    return Client(PooledTransport(server), auto_initialize=False)


async def main(url: str) -> None:
    async with MCPSessionPool(name="fastmcp") as pool:
        server = pool.server(url, headers={"Authorization": "Bearer token"}, gateway_id="first")
        for word in ("one", "two", "three"):
            async with pooled_client(server) as client:
                result = await client.call_tool("echo", {"text": word})
                print(result.data)
        print(f"{pool.stats().creates} session")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
