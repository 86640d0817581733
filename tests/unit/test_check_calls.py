"""scripts/check_calls.py: no cycle of calls between the C files of a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_calls.py"
DOWN = {
    "top.c": "void bottom(void); void top(void); void top(void) { bottom(); }",
    "bottom.c": "static void own(void) {} void bottom(void); void bottom(void) { own(); }",
}
needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("nm")), reason="needs a C compiler and nm"
)


def check(folder: Path, sources: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    for name, text in sources.items():
        (folder / name).write_text(text)
    command = [sys.executable, str(SCRIPT), str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "CC": "cc", **environment}
    )


@needs_compiler
def test_calls_that_point_down_pass(tmp_path: Path):
    done = check(tmp_path, DOWN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 files, 1 use another, no cycle of calls" in done.stdout


@needs_compiler
@pytest.mark.parametrize("use", ["top();", "void (*volatile later)(void) = top; (void)later;"])
def test_a_call_upwards_is_named(tmp_path: Path, use: str):
    bottom = f"void top(void); void bottom(void); void bottom(void) {{ {use} }}"
    done = check(tmp_path, {**DOWN, "bottom.c": bottom})
    assert done.returncode == 1
    assert "a cycle of calls" in done.stderr
    assert "bottom.c -> top.c: top" in done.stderr
    assert "top.c -> bottom.c: bottom" in done.stderr


def test_without_a_compiler_it_is_skipped_aloud(tmp_path: Path):
    done = check(tmp_path, DOWN, CC="no-such-compiler")
    assert done.returncode == 0
    assert "SKIPPED" in done.stderr
    assert "no-such-compiler" in done.stderr
