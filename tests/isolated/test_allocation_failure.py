"""No memory, at each single allocation of each operation: a MemoryError at most, and nothing is lost.

The environment variable MGP_LONG lets every allocation fail; without it, most of a long operation's are left
out.
"""

from __future__ import annotations

import ast
import importlib.util
import os
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


@pytest.mark.parametrize("scenario", scenarios())
def test_nothing_is_lost_whichever_allocation_fails(scenario: str):
    failed = assert_runs_quietly(
        """
from support.nomemory_scenarios import run
run(sys.argv[1], sys.argv[2] == "short")
""",
        scenario,
        "long" if os.environ.get("MGP_LONG") else "short",
    )
    assert int(failed) > 0
