"""The driver of `make test`: it runs every goal, and its sums, its lists and its exit code are true."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_tests(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    yield importlib.import_module("run_tests")
    for name in ("run_tests", "process_sessions"):
        sys.modules.pop(name, None)


Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def run(
    run_tests: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs goals of a makefile; the exit code, and the lines that were printed at the end."""
    monkeypatch.setattr(run_tests, "ROOT", tmp_path)
    monkeypatch.setattr(run_tests, "GRACE_SECONDS", 0.2)
    for name in ("MAKEFLAGS", "MFLAGS", "TEST_ONLY", "TEST_RECORD"):  # of the run that this test is part of
        monkeypatch.delenv(name, raising=False)

    def run(makefile: str, *arguments: str) -> tuple[int, list[str]]:
        (tmp_path / "Makefile").write_text(makefile.replace("    ", "\t"))
        code = run_tests.main(["--folder", str(tmp_path / "records"), *arguments])
        _, _, summary = capsys.readouterr().out.partition("=== summary\n")
        return code, summary.splitlines()

    return run


def line(outcome: str, name: str, count: int = 1, seconds: float = 0.5, why: str = "") -> str:
    """A command that records a test."""
    return f"printf '%s\\t%s\\t%s\\t%s\\t%s\\n' {outcome} {count} {seconds} '{name}' '{why}' >>$$TEST_RECORD"


def test_every_goal_runs_and_all_are_added_up(run: Run) -> None:
    code, lines = run(
        f"one:\n    {line('passed', 'program', 30)}\n    {line('failed', 'broken')}\n    exit 3\n"
        f"two:\n    {line('passed', 'b')}\n    {line('skipped', 'c', why='no such tool')}\n",
        "one",
        "two",
    )
    assert code == 1
    assert "FAILED  one: broken" in lines
    assert "SKIPPED 1 x two: c: no such tool" in lines
    assert lines[-1] == "31 passed, 1 failed, 1 skipped"


def test_a_goal_that_fails_without_a_failed_test_is_a_failure_of_its_own(run: Run) -> None:
    code, lines = run(f"one:\n    @{line('passed', 'a')}; echo why it failed; exit 3\n", "one")
    assert code == 1
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"
    assert lines[-2].startswith("FAILED  one: make one: exit code 2 / why it failed / make")


def test_tests_that_are_none_are_no_success(run: Run) -> None:
    code, lines = run("test-one:\n    true\n", "test-one")
    assert (code, lines[-2]) == (1, "FAILED  test-one: make test-one: no test ran")


def test_what_is_a_check_in_itself_counts_as_one(run: Run) -> None:
    code, lines = run("lint environments:\n    true\n", "environments", "lint")
    assert (code, lines[-1]) == (0, "1 passed, 0 failed, 0 skipped")
    code, lines = run("lint environments:\n    false\n", "environments", "lint")
    assert (code, lines[-1]) == (1, "0 passed, 2 failed, 0 skipped")


def test_a_goal_that_hangs_is_ended_and_fails(run: Run, tmp_path: Path) -> None:
    # `timeout` puts what it starts into a process group of its own.
    makefile = f"one:\n    {line('passed', 'a')}\n    timeout 600 sh -c 'echo $$$$ >child; exec sleep 600'\n"
    code, lines = run(makefile, "one", "--minutes", "0.05")
    assert code == 1
    assert lines[-2].startswith("FAILED  one: make one: no end after 0.05 minutes")
    assert lines[-1] == "1 passed, 1 failed, 0 skipped"
    assert not Path("/proc", (tmp_path / "child").read_text().strip()).exists()


def test_variables_reach_every_goal(run: Run) -> None:
    code, _ = run(f"one:\n    [ '$(LENGTH)' = short ] && {line('passed', 'a')}\n", "one", "LENGTH=short")
    assert code == 0


def test_the_slowest_come_first(run: Run) -> None:
    commands = "".join(f"    {line('passed', f't{number}', seconds=number)}\n" for number in range(12))
    _, lines = run("one:\n" + commands, "one")
    begin = lines.index("the 10 slowest:")
    assert lines[begin + 1] == "     11.0 s  one: t11"
    assert lines[begin + 10] == "      2.0 s  one: t2"
    assert "t1" not in "".join(line.split()[-1] + " " for line in lines[begin + 1 : -1]).split()


# Fails where nothing says that it is the second time.
FLAKY = (
    f'one two:\n    if [ -n "$$TEST_ONLY" ]; then {line("passed", "m.py::flaky")}; '
    f"else {line('failed', 'm.py::flaky')}; exit 1; fi\n"
)


def test_what_failed_is_not_repeated_unless_asked_for(run: Run) -> None:
    assert run(FLAKY, "one")[0] == 1


def test_a_test_that_failed_and_then_passed_is_listed(run: Run) -> None:
    code, lines = run(FLAKY, "one", "--repeat")
    assert code == 0
    assert "FLAKY   one: m.py::flaky: failed, then passed" in lines
    assert lines[-1] == "1 passed, 0 failed, 0 skipped"


def test_one_that_is_flaky_twice_fails_the_run(run: Run) -> None:
    code, lines = run(FLAKY, "one", "two", "--repeat")
    assert code == 1
    assert "FAILED  m.py::flaky: flaky more than once" in lines
    assert lines[-1] == "0 passed, 2 failed, 0 skipped"


def test_one_that_fails_again_failed(run: Run) -> None:
    code, lines = run(f"one:\n    {line('failed', 'm.py::a')}\n    exit 1\n", "one", "--repeat")
    assert (code, lines[-1]) == (1, "0 passed, 1 failed, 0 skipped")


def test_records_of_several_runs_are_added_up(
    run: Run, run_tests: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(f"one:\n    {line('passed', 'a', 7)}\n", "one")
    (tmp_path / "records").rename(tmp_path / "first")
    run(f"one:\n    {line('passed', 'b', 5)}\n", "one")
    assert run_tests.main(["--summary", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "12 passed, 0 failed, 0 skipped"


SUITE = """
import pytest

def test_passes(): pass
def test_fails(): assert 0
@pytest.mark.skip(reason="not here")
def test_is_skipped(): pass
@pytest.fixture
def broken():
    yield
    raise OSError
def test_fails_when_it_is_over(broken): pass
@pytest.mark.long("takes hours")
def test_is_long(): pass
"""


def pytest_on(
    folder: Path, suite: str, *arguments: str, only: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run pytest on a suite with the repository's conftest; and the lines that it recorded."""
    (folder / "test_suite.py").write_text(suite)
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = long(why): x\n")
    (folder / "only").write_text(only)
    environment = {"TEST_RECORD": str(folder / "record"), "PYTHONPATH": str(ROOT / "tests")}
    if only:
        environment["TEST_ONLY"] = str(folder / "only")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    record = folder / "record"
    return done, record.read_text().splitlines() if record.exists() else []


@pytest.mark.parametrize("workers", ["0", "2"])
def test_pytest_records_the_worst_of_each_test(tmp_path: Path, workers: str) -> None:
    done, lines = pytest_on(tmp_path, SUITE, "-n", workers, "-m", "not long")
    assert done.returncode == 1, done.stdout
    outcomes = {line.split("\t")[3].rpartition("::")[2]: line.split("\t")[0] for line in lines[1:-1]}
    assert (lines[0], lines[-1]) == ("# began", "# ended")
    assert outcomes == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_is_skipped": "skipped",
        "test_fails_when_it_is_over": "failed",
    }
    assert len(lines) == 6
    assert any(line.endswith("test_is_skipped\tnot here") for line in lines)


def test_pytest_records_a_module_that_cannot_be_read(tmp_path: Path) -> None:
    _, lines = pytest_on(tmp_path, "import no_such_module")
    assert [line.split("\t")[0] for line in lines] == ["# began", "failed"]  # and it did not end well


def test_a_crash_leaves_no_end(tmp_path: Path) -> None:
    _, lines = pytest_on(tmp_path, "import os\ndef test_crashes(): os._exit(0)\n")
    assert lines == ["# began"]


def test_only_those_asked_for_run(tmp_path: Path) -> None:
    done, lines = pytest_on(tmp_path, SUITE, only="test_suite.py::test_passes\n")
    assert done.returncode == 0
    assert [line.split("\t")[3] for line in lines[1:-1]] == ["test_suite.py::test_passes"]


def test_a_long_test_says_why(tmp_path: Path) -> None:
    done, _ = pytest_on(tmp_path, "import pytest\n@pytest.mark.long\ndef test(): pass\n")
    assert done.returncode != 0
    assert "a long test says why it may be" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("code", "length", "only", "is_well"),
    [
        (0, "short", "", True),
        (1, "long", "x", False),
        (5, "short", "", False),  # nothing was selected
        (5, "short", "x", True),  # of what is to run once more, nothing is of this environment
        (5, "long", "", True),  # no test of it is long
    ],
)
def test_that_nothing_was_selected_is_well_where_that_may_be(
    tmp_path: Path, code: int, length: str, only: str, is_well: bool
) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\nexit {code}\n")
    python.chmod(0o755)
    makefile = tmp_path / "Makefile"
    makefile.write_text("include Makefile\ntry:\n\t@$(call PYTEST,$(STUB),some,,worksteal)\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    done = subprocess.run(
        ["make", "-C", ROOT, "-f", makefile, "try", f"STUB={tmp_path}", f"LENGTH={length}"],
        env={**environment, "TEST_ONLY": only}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) is is_well, done.stderr


@pytest.mark.parametrize(
    ("program", "outcome", "said"),
    [
        ("echo '7 claims hold'", "passed\t7", "7 claims hold"),
        ("exit 3", "failed\t1", "FAILED: exit code 3"),
        ("sleep 600", "failed\t1", "FAILED: no end after 0.1 s"),
        ("kill -SEGV $$", "failed\t1", "FAILED: exit code 139"),
    ],
)
def test_a_program_in_c_has_a_limit_and_its_claims_are_counted(
    tmp_path: Path, program: str, outcome: str, said: str
) -> None:
    limit = "0.1" if "sleep" in program else "30"
    done = subprocess.run(
        [ROOT / "scripts" / "run-c-test", "name", limit, "sh", "-c", program],
        env={"TEST_RECORD": str(tmp_path / "record"), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == outcome.startswith("passed")
    assert said in done.stdout
    assert (tmp_path / "record").read_text().startswith(outcome)
