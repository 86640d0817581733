"""One count: in a word of a counter row, as the pool's C code counts, and in metrics of prometheus_client."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
import timeit
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter
from sides import Side

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent / "csrc"
BATCH = 20_000


async def count_in_c(side: Side) -> float:
    """One increment by a C program around the increment header of ``csrc/metrics``, in seconds."""
    return run_program()


def run_program() -> float:
    """Build ``count.c`` and run it; seconds."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "count")
        command = [*compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", f"-I{SOURCES}", str(HERE / "count.c")]
        subprocess.run([*command, "-o", str(program)], check=True)
        counted = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    return float(counted.stdout) / 1e9


async def count_natively(side: Side, how: Literal["labels", "child"]) -> float:
    """``inc()`` of a counter of prometheus_client, whose child is looked up each time, or kept."""
    counter = Counter("hits", "Hits.", ["gateway_id"], registry=CollectorRegistry())
    child = counter.labels("gateway-1")

    def by_labels() -> None:
        counter.labels("gateway-1").inc()

    count = by_labels if how == "labels" else child.inc
    return min(timeit.repeat(count, timer=time.thread_time, number=BATCH, repeat=10)) / BATCH
