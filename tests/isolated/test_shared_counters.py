"""Several processes share one set of counters, whoever is scraped and whoever dies."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.scripts import run_script
from support.workers import Worker, workers

P = "mcp_session_pool_"
HITS, MISSES = P + "hits_total|", P + "misses_total|"
ACTIVE, SIZE = P + "active_sessions|", P + "size|"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "counters"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".counters")


def assert_never_back(before: dict[str, float], now: dict[str, float]) -> None:
    for name, value in before.items():
        if name.split("|")[0].endswith(("_total", "_count", "_bucket")):
            assert now.get(name, 0) >= value, name


def evicted(series: dict[str, float], gateway: str) -> float:
    return sum(value for name, value in series.items() if name.startswith(f"{P}evictions_total|{gateway}|"))


def assert_identities(series: dict[str, float], gateway: str) -> None:
    active, idle = series[ACTIVE + gateway], series[f"{P}idle_sessions|{gateway}"]
    assert series[SIZE + gateway] == active + idle
    creates = series[f"{P}creates_total|{gateway}"]
    assert creates == series[SIZE + gateway] + evicted(series, gateway)
    assert series[MISSES + gateway] <= creates


def test_totals_are_exact_and_never_go_back_while_processes_count_and_die(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 5) as [scraper, *counting]:
        for worker in counting:
            worker.ask("hold", "g")
            worker.tell("use", "g", 400)
        before = scraper.scrape()
        while not all(worker.has_answered() for worker in counting):
            now = scraper.scrape()
            assert_never_back(before, now)
            assert_identities(now, "g")
            before = now
        for worker in counting:
            worker.answer()

        assert {worker.scrape()[HITS + "g"] for worker in (scraper, *counting)} == {4 * 399}
        series = scraper.scrape()
        assert (series[MISSES + "g"], series[ACTIVE + "g"], series[SIZE + "g"]) == (8, 4, 8)

        for worker in counting[:2]:
            worker.kill()
        series = scraper.scrape()
        assert series[HITS + "g"] == 4 * 399
        assert (series[MISSES + "g"], series[ACTIVE + "g"], series[SIZE + "g"]) == (8, 2, 4)
        assert_identities(series, "g")

        counting[2].tell("killed_children", "g", 25)
        before = series
        while not counting[2].has_answered():
            now = scraper.scrape()
            assert_never_back(before, now)
            assert_identities(now, "g")
            before = now
        counting[2].answer()
        for worker in (counting[2], counting[3], scraper):
            series = worker.scrape()
            assert_identities(series, "g")
            assert series[f"{P}evictions_total|g|process_ended"] == 4 + 25
            assert (series[HITS + "g"], series[MISSES + "g"]) == (4 * 399, 8 + 25)
            assert (series[ACTIVE + "g"], series[SIZE + "g"]) == (2, 4)
            assert series[f"{P}create_seconds_count|g"] == 8 + 25
        assert len(files(directory)) == 3
        assert len(list(directory.iterdir())) == 3 + 2  # the archive and its lock
        assert [worker.errors.read_text() for worker in (scraper, *counting)] == [""] * 5

    with workers(directory, tmp_path, 1) as [later]:
        series = later.scrape()
        assert (series[HITS + "g"], series[MISSES + "g"]) == (4 * 399, 8 + 25)
        assert (series[ACTIVE + "g"], series[SIZE + "g"]) == (0, 0)
        assert_identities(series, "g")
        assert len(files(directory)) == 1


def test_limits_are_added_up_over_processes_that_live(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 3) as [scraper, one, _]:
        series = scraper.scrape()
        assert series[P + "max_sessions_per_key"] == 50
        assert series[P + "max_total_sessions"] == 300
        assert series[P + "max_total_keys"] == 0
        one.kill()
        assert scraper.scrape()[P + "max_total_sessions"] == 200


def test_more_gateways_than_a_file_had_room_for_are_all_shown(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 2) as [scraper, counting]:
        counting.ask("many", "gateway-", 200)
        series = scraper.scrape()
        assert [series[f"{MISSES}gateway-{number}"] for number in range(200)] == [1] * 200


def test_directory_and_files_are_the_owners_alone(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 2) as [scraper, counting]:
        counting.ask("use", "g", 1)
        counting.kill()
        scraper.ask("use", "g", 1)
        scraper.scrape()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        assert len(modes) == 3
        assert set(modes.values()) == {0o600}
        assert not any(name.endswith(".db") for name in modes)


@pytest.fixture
def leavings(directory: Path, tmp_path: Path) -> Iterator[tuple[Worker, Path]]:
    """A scraper, and the file of a process that has counted 5 acquires of gateway g and was killed."""
    (tmp_path / "other").mkdir()
    with workers(directory, tmp_path, 1) as [scraper]:
        before = set(files(directory))
        with workers(directory, tmp_path / "other", 1) as [counting]:
            (name,) = set(files(directory)) - before
            counting.ask("use", "g", 5)
            counting.kill()
        yield scraper, directory / name


def junk(path: Path) -> None:
    path.write_bytes(b"junk" * 5000)


def truncated(path: Path) -> None:
    os.truncate(path, 4500)


def foreign(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def writable_for_others(path: Path) -> None:
    path.chmod(0o620)


def future(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8] += 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (junk, "no counters file"),
        (truncated, "end is missing"),
        (foreign, "a link"),
        (writable_for_others, "mode is not 0600"),
        (future, "another version"),
    ],
)
def test_file_that_is_not_right_is_left_out_with_one_warning(
    leavings: tuple[Worker, Path], spoil: Callable[[Path], None], why: str
):
    scraper, path = leavings
    spoil(path)
    scraper.ask("use", "mine", 3)
    for _ in range(3):
        series = scraper.scrape()
        assert HITS + "g" not in series
        assert series[HITS + "mine"] == 2
    (line,) = scraper.errors.read_text().splitlines()
    assert why in line
    assert str(path) in line
    assert path.exists() or path.is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o755])
def test_file_of_a_killed_process_counts_without_a_warning(leavings: tuple[Worker, Path], mode: int):
    scraper, path = leavings
    path.chmod(mode)  # all but the first: whoever did this, nobody else could write there
    assert scraper.scrape()[HITS + "g"] == 4
    assert not path.exists()
    assert scraper.scrape()[HITS + "g"] == 4
    assert scraper.errors.read_text() == ""


@pytest.mark.parametrize("killed_after", ["nothing", "freezing", "folding"])
def test_forgotten_gateway_goes_from_all_workers_and_the_archive_at_one_moment(
    directory: Path, tmp_path: Path, killed_after: str
):
    with workers(directory, tmp_path, 3) as [scraper, finished, living]:
        for worker in (scraper, finished, living):
            worker.ask("use", "g", 10)
            worker.ask("use", "other", 1)
        finished.kill()
        assert scraper.scrape()[HITS + "g"] == 27
        assert scraper.ask("forget", "g") is False  # an idle session of it is open
        scraper.ask("drain")
        assert scraper.ask("forget", "g") is False  # one of the other worker is
        alive = [scraper, living]
        if killed_after == "freezing":
            alive.remove(scraper)
            scraper.kill()
        for worker in alive:
            assert worker.scrape()[HITS + "g"] == 27
        living.ask("drain")
        assert living.scrape()[HITS + "g"] == 27  # it hears of it, and folds what nobody counts any more
        if killed_after == "folding":
            alive.remove(living)
            living.kill()
        for worker in alive:
            series = worker.scrape()
            assert not [name for name in series if "|g" in name]
            assert series[MISSES + "other"] == 3
        for worker in alive:
            worker.ask("use", "g", 2)
        now = alive[0].scrape()
        assert (now[HITS + "g"], now[MISSES + "g"]) == (len(alive), len(alive))
        assert_identities(now, "g")
        assert scraper.errors.read_text() + living.errors.read_text() == ""


def test_worker_that_is_never_scraped_hears_of_it_with_its_upkeep(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 2) as [scraper, other]:
        for worker in (scraper, other):
            worker.ask("use", "g", 3)
            worker.ask("drain")
        assert scraper.ask("forget", "g") is False
        assert scraper.scrape()[HITS + "g"] == 4
        other.ask("later", 6)
        assert scraper.scrape()[HITS + "g"] == 4  # the other's is frozen, and this scrape folds it
        assert HITS + "g" not in scraper.scrape()


def test_gateway_that_was_never_used_is_forgotten_at_once(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 1) as [worker]:
        worker.ask("use", "other", 1)
        assert worker.ask("forget", "never") is True
        assert worker.scrape()[MISSES + "other"] == 1


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
from mcpgateway_pool import PoolCollector
pool = FakePool()
async def use(gateway, times=1):
    for _ in range(times):
        await pool.release(await pool.acquire(URL, user_identity="ann", gateway_id=gateway))
def value(stem, gateway):
    return sum(
        sample.value for family in PoolCollector().collect() for sample in family.samples
        if sample.name == "mcp_session_pool_" + stem and sample.labels.get("gateway_id") == gateway
    )
def counters():
    return sorted(name for name in os.listdir(sys.argv[1]) if name.endswith(".counters"))
"""


@pytest.fixture
def run(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def run_program(body: str, *arguments: str) -> None:
        monkeypatch.setenv("MCPGATEWAY_POOL_METRICS_DIR", str(directory))
        done = run_script(FORK + body, str(directory), *arguments)
        assert (done.returncode, done.stderr) == (0, "")

    return run_program


def test_forked_child_counts_into_a_file_of_its_own(run: Callable[..., None]):
    run(
        """
asyncio.run(use("g", 3))
assert len(counters()) == 1
ready, done = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    asyncio.run(use("g", 5))
    assert len(counters()) == 2
    assert value("hits_total", "g") == 2 + 4
    os.write(ready[1], b"x")
    os.read(done[0], 1)
    os._exit(0)
assert os.read(ready[0], 1) == b"x"
assert value("hits_total", "g") == 2 + 4
os.write(done[1], b"x")
assert os.waitpid(pid, 0)[1] == 0
assert value("hits_total", "g") == 2 + 4
assert len(counters()) == 1
"""
    )


def test_child_that_only_forks_leaves_no_file(run: Callable[..., None]):
    run(
        """
asyncio.run(use("g", 3))
pid = os.fork()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert len(counters()) == 1
assert value("hits_total", "g") == 2
"""
    )


@pytest.mark.parametrize("way", ["fork", "exec"])
def test_children_do_not_keep_the_process_alive_that_started_them(run: Callable[..., None], way: str):
    run(
        """
import subprocess
ready, done = os.pipe(), os.pipe()
middle = os.fork()
if middle == 0:
    async def main():
        held = await pool.acquire(URL, user_identity="ann", gateway_id="g")
        os.close(done[1])
        if sys.argv[2] == "exec":
            subprocess.Popen(["cat"], stdin=done[0], stdout=ready[1], close_fds=False)
            os.write(ready[1], b"x")
        elif os.fork() == 0:
            os.write(ready[1], b"x")
            os.read(done[0], 1)  # it lives, with a mapping of the file, until the test says so
        os._exit(0)
    asyncio.run(main())
os.close(ready[1])
assert os.waitpid(middle, 0)[1] == 0
assert os.read(ready[0], 1) == b"x"
os.set_blocking(ready[0], False)
assert value("misses_total", "g") == 1
assert value("active_sessions", "g") == value("size", "g") == 0
assert len(counters()) == 1  # its own
try:
    os.read(ready[0], 1)
    raise AssertionError("the child has ended")
except BlockingIOError:
    os.close(done[1])
""",
        way,
    )


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of 160 KiB."""
    directory.mkdir(mode=0o700)
    options = ["-t", "tmpfs", "-o", "size=160k,mode=0700", "tmpfs"]
    if os.geteuid() or subprocess.run(["mount", *options, directory], check=False).returncode:
        pytest.skip("NOT CHECKED HERE: a full disk. Mounting a small file system needs root, and is refused")
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_full_disk_loses_nothing(small_disk: Path, tmp_path: Path):
    with workers(small_disk, tmp_path, 2) as [scraper, counting]:
        counting.ask("many", "gateway-", 200)
        series = counting.scrape()
        assert [series[f"{MISSES}gateway-{number}"] for number in range(200)] == [1] * 200
        (line,) = counting.errors.read_text().splitlines()
        assert "cannot grow" in line
        assert "No space left on device" in line

        counting.ask("many", "gateway-", 200)
        counting.scrape()
        assert counting.errors.read_text().splitlines() == [line]
        shown = {name: value for name, value in scraper.scrape().items() if name.startswith(MISSES)}
        assert list(shown.values()) == [2] * 128  # what the file has room for

        counting.kill()
        for _ in range(2):
            now = scraper.scrape()
            assert {name: now[name] for name in shown} == shown
        (line,) = scraper.errors.read_text().splitlines()
        assert "cannot be folded" in line
        assert len(files(small_disk)) == 2
        subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
        for _ in range(2):
            now = scraper.scrape()
            assert {name: now[name] for name in shown} == shown
        assert len(files(small_disk)) == 1


def test_missing_parent_directory_is_a_warning_and_counting_goes_on(tmp_path: Path):
    with workers(tmp_path / "missing" / "deep", tmp_path, 1) as [worker]:
        worker.ask("use", "g", 3)
        for _ in range(2):
            assert worker.scrape()[HITS + "g"] == 2
        (line,) = worker.errors.read_text().splitlines()
        assert "cannot make its counters file" in line


@pytest.mark.parametrize("is_there", [False, True])
def test_who_only_looks_leaves_nothing_behind(directory: Path, is_there: bool):
    if is_there:
        directory.mkdir(mode=0o700)
    program = """
from mcpgateway_pool import PoolCollector, forget_gateway
from mcpgateway_pool.prometheus import shared_counters
assert shared_counters.directory() == sys.argv[1]
list(PoolCollector().collect())
assert forget_gateway("g")
list(PoolCollector().collect())
"""
    done = run_script(program, str(directory), MCPGATEWAY_POOL_METRICS_DIR=str(directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert directory.exists() == is_there
    assert not is_there or not [name for name in os.listdir(directory) if name != "mcpgateway_pool.lock"]


def test_what_is_no_directory_is_one_warning_and_counting_goes_on(directory: Path, tmp_path: Path):
    directory.write_text("")
    with workers(directory, tmp_path, 1) as [worker]:
        worker.ask("use", "g", 3)
        for _ in range(2):
            assert worker.scrape()[HITS + "g"] == 2
        (line,) = worker.errors.read_text().splitlines()
        assert "is not a directory" in line


def test_scrape_while_another_thread_makes_the_first_pool_counts_it_once(directory: Path, tmp_path: Path):
    with workers(directory, tmp_path, 1) as [finished]:
        finished.ask("many", "gateway-", 3000)
    program = """
import threading
from mcpgateway_pool import PoolCollector, _core
list(PoolCollector().collect())  # folds; the archive is read first, for longer than a first acquire takes
word = next(word for stem, *_, word in _core.SERIES if stem == "misses")
ready, shown = threading.Event(), []
def scrape():
    ready.set()
    shown.extend(_core.snapshot()[0])
async def main():
    thread = threading.Thread(target=scrape)
    thread.start()
    ready.wait()
    pool = FakePool()
    await pool.release(await pool.acquire(URL, user_identity="ann", gateway_id="mine"))
    thread.join()
asyncio.run(main())
assert len(shown) >= 3000
assert dict(shown).get("mine", [0] * 100)[word] <= 1
"""
    done = run_script(program, MCPGATEWAY_POOL_METRICS_DIR=str(directory))
    assert (done.returncode, done.stderr) == (0, "")
