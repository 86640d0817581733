"""The answers to what this worker forwarded: one subscription connection for all that is under way.

A connection for each request would use up the gateway's Redis connections (50 by default) under load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any

from . import context

# A read waits at most so long. It sets no pace: an answer ends it at once.
_READ_SECONDS = 1.0
_CLOSE_SECONDS = 1.0


class Replies:
    """Open while somebody waits for an answer."""

    def __init__(self, context: context.Context) -> None:
        self._context = context
        self._subscription: _Subscription | None = None
        self._readers: set[asyncio.Task[None]] = set()  # a loop itself holds its tasks weakly

    @asynccontextmanager
    async def expect(self, client: Any, channel: str) -> AsyncIterator[asyncio.Future[Any]]:
        """Subscribe to a channel, and give the future of the first message's data. When the block begins,
        Redis has confirmed the subscription: what is published from then on arrives.

        Raises:
            Exception: of the client, when it could not subscribe; from the future, when the connection is
                lost.
        """
        subscription = self._subscription
        if subscription is None or not subscription.is_usable(client):
            subscription = self._subscription = _Subscription(client)
        try:
            async with self._context.bounded():
                answer = await subscription.add(channel)
            if subscription.reader is not None and not subscription.reader.done():
                self._readers.add(subscription.reader)
                subscription.reader.add_done_callback(self._readers.discard)
            yield answer
        finally:
            await subscription.remove(channel)


class _Subscription:
    """One connection, and the task that reads and closes it. It ends with its last channel, or when the
    connection is lost. Belongs to one event loop.
    """

    def __init__(self, client: Any) -> None:
        self.reader: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._pubsub = client.pubsub()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._confirmed: dict[str, asyncio.Future[Any]] = {}
        self._is_over = False

    def is_usable(self, client: Any) -> bool:
        """Whether one more channel of this client can be added, in the running loop."""
        return not self._is_over and client is self._client and self._loop is asyncio.get_running_loop()

    async def add(self, channel: str) -> asyncio.Future[Any]:
        """Subscribe, wait until Redis has confirmed it, and give the future of the answer.

        Raises:
            Exception: of the client.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()
        # Whoever gave up waiting leaves it alone; the loop must not complain of that.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        confirmed: asyncio.Future[Any] = self._loop.create_future()
        self._answers[channel] = answer
        self._confirmed[channel] = confirmed
        if self.reader is None:
            # In an empty context: it may outlive the request that happens to be the first.
            self.reader = asyncio.create_task(self._read(channel), context=Context())
        else:
            # Two subscribe() at a time would both connect.
            await asyncio.wait({self._connected, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await self._pubsub.subscribe(channel)
        await asyncio.wait({confirmed, answer}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            answer.result()  # a lost connection is told before anything is published
        return answer

    async def remove(self, channel: str) -> None:
        """Forget a channel; with the last one, the connection ends."""
        answer = self._answers.pop(channel, None)
        self._confirmed.pop(channel, None)
        if answer is not None:
            answer.cancel()
        if self._is_over:
            return
        if not self._answers:
            self._is_over = True
            if self.reader is not None:
                self.reader.cancel()
            return
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._pubsub.unsubscribe(channel)

    async def _read(self, channel: str) -> None:
        error: BaseException = ConnectionError("the subscription to answers has ended")
        try:
            await self._pubsub.subscribe(channel)
            self._connected.set_result(None)
            while not self._is_over:  # which the client may not let its cancellation say
                message = await self._pubsub.get_message(
                    ignore_subscribe_messages=False, timeout=_READ_SECONDS
                )
                if message:
                    self._deliver(message)
                # A client that never waits must not keep the loop from everything else.
                await asyncio.sleep(0)
        except Exception as lost:
            error = lost
        finally:
            self._is_over = True
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(error)
            await close_pubsub(self._pubsub)

    def _deliver(self, message: dict[str, Any]) -> None:
        channel = message.get("channel")
        if isinstance(channel, bytes):
            channel = channel.decode("utf-8", "replace")
        elif channel is None and len(self._answers) == 1:
            channel = next(iter(self._answers))  # a stand-in for a client, which leaves it out
        waiting: asyncio.Future[Any] | None = None
        if message.get("type") == "subscribe":
            waiting = self._confirmed.get(str(channel))
        elif message.get("type") == "message":
            waiting = self._answers.get(str(channel))
        if waiting is not None and not waiting.done():
            waiting.set_result(message.get("data"))


async def close_pubsub(pubsub: Any) -> None:
    """Unsubscribe, and give the connection back. That does not happen by itself, and the client has only so
    many connections. Raises nothing but CancelledError.
    """
    for step in (pubsub.unsubscribe, pubsub.aclose):
        with suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await step()
