"""Waiting for tasks, bounded; and tasks for which nobody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from .redact import safe_error

logger = logging.getLogger(__name__)

# How long a task that was cancelled may go on before nobody waits for it any more.
CANCEL_GRACE_SECONDS = 1.0
# How long anybody waits for a goodbye, which goes on in the background. Long enough for a server that
# answers.
GOODBYE_SECONDS = 0.1

# The loop keeps only weak references to tasks; these must run to their end although nobody awaits them.
_background: set[asyncio.Task[Any]] = set()


def keep(task: asyncio.Task[Any]) -> None:
    """Keep a task until it is done."""
    _background.add(task)
    task.add_done_callback(_background.discard)


async def wait_until_done(tasks: set[asyncio.Task[Any]], bound: float) -> None:
    """Wait for tasks, cancel those that are not done within the bound, and wait a little for these."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=bound)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=CANCEL_GRACE_SECONDS)


async def say_goodbye(goodbye: Coroutine[Any, Any, None], bound: float) -> None:
    """Tell a server something that no answer depends on: begun at once, waited for 0.1 s at most, going on in
    the background.

    Args:
        goodbye: tells it; its errors are logged at debug level.
        bound: seconds after which it is cancelled.
    """

    async def run() -> None:
        try:
            async with asyncio.timeout(bound):
                await goodbye
        except Exception as error:
            logger.debug("a goodbye did not reach the server: %s", safe_error(error))

    task = asyncio.get_running_loop().create_task(run(), name="goodbye")
    keep(task)
    await asyncio.wait({task}, timeout=GOODBYE_SECONDS)
