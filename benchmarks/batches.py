"""How times are taken: in short batches, of which the best counts, in seconds of the thread's processor time.

Other processes take the processor away, which that leaves out, and its caches, which makes a batch longer and
never shorter.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Awaitable, Callable, Iterator

ROUND_SECONDS = 0.3


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """What is there now costs no collection of garbage anything."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def best_of(batch: Callable[[], Awaitable[int]]) -> float:
    """Seconds for one operation, in the best of several batches; a batch returns how many it did."""
    best = float("inf")
    with frozen():
        end = time.thread_time() + ROUND_SECONDS
        while (start := time.thread_time()) < end:
            operations = await batch()
            best = min(best, (time.thread_time() - start) / operations)
    return best
