"""Waiting for tasks, bounded."""

from __future__ import annotations

import asyncio
from typing import Any

# How long a task that was cancelled may go on before nobody waits for it any more.
CANCEL_GRACE_SECONDS = 1.0


async def wait_until_done(tasks: set[asyncio.Task[Any]], bound: float) -> None:
    """Wait for tasks, cancel those that are not done within the bound, and wait a little for these."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=bound)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=CANCEL_GRACE_SECONDS)
