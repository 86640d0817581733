"""Random programs against the binding.

Sessions are dropped, finalized, weakly referenced, of subclasses; pools are dropped; the process forks with
all of it under way; the loop moves between threads; tasks begin at once (from Python 3.12 on);
uvloop runs them, where it is installed. A seed says what happens, but for the moments of threads.

    python -m support.binding_fuzz FIRST_SEED COUNT
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

from mcpgateway_pool import PooledSession, _core
from mcpgateway_pool.config import TransportType

from .fakes import URL, PlainPool, turns

HTTP = TransportType.STREAMABLE_HTTP
STEPS = 60


class Finalized:
    """Runs something when it goes away."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call

    def __del__(self) -> None:
        self._call()


class Slotted(PooledSession):
    """With a slot and a finalizer of its own."""

    __slots__ = ("slot",)

    def __del__(self) -> None:
        assert self.use_count >= 0


class Program:
    """One random program on one pool."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._is_child = False
        self._inside = 0
        self._held: list[Any] = []
        self._pendings: list[Any] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._kept: list[Any] = []
        self._pool = PlainPool(max_sessions_per_key=2, max_total_sessions=5, cleanup_timeout_seconds=1.0)
        self._pool.make_session = self._make  # type: ignore[method-assign]

    def _make(self, url: str, headers: Any, transport_type: TransportType) -> PooledSession:
        kind = self._random.choice([PooledSession, Slotted])
        pooled = kind(Finalized(self._anything), None, url, transport_type, {}, "")
        if isinstance(pooled, Slotted):
            pooled.slot = Finalized(self._anything)
        if self._random.random() < 0.5:
            self._kept.append(weakref.ref(pooled, lambda _: self._anything()))
        return pooled

    def _url(self) -> str:
        return f"{URL}/{self._random.randrange(3)}"

    def _anything(self) -> None:
        """What code may do that runs in the middle of something."""
        if self._inside > 2:
            return
        self._inside += 1
        try:
            self._random.choice([self._look, self._acquire, self._release, self._drop, self._mark])()
        except RuntimeError:
            pass  # closed, or no loop here
        finally:
            self._inside -= 1

    def _look(self) -> None:
        self._pool.get_metrics()
        self._kept.append(self._pool._keys())
        _core.snapshot()

    def _acquire(self) -> None:
        got = _core.acquire(self._pool, self._url(), None, HTTP, None, "g")
        (self._pendings if isinstance(got, _core.Pending) else self._held).append(got)

    def _release(self) -> None:
        if self._held:
            _core.release(self._pool, self._held.pop(), self._random.randrange(3))

    def _drop(self) -> None:
        for things in (self._held, self._pendings, self._kept):
            if things and self._random.random() < 0.5:
                things.pop(self._random.randrange(len(things)))

    def _mark(self) -> None:
        if self._held:
            pooled = self._random.choice(self._held)
            pooled.last_used = pooled.created_at - 1.0
            self._pool._mark_broken(pooled, self._random.random() < 0.2, True)

    def _report(self) -> None:
        if self._pendings:
            pending = self._pendings.pop()
            self._pool._created(pending, self._make(URL, None, HTTP))

    def _wait(self) -> None:
        self._tasks.append(asyncio.ensure_future(self._use()))

    async def _use(self) -> None:
        async with self._pool.session(self._url(), gateway_id="g"):
            await turns(self._random.randrange(3))

    def _cancel(self) -> None:
        if self._tasks:
            self._tasks.pop().cancel()

    def _elsewhere(self) -> None:
        thread = threading.Thread(target=self._drop)
        thread.start()
        thread.join()

    def _fork(self) -> None:
        loop = asyncio.get_running_loop()
        before = self._pool._counts(), self._pool._totals(), _core.snapshot()
        child = os.fork()
        if child == 0:
            self._is_child = True
            asyncio._set_running_loop(loop)
            for _ in range(10):
                self._anything()
            self._held.clear()
            self._pendings.clear()
            self._kept.clear()
            gc.collect()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status == 0, f"the child ended with {status}"
        assert (self._pool._counts(), self._pool._totals(), _core.snapshot()) == before

    async def run(self, steps: int) -> None:
        """So many random steps."""
        choices = [self._anything] * 4 + [
            self._acquire,
            self._report,
            self._wait,
            self._cancel,
            self._elsewhere,
        ]
        for _ in range(steps):
            self._random.choice([*choices, self._release, gc.collect])()
            if self._random.random() < 0.02:
                self._fork()
            await turns(self._random.randrange(2))

    async def end(self) -> None:
        """All that was begun is given up, and nothing is left."""
        self._inside = 9
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._pendings.clear()
        self._held.clear()
        self._kept.clear()
        gc.collect()
        await turns(20)
        await self._pool.close_all()
        self._pool.closed_sessions.clear()
        gc.collect()
        await turns(20)
        counts = self._pool._counts()
        assert not any(counts[name] for name in ("waiters", "creating", "active", "idle", "closing")), counts


def run(seed: int) -> None:
    """One program, on a loop that moves between threads."""
    order = random.Random(seed)
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if order.random() < 0.3:
        with contextlib.suppress(ImportError):
            factory = __import__("uvloop").new_event_loop
    loop = factory()
    # Not on uvloop: it passes an argument on that the factories of Python before 3.14 need not know.
    if sys.version_info >= (3, 12) and order.random() < 0.5 and factory is asyncio.new_event_loop:
        loop.set_task_factory(asyncio.eager_task_factory)
    program = Program(seed)
    loop.run_until_complete(program.run(STEPS // 2))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(program.run(STEPS // 2), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    if order.random() < 0.3:  # the loop goes first, and the pool with all that it has
        loop.close()
        del program
        gc.collect()
        return
    loop.run_until_complete(program.end())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def main() -> None:
    """Programs of so many seeds."""
    logging.disable()
    warnings.simplefilter("ignore")  # forks while threads run, coroutines of a loop that was closed
    first, count = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        print(seed, flush=True)
        run(seed)
    print(f"{count:,} random programs, on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
