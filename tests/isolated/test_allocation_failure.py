"""No memory, at each single allocation of each operation: a MemoryError at most, and nothing is lost.

The environment variable MGP_LONG lets every allocation fail; without it, most of a long operation's are left
out.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.scripts import assert_runs_quietly

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("_testcapi") is None,
        reason="SKIPPED: this Python has no _testcapi, which makes its allocations fail",
    ),
    pytest.mark.timeout(600),
]


def scenarios() -> list[str]:
    """Their names, without importing them: that would need _testcapi."""
    tree = ast.parse((Path(__file__).parent.parent / "support" / "nomemory_scenarios.py").read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(decorator, ast.Name) for decorator in node.decorator_list)
    ]


# They let Python code make functions, or types, under the fault. CPython 3.12 and 3.13 crash there themselves
# (https://github.com/python/cpython/issues/151763 collects such places).
MAKE_FUNCTIONS = {
    "collector",
    "creation_fails",
    "foreign_session",
    "module_is_loaded",
    "pool_is_closed",
    "pool_is_drained",
    "pool_is_made",
    "release_discards",
}


@functools.cache
def interpreter_survives() -> bool:
    """Whether this Python only raises MemoryError where there is no memory for a function."""
    script = """
import _testcapi
for number in range(20):
    try:
        _testcapi.set_nomemory(number, number + 1)
        (lambda: 0)
    except (MemoryError, SystemError):
        pass
    finally:
        _testcapi.remove_mem_hooks()
"""
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    return subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == 0


@pytest.mark.parametrize("scenario", scenarios())
def test_nothing_is_lost_whichever_allocation_fails(scenario: str):
    if scenario in MAKE_FUNCTIONS and not interpreter_survives():
        pytest.skip("SKIPPED: this Python itself crashes where there is no memory for a function")
    failed = assert_runs_quietly(
        """
from support.nomemory_scenarios import run
run(sys.argv[1], sys.argv[2] == "short")
""",
        scenario,
        "long" if os.environ.get("MGP_LONG") else "short",
    )
    assert int(failed) > 0
