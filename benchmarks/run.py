"""Measures the pool compared with the gateway's own one: one command, one table. Takes some minutes.

Each side runs in a process of its own. They take turns, round by round, so that whatever else the machine
does hits both alike; a comparison is the median over the rounds, and the next column has its spread, from the
lowest round to the highest. Figures in seconds are medians, and hold for this machine and this moment only:
quote ratios. What calls through the real gateway are like is measured by ``gateway.py``.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import documents
import peer
import tables
import targets
import targets_table
from workers import Workers

PEER_ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv-peer"


def main() -> int:
    """Parse the arguments, measure, print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="an interpreter that has the peer, instead of .venv-peer")
    parser.add_argument("--only", default="", help="only the rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="less of everything, in about a minute, to try")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument(
        "--docs", action="store_true", help="keep it, and put it into README.md and docs, too"
    )
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
    run, found, failed = tables.Run(), [], 0
    with Workers(peer_python) as workers:
        for row in rows:
            begin = time.monotonic()
            print(f"... {row.what}, compared with {row.beside_name}: ", file=sys.stderr, end="", flush=True)
            try:
                outcome = workers.measure_row(row)
                print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200].replace("|", "/")
                print(f"not measured: {reason}", file=sys.stderr, flush=True)
                found.append(
                    [
                        row.what,
                        "–",
                        f"–  {row.beside_name}",
                        "–",
                        "–",
                        row.target_text(),
                        f"not measured: {reason}",
                    ]
                )
                failed += 1
                continue
            except KeyboardInterrupt:
                return 130
            shown = (outcome.project, outcome.beside, outcome.comparison, outcome.spread, outcome.target)
            found.append([row.what, *shown, outcome.verdict])
    figures = {"about": {"peer": peer.REQUIREMENTS[0], **run.about()}, "rows": found}
    print(targets_table.page(figures, tables.markdown if arguments.markdown else tables.plain))
    if arguments.docs:
        documents.save(targets_table.NAME, figures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
