"""A FastAPI application whose requests share sessions to an MCP server.

    pip install 'mcpgateway-pool[mcp]' fastapi uvicorn
    MCP_URL=http://127.0.0.1:9000/mcp uvicorn fastapi_app:app

``POST /tools/NAME`` calls a tool with the arguments in its body. ``GET /metrics/`` is for Prometheus.
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse

from mcpgateway_pool import CircuitOpenError, MCPSessionPool, PoolError, metrics_app


class State(TypedDict):
    """What requests find in ``request.state``."""

    pool: MCPSessionPool


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[State]:
    # One pool for each worker process; it belongs to the event loop that serves the requests.
    async with MCPSessionPool(name="tools", max_sessions_per_key=4, max_total_sessions=100) as pool:
        yield {"pool": pool}


app = FastAPI(lifespan=lifespan)
app.mount("/metrics", metrics_app())


@app.post("/tools/{name}")
async def call_tool(
    name: str, arguments: dict[str, Any], request: Request, authorization: Annotated[str, Header()]
) -> dict[str, Any]:
    """Callers with different tokens never share a session."""
    pool: MCPSessionPool = request.state.pool
    headers = {"Authorization": authorization}
    async with pool.session(os.environ["MCP_URL"], headers, gateway_id="tools") as pooled:
        result = await pooled.session.call_tool(name, arguments)
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)


@app.exception_handler(PoolError)
async def refused(_: Request, error: Exception) -> JSONResponse:
    """No session in time, a limit, a server that cannot be reached; the messages hold no credentials."""
    headers = {}
    if isinstance(error, CircuitOpenError):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return JSONResponse({"detail": str(error)}, status_code=503, headers=headers)
