"""Listening for forwarded requests, and executing them side by side."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from mcpgateway_pool.redact import safe_error, safe_text
from mcpgateway_pool.tasks import wait_until_done

from .answers import http_error, rpc_error
from .context import Context, cancel_requests
from .execution import Execution
from .heartbeat import Heartbeat
from .keys import http_channel, rpc_channel
from .ownership import Ownership
from .replies import close_pubsub

# How soon the end of the host is seen; a request ends a read at once.
_READ_SECONDS = 1.0
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
# Requests that wait for their turn, as a multiple of those that run; more are refused at once.
_QUEUE_FACTOR = 16
_SILENCE_SECONDS = 15.0
_SILENT_READS = 10
# Requests that are remembered, so that none is executed twice.
_MAX_SEEN = 4096
_GRACE_SECONDS = 5.0
_GOODBYE_SECONDS = 1.0
# Asks for no answer, so it is no request to any worker.
_ANYBODY_THERE = b"{}"


class Listener:
    """The owner's side: all requests.

    Args:
        context: what all parts share.
        ownership: refreshed for the session of each request.
        heartbeat: kept going while this listens.
        execution: answers requests.
        execute_rpc: executes an RPC request and gives its response.
        execute_http: executes an HTTP request and publishes its response with the client.
        is_closed: whether to end.
        max_concurrent: requests that are executed at a time.
    """

    def __init__(
        self,
        context: Context,
        *,
        ownership: Ownership,
        heartbeat: Heartbeat,
        execution: Execution,
        execute_rpc: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
        execute_http: Callable[[dict[str, Any], Any], Awaitable[None]],
        is_closed: Callable[[], bool],
        max_concurrent: int,
    ) -> None:
        self._context = context
        self._ownership = ownership
        self._heartbeat = heartbeat
        self._execution = execution
        self._execute_rpc = execute_rpc
        self._execute_http = execute_http
        self._is_closed = is_closed
        self._max_concurrent = max_concurrent
        self._turns = asyncio.Semaphore(max_concurrent)
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: dict[tuple[object, str], None] = {}
        self._pause = _FIRST_RETRY_SECONDS

    async def run(self) -> None:
        """See ``SessionAffinity.start_rpc_listener``."""
        logger = self._context.logger()
        if not self._context.settings().enabled:
            return
        try:
            async with self._context.redis() as client:
                if not client:
                    logger.debug("Redis not available, RPC listener not started")
                    return
        except Exception as error:
            logger.warning("RPC/HTTP listener failed: %s", safe_error(error))  # and is tried again
        self._turns = asyncio.Semaphore(self._max_concurrent)  # belongs to one loop
        is_heartbeat_ours = not self._heartbeat.is_running
        self._heartbeat.start()
        try:
            await self._listen()
            await wait_until_done(self._tasks, _GRACE_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            if is_heartbeat_ours:
                await self._heartbeat.stop()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=2 * _GOODBYE_SECONDS)
            logger.info("RPC/HTTP listener stopped for worker %s", self._context.worker_id())

    async def _listen(self) -> None:
        """Read requests, through lost connections, until the host is closed."""
        while not self._is_closed():
            try:
                async with self._context.redis() as client:
                    pass
                if client:
                    await self._read(client)
                    continue
            except Exception as error:
                # One warning for a lost connection, not one for each attempt to get it back.
                level = logging.WARNING if self._pause == _FIRST_RETRY_SECONDS else logging.DEBUG
                self._context.logger().log(level, "RPC/HTTP listener failed: %s", safe_error(error))
            # Workers that lost Redis together do not come back together.
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311
            self._pause = min(2 * self._pause, _LAST_RETRY_SECONDS)

    async def _read(self, client: Any) -> None:
        """Read requests from one connection until the host is closed.

        Raises:
            Exception: of the client: the connection is lost.
        """
        worker = self._context.worker_id()
        channels = (rpc_channel(worker), http_channel(worker))
        pubsub = client.pubsub()
        try:
            async with self._context.bounded():
                await pubsub.subscribe(*channels)
            self._context.logger().info(
                "RPC/HTTP listener started for worker %s on channels: %s, %s", worker, *channels
            )
            self._pause = _FIRST_RETRY_SECONDS
            await self._heartbeat.beat()  # it may be another Redis, or an empty one
            silence = _Silence()
            cancelled = cancel_requests()
            while not self._is_closed():
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=_READ_SECONDS)
                if message and message.get("type") == "message":
                    self._take(client, message.get("channel"), message.get("data"))
                if silence.is_to_be_broken(is_heard=bool(message)):
                    # Not the subscription's own ping, whose answer some versions of the client lose.
                    async with self._context.bounded():
                        await client.publish(channels[0], _ANYBODY_THERE)
                if cancel_requests() > cancelled:
                    raise asyncio.CancelledError
                # A client that never waits must not keep the loop from everything else.
                await asyncio.sleep(0)
        finally:
            await close_pubsub(pubsub)

    def _take(self, client: Any, own_channel: object, data: Any) -> None:
        """Begin with one request."""
        logger = self._context.logger()
        try:
            request = json.loads(data)
            kind, channel = request.get("type"), request.get("response_channel")
        except Exception as error:
            logger.warning("Error processing forwarded request: %s", safe_error(error))
            return
        if not channel:
            return
        if kind not in ("rpc_forward", "http_forward"):
            logger.warning("Unknown forward type: %s", safe_text(str(kind), 80))
            return
        # A client that gave up waiting for Redis may publish once more what had arrived.
        if not isinstance(channel, str) or self._was_seen((own_channel, channel)):
            return
        is_refused = len(self._tasks) >= self._max_concurrent * (1 + _QUEUE_FACTOR)
        if is_refused and len(self._tasks) >= self._max_concurrent * (2 + _QUEUE_FACTOR):
            logger.warning("Too many forwarded requests, one is dropped")  # not even refusing keeps up
            return
        serve = self._refuse(client, request, "too busy") if is_refused else self._serve(client, request)
        task = asyncio.create_task(serve, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _was_seen(self, request: tuple[object, str]) -> bool:
        """Whether a request came before: each has an answer's channel of its own."""
        if request in self._seen:
            return True
        self._seen[request] = None
        if len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        return False

    async def _serve(self, client: Any, request: dict[str, Any]) -> None:
        """Execute one request when it is its turn, and let its session stay this worker's."""
        logger = self._context.logger()
        arrived = time.monotonic()
        try:
            async with self._turns:
                if time.monotonic() - arrived >= self._context.settings().forward_timeout_seconds:
                    logger.warning("A forwarded request waited too long for its turn, and is dropped")
                    return
                is_rpc = request["type"] == "rpc_forward"
                response = await self._execute_rpc(request) if is_rpc else None
                if not is_rpc:
                    await self._execute_http(request, client)  # answers, too
            if response is not None:
                await self._execution.answer(client, request, response)
            await self._ownership.register(request.get("mcp_session_id", ""))
        except asyncio.CancelledError:
            await self._refuse(client, request, "shutting down")
            raise
        except Exception as error:
            logger.warning("Error processing forwarded request: %s", safe_error(error))

    async def _refuse(self, client: Any, request: dict[str, Any], why: str) -> None:
        """Answer that this worker does not execute a request, so that nobody waits for it."""
        text = f"The worker that owns the session is {why}"
        response = rpc_error(text) if request["type"] == "rpc_forward" else http_error(503, text)
        with suppress(Exception):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._execution.answer(client, request, response, attempts=1)


class _Silence:
    """Whether a connection without messages is still one: a peer that vanished never says so."""

    def __init__(self) -> None:
        self._heard = self._asked = time.monotonic()
        self._reads = 0

    def is_to_be_broken(self, *, is_heard: bool) -> bool:
        """Whether it is time to send a message to oneself.

        Raises:
            ConnectionError: the last one did not arrive.
        """
        now = time.monotonic()
        self._reads += 1
        if is_heard:
            self._heard = now
            self._reads = 0
        # Not by the clock alone: a process that stood still has not read what came meanwhile.
        if now - max(self._heard, self._asked) < _SILENCE_SECONDS or self._reads < _SILENT_READS:
            return False
        if self._asked > self._heard:
            raise ConnectionError("Redis is silent")
        self._asked = now
        self._reads = 0
        return True
