"""Name look-ups that hang, that are shared, and that nobody waits for any more."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mcpgateway_pool import verdict
from mcpgateway_pool.upstream import name_lookups
from mcpgateway_pool.upstream.name_lookups import addresses_of


class Resolver:
    """Stands for ``socket.getaddrinfo()``: names that begin with ``slow`` wait for :meth:`answer`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answers = threading.Event()

    def answer(self) -> None:
        self._answers.set()

    def __call__(self, host: str, port: int, *_: Any, **_options: Any) -> list[Any]:
        self.asked.append(host)
        if host.startswith("slow"):
            self._answers.wait(30)
        if host.endswith("missing"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answer()
    for thread in threading.enumerate():
        if "name look-up" in thread.name:
            thread.join(30)


async def until_asked(resolver: Resolver, count: int) -> None:
    while len(resolver.asked) < count:
        await asyncio.sleep(0)


def test_names_that_hang_stall_nobody_else_and_not_the_loops_executor(resolver: Resolver) -> None:
    async def test() -> None:
        hanging = [asyncio.ensure_future(addresses_of(f"slow{i}", 1)) for i in range(60)]
        await until_asked(resolver, 60)
        assert await addresses_of("quick", 1) == ["127.0.0.1"]
        assert await asyncio.to_thread(lambda: "free") == "free"
        assert not any(task.done() for task in hanging)
        resolver.answer()
        assert await asyncio.gather(*hanging) == [["127.0.0.1"]] * 60

    asyncio.run(test())


def test_callers_of_one_name_share_a_look_up_and_a_cancelled_one_leaves_it_to_the_others(
    resolver: Resolver,
) -> None:
    async def test() -> None:
        callers = [asyncio.ensure_future(addresses_of("slow", 1)) for _ in range(10)]
        await until_asked(resolver, 1)
        callers[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        resolver.answer()
        assert await asyncio.gather(*callers[1:]) == [["127.0.0.1"]] * 9
        assert resolver.asked == ["slow"]
        await addresses_of("slow", 1)  # nothing is remembered
        assert resolver.asked == ["slow", "slow"]

    asyncio.run(test())


def test_a_look_up_that_may_hang_for_a_reason_that_has_passed_is_not_shared(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        monkeypatch.setattr(name_lookups, "_SHARED_SECONDS", 0.0)
        callers = [asyncio.ensure_future(addresses_of("slow", 1)) for _ in range(2)]
        await until_asked(resolver, 2)
        resolver.answer()
        await asyncio.gather(*callers)

    asyncio.run(test())


def test_look_ups_are_bounded_and_cancelled_ones_keep_no_place(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_lookups, "MAX_AT_ONCE", 2)

    async def test() -> None:
        hanging = [asyncio.ensure_future(addresses_of(f"slow{i}", 1)) for i in range(2)]
        await until_asked(resolver, 2)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.01):
                await addresses_of("quick", 1)
        # No server is to blame for a look-up that never began.
        assert verdict.fault_of(caught.value) is verdict.Fault.MACHINE
        waiting = asyncio.ensure_future(addresses_of("quick", 1))
        hanging[0].cancel()
        assert await waiting == ["127.0.0.1"]
        assert [await addresses_of("quick", 1) for _ in range(5)] == [["127.0.0.1"]] * 5
        # Joined by somebody, and cancelled again, it gives its place back no second time.
        again = asyncio.ensure_future(addresses_of("slow0", 1))
        await asyncio.sleep(0)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        assert resolver.asked.count("slow0") == 1
        [lookups] = [found for loop, found in name_lookups._of_loops.items() if not loop.is_closed()]
        assert lookups._places._value == 1
        resolver.answer()
        await hanging[1]
        assert lookups._places._value == 2

    asyncio.run(test())


def test_each_caller_gets_an_error_of_its_own(resolver: Resolver) -> None:
    async def test() -> None:
        callers = [asyncio.ensure_future(addresses_of("slow-missing", 1)) for _ in range(3)]
        await until_asked(resolver, 1)
        resolver.answer()
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert {type(error) for error in errors} == {socket.gaierror}
        assert {error.errno for error in errors if isinstance(error, OSError)} == {socket.EAI_NONAME}
        assert len(set(map(id, errors))) == 3

    asyncio.run(test())


def test_what_cannot_be_a_name_is_an_error() -> None:
    with pytest.raises(UnicodeError):
        asyncio.run(addresses_of("a" * 64 + ".example", 1))


def test_families_take_turns_in_the_systems_order(monkeypatch: pytest.MonkeyPatch) -> None:
    six, four = socket.AF_INET6, socket.AF_INET
    found = [(six, "::1"), (six, "::2"), (six, "::1"), (six, "::3"), (four, "1.1.1.1"), (four, "2.2.2.2")]

    def getaddrinfo(*_: Any, **_options: Any) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 6, "", (address, 1)) for family, address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert asyncio.run(addresses_of("host", 1)) == ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]


def test_an_answer_that_comes_after_the_loop_was_closed_bothers_nobody(resolver: Resolver) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await addresses_of("slow", 1)

    asyncio.run(test())  # which does not wait for the thread either
    assert any("name look-up" in thread.name for thread in threading.enumerate())
    resolver.answer()


def test_a_thread_that_cannot_be_started_is_a_shortage_of_this_machine(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def test() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            patch.setattr(name_lookups, "MAX_AT_ONCE", 1)
            for _ in range(3):
                with pytest.raises(OSError, match="thread") as caught:
                    await addresses_of("quick", 1)
                assert verdict.fault_of(caught.value) is verdict.Fault.MACHINE
        assert await addresses_of("quick", 1) == ["127.0.0.1"]

    asyncio.run(test())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # 3.12 and later
def test_a_forked_child_waits_for_no_look_up_of_its_parents(resolver: Resolver) -> None:
    def look_ups_in_a_child() -> int:
        child = os.fork()
        if child == 0:
            os._exit(len(name_lookups._of_loops))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    async def test() -> None:
        hanging = asyncio.ensure_future(addresses_of("slow", 1))
        await until_asked(resolver, 1)
        assert len(name_lookups._of_loops) > 0
        assert look_ups_in_a_child() == 0
        resolver.answer()
        await hanging

    asyncio.run(test())
