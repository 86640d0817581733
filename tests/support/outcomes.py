"""What came of each test, for the summary of ``scripts/run_tests.py``; which tests are long, or asked for.

TEST_RECORD names a file: a line is added to it for each test, when its last phase is over. TEST_ONLY names a
file with ids of tests, with or without their parameters, or files, one a line: no other test runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ORDER = ("passed", "skipped", "failed")


class Outcomes:
    """A plugin that adds to the file; of the process that reports, not of the workers of pytest-xdist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._under_way: dict[str, tuple[str, float, str]] = {}
        self._add("# began")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add up the phases of a test: the worst outcome, the whole time."""
        outcome, seconds, why = self._under_way.pop(report.nodeid, ("passed", 0.0, ""))
        if _ORDER.index(report.outcome) > _ORDER.index(outcome):
            outcome, why = report.outcome, _why(report)
        seconds += report.duration
        if report.when in {"setup", "call"}:
            self._under_way[report.nodeid] = outcome, seconds, why
        else:  # the teardown, or the report of pytest-xdist that a worker has crashed
            self._write(outcome, seconds, report.nodeid, why)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be read is a failed test, one that is skipped whole a skipped one."""
        if report.outcome != "passed":
            self._write(report.outcome, 0.0, report.nodeid, _why(report))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """What has begun and not ended was interrupted."""
        for test, (_, seconds, _) in self._under_way.items():
            self._write("failed", seconds, test, "interrupted")
        if exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            self._add("# ended")

    def _write(self, outcome: str, seconds: float, test: str, why: str) -> None:
        test, why = (text.replace("\t", " ").replace("\n", " ") for text in (test, why))
        self._add(f"{outcome}\t1\t{seconds:.3f}\t{test}\t{why}")

    def _add(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _why(report: pytest.TestReport | pytest.CollectReport) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return ""


def record(config: pytest.Config) -> None:
    """Record the outcomes where TEST_RECORD says so."""
    path = os.environ.get("TEST_RECORD")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(Path(path)), "outcomes")


def only_those_asked_for(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what TEST_ONLY does not name."""
    path = os.environ.get("TEST_ONLY")
    if path:
        wanted = set(Path(path).read_text(encoding="utf-8").splitlines())
        left_out = [item for item in items if not wanted & set(_names(item.nodeid))]
        items[:] = [item for item in items if wanted & set(_names(item.nodeid))]
        config.hook.pytest_deselected(items=left_out)


def _names(test: str) -> tuple[str, str, str]:
    """Of a test: its id, that without parameters, its file."""
    return test, test.partition("[")[0], test.partition("::")[0]


def check_long_marks(items: list[pytest.Item]) -> None:
    """Each says why.

    Raises:
        pytest.UsageError: one does not.
    """
    for item in items:
        for mark in item.iter_markers("long"):
            if len(mark.args) != 1 or not str(mark.args[0]).strip():
                raise pytest.UsageError(f"{item.nodeid}: a long test says why it may be: long('why')")
