"""The directory of shared counters, when somebody else has been there: other users, links, pipes, names.

Files that are merely damaged: tests/isolated/test_shared_counters.py and tests/c/test_foreign_files.c.
"""

from __future__ import annotations

import ast
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.scripts import run_script

NOBODY = 65534
needs_root = pytest.mark.skipif(
    os.geteuid() != 0,
    reason="not root, so nobody else can be played: attacks of ANOTHER LOCAL USER were NOT tried",
)

# Counts and is killed: its file stays, for a scraper to fold.
COUNT = """
import signal
pool = FakePool()
async def use():
    for _ in range(5):
        await pool.release(await pool.acquire(URL, user_identity="ann", gateway_id=sys.argv[1]))
asyncio.run(use())
os.kill(os.getpid(), signal.SIGKILL)
"""
# Counts one, scrapes twice (the first folds), and shows what it read.
SCRAPE = """
from mcpgateway_pool import PoolCollector
pool = FakePool()
async def use():
    await pool.release(await pool.acquire(URL, user_identity="ann", gateway_id="own"))
asyncio.run(use())
for _ in range(2):
    misses = {
        sample.labels["gateway_id"]: int(sample.value)
        for family in PoolCollector().collect() for sample in family.samples
        if sample.name == "mcp_session_pool_misses_total"
    }
print(sorted(misses.items()))
"""


@pytest.fixture(scope="module")
def leavings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A directory with the file of a process that was killed after it had counted for gateway g, and what its
    archive will be called.
    """
    path = tmp_path_factory.mktemp("leavings") / "counters"
    count(path, "g")
    folded = path.with_name("folded")
    shutil.copytree(path, folded)
    assert scrape(folded) == ({"g": 1, "own": 1}, [])
    (archive,) = names(folded, ".archive")
    return path, archive.name


@pytest.fixture
def directory(leavings: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(leavings[0], tmp_path / "counters"))


def count(directory: Path, gateway: str) -> Path:
    """The file that a killed process leaves."""
    before = set(directory.iterdir()) if directory.exists() else set()
    done = run_script(COUNT, gateway, MCPGATEWAY_POOL_METRICS_DIR=str(directory))
    assert (done.returncode, done.stderr) == (-9, "")
    (path,) = set(directory.iterdir()) - before
    return path


def scrape(directory: Path, umask: int = 0o022) -> tuple[dict[str, int], list[str]]:
    """Misses by gateway, and the lines that were logged; at once, or this fails."""
    old = os.umask(umask)
    try:
        done = run_script(SCRAPE, timeout=30, MCPGATEWAY_POOL_METRICS_DIR=str(directory))
    finally:
        os.umask(old)
    assert done.returncode == 0, done.stderr
    return dict(ast.literal_eval(done.stdout)), done.stderr.split("\n")[:-1]


def names(directory: Path, ending: str) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.name.endswith(ending))


# ---- modes


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_look_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    directory = tmp_path / "counters"
    assert scrape(directory, umask) == ({"own": 1}, [])
    assert scrape(directory, umask) == ({"own": 2}, [])  # and the first one's file was folded
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert len(modes) == 3
    assert set(modes.values()) == {0o600}, modes


def test_directory_in_which_all_may_remove_files_is_warned_of(tmp_path: Path) -> None:
    directory = tmp_path / "counters"
    directory.mkdir()
    directory.chmod(0o777)
    shown, (line,) = scrape(directory)
    assert shown == {"own": 1}
    assert "everybody may remove files" in line


# ---- what lies there is not what it seems


def linked(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_linked(path: Path, victim: Path) -> None:
    os.link(victim, path)


def pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path, 0o600)


def device(path: Path, victim: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path, victim: Path) -> None:
    path.mkdir()


def huge(path: Path, victim: Path) -> None:
    path.touch(0o600)
    os.truncate(path, 1 << 40)


PLANTS = [linked, hard_linked, pipe, device, folder, huge]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that a link leads to; it stays as it is."""
    path = tmp_path / "victim"
    path.write_text("precious")
    path.chmod(0o600)
    yield path
    assert path.read_text() == "precious"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_but_a_regular_file_of_ones_own_is_read_as_counters(directory: Path, victim: Path) -> None:
    for number, plant in enumerate(PLANTS):
        path = directory / f"mcpgateway_pool-{number:032x}.counters"
        plant(path, victim)
        plant(path.with_name(path.name + ".new"), victim)
    shown, complaints = scrape(directory)
    assert shown == {"g": 1, "own": 1}
    assert len(complaints) == len(PLANTS)
    assert all(f"{number:032x}.counters: it" in "".join(complaints) for number in range(len(PLANTS)))


@pytest.mark.parametrize("plant", PLANTS)
def test_archive_and_lock_are_no_way_to_write_elsewhere(
    leavings: tuple[Path, str], directory: Path, victim: Path, plant: Callable[[Path, Path], None]
) -> None:
    """With both in its way, the pool folds nothing, says so, and counts on."""
    archive = directory / leavings[1]
    for path in (archive, archive.with_name(archive.name + ".new"), directory / "mcpgateway_pool.lock"):
        plant(path, victim)
    shown, complaints = scrape(directory)
    assert shown == {"g": 1, "own": 1}
    assert any(archive.name in line for line in complaints)


def test_names_make_no_lines_of_their_own_in_the_log(directory: Path) -> None:
    evil = "\nCRITICAL forged \x1b[2J \u2028 \udcff"
    (directory / f"mcpgateway_pool-{evil}.counters").touch(0o600)
    (directory / f"mcpgateway_pool-0123456789abcdef{evil}.archive").touch(0o600)
    shown, complaints = scrape(directory)
    assert shown == {"g": 1, "own": 1}
    assert len(complaints) == 2
    assert all("it has no name that this package gives" in line for line in complaints)
    assert all(line.isprintable() for line in complaints)


def test_log_of_a_directory_full_of_rubbish_is_bounded(directory: Path) -> None:
    for number in range(3000):
        (directory / f"mcpgateway_pool-{number}.rubbish").touch()
    shown, complaints = scrape(directory)
    assert shown == {"g": 1, "own": 1}
    assert 0 < len(complaints) <= 2 * 64


# ---- another user of the machine

ATTACK = """
import os, sys
os.setgroups([]), os.setgid({nobody}), os.setuid({nobody})
done = []
for name, attempt in [
    ("list", lambda path, victim: os.listdir(path)),
    ("read", lambda path, victim: open(victim, "rb")),
    ("write", lambda path, victim: open(victim, "r+b")),
    ("link", lambda path, victim: os.link(victim, path + "/mcpgateway_pool-" + "a" * 32 + ".counters")),
    ("remove", lambda path, victim: os.unlink(victim)),
    ("rename", lambda path, victim: os.rename(victim, victim + ".old")),
    ("truncate", lambda path, victim: os.truncate(victim, 0)),
    ("chmod", lambda path, victim: os.chmod(victim, 0o666)),
    ("plant", lambda path, victim: os.open(path + "/mcpgateway_pool-" + "b" * 32 + ".counters",
                                           os.O_CREAT | os.O_WRONLY, 0o600)),
    ("lock", lambda path, victim: os.open(path + "/mcpgateway_pool.lock", os.O_CREAT | os.O_RDWR, 0o666)),
    ("archive", lambda path, victim: os.open(path + "/" + sys.argv[3], os.O_CREAT | os.O_WRONLY, 0o666)),
]:
    try:
        attempt(sys.argv[1], sys.argv[2])
    except OSError:
        continue
    done.append(name)
print(*done)
"""


def attack(directory: Path, victim: Path, archive: str) -> list[str]:
    """What another user can do to the directory and to a file in it."""
    program = ATTACK.format(nobody=NOBODY)
    command = [sys.executable, "-I", "-S", "-c", program, str(directory), str(victim), archive]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A place to which another user finds the way."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    return tmp_path


@needs_root
def test_another_user_can_do_nothing_to_the_directory_that_the_pool_made(reachable: Path) -> None:
    directory = reachable / "counters"
    path = count(directory, "g")
    assert attack(directory, path, "x.archive") == []
    assert scrape(directory) == ({"g": 1, "own": 1}, [])


@needs_root
def test_another_user_of_a_shared_directory_changes_no_number(
    leavings: tuple[Path, str], reachable: Path
) -> None:
    """One like /tmp, of mode 1777, which the documentation advises against: they get files in, no further."""
    directory = reachable / "counters"
    directory.mkdir()
    directory.chmod(0o1777)
    count(directory, "g")
    assert scrape(directory) == ({"g": 1, "own": 1}, [])  # makes archive and lock
    path = count(directory, "h")
    planted = attack(directory, path, leavings[1])
    assert set(planted) == {"list", "plant"}
    shown, complaints = scrape(directory)
    assert shown == {"g": 1, "h": 1, "own": 2}
    assert any("belongs to another user" in line for line in complaints)


@needs_root
def test_other_user_who_came_first_to_a_shared_directory_keeps_totals_from_being_folded_and_no_more(
    reachable: Path,
) -> None:
    directory = reachable / "counters"
    directory.mkdir()
    directory.chmod(0o1777)
    assert "lock" in attack(directory, directory / "none", "x.archive")
    path = count(directory, "g")
    shown, complaints = scrape(directory)
    assert shown == {"g": 1, "own": 1}
    assert any("mcpgateway_pool.lock" in line and "another user" in line for line in complaints)
    assert path.exists()
