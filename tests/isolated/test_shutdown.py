"""An interpreter that ends with sessions open and pools not closed ends quietly."""

from __future__ import annotations

import pytest

from support.scripts import assert_runs_quietly, run_script

QUIET = """
import logging
logging.getLogger("mcpgateway_pool").setLevel(logging.ERROR)
async def main():
    pool = FakePool(max_sessions_per_key=2)
    held, idle = await pool.acquire(URL), await pool.acquire(URL)
    await pool.release(idle)
    return pool, held, idle
"""


@pytest.mark.parametrize("keep", ["pool, held, idle", "pool", "held", "idle", "None"])
def test_interpreter_exits_quietly_with_sessions_open(keep: str):
    assert_runs_quietly(
        QUIET + f"pool, held, idle = asyncio.run(main())\nkept = {keep}\ndel pool, held, idle"
    )


def test_interpreter_exits_quietly_with_a_pool_in_a_reference_cycle():
    assert_runs_quietly(
        QUIET
        + """
pool, held, idle = asyncio.run(main())
pool.held = held
held.pool = pool
pool.me = pool
sys.pool = pool
import builtins
builtins.held = held
"""
    )


def test_interpreter_exits_quietly_when_tasks_are_cancelled_by_the_end_of_the_loop():
    assert_runs_quietly(
        QUIET
        + """
async def busy():
    pool, held, idle = await main()
    pool.holds_creations = pool.holds_closes = True
    idle = await pool.acquire(URL)
    tasks = [asyncio.ensure_future(pool.acquire(URL)) for _ in range(3)]
    tasks += [asyncio.ensure_future(pool.acquire(URL + "/b")) for _ in range(3)]
    tasks.append(asyncio.ensure_future(pool.release(held, discard=True)))
    await until(lambda: pool.creations and pool.closes)
    return pool, idle, tasks
kept = asyncio.run(busy())
"""
    )


def test_interpreter_exits_quietly_with_the_loop_neither_closed_nor_running():
    assert_runs_quietly(
        QUIET + "loop = asyncio.new_event_loop()\nkept = loop.run_until_complete(main())\nloop.close()"
    )


@pytest.mark.parametrize("mode", ["waiting", "granted", "creating"])
@pytest.mark.parametrize("closes", [True, False])
def test_interpreter_survives_acquires_that_nobody_awaits_any_more(mode: str, closes: bool):
    done = run_script(
        QUIET
        + """
mode, closes = sys.argv[1:]
async def busy():
    pool = FakePool(max_sessions_per_key=1)
    pool.holds_creations = mode == "creating"
    if mode == "creating":
        pending = asyncio.ensure_future(pool.acquire(URL))
        await until(lambda: pool.creations)
        return pool, pending
    held = await pool.acquire(URL)
    pending = pool.acquire(URL)
    pending.send(None)
    if mode == "granted":
        await pool.release(held)
    pool.held = held
    pool.pending = pending
    return pool, pending
loop = asyncio.new_event_loop()
kept = loop.run_until_complete(busy())
if closes == "True":
    loop.close()
""",
        mode,
        str(closes),
    )
    assert done.returncode == 0, done
    # asyncio says this of any task that was left; nothing else is said.
    lines = [line for line in done.stderr.splitlines() if "Task was destroyed" not in line]
    lines = [line for line in lines if not line.startswith("task: <Task pending")]
    lines = [line for line in lines if "ResourceWarning" not in line and "_warn(f" not in line]
    assert lines == []


def test_session_dropped_while_the_interpreter_ends_is_quiet():
    assert_runs_quietly(
        QUIET
        + """
class Late:
    def __init__(self, what):
        self.what = what
    def __del__(self):
        self.what = None
pool, held, idle = asyncio.run(main())
sys.late = Late(held)
late = Late(pool)
del pool, held, idle
"""
    )


def test_exit_from_inside_the_loop_is_quiet():
    done = run_script(
        QUIET
        + """
async def leave():
    pool, held, idle = await main()
    async with pool.session(URL):
        sys.exit(7)
asyncio.run(leave())
"""
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_look_ups_that_come_back_while_the_interpreter_ends_do_no_harm():
    """Each hangs in a system call, and returns when the interpreter has begun to take modules apart."""
    assert_runs_quietly(
        """
        import socket, threading
        from mcpgateway_pool.upstream.name_lookups import addresses_of
        reading, writing = os.pipe()
        begun = threading.Semaphore(0)

        def hanging(host, port, **options):
            begun.release()
            os.read(reading, 1)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        class Waker:
            def __del__(self, close=os.close, writing=writing, switch=__import__("time").sleep):
                close(writing)
                switch(0)  # whoever has returned asks for the GIL

        async def main():
            callers = [asyncio.ensure_future(addresses_of(f"name{number}", 1)) for number in range(60)]
            for _ in callers:
                await asyncio.to_thread(begun.acquire)

        socket.getaddrinfo = hanging
        sys.waker = Waker()
        asyncio.run(main())
        """
    )
