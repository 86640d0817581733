"""The collector sees everything that objects of the extension hold: what it does not see is never collected
when it is part of a cycle.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest

from mcpgateway_pool import (
    PoolClosedError,
    PooledSession,
    PoolExhaustedError,
    TransportType,
    _core,
)
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.redact import safe_url
from mcpgateway_pool.upstream.sdk import is_known_to_be_closed
from support.fakes import PlainPool


def held_by(root: object) -> set[int]:
    """The ids of what an object holds, directly or by objects of the extension."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        for held in gc.get_referents(todo.pop()):
            if id(held) not in seen:
                seen.add(id(held))
                if type(held).__module__ == "mcpgateway_pool._core":
                    todo.append(held)
    return seen


def test_module_holds_its_types_and_what_it_has_looked_up() -> None:
    held = {id(each) for each in gc.get_referents(_core)}
    types = {name: each for name, each in vars(_core).items() if isinstance(each, type)}
    assert len(types) > 4
    for name, each in types.items():
        assert id(each) in held, name
    errors = (PoolClosedError, PoolExhaustedError)
    functions = (gateway_label, safe_url, is_known_to_be_closed)
    for looked_up in (*errors, TransportType, *TransportType, *functions):
        assert id(looked_up) in held, looked_up


def test_nobody_makes_or_changes_internal_types() -> None:
    pooled = PooledSession(object(), None, "http://a", TransportType.SSE, {}, "")
    (connection,) = (type(held) for held in gc.get_referents(pooled) if "_Connection" in str(type(held)))
    for each in (connection, _core.Pending, _core.Ticket, _core.SessionContextCore):
        with pytest.raises(TypeError, match="cannot create"):
            each()
        with pytest.raises(TypeError, match="immutable"):
            each.surprise = 1  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="immutable"):
        _core.PoolCore.surprise = 1  # type: ignore[attr-defined]


def test_session_holds_what_it_was_made_of() -> None:
    class Anything:
        pass

    given: dict[str, Any] = {
        name: Anything() for name in ("session", "transport_context", "_owner_task", "_shutdown_event")
    }
    given["headers"] = {"authorization": "a"}
    for name in ("url", "identity_key", "user_identity", "gateway_id"):
        given[name] = f"a str of its own for {name}"
    pooled = PooledSession(transport_type=TransportType.SSE, **given)
    pooled.extra = Anything()  # type: ignore[attr-defined]
    held = held_by(pooled)
    for name, each in given.items():
        assert id(each) in held, name
    assert id(TransportType.SSE) in held
    assert id(type(pooled)) in held
    assert {id(pooled.extra), id(vars(pooled))} & held  # type: ignore[attr-defined]


async def test_session_block_holds_its_pool_and_its_arguments() -> None:
    def factory() -> None: ...

    pool = PlainPool()
    given: dict[str, Any] = {
        name: f"a str of its own for {name}" for name in ("url", "user_identity", "gateway_id")
    }
    given |= {"headers": {"authorization": "a"}, "httpx_client_factory": factory, "timeout": 1234.5}
    context = pool.session(**given)
    held = held_by(context)
    for name, each in given.items():
        assert id(each) in held, name
    assert id(pool) in held
    async with context as pooled:
        assert id(pooled) in held_by(context)
