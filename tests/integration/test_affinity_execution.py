"""How a gateway executes a forwarded request: with an application in the place of the gateway's."""

from __future__ import annotations

import asyncio
import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("httpx")
starlette = pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcpgateway_pool.gateway.pool import executors

SERVER = "0a1b2c3d-0000-4000-8000-000000000000"


class Application:
    """Keeps what it was asked, and answers what it was told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Response = JSONResponse({"jsonrpc": "2.0", "id": 7, "result": {"x": 1}})
        self.is_slow = False
        methods = ["GET", "POST", "DELETE"]
        self.app = Starlette(routes=[Route("/{path:path}", self._serve, methods=methods)])

    async def _serve(self, request: Request) -> Response:
        url = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        self.asked.append((request.method, url, dict(request.headers), await request.body()))
        if self.is_slow:
            await asyncio.Event().wait()
        return self.answer


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Application:
    application = Application()
    module = ModuleType("mcpgateway.main")
    module.app = application.app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mcpgateway.main", module)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # whoever asks it fails
    return application


def stand_in(timeout: float = 30.0) -> Any:
    settings = SimpleNamespace(port=4444, mcpgateway_pool_rpc_forward_timeout=timeout)
    return SimpleNamespace(settings=settings)


RPC = {
    "type": "rpc_forward",
    "method": "tools/call",
    "params": {"name": "echo"},
    "headers": {"Authorization": "Bearer x", "Content-Length": "3", "Transfer-Encoding": "chunked"},
    "req_id": 7,
    "mcp_session_id": "s-1",
}

HTTP = {
    "type": "http_forward",
    "method": "POST",
    "path": f"/servers/{SERVER}/mcp",
    "query_string": "a=1&b=%20",
    "headers": {"authorization": "Bearer x", "accept": "text/event-stream", "cookie": "c=1"},
    "body": json.dumps({"jsonrpc": "2.0", "id": 3, "method": "tools/list"}).encode().hex(),
    "mcp_session_id": "s-1",
    "original_worker": "host-b:1",
}


# --- RPC


async def test_an_rpc_request_is_a_call_of_the_application_in_this_process(application: Application) -> None:
    assert await executors.executor_of_rpc(stand_in())(RPC) == {"result": {"x": 1}}
    ((method, url, headers, body),) = application.asked
    assert (method, url) == ("POST", "/rpc")
    assert json.loads(body) == {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "echo"}, "id": 7}
    assert headers["authorization"] == "Bearer x"
    assert headers["x-forwarded-internally"] == "true"
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers


async def test_an_error_is_an_error(application: Application) -> None:
    error = {"code": -32601, "message": "Method not found"}
    application.answer = JSONResponse({"jsonrpc": "2.0", "id": 7, "error": error})
    assert await executors.executor_of_rpc(stand_in())(RPC) == {"error": error}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (JSONResponse({"detail": "Not authenticated"}, 401), "Not authenticated"),
        (JSONResponse({"detail": [{"loc": "body"}]}, 422), "HTTP 422"),
        (JSONResponse(["?"], 200), "HTTP 200"),
    ],
)
async def test_a_refusal_is_an_error_and_not_an_empty_result(
    application: Application, answer: Response, message: str
) -> None:
    application.answer = answer
    result = await executors.executor_of_rpc(stand_in())(RPC)
    assert result == {"error": {"code": -32603, "message": message}}


@pytest.mark.parametrize("request_data", [RPC, HTTP])
async def test_an_application_that_is_too_slow_is_a_timeout(
    application: Application, request_data: dict[str, Any]
) -> None:
    application.is_slow = True
    kind = executors.executor_of_rpc if request_data is RPC else executors.executor_of_http
    with pytest.raises(TimeoutError):
        await kind(stand_in(timeout=0.1))(request_data)


# --- HTTP


async def test_a_message_goes_straight_to_rpc_and_stays_confined_to_its_virtual_server(
    application: Application,
) -> None:
    answer = await executors.executor_of_http(stand_in())(HTTP)
    ((method, url, headers, body),) = application.asked
    assert (method, url) == ("POST", "/rpc")
    assert json.loads(body)["params"] == {"server_id": SERVER}
    assert headers["x-mcp-session-id"] == "s-1"
    assert headers["x-forwarded-internally"] == "true"
    assert headers["authorization"] == "Bearer x"
    assert "cookie" not in headers
    assert answer["status"] == 200
    assert answer["headers"]["mcp-session-id"] == "s-1"
    assert json.loads(bytes.fromhex(answer["body"]))["result"] == {"x": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DELETE", "body": ""},
        {"method": "GET", "body": ""},
        {"body": ""},
        {"body": b"no JSON".hex()},
        {"body": json.dumps([{"method": "tools/list"}]).encode().hex()},
        {"body": json.dumps({"method": "notifications/initialized"}).encode().hex()},
        {"body": json.dumps({"method": "tools/list", "params": []}).encode().hex()},
        {"mcp_session_id": "not valid"},
    ],
)
async def test_anything_else_is_a_call_of_the_same_path(
    application: Application, change: dict[str, Any]
) -> None:
    application.answer = Response(b"\x00\xff", 202, {"x-a": "b"})
    answer = await executors.executor_of_http(stand_in())({**HTTP, **change})
    ((method, url, headers, body),) = application.asked
    assert (method, url) == (change.get("method", "POST"), f"/servers/{SERVER}/mcp?a=1&b=%20")
    assert body == bytes.fromhex(change.get("body", HTTP["body"]))
    assert headers["x-forwarded-internally"] == "true"
    assert headers["x-original-worker"] == "host-b:1"
    assert headers["cookie"] == "c=1"
    assert (answer["status"], answer["body"], answer["headers"]["x-a"]) == (202, "00ff", "b")


@pytest.mark.parametrize("path", [None, "", "mcp", "@elsewhere.example/mcp", ":1@elsewhere.example/"])
async def test_a_path_never_leads_to_another_host(application: Application, path: Any) -> None:
    with pytest.raises(ValueError, match="slash"):
        await executors.executor_of_http(stand_in())({**HTTP, "path": path})
    assert application.asked == []


async def test_an_application_that_fails_is_a_500_as_over_the_network(application: Application) -> None:
    application.answer = None  # type: ignore[assignment]  # what Starlette cannot send
    answer = await executors.executor_of_http(stand_in())(HTTP)
    assert answer["status"] == 500
