"""Closing what an overridden ``_create_session`` returned: each step is bounded, and none is left out."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from mcpgateway_pool.pool.closing import close_contexts

# What ends a test that would hang for ever.
FOR_EVER = 20.0


class Context:
    """A context that notes that it is left, and what happens then."""

    def __init__(self, name: str, left: list[str], how: str) -> None:
        self._name = name
        self._left = left
        self._how = how

    async def __aexit__(self, *error: object) -> None:
        assert error == (None, None, None)
        self._left.append(self._name)
        if self._how == "hangs":
            await asyncio.Event().wait()
        elif self._how == "fails":
            raise OSError("no luck")


@pytest.mark.parametrize("transport", ["ends", "hangs", "fails"])
@pytest.mark.parametrize("session", ["ends", "hangs", "fails"])
async def test_both_contexts_are_left_in_time_the_session_first(session: str, transport: str) -> None:
    left: list[str] = []
    pooled = SimpleNamespace(
        session=Context("session", left, session), transport_context=Context("transport", left, transport)
    )
    async with asyncio.timeout(FOR_EVER):
        await close_contexts(pooled, 0.01)
    assert left == ["session", "transport"]


async def test_owner_that_ends_when_it_is_told_is_not_cancelled() -> None:
    event = asyncio.Event()
    owner = asyncio.create_task(event.wait())
    left: list[str] = []
    pooled = SimpleNamespace(owner_task=owner, shutdown_event=event, session=Context("session", left, "ends"))
    async with asyncio.timeout(FOR_EVER):
        await close_contexts(pooled, 10 * FOR_EVER)
    assert owner.done()
    assert not owner.cancelled()
    assert left == []  # its owner leaves the contexts


@pytest.mark.parametrize("event", [None, asyncio.Event()], ids=["no event", "event"])
async def test_owner_that_does_not_end_is_cancelled_in_time(event: Any) -> None:
    owner = asyncio.create_task(asyncio.Event().wait())
    async with asyncio.timeout(FOR_EVER):
        await close_contexts(SimpleNamespace(owner_task=owner, shutdown_event=event), 0.01)
        await asyncio.wait({owner})
    assert owner.cancelled()


async def test_what_has_no_contexts_is_closed_already() -> None:
    await close_contexts(SimpleNamespace(), 10 * FOR_EVER)
    await close_contexts(object(), 10 * FOR_EVER)
