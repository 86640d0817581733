"""Measures the pool beside the gateway's own one: one command, one table. Takes some minutes.

Each side runs in a process of its own. They take turns, round by round, so that whatever else the machine
does hits both alike; a comparison is the median over the rounds, and beside it stands its spread, from the
lowest round to the highest. Figures in seconds are medians, and hold for this machine and this moment only:
quote ratios. What calls through the real gateway are like is measured by ``gateway.py``.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import peer
import tables
import targets
from workers import Workers

PEER_ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv-peer"
TITLES = ["what", "project", "beside", "ratio", "spread", "target", "result"]


def main() -> int:
    """Parse the arguments, measure, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="an interpreter that has the peer, instead of .venv-peer")
    parser.add_argument("--only", default="", help="only the rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="less of everything, in about a minute, to try")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument("--docs", action="store_true", help="put it into docs/performance.md, too")
    arguments = parser.parse_args()
    rows = [
        row
        for row in targets.table(targets.QUICK if arguments.quick else targets.FULL)
        if arguments.only in row.what
    ]
    if not rows:
        print(f"there is no row with {arguments.only!r} in its name", file=sys.stderr)
        return 2
    try:
        peer_python = arguments.peer_python or str(peer.ensure_environment(PEER_ENVIRONMENT))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    start, load = time.monotonic(), os.getloadavg()[0]
    lines, missed, failed = [TITLES], 0, 0
    with Workers(peer_python) as workers:
        for row in rows:
            begin = time.monotonic()
            print(f"... {row.what}, beside {row.beside_name}: ", file=sys.stderr, end="", flush=True)
            try:
                outcome = workers.measure_row(row)
                print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            except RuntimeError as error:
                print(f"FAILED: {error}", file=sys.stderr, flush=True)
                lines.append([row.what, *["–"] * 4, row.target_text(), "FAILED"])
                failed += 1
                continue
            except KeyboardInterrupt:
                return 130
            missed += not outcome.is_met
            shown = (outcome.project, outcome.beside, outcome.comparison, outcome.spread, outcome.target)
            lines.append([row.what, *shown, outcome.verdict])
    head = f"Python {platform.python_version()}, peer: the pool of {peer.REQUIREMENTS[0]}."
    foot = (
        f"{len(rows)} rows, {missed} missed, {failed} failed; {time.monotonic() - start:.0f} s, "
        f"{os.cpu_count()} processors, load {load:.1f} before and {os.getloadavg()[0]:.1f} after."
    )
    show = tables.markdown if arguments.markdown else tables.plain
    print(f"{head}\n\n{show(lines)}\n\n{foot}")
    if arguments.docs:
        tables.put_into_page("bench", f"{head}\n\n{tables.markdown(lines)}\n\n{foot}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
