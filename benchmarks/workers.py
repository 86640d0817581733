"""The processes that measure, one for each side, and how they take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import rows

HERE = Path(__file__).resolve().parent


class Worker:
    """A process that measures one side when told to."""

    def __init__(self, side: str, python: str) -> None:
        self.side = side
        # The peer's settings must not come from whatever .env lies in the current folder.
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), side],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=HERE,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

    def measure(self, figure: rows.Figure) -> float:
        """One round of a figure; RuntimeError when it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps({"measure": figure.measure, "options": figure.options}),
            file=self._process.stdin,
            flush=True,
        )
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise RuntimeError(f"{self.side}, {figure.measure}: {answer['error']}")
        value: float = answer["value"]
        return value

    def stop(self) -> None:
        """End it. What it started ends with it: that reads from a pipe of its."""
        self._process.kill()
        self._process.communicate()


class Workers:
    """A worker for each side, started when it is first needed; a context manager that ends them all."""

    def __init__(self, peer_python: str) -> None:
        self._pythons = {"peer": peer_python, "project": sys.executable, "floor": sys.executable}
        self._kept: dict[str, Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._kept.values():
            worker.stop()

    def measure(self, figure: rows.Figure) -> float:
        """One round of a figure; RuntimeError when it fails."""
        side = figure.side
        if figure.is_fresh:
            worker = Worker(side, self._pythons[side])
            try:
                return worker.measure(figure)
            finally:
                worker.stop()
        if side not in self._kept:
            self._kept[side] = Worker(side, self._pythons[side])
        try:
            return self._kept[side].measure(figure)
        except BaseException:
            # Its answer may still come, or its process be gone: the next row starts with a new one.
            self._kept.pop(side).stop()
            raise

    def measure_row(self, row: rows.Row) -> rows.Outcome:
        """All rounds of a row, in turns; RuntimeError when one fails."""
        project, beside = [], []
        for _ in range(row.rounds):
            project.append(self.measure(row.project))
            beside.append(self.measure(row.beside))
        return row.judge(project, beside)
