"""Draws the screens of ``mcpgateway-pool top`` in docs/cli.md, at three widths, from made-up counters.

Everything is as the live view draws it, but the time of day. ``--check`` only says whether the page is up to
date (exit code 1 when it is not).
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from mcpgateway_pool.cli.scrape import Scrape, parse
from mcpgateway_pool.cli.view import HISTORY, View

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from tables import put_into_page, text_between

PAGE = ROOT / "docs" / "cli.md"
MARK = "screens"
SIZES = ((80, 15), (120, 15), (200, 15))
URL = "http://127.0.0.1:4444/metrics/prometheus"
CLOCK = "03:14:15"
INTERVAL = 2

# Of a gateway: id and name, acquires in an interval, sessions, waiters, every how many acquires one misses.
GATEWAYS = (
    ("5f1c7a9e04b24d5e9a52c1e8b0d7f316", "github", 96, 10, 3, 400),
    ("77a0c6f3b58e4a90a1d2ee64c09b3c18", "weather", 55, 6, 0, 90),
    ("0b8e6f2d71c94c3fa6d40e95172ab8c3", None, 40, 8, 0, 25),
    ("e2f4410b9d764c1d8f3a5c7706be91d4", "search-eu-west", 22, 4, 1, 3),
    ("c4a7d8130e5f4b7692ef3da1586b90e7", None, 9, 2, 0, 12),
    ("19d35ab28c6f4e07b4f81c92d0a7e563", "tickets", 3, 1, 0, 8),
)


def scrape_at(moment: int) -> Scrape:
    """What the endpoint shows after so many intervals: calls come in waves."""
    lines = ["mcp_session_pool_max_sessions_per_key 10"]
    for row, (gateway, name, acquires, size, waiters, misses) in enumerate(GATEWAYS):
        done = sum(round(acquires * (1 + 0.5 * math.sin((at + 3 * row) / 3))) for at in range(moment + 1))
        waiting = round(waiters * (1 + math.sin((moment + 3 * row) / 3)))
        timeouts = moment if row == 3 else 0
        missed = done // misses
        numbers = {
            "hits_total": done - missed, "misses_total": missed, "size": size, "keys": 1,
            "active_sessions": size if waiting else size // 2, "waiters": waiting,
            "oldest_waiter_seconds": 0.3 * waiting, "acquire_timeouts_total": timeouts,
            "create_failures_total": timeouts // 2, "health_check_failures_total": 0,
            "circuit_breakers_open": int(row == 3),
        }  # fmt: skip
        lines += [
            f'mcp_session_pool_{stem}{{gateway_id="{gateway}"}} {value}' for stem, value in numbers.items()
        ]
        for bound, share in (("0.1", 0.02), ("0.5", 0.08), ("1", 0.1), ("+Inf", 0.1)):
            waits = round(done * share) if waiters else 0
            labels = f'gateway_id="{gateway}",le="{bound}"'
            lines.append(f"mcp_session_pool_acquire_wait_seconds_bucket{{{labels}}} {waits}")
        if name is not None:
            lines.append(f'mcp_session_pool_gateway_info{{gateway_id="{gateway}",name="{name}"}} 1')
    scrape = parse("text/plain", ["".join(f"{line}\n" for line in lines).encode()])
    scrape.at = float(moment * INTERVAL)
    return scrape


def screens() -> str:
    """All of them, as Markdown."""
    parts = []
    for width, height in SIZES:
        view = View(URL, clock=CLOCK)
        for moment in range(HISTORY + 8):
            view.add(scrape_at(moment))
        lines = ["".join(text for text, _ in line)[:width].rstrip() for line in view.lines(width, height)]
        parts.append(f"{width} columns:\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    if parser.parse_args().check:
        is_new = text_between(MARK, PAGE) == screens()
        print("up to date" if is_new else "docs/cli.md shows other screens: make screens")
        return 0 if is_new else 1
    put_into_page(MARK, screens(), PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
