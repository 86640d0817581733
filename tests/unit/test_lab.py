"""The driver of `make lab`: what it runs, what it reports, and that nothing outlives it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(SCRIPTS)
    yield importlib.import_module("lab")
    for name in ("lab", "lab_parts", "process_sessions"):
        sys.modules.pop(name, None)


def part_of(lab: ModuleType, tmp_path: Path, program: str, name: str = "part", **values: Any) -> Any:
    """A part that runs a program in Python."""
    script = tmp_path / f"{name}.py"
    script.write_text(program)
    command = f"{sys.executable} {script} {{length}}"
    return lab.Part(**{"name": name, "shows": "a claim", "command": command, "seconds": 1, **values})


def run(lab: ModuleType, tmp_path: Path, *parts: Any, jobs: int = 1, **settings: Any) -> list[Any]:
    return lab.Lab(tmp_path / "lab", grace_seconds=1, **settings).run(parts, jobs)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_last_line_of_a_part_is_its_figures(lab: ModuleType, tmp_path: Path) -> None:
    part = part_of(lab, tmp_path, "print('begins')\nprint('3 things tried')\nprint()")
    [result] = run(lab, tmp_path, part)
    assert (result.outcome, result.figures) == ("passed", "3 things tried")
    assert "| part | a claim | 3 things tried | 0 | passed |" in lab.table([result])


def test_figures_are_found_where_the_table_says(lab: ModuleType, tmp_path: Path) -> None:
    program = "print('Done 5 runs')\nprint('Done 7 runs in 2 s')\nprint('bye')"
    parts = sys.modules["lab_parts"]
    joined = part_of(lab, tmp_path, program, "joined", figures=parts.matches(r"^Done (\d+ runs)( in .*)?$"))
    summed = part_of(lab, tmp_path, program, "summed", figures=parts.sums(r"Done (\d+)", "{sum} in {count}"))
    absent = part_of(lab, tmp_path, program, "absent", figures=parts.sums(r"None (\d+)", "{sum}"))
    results = run(lab, tmp_path, joined, summed, absent)
    assert [result.figures for result in results] == ["5 runs; 7 runs  in 2 s", "12 in 2", "bye"]


def test_what_make_says_of_itself_is_no_figure(lab: ModuleType) -> None:
    said = "2 things tried\nmake[1]: Leaving directory 'x'\nmake: *** [Makefile:1: y] Error 1\n"
    assert sys.modules["lab_parts"].last_line(said) == "2 things tried"
    assert sys.modules["lab_parts"].last_line("") == ""


def test_a_failing_part_fails_the_run_and_the_others_run(
    lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = part_of(lab, tmp_path, "import sys\nprint('found one')\nsys.exit(3)", "failing")
    other = part_of(lab, tmp_path, "print('fine')", "other")
    monkeypatch.setattr(lab, "PARTS", (failing, other))
    assert lab.main(["--folder", str(tmp_path / "lab")]) == 1
    summary = (tmp_path / "lab" / "summary.md").read_text()
    assert "| failing | a claim | exit code 3: found one |" in summary
    assert "**FAILED**" in summary
    assert "| fine |" in summary
    assert "1 passed, 1 FAILED, 0 SKIPPED" in capsys.readouterr().out
    assert lab.main(["--folder", str(tmp_path / "lab"), "--only", "other"]) == 0


def test_a_part_whose_tool_is_missing_is_skipped_by_name(
    lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = part_of(lab, tmp_path, "raise SystemExit(1)", needs=("no-such-tool", "tests/no-such-folder"))
    monkeypatch.setattr(lab, "PARTS", (part,))
    assert lab.main(["--folder", str(tmp_path / "lab")]) == 0
    said = "!!! SKIPPED part: not here: no-such-tool, tests/no-such-folder"
    assert said in capsys.readouterr().out
    assert "**SKIPPED**" in (tmp_path / "lab" / "summary.md").read_text()


OVERDUE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_part_over_its_budget_is_ended_together_with_its_children(lab: ModuleType, tmp_path: Path) -> None:
    part = part_of(lab, tmp_path, OVERDUE, seconds=0)
    [result] = run(lab, tmp_path, part, limit_seconds=5)
    assert result.outcome == "FAILED"
    problem, _, child = result.figures.partition(": ")
    assert problem == "no end after 5 s"
    assert not lives(int(child))


def test_what_a_part_leaves_behind_is_ended(lab: ModuleType, tmp_path: Path) -> None:
    program = OVERDUE.replace("time.sleep(600)\n", "\n")
    [result] = run(lab, tmp_path, part_of(lab, tmp_path, program))
    assert result.outcome == "passed"
    assert not lives(int(result.figures))


MEETING = """
import pathlib, sys, time
here = pathlib.Path(__file__)
here.with_suffix(".here").touch()
end = time.monotonic() + 30
while len(list(here.parent.glob("*.here"))) < 2 and time.monotonic() < end:
    time.sleep(0.01)
print("met" if time.monotonic() < end else "alone")
"""


def test_two_parts_run_at_a_time_where_that_is_asked_for(lab: ModuleType, tmp_path: Path) -> None:
    parts = [part_of(lab, tmp_path, MEETING, name) for name in ("one", "two")]
    results = run(lab, tmp_path, *parts, jobs=2)
    assert [(result.part.name, result.figures) for result in results] == [("one", "met"), ("two", "met")]


def test_a_part_that_measures_runs_alone(lab: ModuleType, tmp_path: Path) -> None:
    program = f"""
import pathlib, time
others = pathlib.Path({str(tmp_path)!r}) / "running"
assert not others.exists()
others.touch()
time.sleep(0.3)
others.unlink()
"""
    parts = [part_of(lab, tmp_path, program, name, is_alone=True) for name in ("one", "two", "three")]
    assert [result.outcome for result in run(lab, tmp_path, *parts, jobs=3)] == ["passed"] * 3


def test_lengths_are_scaled_down_to_the_least_that_shows_anything(lab: ModuleType, tmp_path: Path) -> None:
    part = part_of(lab, tmp_path, "import sys\nprint(sys.argv[1])", seconds=10, length=100, least=8)
    assert run(lab, tmp_path, part, scale=0.5)[0].figures == "50"
    assert run(lab, tmp_path, part, scale=0.01)[0].figures == "8"
    fixed = part_of(lab, tmp_path, "", "fixed", seconds=60)
    assert lab.scale_for([part, fixed], 2.0) == 6.0
    assert lab.Lab(tmp_path / "lab", scale=6.0).seconds_of(part) == 60


def test_no_part_starts_once_it_is_stopped(lab: ModuleType, tmp_path: Path) -> None:
    driver = lab.Lab(tmp_path / "lab")
    driver.stop()
    [result] = driver.run([part_of(lab, tmp_path, "print('ran')")])
    assert (result.outcome, result.figures) == ("SKIPPED", "interrupted")


def test_every_part_of_the_table_can_be_run(lab: ModuleType, tmp_path: Path) -> None:
    names = [part.name for part in lab.PARTS]
    assert len(set(names)) == len(names)
    driver = lab.Lab(tmp_path / "lab")
    for part in lab.PARTS:
        words = driver.command_of(part)
        assert "{" not in " ".join(words), words
        for word in words:
            if word.startswith(("tests/", "benchmarks/", "scripts/")) and not lab.missing_for(part):
                assert (SCRIPTS.parent / word).exists(), word
        assert part.length == 0 or part.least <= part.length


def test_an_unknown_part_is_refused(lab: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        lab.main(["--only", "nonsense"])
    assert "no such part: nonsense" in capsys.readouterr().err


# As libasan prints them.
MALLOC = "    #0 0x7f0 in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69"
RAW = "    #1 0x7f0 in _PyMem_RawMalloc Objects/obmalloc.c:99"
OURS = "    #2 0x7f0 in mgp_pool_new csrc/core/pool.c:30"
THEIRS = "    #2 0x7f0  (/venv/site-packages/other/_other.cpython-311-x86_64-linux-gnu.so+0x144818)"
LATER = "    #3 0x7f0 in py_pool_new (/venv/site-packages/mcpgateway_pool/_core.cpython-311.so+0x10)"


@pytest.mark.parametrize(
    ("stack", "is_ours"),
    [([MALLOC, RAW, OURS], True), ([MALLOC, OURS, RAW], True), ([MALLOC, THEIRS, LATER], False)],
)
def test_a_leak_is_of_whoever_asked_for_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: list[str], is_ours: bool
) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    extension_leaks = importlib.import_module("extension_leaks")
    report = ["==1==ERROR: LeakSanitizer: detected memory leaks", ""]
    report += ["Direct leak of 80 byte(s) in 1 object(s) allocated from:", *stack, "", "SUMMARY: 80 byte(s)"]
    (tmp_path / "report.1").write_text("\n".join(report))
    monkeypatch.setattr(sys, "argv", ["extension_leaks.py", str(tmp_path)])
    assert extension_leaks.main() == is_ours
    (tmp_path / "report.2").write_text("csrc/base/table.c:3:5: runtime error: index 9 out of bounds")
    assert extension_leaks.main() == 1
