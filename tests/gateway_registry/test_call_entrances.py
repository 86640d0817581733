"""The ways into the release's services: opened where the release has all that they need, and put back."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from mcpgateway_pool.gateway.registry.calls import entrances
from mcpgateway_pool.gateway.registry.calls.callers import Caller, current

SERVICE = "mcpgateway.services.completion_service"
REGISTRY = "mcpgateway.services.upstream_session_registry"
# Where the question is asked, in each of the ways in which a function can have a variable.
LOCAL = """
    async def handle_completion(self, request, user_email=None, token_teams=None):
        gateway_id = request
        return _downstream_session_id_from_request()
"""
ARGUMENT = """
    async def handle_completion(self, gateway_id, user_email=None, token_teams=None):
        return _downstream_session_id_from_request()
"""
INSIDE = """
    async def handle_completion(self, request, user_email=None, token_teams=None):
        gateway_id = request
        async def forward():
            return _downstream_session_id_from_request(), gateway_id
        return (await forward())[0]
"""
SHARED = """
    async def handle_completion(self, request, user_email=None, token_teams=None):
        gateway_id = request
        def later():
            return gateway_id
        return _downstream_session_id_from_request()
"""
ELSEWHERE = """
    async def handle_completion(self, request, user_email=None, token_teams=None):
        return self._forward(request)

    def _forward(self, gateway_id):
        return _downstream_session_id_from_request()
"""


class Calls:
    """Answers for the registry that runs; what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Caller | None, str]] = []

    def admit(self, caller: Caller | None, gateway_id: str) -> str:
        self.asked.append((caller, gateway_id))
        return "pooled"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """Only the imitations below are services, and of the release nothing is touched."""
    calls = Calls()
    registry = ModuleType(REGISTRY)
    registry._registry = type("Registry", (), {"_calls": calls})()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, REGISTRY, registry)
    for entrance in entrances.ENTRANCES:
        monkeypatch.delitem(sys.modules, f"mcpgateway.services.{entrance.module}", raising=False)
    monkeypatch.setattr(entrances, "SIGNALS", ())
    monkeypatch.setattr(entrances, "_TOKENS", ("mcpgateway_pool", "nothing", ""))
    monkeypatch.setattr(entrances, "_replaced", [])
    yield calls
    entrances.close_entrances()


def service(monkeypatch: pytest.MonkeyPatch, code: str, downstream: str | None = None) -> Any:
    """A module of the release with a service of this code."""
    module: Any = ModuleType(SERVICE)
    module.downstream = downstream
    asks = "def _downstream_session_id_from_request():\n    return downstream\n"
    exec(asks + "class CompletionService:" + code, vars(module))
    monkeypatch.setitem(sys.modules, SERVICE, module)
    return module


@pytest.mark.parametrize("code", [LOCAL, ARGUMENT, INSIDE, SHARED, ELSEWHERE])
async def test_service_asks_for_the_caller_and_the_gateway_wherever_it_keeps_it(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    module = service(monkeypatch, code)
    stock = dict(vars(module)), dict(vars(module.CompletionService))
    assert entrances.open_entrances(logging.getLogger("test")) == ("completion",)
    answer = await module.CompletionService().handle_completion("g1", user_email="ann", token_teams=["red"])
    assert answer == "pooled"
    assert calls.asked == [(Caller("completion", ("ann",), ("red",)), "g1")]
    assert current.get() is None
    entrances.close_entrances()
    assert (dict(vars(module)), dict(vars(module.CompletionService))) == stock


async def test_opened_twice_a_service_asks_once(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    module = service(monkeypatch, LOCAL)
    for _ in range(2):
        entrances.open_entrances(logging.getLogger("test"))
    await module.CompletionService().handle_completion("g1", "ann")
    assert calls.asked == [(Caller("completion", ("ann",), None), "g1")]
    entrances.close_entrances()
    assert await module.CompletionService().handle_completion("g1", "ann") is None
    assert len(calls.asked) == 1


async def test_call_with_a_downstream_session_keeps_it(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    module = service(monkeypatch, LOCAL, downstream="d1")
    entrances.open_entrances(logging.getLogger("test"))
    assert await module.CompletionService().handle_completion("g1", "ann") == "d1"
    assert calls.asked == []


async def test_registry_that_is_not_ours_is_not_asked(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    module = service(monkeypatch, LOCAL)
    entrances.open_entrances(logging.getLogger("test"))
    monkeypatch.setattr(sys.modules[REGISTRY], "_registry", None)
    assert await module.CompletionService().handle_completion("g1", "ann") is None
    assert calls.asked == []


async def test_caller_is_forgotten_when_the_call_fails(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = dedent(LOCAL).replace("return _down", "raise OSError(_down").replace("request()", "request())")
    module = service(monkeypatch, "\n" + "\n".join("    " + line for line in failing.splitlines()))
    entrances.open_entrances(logging.getLogger("test"))
    with pytest.raises(OSError, match="pooled"):
        await module.CompletionService().handle_completion("g1", "ann")
    assert current.get() is None


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ("handle_completion", "complete", "CompletionService.handle_completion"),
        ("user_email", "email", "argument user_email of CompletionService.handle_completion"),
        ("token_teams", "scopes", "argument token_teams of CompletionService.handle_completion"),
        ("gateway_id", "gateway", "variable gateway_id where _downstream_session_id_from_request is asked"),
        (
            "_downstream_session_id_from_request()",
            "gateway_id",
            "variable gateway_id where _downstream_session_id_from_request is asked",
        ),
    ],
)
@pytest.mark.usefixtures("calls")
def test_service_that_lacks_something_stays_as_it_is_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, old: str, new: str, missing: str
) -> None:
    module = service(monkeypatch, LOCAL.replace(old, new))
    stock = dict(vars(module)), dict(vars(module.CompletionService))
    with caplog.at_level(logging.INFO, "test"):
        assert entrances.open_entrances(logging.getLogger("test")) == ()
    assert (dict(vars(module)), dict(vars(module.CompletionService))) == stock
    [line] = [record.getMessage() for record in caplog.records]
    assert "completion" in line
    assert line.endswith(f"this release has no {missing}")


@pytest.mark.usefixtures("calls")
def test_function_that_does_not_ask_under_the_known_name_is_no_way_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    module = service(monkeypatch, LOCAL)
    del module._downstream_session_id_from_request
    with caplog.at_level(logging.INFO, "test"):
        assert entrances.open_entrances(logging.getLogger("test")) == ()
    assert "completion_service._downstream_session_id_from_request" in caplog.text


@pytest.mark.usefixtures("calls")
def test_services_that_are_not_loaded_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "test"):
        assert entrances.open_entrances(logging.getLogger("test")) == ()
    assert caplog.records == []
    entrances.close_entrances()
