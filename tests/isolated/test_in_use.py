"""Fork, other processes, and the end of the interpreter, all while the pool is in use: callers wait, sessions
are being opened and closed, other threads read.
"""

from __future__ import annotations

import os
import sys
import sysconfig

import pytest

from support.scripts import assert_runs_quietly, run_script

IN_USE = """
import logging, threading, warnings
logging.disable()
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads run
from mcpgateway_pool import PoolCollector, _core
async def make_busy(pool):
    pool.holds_creations = pool.holds_closes = False
    held = [await pool.acquire(URL, gateway_id="g") for _ in range(2)]
    waiting = [asyncio.ensure_future(pool.acquire(URL, gateway_id="g")) for _ in range(3)]
    await until(lambda: pool.count("waiters") == 3)
    pool.holds_creations = pool.holds_closes = True
    creating = asyncio.ensure_future(pool.acquire(URL + "/new", gateway_id="g"))
    await until(lambda: pool.creations)
    return held, waiting, creating
async def finish(pool, held, waiting, creating):
    pool.holds_creations = pool.holds_closes = False
    for gate in pool.creations: gate.open()
    for pooled in held: await pool.release(pooled)
    await pool.release(await creating)
    for task in waiting: await pool.release(await task)
    await turns()
    assert_at_rest(pool)
    await pool.close_all()
    assert pool.open_now["total"] == 0
def scrape_for_ever():
    while True:
        mcpgateway_pool.generate_latest()
        list(PoolCollector().collect())
import mcpgateway_pool
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("scrapes", [False, True])
def test_fork_in_full_use_leaves_the_parent_unharmed_and_the_child_empty(scrapes: bool):
    assert_runs_quietly(
        IN_USE
        + """
async def main():
    pool = FakePool(max_sessions_per_key=2)
    if sys.argv[1] == "True":
        threading.Thread(target=scrape_for_ever, daemon=True).start()
    busy = await make_busy(pool)
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio._set_running_loop(None)
                pool.holds_creations = pool.holds_closes = False
                pool.attempts = pool.returned = pool.answered = 0
                assert sum(pool._counts().values()) == 0, pool._counts()
                assert _core.snapshot()[0] == []
                pool.open_now.clear()
                async def use():
                    async with pool.session(URL, gateway_id="child"):
                        pass
                    assert_at_rest(pool)
                    await pool.close_all()
                asyncio.run(use())
                code = 0
            except BaseException:
                import traceback; traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    await finish(pool, *busy)
    assert [label for label, _ in _core.snapshot()[0]] == ["g"]
asyncio.run(main())
os._exit(0)
""",
        str(scrapes),
    )


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_from_a_pool_in_use_counts_each_process_once(method: str, tmp_path: object):
    program = f"{tmp_path}/program.py"
    with open(program, "w") as file:
        file.write(
            "import asyncio, multiprocessing, sys\nfrom support.fakes import *\n"
            + IN_USE
            + """
def misses():
    return {s.labels["gateway_id"]: s.value for f in PoolCollector().collect() for s in f.samples
            if s.name == "mcp_session_pool_misses_total"}
async def use(gateway):
    pool = FakePool()
    async with pool.session(URL, gateway_id=gateway):
        pass
    await pool.close_all()
def work(number):
    asyncio.run(use("child"))
async def main():
    pool = FakePool(max_sessions_per_key=2)
    busy = await make_busy(pool)
    context = multiprocessing.get_context(sys.argv[1])
    for number in range(3):
        process = context.Process(target=work, args=(number,))
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0, process.exitcode
    assert misses() == {"g": 2, "child": 3}, misses()
    await finish(pool, *busy)
    assert misses() == {"g": 3, "child": 3}, misses()
if __name__ == "__main__":
    asyncio.run(main())
"""
        )
    done = run_script(
        "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        if method == "fork"
        else "import os, sys\nos.execv(sys.executable, [sys.executable, '-P', *sys.argv[1:]])",
        program,
        method,
        MCPGATEWAY_POOL_METRICS_DIR=f"{tmp_path}/metrics",
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("kept", ["module", "cycle", "nothing"])
def test_interpreter_ends_quietly_in_full_use_with_threads_that_scrape(kept: str, closes: bool):
    done = run_script(
        IN_USE
        + """
async def main():
    pool = FakePool(max_sessions_per_key=2)
    threading.Thread(target=scrape_for_ever, daemon=True).start()
    threading.Thread(target=lambda: [pool.get_metrics() for _ in iter(int, 1)], daemon=True).start()
    busy = await make_busy(pool)
    if sys.argv[1] == "module":
        mcpgateway_pool.kept = (pool, busy)
    elif sys.argv[1] == "cycle":
        pool.busy = busy
        busy[0][0].me = pool
        sys.kept = pool
    await asyncio.sleep(0.05)
    if sys.argv[2] == "True":
        pool.holds_creations = pool.holds_closes = False
        for gate in pool.creations: gate.open()
        await pool.close_all()
        await asyncio.wait([*busy[1], busy[2]])
asyncio.run(main())
""",
        kept,
        str(closes),
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="refused from 3.12 on: see test_subinterpreter.py")
def test_on_python_3_11_which_cannot_refuse_it_a_subinterpreter_leaves_the_main_one_alone():
    """Not supported, and documented so; what is asked here is only that looking at it breaks nothing."""
    assert_runs_quietly(
        """
import _xxsubinterpreters as interpreters
import mcpgateway_pool
number = interpreters.create()
try:
    interpreters.run_string(number, "import mcpgateway_pool")
except Exception:
    pass
interpreters.destroy(number)
async def use():
    pool = FakePool()
    await pool.release(await pool.acquire(URL, user_identity="ann"))
    await pool.close_all()
asyncio.run(use())
"""
    )


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"),
    reason="SKIPPED: this is no free-threaded build of Python; the pool does not support those",
)
def test_on_a_free_threaded_build_python_switches_the_gil_on_and_says_so():
    done = run_script("assert sys._is_gil_enabled()")
    assert done.returncode == 0
    assert "has not declared that it can run safely without the GIL" in done.stderr
