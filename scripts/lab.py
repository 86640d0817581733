"""The laboratory: runs all that tries to break this package, part after part, and prints one table.

`make lab`, or with arguments: `make lab LAB='--only load --minutes 5'`. Output goes to build/lab/PART.log and
the table also to build/lab/summary.md. Exits with 1 when a part failed. A part whose tools are missing is
skipped, and that is said.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from lab_parts import PARTS, Part
from process_sessions import end_session, run_interruptibly

# A part is ended when it takes so many times its planned time, and then some: it hangs, unless the machine is
# very busy.
LIMIT_FACTOR = 4.0
LIMIT_SECONDS = 240.0
# Between asking a part to end and killing it.
GRACE_SECONDS = 10.0
TAIL_LINES = 30
# Characters of a cell of the table.
MOST_FIGURES = 400


@dataclass
class Result:
    """How a part ended: ``"passed"``, ``"FAILED"`` or ``"SKIPPED"``."""

    part: Part
    outcome: str
    figures: str
    seconds: float = 0.0


class Lab:
    """One run of some parts.

    Args:
        folder: for logs and the summary.
        venv: folder of the release environment.
        scale: what the lengths of parts are multiplied by.
        limit_factor, limit_seconds, grace_seconds: see the constants of the same names.
    """

    def __init__(
        self,
        folder: Path,
        venv: str = ".venv",
        scale: float = 1.0,
        *,
        limit_factor: float = LIMIT_FACTOR,
        limit_seconds: float = LIMIT_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._folder = folder
        self._venv = venv
        self._scale = scale
        self._limit_factor = limit_factor
        self._limit_seconds = limit_seconds
        self._grace_seconds = grace_seconds
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._is_stopped = False
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, parts: Sequence[Part], jobs: int = 1) -> list[Result]:
        """Run them, first those that may run beside others, so many at a time. Results in the order given."""
        missing = {part.name: what for part in parts if (what := missing_for(part))}
        ready = [part for part in parts if part.name not in missing]
        unmade = self._make(ready)
        results = [
            Result(part, "SKIPPED", f"not here: {missing[part.name]}")
            for part in parts
            if part.name in missing
        ]
        results += [Result(part, "FAILED", f"make failed, see {unmade}") for part in ready if unmade]
        runnable = [] if unmade else ready
        shared = [part for part in runnable if jobs > 1 and not part.is_alone]
        with ThreadPoolExecutor(max(jobs, 1)) as threads:
            try:
                results += threads.map(self._run_part, shared)
                results += [self._run_part(part) for part in runnable if part not in shared]
            except KeyboardInterrupt:
                self.stop()
                raise
        order = {part.name: number for number, part in enumerate(parts)}
        return sorted(results, key=lambda result: order[result.part.name])

    def stop(self) -> None:
        """End what runs, and start nothing more."""
        self._is_stopped = True
        with self._lock:
            running = list(self._running)
        for process in running:
            end_session(process, self._grace_seconds)

    def length_of(self, part: Part) -> int:
        """Its length, scaled."""
        return max(round(part.length * self._scale), part.least) if part.length else 0

    def seconds_of(self, part: Part) -> float:
        """Its planned time: what is not scaled is what it takes to start and to end."""
        if not part.length:
            return part.seconds
        return part.seconds * self.length_of(part) / part.length

    def command_of(self, part: Part) -> list[str]:
        """Its words."""
        return [self._fill(word, part) for word in part.command.split()]

    def _fill(self, text: str, part: Part) -> str:
        return text.format(
            python=f"{self._venv}/bin/python",
            debug=f"{self._venv}-debug/bin/python",
            sdk2=f"{self._venv}-sdk2/bin/python",
            venv=self._venv,
            length=self.length_of(part),
        )

    def _make(self, parts: Sequence[Part]) -> Path | None:
        """Make what the parts need. Here, as two of `make` at a time would build in the same folder.

        Returns:
            The log, if that failed.
        """
        goals = list(dict.fromkeys(self._fill(goal, part) for part in parts for goal in part.makes))
        if not goals:
            return None
        print("making", *goals, flush=True)
        command = ["make", f"VENV={self._venv}", *goals]
        made = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        log = self._folder / "make.log"
        log.parent.mkdir(parents=True, exist_ok=True)  # building clears away what it does not know
        log.write_bytes(made.stdout)
        if made.returncode == 0:
            return None
        print(tail(log))
        return log

    def _run_part(self, part: Part) -> Result:
        if self._is_stopped:
            return Result(part, "SKIPPED", "interrupted")
        log = self._folder / f"{part.name}.log"
        variables = {name: self._fill(value, part) for name, value in part.variables.items()}
        limit = self.seconds_of(part) * self._limit_factor + self._limit_seconds
        begin = time.monotonic()
        print(f"{part.name}: {' '.join(self.command_of(part))}", flush=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command_of(part),
                cwd=ROOT,
                env={**os.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its children end with it
            )
            with self._lock:
                self._running.add(process)
            try:
                code = process.wait(limit)
                problem = f"exit code {code}" if code else ""
            except subprocess.TimeoutExpired:
                problem = f"no end after {limit:.0f} s"
            finally:
                end_session(process, self._grace_seconds)
                with self._lock:
                    self._running.discard(process)
        seconds = time.monotonic() - begin
        figures = part.figures(_text_of(log))[:MOST_FIGURES] or "(no output)"
        if problem:
            print(f"{part.name}: FAILED, {problem}. The end of {log}:\n{tail(log)}", flush=True)
            return Result(part, "FAILED", f"{problem}: {figures}", seconds)
        print(f"{part.name}: passed in {seconds:.0f} s: {figures}", flush=True)
        return Result(part, "passed", figures, seconds)


def missing_for(part: Part) -> str:
    """What it needs and is not here; empty when all is."""
    return ", ".join(
        need for need in part.needs if not ((ROOT / need).exists() if "/" in need else shutil.which(need))
    )


def tail(log: Path) -> str:
    """The end of a log."""
    return "\n".join(f"    {line}" for line in _text_of(log).splitlines()[-TAIL_LINES:])


def _text_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def table(results: Sequence[Result]) -> str:
    """The summary, in Markdown."""
    lines = ["| part | what it tries to break | what was tried | seconds | result |", "|---|---|---|---|---|"]
    for result in results:
        outcome = result.outcome if result.outcome == "passed" else f"**{result.outcome}**"
        cells = (result.part.name, result.part.shows, result.figures, f"{result.seconds:.0f}", outcome)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def scale_for(parts: Sequence[Part], minutes: float) -> float:
    """The scale at which the parts take so long; those that cannot be scaled take what they take."""
    fixed = sum(part.seconds for part in parts if not part.length)
    scaled = sum(part.seconds for part in parts if part.length)
    return max((minutes * 60 - fixed) / scaled, 0.0) if scaled else 1.0


def chosen(names: Sequence[str]) -> list[Part]:
    """The parts of these names, all where there is none.

    Raises:
        ValueError: there is no part of a name.
    """
    by_name = {part.name: part for part in PARTS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"no such part: {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [part for part in PARTS if not names or part.name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("--list", action="store_true", help="only show the parts")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="only these")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the lengths, default 1")
    parser.add_argument("--minutes", type=float, help="choose the scale so that all take about so long")
    parser.add_argument(
        "--jobs", type=int, default=1, help="parts at a time, where they do not measure; default 1"
    )
    parser.add_argument("--venv", default=".venv", help="folder of the release environment")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "lab", help="for logs and the summary"
    )
    options = parser.parse_args(arguments)
    try:
        parts = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    scale = options.scale if options.minutes is None else scale_for(parts, options.minutes)
    lab = Lab(options.folder, options.venv, scale)
    if options.list:
        for part in parts:
            print(f"{part.name:14} {lab.seconds_of(part):5.0f} s  {part.shows}")
        print(f"{'together':14} {sum(map(lab.seconds_of, parts)):5.0f} s")
        return 0
    begin = time.monotonic()
    results = lab.run(parts, options.jobs)
    outcomes = [result.outcome for result in results]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in ("passed", "FAILED", "SKIPPED"))
    now = dt.datetime.now(dt.UTC)
    summary = (
        f"`make lab`, {now:%Y-%m-%d}, Python {platform.python_version()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[1]:.1f}, scale {scale:g}: {counts} in {(time.monotonic() - begin) / 60:.0f} min"
        f"\n\n{table(results)}\n"
    )
    (options.folder / "summary.md").write_text(summary, encoding="utf-8")
    print(f"\n{summary}")
    for result in results:
        if result.outcome == "SKIPPED":
            print(f"!!! SKIPPED {result.part.name}: {result.figures}")
    return 1 if "FAILED" in outcomes else 0


if __name__ == "__main__":
    run_interruptibly(main)
