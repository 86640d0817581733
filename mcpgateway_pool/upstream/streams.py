"""Thin layers over a transport's streams: what it delivers to its session, and what a session that ended says
to whoever still sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self


class WatchedReadStream:
    """A thin layer over a transport's read stream that sees what passes, and its end, at once.

    Args:
        inner: the stream; attributes that are not here are its own.
        received: called with each item.
        ended: called when the stream has ended or failed, or when the session closes it; maybe more than
            once.
    """

    def __init__(self, inner: Any, received: Callable[[object], None], ended: Callable[[], None]) -> None:
        self._inner = inner
        self._received = received
        self._ended = ended

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._inner.__anext__()
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._ended()
            raise
        self._received(item)
        return item

    async def receive(self) -> Any:
        try:
            item = await self._inner.receive()
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._ended()
            raise
        self._received(item)
        return item

    async def aclose(self) -> None:
        self._ended()
        await self._inner.aclose()

    def close(self) -> None:
        self._ended()
        self._inner.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __getattr__(self, name: str) -> Any:
        # SDK 2.x reads last_context here.
        return getattr(self._inner, name)


class ExplainingWriteStream:
    """A thin layer over a transport's write stream: sending to a transport that has ended raises an error
    that users of the SDK catch, in place of anyio's.

    Args:
        inner: the stream; attributes that are not here are its own.
        failure: makes that error.
    """

    def __init__(self, inner: Any, failure: Callable[[], Exception]) -> None:
        self._inner = inner
        self._failure = failure

    async def send(self, item: Any) -> None:
        import anyio

        try:
            await self._inner.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise self._failure() from error

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
