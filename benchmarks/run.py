"""Measures the pool beside the gateway's own one: one command, one table. Takes two to three minutes.

Each side runs in a process of its own. They take turns, round by round, so that whatever else the machine
does hits both alike; a comparison is the median over the rounds. Figures in seconds are medians, and hold for
this machine and this moment only: quote ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import peer
import rows

HERE = Path(__file__).resolve().parent
PEER_ENVIRONMENT = HERE.parent / ".venv-peer"


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
        self._process.kill()
        self._process.communicate()


def run_row(row: rows.Row, workers: dict[str, Worker]) -> list[str]:
    """Measure a row, and lay it out."""
    project, beside = [], []
    for _ in range(row.rounds):
        project.append(workers[row.project.side].measure(row.project))
        beside.append(workers[row.beside.side].measure(row.beside))
    comparison, is_met = row.compare(project, beside)
    return [
        row.what,
        rows.seconds_text(statistics.median(project)),
        f"{rows.seconds_text(statistics.median(beside))}  {row.beside_name}",
        comparison,
        row.target_text(),
        "yes" if is_met else "NO",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=100_000, help="of the largest pool, default 100,000")
    parser.add_argument("--peer-python", help="an interpreter that has the peer, instead of .venv-peer")
    parser.add_argument("--only", default="", help="only the rows whose name contains this")
    arguments = parser.parse_args()
    try:
        peer_python = arguments.peer_python or str(peer.ensure_environment(PEER_ENVIRONMENT))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    start = time.monotonic()
    workers = {
        "peer": Worker("peer", peer_python),
        "project": Worker("project", sys.executable),
        "floor": Worker("floor", sys.executable),
    }
    lines = [["what", "project", "beside", "comparison", "target", "met"]]
    try:
        for row in rows.table(arguments.keys):
            if arguments.only in row.what:
                print(f"... {row.what}, beside {row.beside_name}", file=sys.stderr, flush=True)
                lines.append(run_row(row, workers))
    except RuntimeError as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        for worker in workers.values():
            worker.stop()
    print(f"\nPython {platform.python_version()}, peer: the pool of {peer.REQUIREMENTS[0]}\n")
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print(f"\n{time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
