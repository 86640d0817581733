"""What idle sessions take of memory: growth of this process (RSS), by so many of them. Linux only."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from sides import Side, fill, users

URL = "http://127.0.0.1:9000/mcp"
HEADERS = {"Authorization": "Bearer 0123456789abcdef", "X-Tenant-Id": "tenant-1"}


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def session_object_bytes(side: Side, count: int, has_own_headers: bool = False) -> float:
    """One session object as a pool makes it; the connection behind it, its URL and user left out, and its
    headers unless ``has_own_headers``.
    """
    # What the first of anything takes once, such as the code of an import, is no part of it.
    kept: list[object] = [side.make_session(URL, HEADERS, user) for user in users(100)]
    names = users(count)
    kept += [None] * count
    gc.collect()
    before = resident_bytes()
    for number, user in enumerate(names):
        kept[number] = side.make_session(URL, dict(HEADERS) if has_own_headers else HEADERS, user)
    gc.collect()
    return (resident_bytes() - before) / count


async def idle_key_bytes(side: Side, count: int) -> float:
    """One key with one idle session, beyond the session object and its caller's headers."""
    session_object = await session_object_bytes(side, count, has_own_headers=True)
    pool = side.make_pool(
        session_ttl_seconds=1e6, idle_pool_eviction_seconds=1e6, health_check_interval_seconds=1e6
    )
    await fill(side, pool, URL, users(100), HEADERS)
    names = [f"other-{user}" for user in users(count)]
    gc.collect()
    before = resident_bytes()
    await fill(side, pool, URL, names, HEADERS)
    gc.collect()
    return (resident_bytes() - before) / count - session_object
