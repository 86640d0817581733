"""Runs every case of the laboratory by the default settings, over both transports and on both SDKs, and
prints the table of `docs/network.md`. Exits with 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import namespaces
from expected import EXPECTED, wrong_with

TRANSPORTS = ("streamablehttp", "sse")
_LIMIT_SECONDS = 900
Run = tuple[str, str, str]


def outcome_of(python: str, transport: str, case: str) -> dict[str, Any]:
    """Run one."""
    command = [python, "-P", str(HERE / "laboratory.py"), "--transport", transport, case]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_SECONDS)
    try:
        outcome: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        outcome = {"case": case, "error": f"it ended early, {ended.returncode}: {ended.stderr[-500:]}"}
    return outcome


def cells(outcome: dict[str, Any] | None) -> str:
    """Seconds, calls that failed of all, the longest of others."""
    if outcome is None or "error" in outcome:
        return "– | – | –"
    failed = f"{outcome['failed']} of {outcome['calls']}"
    return f"{outcome['seconds']:.1f} | {failed} | {outcome['others_seconds']:.1f}"


def table(outcomes: dict[Run, dict[str, Any]], before: dict[Run, dict[str, Any]]) -> str:
    """In Markdown; with what was before, where that is known."""
    was = " before: s | failed | others s |" if before else ""
    lines = [f"| case | transport | SDK |{was} s | failed | others s | places lost | descriptors left |"]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for case, expected in EXPECTED.items():
        for transport in TRANSPORTS:
            for sdk in ("1", "2"):
                outcome = outcomes.get((case, transport, sdk))
                if outcome is None:
                    continue
                then = f" {cells(before.get((case, transport, sdk)))} |" if before else ""
                left = f"{outcome.get('places_lost', '–')} | {outcome.get('descriptors_left', '–')}"
                shown = "HTTP" if transport == "streamablehttp" else "SSE"
                lines.append(f"| {expected.title} | {shown} | {sdk}.x |{then} {cells(outcome)} | {left} |")
    return "\n".join(lines)


def kept(folder: Path | None) -> dict[Run, dict[str, Any]]:
    """The outcomes that an earlier run has kept."""
    paths = [] if folder is None else sorted(folder.glob("*.json"))
    found = {}
    for path in paths:
        case, transport, sdk = path.stem.split("-")
        found[case, transport, sdk] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdk2-python", help="an interpreter with the SDK 2.x; without it, only this one's")
    parser.add_argument("--jobs", type=int, default=4, help="laboratories at a time, default 4")
    parser.add_argument("--keep", type=Path, help="a folder for the outcomes; what is there is not run again")
    parser.add_argument("--before", type=Path, help="such a folder, to compare with")
    parser.add_argument("cases", nargs="*", default=[], help="default all")
    options = parser.parse_args(arguments)
    why_not = namespaces.why_not()
    if why_not:
        print(f"!!! SKIPPED: there can be no laboratory of networks here: {why_not}")
        return 0
    pythons = {"1": sys.executable, "2": options.sdk2_python}
    runs: list[Run] = [
        (case, transport, sdk)
        for case in options.cases or EXPECTED
        for transport in TRANSPORTS
        for sdk, python in pythons.items()
        if python
    ]
    outcomes = {run: outcome for run, outcome in kept(options.keep).items() if run in runs}
    missing = [run for run in runs if run not in outcomes]
    for jobs, runs_alone in ((options.jobs, False), (1, True)):
        now = [run for run in missing if EXPECTED[run[0]].runs_alone is runs_alone]
        with ThreadPoolExecutor(jobs) as threads:
            done = threads.map(lambda run: outcome_of(pythons[run[2]], run[1], run[0]), now)
            for run, outcome in zip(now, done, strict=True):
                outcomes[run] = outcome
                if options.keep is not None:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    path = options.keep / f"{'-'.join(run)}.json"
                    path.write_text(json.dumps(outcome), encoding="utf-8")
    print(table(outcomes, kept(options.before)))
    wrong = {run: problems for run in runs if (problems := wrong_with(outcomes[run], is_fast=False))}
    for run, problems in wrong.items():
        print(f"!!! {' '.join(run)}: {'; '.join(problems)}")
    print(f"{len(runs)} cases of a silent network, {len(wrong)} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
