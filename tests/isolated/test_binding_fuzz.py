"""Random programs against the binding, by seed: see support/binding_fuzz.py. ``make lab`` runs many more."""

from __future__ import annotations

import os

import pytest

from support.scripts import run_script


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("first", [0, 20])
def test_random_programs_neither_crash_nor_lose_anything(first: int):
    done = run_script(
        "from support.binding_fuzz import main\nmain()",
        str(first),
        "20",
        PYTHONMALLOC="debug",
        # What a child has of its parent's is left alone for ever, on purpose.
        ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0",
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
