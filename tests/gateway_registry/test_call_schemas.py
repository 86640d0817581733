"""A result that conforms to the schema that the server has now is good, whatever a kept session remembers."""

from __future__ import annotations

import asyncio
from typing import Any

import mcp.types
import pytest
from mcp import ClientSession

from mcpgateway_pool.gateway.registry.calls.schemas import forgive_old_schemas

OLD = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NEW = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


class Served:
    """The SDK's session, without a server: what it would have answered to ``tools/list``."""

    def __init__(self) -> None:
        read: Any = object()
        self.session = ClientSession(read, read)
        self.schema: dict[str, Any] = OLD
        self.asked = 0
        forgive_old_schemas(self.session)
        self.session.send_request = self._answer  # type: ignore[method-assign,assignment]

    async def _answer(self, *_args: Any, **_options: Any) -> Any:
        self.asked += 1
        tool = {"name": "tool", "inputSchema": {"type": "object"}, "outputSchema": self.schema}
        return mcp.types.ListToolsResult.model_validate({"tools": [tool]})

    async def judge(self, content: dict[str, Any]) -> None:
        fields = mcp.types.CallToolResult.model_fields
        name = "structured_content" if "structured_content" in fields else "structuredContent"
        result = mcp.types.CallToolResult(content=[], **{name: content})
        validate = getattr(self.session, "validate_tool_result", None)
        await (validate or self.session._validate_tool_result)("tool", result)


def test_schema_that_was_changed_is_asked_for_once_more() -> None:
    async def run() -> int:
        served = Served()
        await served.judge({"n": 1})
        await served.judge({"n": 2})
        served.schema = NEW
        await served.judge({"text": "new"})
        await served.judge({"text": "newer"})
        return served.asked

    assert asyncio.run(run()) == 2


def test_result_that_conforms_to_no_schema_is_refused_after_one_more_question() -> None:
    async def run() -> int:
        served = Served()
        with pytest.raises(RuntimeError):
            await served.judge({"text": "never"})
        assert served.asked == 1
        with pytest.raises(RuntimeError):
            await served.judge({"text": "never"})
        return served.asked

    assert asyncio.run(run()) == 2
