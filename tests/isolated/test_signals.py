"""Signals while callers wait, and sessions are opened and closed: the program ends as it should, or goes on,
and nothing is lost.
"""

from __future__ import annotations

import os
import signal

import pytest

from support.scripts import assert_runs_quietly, run_script

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

BUSY = """
import logging, signal
logging.disable()
async def make_busy(what):
    pool = PlainPool(max_sessions_per_key=1, cleanup_timeout_seconds=0.1)
    held = await pool.acquire(URL)
    if what == "waiting":
        task = asyncio.ensure_future(pool.acquire(URL))
        await until(lambda: pool.count("waiters") == 1)
    elif what == "creating":
        pool.holds_creations = True
        task = asyncio.ensure_future(pool.acquire(URL + "/new"))
        await until(lambda: pool.creations)
    else:
        pool.holds_closes = True
        task = asyncio.ensure_future(pool.release(held, discard=True))
        await until(lambda: pool.closes)
    return pool, held, task
async def whole(pool, held):
    pool.holds_creations = pool.holds_closes = False
    for gate in [*pool.creations, *pool.closes]:
        gate.open()
    if pool._lease_of(held) is not None:
        await pool.release(held)
    await until_timer(lambda: not any(pool.count(n) for n in ("waiters", "creating", "closing")))
    async with pool.session(URL):
        pass
    assert_adds_up(pool)
    await pool.close_all()
    await turns()
    assert sum(count for name, count in pool._counts().items() if "_" not in name) == 0
"""
KINDS = ["waiting", "creating", "closing"]


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_program_as_it_would_without_a_pool(what: str, number: signal.Signals):
    done = run_script(
        BUSY
        + """
async def main():
    pool, held, task = await make_busy(sys.argv[1])
    os.kill(os.getpid(), int(sys.argv[2]))
    await asyncio.sleep(50)
asyncio.run(main())
""",
        what,
        str(int(number)),
    )
    assert done.returncode == -number, done
    if number == signal.SIGINT:
        assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
        assert "Exception ignored" not in done.stderr
    else:
        assert done.stderr == ""


@pytest.mark.parametrize("what", KINDS)
def test_interrupt_of_a_runner_that_goes_on_loses_nothing(what: str):
    assert_runs_quietly(
        BUSY
        + """
async def main():
    global pool, held, task
    pool, held, task = await make_busy(sys.argv[1])
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(50)
with asyncio.Runner() as runner:
    try:
        runner.run(main())
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("no interrupt")
    task.cancel()
    runner.run(whole(pool, held))
""",
        what,
    )


@pytest.mark.parametrize("what", KINDS)
def test_signal_handler_may_call_the_pool(what: str):
    assert_runs_quietly(
        BUSY
        + """
import mcpgateway_pool
async def main():
    pool, held, task = await make_busy(sys.argv[1])
    seen = []
    def at_once(*_):  # anywhere, also inside the pool's own code
        seen.append(pool.get_metrics())
        mcpgateway_pool.generate_latest()
    signal.signal(signal.SIGUSR1, at_once)
    drains = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR2, lambda: drains.append(asyncio.ensure_future(pool.drain_all())))
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGUSR2)
    await until_timer(lambda: drains)
    assert len(seen) >= 1
    task.cancel()
    await whole(pool, held)
    await asyncio.wait([*drains, task])
asyncio.run(main())
""",
        what,
    )


def test_an_interrupt_inside_a_wake_up_is_not_swallowed():
    assert_runs_quietly(
        BUSY
        + """
async def main():
    global pool, held, task
    pool, held, task = await make_busy("waiting")
    loop = asyncio.get_running_loop()
    def call_soon(*args, **kwargs):
        del loop.call_soon
        raise KeyboardInterrupt
    loop.call_soon = call_soon
    await pool.release(held)
loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(main())
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("the interrupt is lost")
finally:
    loop.close()
os._exit(0)  # the interrupted wake-up of asyncio's own is lost, and so is the task
"""
    )
