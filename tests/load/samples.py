"""What a process uses while the load lasts: sampled, judged, drawn."""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from pathlib import Path
from typing import NamedTuple

from support.leaks import resident_mib

# What caches and the allocator may add between two moments of rest. The allocator also keeps what a moment of
# many waiters made it take: so much for each block that there were more than ever before.
RESIDENT_MIB_SLACK = 4.0
BYTES_PER_BLOCK = 250
SLACKS = {"blocks": 5_000, "objects": 1_000}
TASKS_SLACK = 5
# And what may be added for each call. An object that is left behind is at least one block.
BLOCKS_PER_CALL = 0.01


class Sample(NamedTuple):
    """One moment; memory is in MiB."""

    seconds: float
    resident: float
    blocks: int
    objects: int
    tasks: int
    waiters: int
    sessions: int
    answered: int


class Samples:
    """Takes samples, and says whether what should be flat is.

    Attributes:
        rows: so far.
        rests: those of the moments at which nobody called and the pool was empty.
    """

    def __init__(self) -> None:
        self.rows: list[Sample] = []
        self.rests: list[Sample] = []
        self._start = time.monotonic()

    def take(self, *, waiters: int, sessions: int, answered: int, is_rest: bool = False) -> None:
        """One more. At a moment of rest garbage is collected first: what is left then is held."""
        if is_rest:
            gc.collect()
        sample = Sample(
            time.monotonic() - self._start,
            resident_mib(),
            sys.getallocatedblocks(),
            len(gc.get_objects()),
            len(asyncio.all_tasks()),
            waiters,
            sessions,
            answered,
        )
        self.rows.append(sample)
        if is_rest:
            self.rests.append(sample)

    def growth(self, name: str) -> tuple[float, float]:
        """At the moment of rest in the middle, and at the last."""
        return getattr(self.rests[len(self.rests) // 2 - 1], name), getattr(self.rests[-1], name)

    def problems(self) -> list[str]:
        """What has grown in the second half."""
        before, after = self.growth("answered")
        calls = after - before
        peaks = [max(row.blocks for row in self.rows if row.answered <= bound) for bound in (before, after)]
        resident_slack = RESIDENT_MIB_SLACK + (peaks[1] - peaks[0]) * BYTES_PER_BLOCK / (1 << 20)
        problems = []
        for name, slack in (
            ("resident", resident_slack),
            *((name, slack + BLOCKS_PER_CALL * calls) for name, slack in SLACKS.items()),
            ("tasks", TASKS_SLACK),
        ):
            before, after = self.growth(name)
            if after - before > slack:
                problems.append(f"{name} grew from {before:,.0f} to {after:,.0f} in {calls:,.0f} calls")
        return problems


def draw(rows: list[Sample], folder: Path, title: str) -> list[Path]:
    """Two pictures, ``load-memory.png`` and ``load-calls.png``. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    seconds = [row.seconds for row in rows]
    rates = [
        (after.answered - before.answered) / (after.seconds - before.seconds)
        for before, after in itertools.pairwise(rows)
    ]
    pictures = {
        "load-memory.png": [
            ("resident memory, MiB", seconds, [row.resident for row in rows]),
            ("allocated blocks, thousands", seconds, [row.blocks / 1000 for row in rows]),
            ("tasks", seconds, [row.tasks for row in rows]),
        ],
        "load-calls.png": [
            ("calls per second", seconds[1:], rates),
            ("waiters", seconds, [row.waiters for row in rows]),
            ("open sessions", seconds, [row.sessions for row in rows]),
        ],
    }
    paths = []
    for name, panels in pictures.items():
        figure, axes = plt.subplots(len(panels), 1, figsize=(8, 5.4), sharex=True, layout="constrained")
        for axis, (label, across, up) in zip(axes, panels, strict=True):
            axis.plot(across, up, linewidth=1.2, color="#1f5a94")
            axis.set_ylim(bottom=0)
            axis.set_title(label, loc="left", fontsize=9)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.25)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
        axes[-1].set_xlabel("seconds", fontsize=8)
        figure.suptitle(title, fontsize=9)
        path = folder / name
        figure.savefig(path, dpi=100)
        plt.close(figure)
        paths.append(path)
    return paths
