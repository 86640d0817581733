"""Whether anything is left: tasks, descriptors, complaints of the event loop."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


async def settle(seconds: float = 1.0) -> None:
    """Wait until no other task runs, at most ``seconds``: what remains then is a leak."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    end = time.monotonic() + seconds
    while others and time.monotonic() < end:
        await asyncio.wait(others, timeout=0.1)
        others = asyncio.all_tasks() - {asyncio.current_task()}


def run_clean(
    test: Callable[[], Awaitable[None]],
    limit: float = 50.0,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a coroutine function in a loop of its own. It must leave no task, no descriptor, and no exception
    that nobody handled.
    """
    unhandled: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        # The loop's threads keep nothing open, but a first one may open what Python keeps.
        await asyncio.to_thread(int)
        await _first_connection()
        before = descriptors()
        async with asyncio.timeout(limit):
            await test()
        # The SDK leaves async generators half-way; when they are collected, asyncio ends each in a short
        # task.
        gc.collect()
        await settle()
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        assert descriptors() <= before

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
    gc.collect()
    assert unhandled == []


async def _first_connection() -> None:
    """At its first, uvloop opens what it keeps."""
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    writer.close()
    await writer.wait_closed()
    theirs.close()


def resident_mib(pid: int | str = "self") -> float:
    """Memory of a process that is in use, in MiB; of this one by default."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def where_is(task: asyncio.Task[Any]) -> str:
    """The functions that a task is in, outermost first."""
    names: list[str] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        names.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}" if frame else repr(awaited))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)
    return " > ".join(names)
