"""Whether a worker lives: its heartbeat, its subscription, its process."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import time
from contextlib import suppress
from typing import Any

from mcpgateway_pool.redact import safe_error

from .context import Context
from .keys import http_channel, rpc_channel, worker_heartbeat_key

TTL_SECONDS = 30
INTERVAL_SECONDS = 10.0
RETRY_SECONDS = 1.0

# For how long a heartbeat must be missing to count: a Redis that comes back empty has none of anybody's until
# each worker writes the next one.
MISSING_SECONDS = INTERVAL_SECONDS

# How many workers to remember that were seen to have a heartbeat.
_MAX_SEEN = 1024


class Heartbeat:
    """This worker's heartbeat, and what the others' say. One task, while it runs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        # Workers that had a heartbeat, and since when it is missing; oldest first.
        self._seen: dict[str, float | None] = {}

    @property
    def is_running(self) -> bool:
        """Whether this worker's heartbeat is kept going, in the running loop.

        A loop that was closed under its task leaves it neither running nor done.
        """
        task = self._task
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    def start(self) -> None:
        """Keep the key alive from now on; harmless when that goes on already, or the affinity is off."""
        if self._context.settings().enabled and not self.is_running:
            self._stopping = asyncio.Event()
            self._task = asyncio.create_task(self._run(self._stopping), context=contextvars.Context())

    async def stop(self) -> None:
        """Stop, and take the key away. Harmless when it is not running."""
        is_running = self.is_running
        task, self._task = self._task, None
        if task is None or not (is_running or task.done()):
            return
        # Not cancelled: a client that is cancelled while it connects leaves its connection open.
        self._stopping.set()
        await asyncio.wait({task})
        with suppress(Exception):
            async with self._context.redis() as client:
                if client:
                    await client.delete(worker_heartbeat_key(self._context.worker_id()))

    async def _run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            pause = INTERVAL_SECONDS if await self.beat() else RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stopping.wait()

    async def beat(self) -> bool:
        """Write the key once; False when that failed."""
        try:
            async with self._context.redis(is_probe=True) as client:
                if not client:
                    return False
                await client.set(worker_heartbeat_key(self._context.worker_id()), "alive", ex=TTL_SECONDS)
        except Exception as error:
            self._context.logger().debug("Failed to write the worker's heartbeat: %s", safe_error(error))
            return False
        return True

    async def is_alive(self, client: Any, worker_id: str) -> bool:
        """Whether another worker lives, as far as Redis knows. A Redis error counts as alive.

        A worker with the gateway's own module has no heartbeat: it lives while it listens. One that was seen
        to have a heartbeat, and has none any more, is dead even if its connection still hangs about. A
        heartbeat outlives a killed worker: where its process can be looked for, nobody waits for that.
        """
        try:
            if await client.exists(worker_heartbeat_key(worker_id)):
                self._remember(worker_id)
                if not process_is_gone(worker_id):
                    return True
            elif self._has_stopped(worker_id):
                return False
            listeners = await client.pubsub_numsub(rpc_channel(worker_id), http_channel(worker_id))
            return any(count for _, count in listeners)
        except Exception as error:
            self._context.logger().debug("Failed to read a worker's heartbeat: %s", safe_error(error))
            return True

    def _has_stopped(self, worker_id: str) -> bool:
        """Whether a heartbeat that is missing now was there once, and has been missing for long enough."""
        if worker_id not in self._seen:
            return False
        now = time.monotonic()
        since = self._seen[worker_id]
        if since is None:
            since = self._seen[worker_id] = now
        return now - since >= MISSING_SECONDS

    def _remember(self, worker_id: str) -> None:
        self._seen[worker_id] = None
        while len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]


def process_is_gone(worker_id: str) -> bool:
    """Whether a worker id (``hostname:pid``) names a process of this machine that is not there.

    Two containers may have one hostname and their own process ids: so this proves a worker dead only together
    with a channel that nobody listens to.
    """
    hostname, _, pid = worker_id.rpartition(":")
    if (
        hostname != socket.gethostname()
        or not (pid.isascii() and pid.isdecimal())
        or not 0 < int(pid) < 2**31
    ):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
