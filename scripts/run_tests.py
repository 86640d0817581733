"""Runs goals of the Makefile that are tests, one after the other, also after one that failed, and sums up.

    run_tests.py --folder build/tests/short test-c test-py LENGTH=short
    run_tests.py --summary build/tests

Goals append what came of each test to the file that TEST_RECORD names, a line for each:

    passed, failed or skipped <tab> how many <tab> seconds <tab> test <tab> why

pytest also says when it began and ended: see tests/support/outcomes.py.

With --repeat, tests in Python that failed run once more. One that passes then is flaky: it is listed, and
fails the run when it was flaky twice, on another interpreter for instance.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from process_sessions import run_interruptibly, session

SLOWEST = 10
# The goal that is neither a test nor a check.
SETUP = "environments"
# A goal that takes longer hangs.
LIMIT_MINUTES = 30.0
GRACE_SECONDS = 20.0
# Where a goal fails without a failed test, what it printed last is all that tells why.
LAST_LINES = 12
SUFFIX = ".tsv"
AGAIN = ".again" + SUFFIX


@dataclass
class Test:
    """What came of a test, or of several that are counted together."""

    goal: str
    name: str
    outcome: str
    count: int
    seconds: float
    why: str = ""
    is_flaky: bool = False


@dataclass
class Summary:
    """What came of all of them.

    Args:
        tests: of all goals; a test may be there once for each goal.
    """

    tests: Sequence[Test]
    flaky_twice: set[str] = field(init=False)

    def __post_init__(self) -> None:
        times = Counter(test.name for test in self.tests if test.is_flaky)
        self.flaky_twice = {name for name, count in times.items() if count > 1}

    def fails(self, test: Test) -> bool:
        """Whether it fails the run."""
        return test.outcome == "failed" or (test.is_flaky and test.name in self.flaky_twice)

    @property
    def failed(self) -> int:
        """How many fail the run."""
        return sum(test.count for test in self.tests if self.fails(test))

    def _number(self, outcome: str) -> int:
        return sum(test.count for test in self.tests if test.outcome == outcome and not self.fails(test))

    def lines(self) -> Iterable[str]:
        """What is to be printed."""
        yield f"the {SLOWEST} slowest:"
        # Where C programs are concerned, a line stands for all claims of a program.
        for test in sorted(self.tests, key=lambda test: test.seconds, reverse=True)[:SLOWEST]:
            yield f"  {test.seconds:7.1f} s  {test.goal}: {test.name}"
        skipped = defaultdict(list)
        for test in self.tests:
            if test.outcome == "skipped":
                skipped[test.why].append(test)
        for why, tests in skipped.items():
            yield f"SKIPPED {len(tests)} x {tests[0].goal}: {tests[0].name}: {why}"
        for test in self.tests:
            if test.is_flaky:
                yield f"FLAKY   {test.goal}: {test.name}: failed, then passed"
        for name in sorted(self.flaky_twice):
            yield f"FAILED  {name}: flaky more than once"
        for test in self.tests:
            if test.outcome == "failed":
                yield f"FAILED  {test.goal}: {test.name}{f': {test.why}' if test.why else ''}"
        yield f"{self._number('passed')} passed, {self.failed} failed, {self._number('skipped')} skipped"


def read_folder(folder: Path) -> Summary:
    """The records of a folder and of those in it."""
    tests: list[Test] = []
    for path in sorted(folder.rglob("*" + SUFFIX)):
        if not path.name.endswith(AGAIN):
            tests += _read_goal(path)
    return Summary(tests)


def _read_goal(path: Path) -> list[Test]:
    tests = _read(path)
    again = path.with_name(path.name.removesuffix(SUFFIX) + AGAIN)
    if again.exists():
        passed = {test.name for test in _read(again) if test.outcome == "passed"}
        for test in tests:
            if test.outcome == "failed" and test.name in passed:
                test.outcome, test.is_flaky = "passed", True
    return tests


def _read(path: Path) -> list[Test]:
    goal = path.name.removesuffix(AGAIN).removesuffix(SUFFIX).partition("-")[2]
    tests = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        outcome, count, seconds, name, why = line.split("\t")
        tests.append(Test(goal, name, outcome, int(count), float(seconds), why))
    return tests


def _is_whole(path: Path) -> bool:
    """Whether each run of pytest that began has come to its end, with an answer."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines.count("# began") == lines.count("# ended")


def write(path: Path, outcome: str, seconds: float, name: str, why: str = "") -> None:
    """Add what came of something that records nothing itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{outcome}\t1\t{seconds:.3f}\t{name}\t{why}\n")


class Runner:
    """Runs goals.

    Args:
        folder: for the records.
        variables: of `make`, ``NAME=value``.
        limit_seconds: of each goal.
        repeats: whether tests that failed run once more.
        make: the program.
    """

    def __init__(
        self,
        folder: Path,
        variables: Sequence[str],
        limit_seconds: float,
        *,
        repeats: bool,
        make: str = "make",
    ) -> None:
        self._folder = folder
        self._variables = list(variables)
        self._limit_seconds = limit_seconds
        self._repeats = repeats
        self._make = make
        self.took: list[tuple[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, goal: str) -> None:
        """Run a goal, and record what came of it."""
        record = self._folder / f"{len(self.took):02}-{goal}{SUFFIX}"
        record.touch()
        begin = time.monotonic()
        problem = self._call(goal, record)
        failed = [test.name for test in _read(record) if test.outcome == "failed"]
        if (
            problem
            and self._repeats
            and failed
            and all("::" in name for name in failed)
            and _is_whole(record)
        ):
            print(f"\n!!! {goal}: {len(failed)} failed; once more, alone", flush=True)
            only = record.with_suffix(".only")
            only.write_text("\n".join(failed), encoding="utf-8")
            again = record.with_name(record.name.removesuffix(SUFFIX) + AGAIN)
            again.touch()
            problem = self._call(goal, again, "WORKERS=0", TEST_ONLY=str(only.resolve()))
            failed = [test.name for test in _read_goal(record) if test.outcome == "failed"]
        if problem and not (failed and _is_whole(record)):
            # Before the first test, between two, after the last.
            write(record, "failed", time.monotonic() - begin, f"make {goal}", problem)
        elif not _read(record) and goal != SETUP:
            # One check in itself, such as the linters, counts as one; tests that are none are a mistake.
            outcome, why = ("failed", "no test ran") if goal.startswith("test") else ("passed", "")
            write(record, outcome, time.monotonic() - begin, f"make {goal}", why)
        self.took.append((goal, time.monotonic() - begin))

    def _call(self, goal: str, record: Path, *variables: str, **environment: str) -> str:
        """What went wrong; empty when nothing did."""
        command = [self._make, "--no-print-directory", goal, *self._variables, *variables]
        print(f"\n=== {' '.join(command[2:])}", flush=True)
        last = deque[str](maxlen=LAST_LINES)
        with session(
            command,
            GRACE_SECONDS,
            cwd=ROOT,
            env={**os.environ, "TEST_RECORD": str(record.resolve()), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            # It ends with the output: with the last process that has it.
            reader = threading.Thread(target=_pass_on, args=(process.stdout, last), daemon=True)
            reader.start()
            try:
                code = process.wait(self._limit_seconds)
                problem = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                problem = f"no end after {self._limit_seconds / 60:g} minutes"
        reader.join()
        return problem and " / ".join([problem, *last])


def _pass_on(output: IO[bytes], last: deque[str]) -> None:
    """Print what a goal prints, and keep the last lines of it."""
    with output:
        for line in output:
            text = line.decode(errors="replace")
            print(text, end="", flush=True)
            if text.strip():
                last.append(text.replace("\t", " ").strip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "goals", nargs="*", metavar="GOAL or NAME=value", help="to run, and variables of `make`"
    )
    parser.add_argument("--folder", type=Path, help="for the records; emptied first")
    parser.add_argument("--summary", type=Path, metavar="FOLDER", help="only sum up the records of a folder")
    parser.add_argument("--minutes", type=float, default=LIMIT_MINUTES, help="each goal is ended after these")
    parser.add_argument("--repeat", action="store_true", help="run tests that failed once more")
    options = parser.parse_args(arguments)
    if (options.summary is None) == (options.folder is None):
        parser.error("either --folder or --summary")
    took: list[tuple[str, float]] = []
    if options.folder:
        shutil.rmtree(options.folder, ignore_errors=True)
        variables = [word for word in options.goals if "=" in word]
        runner = Runner(
            options.folder,
            variables,
            options.minutes * 60,
            repeats=options.repeat,
            make=os.environ.get("MAKE", "make"),
        )
        for goal in options.goals:
            if goal not in variables:
                runner.run(goal)
        took = runner.took
    summary = read_folder(options.folder or options.summary)
    print("\n=== summary")
    for goal, seconds in took:
        print(f"{goal:24} {seconds:6.0f} s")
    if took:
        print(f"{'together':24} {sum(seconds for _, seconds in took):6.0f} s")
    print("\n".join(summary.lines()), flush=True)
    return 1 if summary.failed or not summary.tests else 0


if __name__ == "__main__":
    run_interruptibly(main)
