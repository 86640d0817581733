"""Traced calls: their span lies around the call, its headers go with it, and none stays."""

from __future__ import annotations

import contextlib
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.calls import entrances, tracing
from mcpgateway_pool.gateway.registry.calls.callers import Caller, current


class Observability(types.ModuleType):
    """Stands for the release's module: spans by number, one inside the other."""

    def __init__(self) -> None:
        super().__init__("observability")
        self.spans: list[tuple[str, dict[str, Any]]] = []
        self.current = ["request"]

    def otel_context_active(self) -> bool:
        return True

    @contextlib.contextmanager
    def create_span(self, name: str, attributes: dict[str, Any]) -> Iterator[None]:
        self.spans.append((f"{self.current[-1]}/{name}", attributes))
        self.current.append(name)
        try:
            yield
        finally:
            self.current.pop()

    def inject_trace_context_headers(self, headers: dict[str, str]) -> dict[str, str]:
        return {**headers, "traceparent": self.current[-1], "baggage": "a=b"}


@pytest.fixture
def observability(monkeypatch: pytest.MonkeyPatch) -> Observability:
    module = Observability()
    monkeypatch.setattr(tracing, "_observability", lambda: module)
    return module


def test_headers_of_a_traced_call_name_its_own_span(observability: Observability) -> None:
    with tracing.span("gateway-1", "http://user:secret@example.com/mcp?key=secret", "sse"):
        assert tracing.trace_headers() == {"traceparent": "mcp.client.call", "baggage": "a=b"}
    assert observability.current == ["request"]
    ((name, attributes),) = observability.spans
    assert name == "request/mcp.client.call"
    assert attributes["contextforge.gateway_id"] == "gateway-1"
    assert "secret" not in str(attributes)


def test_gateway_without_tracing_has_neither_span_nor_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_observability", lambda: None)
    assert not tracing.is_traced()
    with tracing.span("gateway-1", "http://example.com", "sse"):
        assert tracing.trace_headers() == {}


# ---- the way in


class Calls:
    """Pools the calls of one user."""

    def __init__(self) -> None:
        self.admitted: list[tuple[Caller | None, str]] = []

    def refusal(self, caller: Caller | None, _gateway_id: str) -> str | None:
        return None if caller is not None and caller.users == ("ann",) else "no_user"

    def admit(self, caller: Caller | None, gateway_id: str) -> str | None:
        self.admitted.append((caller, gateway_id))
        return None if self.refusal(caller, gateway_id) else "pooled"


def service_module(downstream: str | None, without: str | None = None) -> types.ModuleType:
    """What a service of the release looks like; ``without``: that name is another one there."""
    module = types.ModuleType("tool_service")
    module.__dict__["found"] = downstream
    source = """
def _downstream_session_id_from_request():
    return found

def otel_context_active():
    return True

class ToolService:
    async def invoke_tool(self, name, app_user_email=None, user_email=None, token_teams=None):
        gateway_id_str = name
        async def connect():
            return otel_context_active(), _downstream_session_id_from_request(), bool(gateway_id_str)
        return await connect()
"""
    exec(source if without is None else source.replace(without, "renamed"), module.__dict__)
    return module


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    calls = Calls()
    monkeypatch.setattr(entrances, "_calls", lambda: calls)
    yield calls
    entrances.close_entrances()


@pytest.mark.parametrize(
    ("user", "downstream", "answer"),
    [
        pytest.param("ann", None, (False, "pooled"), id="pooled, as if it were not traced"),
        pytest.param("bob", None, (True, None), id="the release's own way"),
        pytest.param("ann", "d1", (True, "d1"), id="a downstream session stays the release's"),
    ],
)
@pytest.mark.asyncio
async def test_service_learns_from_us_whether_a_call_is_pooled(
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
    user: str,
    downstream: str | None,
    answer: tuple[bool, str | None],
) -> None:
    module = service_module(downstream)
    before = dict(vars(module)), module.ToolService.invoke_tool
    monkeypatch.setitem(sys.modules, "mcpgateway.services.tool_service", module)
    for name in ("resource", "prompt", "completion"):
        monkeypatch.delitem(sys.modules, f"mcpgateway.services.{name}_service", raising=False)
    assert entrances.open_entrances(logging.getLogger("test")) == ("tools",)
    found = await module.ToolService().invoke_tool("gateway-1", app_user_email=user, token_teams=["red"])
    assert found[:2] == answer
    if downstream is None:
        assert calls.admitted == [(Caller("tools", (user,), ("red",)), "gateway-1")]
    assert current.get() is None
    entrances.close_entrances()
    assert (dict(vars(module)), module.ToolService.invoke_tool) == before


@pytest.mark.parametrize(
    "missing", ["_downstream_session_id_from_request", "otel_context_active", "gateway_id_str", "token_teams"]
)
def test_name_that_a_release_lacks_switches_that_service_off_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    module = service_module(None, without=missing)
    before = dict(vars(module))
    monkeypatch.setitem(sys.modules, "mcpgateway.services.tool_service", module)
    for name in ("resource", "prompt", "completion"):
        monkeypatch.delitem(sys.modules, f"mcpgateway.services.{name}_service", raising=False)
    with caplog.at_level(logging.INFO, "test"):
        assert entrances.open_entrances(logging.getLogger("test")) == ()
    assert len([record for record in caplog.records if "go the gateway's own way" in record.message]) == 1
    assert dict(vars(module)) == before
