"""Runs new or named tests again and again, on a machine that is kept busy, and says which failed how often.

    flaky.py --times 20                                      what has come since main, or with the last commit
    flaky.py --times 20 tests/unit/test_x.py::test_y ...     these files and tests

Exits with 1 when one failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from process_sessions import run_interruptibly
from run_tests import LIMIT_MINUTES, Runner, read_folder

FOLDER = ROOT / "build" / "tests" / "flaky"


def said_by(*command: str) -> str:
    """The output of a command; empty where it fails."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def new_files() -> list[str]:
    """The files of tests that have come, or were changed, since this branch left main; on main, with the last
    commit. What is not committed counts.
    """
    base = said_by("git", "merge-base", "main", "HEAD")
    if not base or base == said_by("git", "rev-parse", "HEAD"):
        base = "HEAD~"
    changed = said_by("git", "diff", "--name-only", "--diff-filter=d", base, "--", "tests").splitlines()
    changed += said_by("git", "ls-files", "--others", "--exclude-standard", "--", "tests").splitlines()
    return sorted({path for path in changed if Path(path).name.startswith("test_") and path.endswith(".py")})


def goals_of(test: str) -> list[str]:
    """The goals of the Makefile that run it."""
    if test.startswith("tests/gateway/"):
        return ["test-gateway"]
    if test.startswith("tests/gateway_registry/"):
        return [f"test-registry-{said_by('scripts/gateways', 'newest', 'registry')}"]
    return ["test-py", "test-sdk2"] if test.startswith("tests/integration/") else ["test-py"]


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute, until the block ends."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def repeat(
    tests: Sequence[str], times: int, variables: Sequence[str], busy: int
) -> tuple[Counter[str], Counter[str]]:
    """How often each test ran, and how often it failed."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    by_goal = defaultdict(list)
    for test in tests:
        for goal in goals_of(test):
            by_goal[goal].append(test)
    for goal, chosen in by_goal.items():
        only = FOLDER / f"{goal}.only"
        only.write_text("\n".join(chosen), encoding="utf-8")
        os.environ["TEST_ONLY"] = str(only)
        runner = Runner(FOLDER / goal, variables, LIMIT_MINUTES * 60, repeats=False)
        with load(busy):
            for _ in range(times):
                runner.run(goal)
    ran: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for test in read_folder(FOLDER).tests:
        ran[test.name] += test.outcome != "skipped"
        failed[test.name] += test.outcome == "failed"
    return ran, failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tests", nargs="*", help="files, ids of tests, and variables of `make`, NAME=value")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument(
        "--busy", type=int, default=os.cpu_count(), help="processes that keep the machine busy"
    )
    options = parser.parse_args(arguments)
    variables = [word for word in options.tests if word.partition("=")[0].isupper()]
    tests = [word for word in options.tests if word not in variables] or new_files()
    if not tests:
        print("no test is new: name some")
        return 0
    ran, failed = repeat(tests, options.times, variables, options.busy)
    print(f"\n=== {options.times} times, beside {options.busy} processes that compute: {' '.join(tests)}")
    for test, count in failed.most_common():
        if count:
            print(f"failed {count} of {ran[test]}  {test}")
    print(f"{ran.total() - failed.total()} passed, {failed.total()} failed")
    return 1 if failed.total() or not ran.total() else 0


if __name__ == "__main__":
    run_interruptibly(main)
