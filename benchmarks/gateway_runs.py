"""What the benchmarks of real gateways have in common: the gateway, what a level of calls took, and where the
figures of a run go.
"""

from __future__ import annotations

import argparse
import http.client
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import documents
import tables

from support.gateway_process import Answer, GatewayProcess, failures


class Gateway(GatewayProcess):
    """A gateway whose connections may break under load: such a call has failed, too."""

    def call(
        self, server: str, tool: str, /, headers: Mapping[str, str] | None = None, **arguments: object
    ) -> Answer:
        """Call a tool of a registered server."""
        begin = time.perf_counter()
        try:
            return super().call(server, tool, headers=headers, **arguments)
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {"connection": repr(error)}, time.perf_counter() - begin)

    def call_for(self, seconds: float, concurrency: int, call: Callable[[], Answer]) -> list[Answer]:
        """Make calls from so many threads, each with a connection of its own; each makes at least one, and
        begins none when the time is up.
        """
        end = time.perf_counter() + seconds

        def caller() -> list[Answer]:
            try:
                answers = [call()]
                while time.perf_counter() < end:
                    answers.append(call())
                return answers
            finally:
                self._close_connection()  # it is this thread's

        with ThreadPoolExecutor(concurrency) as threads:
            callers = [threads.submit(caller) for _ in range(concurrency)]
            return [answer for made in callers for answer in made.result()]


@dataclass
class Level:
    """What one side did with one number of calls at a time, all rounds together."""

    seconds: list[float] = field(default_factory=list)  # of each call, sorted
    failed: int = 0
    elapsed_seconds: float = 0.0
    cpu_seconds: float = 0.0  # of the gateway's process

    def add(self, gateway: GatewayProcess, make: Callable[[], Sequence[Answer]]) -> None:
        """Have the calls made."""
        cpu, begin = cpu_seconds(gateway.pid), time.perf_counter()
        answers = make()
        self.elapsed_seconds += time.perf_counter() - begin
        self.cpu_seconds += cpu_seconds(gateway.pid) - cpu
        self.seconds = sorted([*self.seconds, *(answer.seconds for answer in answers)])
        self.failed += len(failures(answers))

    def percentile(self, percent: float) -> float:
        """The time that so many per cent of the calls do not exceed."""
        return self.seconds[min(len(self.seconds) - 1, int(len(self.seconds) * percent / 100))]

    def summary(self) -> dict[str, float]:
        """Its figures; times in seconds."""
        calls = len(self.seconds)
        return {
            "calls": calls,
            "failed": self.failed,
            **{f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)},
            "max": self.seconds[-1],
            "answered_per_second": (calls - self.failed) / self.elapsed_seconds,
            "cpu_seconds_per_call": self.cpu_seconds / calls,
        }


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Run(tables.Run):
    """One run of a benchmark, from its making on.

    Args:
        arguments: of the command line; see :meth:`add_arguments`.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self._arguments = arguments

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Those that every such benchmark has."""
        parser.add_argument("--transport", choices=("streamablehttp", "sse"), default="streamablehttp")
        parser.add_argument(
            "--docs", action="store_true", help="keep the figures, and put them into README.md and docs, too"
        )

    def about(self) -> dict[str, Any]:
        """See :meth:`tables.Run.about`."""
        gateway = importlib.metadata.version("mcp-contextforge-gateway")
        return {"gateway": gateway, "transport": self._arguments.transport, **super().about()}

    def report(self, shown: Any, figures: Mapping[str, Any]) -> None:
        """Print the table, and put it where the command line wants it.

        Args:
            shown: the module that lays it out.
            figures: what it lays out.
        """
        print(shown.page(figures, tables.plain))
        if self._arguments.docs:
            documents.save(shown.NAME, figures)
