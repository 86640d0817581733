"""Executing a request that another worker forwarded: a call of the gateway's own application in this process.

The gateway's module calls ``http://127.0.0.1:<port>`` instead. Several workers usually share that port: such
a call reaches any of them, and seldom the one that owns the session. It also depends on the setting for the
port being the port that the server was started on, and on the server speaking plain HTTP on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

from mcpgateway_pool.affinity import is_valid_mcp_session_id
from mcpgateway_pool.affinity.headers import forwardable
from mcpgateway_pool.redact import safe_text

_INTERNAL_ERROR = -32603  # JSON-RPC

# Whoever gets a request with this header executes it, and forwards it to nobody.
_FORWARDED = "x-forwarded-internally"

_SERVER_PATH = re.compile(r"/servers/(?P<server_id>[a-fA-F0-9\-]+)/mcp")

Execute = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def executor_of_rpc(gateway: ModuleType) -> Execute:
    """What executes a forwarded RPC request.

    Args:
        gateway: the stand-in module; its ``settings`` are read at each call.

    Returns:
        An async function of the request, as it came from Redis. It gives ``{"result": …}`` or
        ``{"error": …}``, and raises TimeoutError, or an exception of httpx.
    """

    async def execute(request: dict[str, Any]) -> dict[str, Any]:
        headers = forwardable(request.get("headers"), has_new_body=True)
        headers |= {"content-type": "application/json", _FORWARDED: "true"}
        message = {
            "jsonrpc": "2.0",
            "method": request.get("method"),
            "params": request.get("params", {}),
            "id": request.get("req_id", 1),
        }
        async with _client(gateway) as client:
            response = await client.post(
                f"{_base_url(gateway)}/rpc", json=message, headers=headers, timeout=_timeout(gateway)
            )
        return _rpc_answer(response)

    return execute


def executor_of_http(gateway: ModuleType) -> Execute:
    """What executes a forwarded HTTP request.

    Args:
        gateway: the stand-in module; its ``settings`` are read at each call.

    Returns:
        An async function of the request, as it came from Redis. It gives ``{"status", "headers", "body"}``,
        the body in hex, and raises ValueError for a request that makes no sense, TimeoutError, or an
        exception of httpx.
    """

    async def execute(request: dict[str, Any]) -> dict[str, Any]:
        path = request.get("path")
        # Without the slash it could change the host: http://127.0.0.1:4444 + @elsewhere.
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError("a forwarded path must begin with a slash")
        url = f"{_base_url(gateway)}{path}"
        if request.get("query_string"):
            url = f"{url}?{request['query_string']}"
        headers = forwardable(request.get("headers"), has_new_body=False)
        headers |= {_FORWARDED: "true", "x-original-worker": str(request.get("original_worker", "unknown"))}
        body = bytes.fromhex(request.get("body") or "")
        short_cut = _as_rpc(request, path, body, headers)
        if short_cut is not None:
            url, (headers, body) = f"{_base_url(gateway)}/rpc", short_cut
        async with _client(gateway) as client:
            response = await client.request(
                method=request.get("method"),
                url=url,
                headers=headers,
                content=body,
                timeout=_timeout(gateway),
            )
        answered = dict(response.headers)
        if short_cut is not None:
            answered["mcp-session-id"] = request["mcp_session_id"]
        return {"status": response.status_code, "headers": answered, "body": response.content.hex()}

    return execute


def _as_rpc(
    request: Mapping[str, Any], path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[dict[str, str], bytes] | None:
    """Headers and body for ``/rpc``, where the gateway's ``/mcp`` would send a forwarded request on to; None
    for what it answers itself.

    It would do so over its port again, which any worker may answer; and it would leave the virtual server
    out, so that a forwarded call would not be confined to that server's tools.
    """
    if request.get("method") != "POST" or not is_valid_mcp_session_id(request.get("mcp_session_id")):
        return None
    try:
        message = json.loads(body)
    except ValueError:
        return None
    if not isinstance(message, dict) or str(message.get("method", "")).startswith("notifications/"):
        return None
    server = _SERVER_PATH.search(path)
    if server is not None:
        params = message.setdefault("params", {})
        if not isinstance(params, dict):
            return None
        params["server_id"] = server["server_id"]
        body = json.dumps(message).encode()
    sent = {
        "content-type": "application/json",
        "x-mcp-session-id": request["mcp_session_id"],
        _FORWARDED: "true",
    }
    if "authorization" in headers:
        sent["authorization"] = headers["authorization"]
    return sent, body


def _rpc_answer(response: Any) -> dict[str, Any]:
    """The result or the error of a JSON-RPC response."""
    answer = response.json()
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return {"error": error}
    # A refusal of the application (401, 422, …) is no JSON-RPC response, and no empty result either; whoever
    # forwarded the request reads a code and a message from an error, whatever it was.
    if (
        not isinstance(answer, dict)
        or error is not None
        or ("result" not in answer and _status(response) >= 400)
    ):
        detail = answer.get("detail", error) if isinstance(answer, dict) else None
        text = safe_text(detail) if isinstance(detail, str) else f"HTTP {_status(response)}"
        return {"error": {"code": _INTERNAL_ERROR, "message": text}}
    return {"result": answer.get("result", {})}


def _status(response: Any) -> int:
    status = response.status_code
    return status if isinstance(status, int) else 200


def _base_url(gateway: ModuleType) -> str:
    return f"http://127.0.0.1:{gateway.settings.port}"


def _timeout(gateway: ModuleType) -> float:
    return float(gateway.settings.mcpgateway_pool_rpc_forward_timeout)


@asynccontextmanager
async def _client(gateway: ModuleType) -> AsyncIterator[Any]:
    """An HTTP client of the gateway's application in this process; of its port, where the application was not
    imported by this process.

    Raises:
        TimeoutError: what is done with it took longer than the setting.
    """
    import httpx

    application = getattr(sys.modules.get("mcpgateway.main"), "app", None)
    options: dict[str, Any] = {"trust_env": False}  # no proxy: requests carry credentials, and stay here
    if application is not None:
        options["transport"] = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    else:
        # Plain HTTP; without this the client would build a context of all CAs, which takes 20 ms.
        options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        async with asyncio.timeout(_timeout(gateway)), httpx.AsyncClient(**options) as client:
            yield client
    except httpx.TimeoutException as error:
        raise TimeoutError("the forwarded request took too long") from error
