"""`make flaky`: it finds what fails now and then, says how often, and knows which tests are new."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Fails with every third run: `count` has a byte for each.
MAKEFILE = """
test-py:
\t@printf . >>count; test $$(( $$(wc -c <count) % 3 )) -gt 0 && outcome=passed || outcome=failed; \\
\tprintf "$$outcome\\t1\\t0.1\\t%s\\t\\n" "$$(cat $$TEST_ONLY)" >>$$TEST_RECORD; test $$outcome = passed
test-sdk2:
\t@printf 'passed\\t1\\t0.1\\tbeside SDK 2\\t\\n' >>$$TEST_RECORD
"""


@pytest.fixture
def flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program, in a checkout of its own."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    for name in ("MAKEFLAGS", "MFLAGS", "TEST_RECORD"):  # of the run that this test is part of
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEST_ONLY", "")  # it sets that: put back afterwards
    module = importlib.import_module("flaky")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "records")
    monkeypatch.setattr(sys.modules["run_tests"], "ROOT", tmp_path)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    yield module
    for name in ("flaky", "run_tests", "process_sessions"):
        sys.modules.pop(name, None)


def test_it_says_how_often_a_test_failed(flaky: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = flaky.main(["--times", "6", "--busy", "1", "tests/unit/test_x.py::test_y"])
    said = capsys.readouterr().out
    assert code == 1
    assert "failed 2 of 6  tests/unit/test_x.py::test_y" in said
    assert said.endswith("4 passed, 2 failed\n")


def test_real_sessions_are_tried_on_both_sdks(flaky: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = flaky.main(["--times", "2", "--busy", "0", "tests/integration/test_x.py"])
    assert (code, capsys.readouterr().out.splitlines()[-1]) == (0, "4 passed, 0 failed")


def test_new_tests_are_those_of_this_branch(flaky: ModuleType, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, env={**os.environ}, check=True, capture_output=True
        )

    def write(name: str, text: str) -> None:
        path = tmp_path / "tests" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    git("init", "-b", "main")
    write("test_old.py", "1")
    write("test_changed.py", "1")
    git("add", ".")
    git("commit", "-m", "first")
    git("checkout", "-b", "branch")
    write("test_changed.py", "2")
    write("helper.py", "2")
    git("add", ".")
    git("commit", "-m", "second")
    write("test_new.py", "3")
    assert flaky.new_files() == ["tests/test_changed.py", "tests/test_new.py"]


def test_without_a_test_there_is_nothing_to_do(flaky: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert flaky.main(["--times", "1"]) == 0
    assert "no test is new" in capsys.readouterr().out


def test_what_it_has_started_ends_with_it(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(ROOT / "scripts", scripts)
    os.mkfifo(tmp_path / "runs")
    (tmp_path / "Makefile").write_text("test-py:\n\t@echo $$$$ >runs; exec sleep 600\n")
    with subprocess.Popen(
        [sys.executable, scripts / "flaky.py", "--busy", "1", "tests/unit/test_x.py"]
    ) as program:
        goal = int((tmp_path / "runs").read_text())  # not before the goal runs
        program.terminate()
        assert program.wait(60) == 130
    stat = Path(f"/proc/{goal}/stat")  # a dead process lies there until somebody waits for it
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in "XZ"
