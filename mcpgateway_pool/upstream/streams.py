"""Thin layers over a transport's streams: what it delivers to its session, and what a session that ended says
to whoever still sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

from .log_filter import sending
from .request_headers import Cleaner


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
        return await self._watched(self._inner.__anext__())

    async def receive(self) -> Any:
        return await self._watched(self._inner.receive())

    async def _watched(self, receiving: Awaitable[Any]) -> Any:
        try:
            item = await receiving
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


class WatchedWriteStream:
    """A thin layer over a transport's write stream. Sending to a transport that has ended raises an error
    that users of the SDK catch, in place of anyio's; what the transport logs of a message holds no secret.

    Args:
        inner: the stream; attributes that are not here are its own.
        cleaner: takes out what must not be logged.
        failure: makes that error; None where the SDK does.
    """

    def __init__(self, inner: Any, cleaner: Cleaner, failure: Callable[[], Exception] | None) -> None:
        self._inner = inner
        self._cleaner = cleaner
        self._failure = failure

    async def send(self, item: Any) -> None:
        import anyio

        try:
            with sending(self._cleaner):
                await self._inner.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            if self._failure is None:
                raise
            raise self._failure() from error

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
