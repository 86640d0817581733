"""A pytest plugin of `scripts/mutants.py`: writes down how each test ended and how long it took, and, where
MUTANTS_REACH names a folder, which lines of Python and of C it reached, also in the processes that it starts.

It is copied into the environment that it watches, beside a .pth file that starts `coverage` in every process.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

RESULTS = os.environ.get("MUTANTS_RESULTS")
REACH = os.environ.get("MUTANTS_REACH")

_failed: set[str] = set()
_skipped: set[str] = set()
_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch one test."""
    begin = time.monotonic()
    if REACH is not None:
        _begin(REACH, item.nodeid)
    try:
        return (yield)
    finally:
        if REACH is not None:
            _end()
        if RESULTS is not None:
            skipped = "skipped" if item.nodeid in _skipped else "passed"
            line = {
                "test": item.nodeid,
                "outcome": "failed" if item.nodeid in _failed else skipped,
                "seconds": round(time.monotonic() - begin, 3),
            }
            with open(RESULTS, "a", encoding="utf-8") as results:
                results.write(json.dumps(line) + "\n")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep how each phase of a test ended."""
    if report.failed:
        _failed.add(report.nodeid)
    elif report.skipped:
        _skipped.add(report.nodeid)


def _begin(folder: str, nodeid: str) -> None:
    """From here on, what is reached is of this test; processes that it starts inherit the variables."""
    os.environ["MUTANTS_CONTEXT"] = nodeid
    os.environ["GCOV_PREFIX"] = str(Path(folder) / "gcov" / f"{os.getpid()}-{next(_numbers)}")
    Path(os.environ["GCOV_PREFIX"]).mkdir(parents=True)
    Path(os.environ["GCOV_PREFIX"], "test").write_text(nodeid, encoding="utf-8")
    _switch_coverage(nodeid)


def _end() -> None:
    library = _extension()
    if library is not None:
        library.__gcov_dump()
        library.__gcov_reset()
    _switch_coverage("")


def _switch_coverage(context: str) -> None:
    import coverage  # only where it is installed

    current = coverage.Coverage.current()
    if current is not None:
        current.switch_context(context)


def _extension() -> Any:
    """The extension, with gcov's functions; None where it was built without them."""
    import mcpgateway_pool._core as core

    library = ctypes.CDLL(core.__file__)
    return library if hasattr(library, "__gcov_dump") else None
