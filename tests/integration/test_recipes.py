"""The recipes that need no library beside a web framework; those that do are in tests/recipes."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.application import serving_application
from servers.process import ServerProcess
from support.examples import EXAMPLES, start_example


def test_fifty_calls_to_three_servers_go_over_four_sessions_each(tmp_path: Path) -> None:
    with ServerProcess() as first, ServerProcess() as second, ServerProcess() as third:
        servers = (first, second, third)
        with start_example(
            tmp_path, "recipes/fifty_calls.py", *(server.url for server in servers)
        ) as process:
            output, errors = process.communicate(timeout=60)
        assert errors == ""
        assert output == "50 calls over 12 sessions; 38 found one open\n"
        assert [server.stats()["initialize"] for server in servers] == [4, 4, 4]
        assert [server.stats()["posts"]["tools/call"] for server in servers] == [17, 17, 16]


@pytest.fixture
async def application(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[ServerProcess, httpx.AsyncClient]]:
    """The FastAPI recipe behind a real web server, and the MCP server that it calls."""
    with ServerProcess() as server:
        monkeypatch.setenv("MCP_URL", server.url)
        app = runpy.run_path(str(EXAMPLES / "recipes" / "fastapi_app.py"))["app"]
        async with (
            serving_application(app, lifespan="on") as origin,
            httpx.AsyncClient(base_url=origin, trust_env=False) as client,
        ):
            yield server, client
        # The pool was closed with the application: its sessions have said goodbye.
        assert server.stats()["sessions_deleted"] == server.stats()["initialize"]


async def test_requests_to_fastapi_share_sessions_by_token_and_show_the_series(
    application: tuple[ServerProcess, httpx.AsyncClient],
) -> None:
    server, client = application

    async def ask(token: str) -> dict[str, Any]:
        answer = await client.post("/tools/whoami", json={}, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        [block] = answer.json()["content"]
        found: dict[str, Any] = json.loads(block["text"])
        return found

    asked = [*["ann"] * 10, *["bob"] * 10]
    seen = await asyncio.gather(*map(ask, asked))
    assert [one["user"] for one in seen] == [f"Bearer {token}" for token in asked]
    sessions = {
        user: {one["session"] for one in seen if one["user"] == user} for user in ("Bearer ann", "Bearer bob")
    }
    assert [len(ids) for ids in sessions.values()] == [4, 4]
    assert not sessions["Bearer ann"] & sessions["Bearer bob"]
    assert server.stats()["initialize"] == 8

    page = (await client.get("/metrics/")).text
    assert 'mcp_session_pool_hits_total{gateway_id="tools"} 12.0' in page
    assert 'mcp_session_pool_size{gateway_id="tools"} 8.0' in page


async def test_a_server_that_is_gone_is_a_503_that_says_so(
    application: tuple[ServerProcess, httpx.AsyncClient],
) -> None:
    server, client = application
    server.kill()
    headers = {"Authorization": "Bearer canary"}
    answers = [await client.post("/tools/whoami", json={}, headers=headers) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [503] * 6
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert "canary" not in "".join(answer.text for answer in answers)
    server.start()
