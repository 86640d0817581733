"""Shared counters of processes that had no file at first, or lost it, or their descriptors; and of forks."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.scripts import assert_runs_quietly
from support.workers import workers

P = "mcp_session_pool_"
HITS, MISSES, SIZE = P + "hits_total|", P + "misses_total|", P + "size|"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "counters"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".counters")


def test_rows_move_into_a_file_when_the_directory_can_be_made(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 2) as [scraper, counting]:
        counting.ask("many", "gateway-", 100)
        counting.ask("use", "g", 3)
        assert MISSES + "g" not in scraper.scrape()
        directory.parent.mkdir()
        assert MISSES + "g" not in scraper.scrape()
        before = counting.scrape()
        assert (before[HITS + "g"], before[MISSES + "g"]) == (2, 1)

        for _ in range(2):
            series = scraper.scrape()
            assert (series[HITS + "g"], series[MISSES + "g"], series[SIZE + "g"]) == (2, 1, 1)
            assert [series[f"{MISSES}gateway-{number}"] for number in range(100)] == [1] * 100
            assert counting.scrape() == series
        counting.ask("use", "g", 1)
        assert scraper.scrape()[HITS + "g"] == 3
        counting.kill()
        assert scraper.scrape()[HITS + "g"] == 3
        for worker in (scraper, counting):
            (line,) = worker.errors.read_text().splitlines()
            assert "cannot make its counters file" in line
            assert "No such file or directory" in line


def test_directory_that_was_removed_is_made_again_with_all_counts(directory: Path, tmp_path: Path):
    directory.parent.mkdir()
    with workers(directory, tmp_path, 2) as [scraper, counting]:
        counting.ask("use", "g", 3)
        counting.ask("hold", "g")
        shutil.rmtree(directory)
        counting.ask("use", "g", 1)
        assert counting.scrape()[HITS + "g"] == 3
        series = scraper.scrape()
        assert (series[HITS + "g"], series[MISSES + "g"], series[SIZE + "g"]) == (3, 2, 2)
        assert len(files(directory)) == 2
        counting.kill()
        series = scraper.scrape()
        assert (series[HITS + "g"], series[MISSES + "g"], series[SIZE + "g"]) == (3, 2, 0)
        assert series[f"{P}evictions_total|g|process_ended"] == 2
        for worker in (scraper, counting):
            (line,) = worker.errors.read_text().splitlines()
            assert "somebody has removed it" in line


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 160 KiB."""
    directory.mkdir(mode=0o700, parents=True)
    options = ["-t", "tmpfs", "-o", "size=160k,mode=0700", "tmpfs"]
    if os.geteuid() or subprocess.run(["mount", *options, directory], check=False).returncode:
        pytest.skip("NOT CHECKED HERE: a full disk. Mounting a small file system needs root, and is refused")
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_rows_move_into_the_file_when_the_disk_has_room_again(small_disk: Path, tmp_path: Path):
    with workers(small_disk, tmp_path, 2) as [scraper, counting]:
        counting.ask("many", "gateway-", 200)
        assert sum(MISSES in name for name in scraper.scrape()) < 200
        subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
        counting.scrape()
        counting.ask("many", "gateway-", 200)
        for _ in range(2):
            series = scraper.scrape()
            acquires = [series[f"{stem}gateway-{number}"] for stem in (HITS, MISSES) for number in range(200)]
            assert sum(acquires) == 400
            counting.kill()


PROGRAM = """
from mcpgateway_pool import PoolCollector, _core
from mcpgateway_pool.prometheus import shared_counters
class Clock:
    now = 1000.0
    def __call__(self):
        return self.now
clock = Clock()
directory = shared_counters.directory()
async def use(pool, gateway, times=1):
    for _ in range(times):
        await pool.release(await pool.acquire(URL, user_identity="ann", gateway_id=gateway))
def counters():
    return sorted(name for name in os.listdir(directory) if name.endswith(".counters"))
def shown(stem):
    return {
        sample.labels["gateway_id"]: int(sample.value)
        for family in PoolCollector().collect() for sample in family.samples
        if sample.name == "mcp_session_pool_" + stem
    }
"""
COUNT = (
    PROGRAM
    + """
import logging
logging.disable()
pool = FakePool(clock=clock)
asyncio.run(use(pool, "g", 3))
assert not os.path.exists(directory)
"""
)
SHOW = PROGRAM + "print(shown('misses_total'))"


@pytest.fixture
def run(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("MCPGATEWAY_POOL_METRICS_DIR", str(directory))
    return assert_runs_quietly


@pytest.mark.parametrize("way", ["miss", "upkeep"])
def test_process_that_nobody_scrapes_tries_again_in_time(run: Callable[..., str], way: str):
    run(
        COUNT
        + """
os.mkdir(os.path.dirname(directory))
async def try_again():
    if sys.argv[1] == "miss":
        await use(pool, "h")
    else:
        pool._upkeep()
clock.now += 1
asyncio.run(try_again())
assert not os.path.exists(directory)
clock.now += 5
asyncio.run(try_again())
assert len(counters()) == 1
""",
        way,
    )
    assert run(SHOW) == ("{'g': 1, 'h': 2}\n" if way == "miss" else "{'g': 1}\n")


def test_process_that_ends_tries_for_the_last_time(run: Callable[..., str]):
    run(COUNT + "os.mkdir(os.path.dirname(directory))")
    assert run(SHOW) == "{'g': 1}\n"


@pytest.mark.parametrize("umask", [0o000, 0o177, 0o277, 0o777])
def test_directory_is_usable_whatever_the_umask(run: Callable[..., str], directory: Path, umask: int):
    directory.parent.mkdir()
    run(
        PROGRAM
        + """
import stat
os.umask(int(sys.argv[1]))
asyncio.run(use(FakePool(), "g"))
assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
modes = {stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) for name in os.listdir(directory)}
assert modes == {0o600}, modes
""",
        str(umask),
    )
    assert run(SHOW) == "{'g': 1}\n"


def test_process_whose_descriptors_others_closed_still_lives_and_is_not_folded(
    run: Callable[..., str], directory: Path
):
    directory.parent.mkdir()
    run(
        PROGRAM
        + """
import subprocess
pool = FakePool()
asyncio.run(use(pool, "g", 3))
os.closerange(3, 4096)  # as a program that becomes a daemon
for misses in (1, 2):
    other = subprocess.run([sys.executable, "-P", "-c", sys.argv[1]], capture_output=True, text=True)
    assert other.stdout == str({"g": misses}) + "\\n", other.stderr
    assert len(counters()) == 1
    assert not any(name.endswith(".archive") for name in os.listdir(directory))
    assert shown("misses_total") == {"g": misses}
    asyncio.run(use(pool, "g"))
# It goes on in a file that is really its own.
for number in range(200):
    asyncio.run(use(pool, f"gateway {number}"))
other = subprocess.run([sys.executable, "-P", "-c", sys.argv[1]], capture_output=True, text=True)
assert len(eval(other.stdout)) == 201, other.stderr
""",
        "from support.fakes import *\nimport os, asyncio\n" + PROGRAM + "print(shown('misses_total'))",
    )


# ---- a fork while a thread of the parent folds: it is not there to let go of its lock

FORK = (
    PROGRAM
    + """
import faulthandler, threading, warnings
from mcpgateway_pool import forget_gateway
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads run
"""
)


def test_fork_while_a_thread_folds_leaves_no_lock_to_the_child(run: Callable[..., str], directory: Path):
    directory.parent.mkdir()
    run(PROGRAM + "for number in range(3000): asyncio.run(use(FakePool(), f'gateway {number}'))")
    run(
        FORK
        + """
assert len(shown("misses_total")) == 3000  # folded: the archive is large, and takes a while to write anew
for number in range(100):
    # The thread folds once. Where its fold was under way before the fork and has not ended after it, the
    # child has its lock.
    ready, has_ended = threading.Event(), threading.Event()
    def fold():
        ready.set()
        _core.fold((f"gateway {number}",))
        has_ended.set()
    thread = threading.Thread(target=fold)
    thread.start()
    assert ready.wait(20)
    was_busy = not _core.fold(())
    pid = os.fork()
    if pid == 0:
        faulthandler.dump_traceback_later(20, exit=True)
        while not forget_gateway("never"):  # as long as the parent folds
            pass
        os._exit(0)
    was_busy = was_busy and not has_ended.is_set()
    assert os.waitpid(pid, 0)[1] == 0
    thread.join()
    if was_busy:
        break
else:
    raise AssertionError("no fork met a fold")
"""
    )
