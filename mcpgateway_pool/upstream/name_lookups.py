"""Looking up host names, each in a thread of its own.

``getaddrinfo()`` cannot be cancelled, and takes half a minute where a name server does not answer. In the few
threads of the event loop's executor, one such server would stall whoever connects to any other host, and the
end of the process. So here:

- A look-up that hangs takes none of these threads, and nobody waits for it but who wants its very name.
- Callers who want the same name at the same time share one look-up.
- A look-up that nobody waits for any more has no place; its thread ends when the system gives it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import errno
import functools
import os
import socket
import threading
import time
import weakref
from typing import Any

from mcpgateway_pool import verdict

# So many names are looked up at once for somebody who waits; more wait for their turn. Far more than hang
# where one of the name servers is gone, far fewer than the threads that a process may have.
MAX_AT_ONCE = 128
# Resolvers ask again after 5 s. A look-up that is older may hang for a reason that has passed.
_SHARED_SECONDS = 5.0

_Key = tuple[str, int]

_of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookups] = weakref.WeakKeyDictionary()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_loops.clear)  # their threads are the parent's


async def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which to try them: the system's, families by turns.

    Not bounded in time: that is for the caller.

    Raises:
        OSError: as ``socket.getaddrinfo()``; ``socket.gaierror`` where there is no such name.
        UnicodeError: what cannot be a name.
    """
    loop = asyncio.get_running_loop()
    lookups = _of_loops.get(loop)
    if lookups is None:
        lookups = _of_loops[loop] = _Lookups()
    return _by_turns(await lookups.of(host, port))


def _by_turns(infos: list[Any]) -> list[str]:
    """RFC 8305: where one family does not work, the second attempt is with the other."""
    families: dict[int, list[str]] = {}
    for family, _type, _protocol, _name, address in infos:
        known = families.setdefault(family, [])
        if address[0] not in known:
            known.append(address[0])
    columns = list(families.values())
    longest = max(map(len, columns), default=0)
    return [column[row] for row in range(longest) for column in columns if row < len(column)]


class _Lookup:
    """One name that a thread is looking up.

    Attributes:
        done: set to what came of it: a list, or an exception.
        waiting: how many callers wait for it.
        has_place: whether it counts among those at once.
    """

    __slots__ = ("begin", "done", "has_place", "waiting")

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.done: asyncio.Future[list[Any] | Exception] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        self.has_place = True


class _Lookups:
    """Those of one event loop."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._running: dict[_Key, _Lookup] = {}

    async def of(self, host: str, port: int) -> list[Any]:
        lookup = self._shared(host, port)
        if lookup is None:
            await self._place()
            lookup = self._shared(host, port)
            if lookup is None:
                lookup = self._start(host, port)
            else:
                self._places.release()  # somebody was quicker
        lookup.waiting += 1
        try:
            await asyncio.wait((lookup.done,))  # which a cancellation leaves alone
        finally:
            lookup.waiting -= 1
            if lookup.waiting == 0 and lookup.has_place:
                lookup.has_place = False
                self._places.release()
        found = lookup.done.result()
        if isinstance(found, Exception):
            raise copy.copy(found)  # each caller's has a traceback of its own
        return found

    def _shared(self, host: str, port: int) -> _Lookup | None:
        lookup = self._running.get((host, port))
        return lookup if lookup and time.monotonic() - lookup.begin < _SHARED_SECONDS else None

    async def _place(self) -> None:
        try:
            await self._places.acquire()
        except asyncio.CancelledError as error:
            # Of interest where it becomes a time-out: no server is to blame.
            verdict.blame(error, verdict.Fault.MACHINE)
            raise

    def _start(self, host: str, port: int) -> _Lookup:
        lookup = _Lookup()
        loop = asyncio.get_running_loop()
        settle = functools.partial(self._settle, (host, port), lookup)
        # A daemon: the end of the process does not wait for a name server.
        thread = threading.Thread(
            target=_look_up, args=(host, port, loop, settle), name="mcpgateway-pool name look-up", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            self._places.release()
            raise OSError(errno.ENOMEM, str(error)) from error
        self._running[host, port] = lookup
        return lookup

    def _settle(self, key: _Key, lookup: _Lookup, found: list[Any] | Exception) -> None:
        if self._running.get(key) is lookup:
            del self._running[key]
        lookup.done.set_result(found)


def _look_up(host: str, port: int, loop: asyncio.AbstractEventLoop, settle: Any) -> None:
    """What the thread does."""
    found: list[Any] | Exception
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except Exception as error:
        found = error.with_traceback(None)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(settle, found)
