"""``mcpgateway-pool top``: what each gateway's sessions do, live."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mcpgateway_pool.redact import safe_text

from .common import OK, USAGE, CommandError, complain, missing_extra, say
from .fetch import Source
from .scrape import ALL, EVER, Figures, Scrape, Window, read

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

HISTORY = 30  # scrapes that are kept: what sparklines show, and the window of rates in the live view
_LABEL_WIDTH = 32
_BARS = "▁▂▃▄▅▆▇█"
_SIGNS_OF_SEVERAL = (
    "counters went back: a restart, or several workers that count each for themselves "
    "(set MCPGATEWAY_POOL_METRICS_DIR)"
)


def run(source: Source, arguments: argparse.Namespace) -> int:
    """The command.

    Raises:
        CommandError: the endpoint cannot be read the first time, or the terminal cannot show this.
    """
    if arguments.json:
        return _print_json(source, arguments)
    _need_rich()
    if arguments.once:
        window = _two_scrapes(source, arguments)
        _print_once(window, source.shown, arguments.limit)
        return OK
    if not sys.stdout.isatty():
        raise CommandError("the output is no terminal", "use --once or --json", code=USAGE)
    return _live(source, arguments)


def _two_scrapes(source: Source, arguments: argparse.Namespace) -> Window:
    first = read(source)
    if arguments.totals:
        return Window(EVER, first)
    time.sleep(arguments.interval)
    return Window(first, read(source))


def _print_json(source: Source, arguments: argparse.Namespace) -> int:
    """One object; without ``--once`` one for each interval, each on a line."""
    window = _two_scrapes(source, arguments)
    while True:
        say(json.dumps(_as_json(window, arguments.limit)))
        sys.stdout.flush()
        if arguments.once:
            return OK
        time.sleep(arguments.interval)
        window = Window(EVER if arguments.totals else window.new, read(source))


def _as_json(window: Window, limit: int | None) -> dict[str, Any]:
    rows = list(window.rows())
    return {
        "window_seconds": None if window.seconds is None else round(window.seconds, 3),
        "max_sessions_per_key": window.new.get("max_sessions_per_key", ALL),
        "counters_went_back": window.went_back() is not None,
        "all": {**window.figures(ALL).as_json(), "gateway_id": None, "gateways": len(rows)},
        "gateways": [row.as_json() for row in rows[:limit]],
    }


# ---- as text


def sparkline(values: list[float]) -> str:
    """One character for each value, from 0 to the largest."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in values)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}{unit}" if value >= 100 or value == int(value) else f"{value:.1f}{unit}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f}%"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _need_rich() -> None:
    try:
        import rich.console  # noqa: F401  (whether it is there)
    except ImportError as error:
        raise missing_extra("rich", "cli", error) from error


def _cells(row: Figures, name: str) -> list[str | Text]:
    from rich.text import Text

    def alarming(text: str, style: str, when: object) -> Text:
        return Text(text, style=style if when else "")

    return [
        Text(name),
        _number(row.acquires) if row.acquires_per_second is None else _number(row.acquires_per_second),
        alarming(_share(row.hit_rate), "yellow", row.hit_rate is not None and row.hit_rate < 0.5),
        f"{_number(row.active)}/{_number(row.size)}",
        alarming(_share(row.saturation), "red", (row.saturation or 0) > 0.9),
        alarming(_number(row.waiters), "yellow", row.waiters),
        _duration(row.oldest_waiter_seconds if row.waiters else None),
        _duration(row.wait_p99_seconds),
        alarming(_number(row.acquire_failures), "red", row.acquire_failures),
        alarming(_number(row.create_failures), "red", row.create_failures),
        alarming(_number(row.health_check_failures), "yellow", row.health_check_failures),
        alarming("open" if row.breakers_open else "closed", "red", row.breakers_open),
    ]


def _table(window: Window, limit: int | None, history: list[Scrape] | None = None) -> RenderableType:
    """The gateways, the busiest first, and all of them together; with sparklines where there is a history."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=False, pad_edge=False)
    table.add_column("gateway", no_wrap=True, max_width=_LABEL_WIDTH)
    traffic = "acquires" if window.seconds is None else "acquires/s"
    names = ("hit rate", "active/size", "saturation", "waiters", "oldest", "wait p99")
    for name in (traffic, *names, "failed\nacquires", "failed\ncreates", "failed\nchecks", "breaker"):
        table.add_column(name, justify="right", no_wrap=True)
    if history:
        table.add_column("acquires, waiters", no_wrap=True)
    rows = list(window.rows())
    shown = rows if limit is None else rows[:limit]
    for row in shown:
        cells = _cells(row, safe_text(row.gateway_id, _LABEL_WIDTH))
        table.add_row(*cells, *([_history_of(row.gateway_id, history)] if history else []))
    if len(rows) > len(shown):
        table.add_row(f"… {len(rows) - len(shown)} more")
    table.add_section()
    cells = _cells(window.figures(ALL), "all")
    table.add_row(*cells, *([_history_of(ALL, history)] if history else []))
    return table


def _history_of(gateway: str, history: list[Scrape]) -> str:
    acquires = [Window(old, new).figures(gateway).acquires for old, new in pairwise(history)]
    waiters = [scrape.get("waiters", gateway) for scrape in history[1:]]
    return f"{sparkline(acquires):<{HISTORY - 1}} {sparkline(waiters)}"


def _heading(window: Window, shown: str) -> str:
    span = "since the start" if window.seconds is None else f"in the last {window.seconds:.0f} s"
    return f"{shown}   {time.strftime('%H:%M:%S')}   rates and failures {span}"


def _print_once(window: Window, shown: str, limit: int | None) -> None:
    from rich.console import Console

    # Of its own width where it is no terminal: what is piped into a file is not to be cut at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, soft_wrap=True)
    console.print(_heading(window, shown), markup=False)
    console.print(_table(window, limit), soft_wrap=False)
    if window.went_back():
        complain(_SIGNS_OF_SEVERAL)


def _live(source: Source, arguments: argparse.Namespace) -> int:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    history: deque[Scrape] = deque([read(source)], maxlen=HISTORY)
    console = Console(highlight=False)

    def view(problem: str = "") -> RenderableType:
        since = EVER if arguments.totals or len(history) == 1 else history[0]
        window = Window(since, history[-1])
        limit = max(1, console.height - 8)
        notes = [problem] if problem else []
        if len(history) > 1 and Window(history[-2], history[-1]).went_back():
            notes.append(_SIGNS_OF_SEVERAL)
        return Group(
            Text(_heading(window, source.shown) + "   Ctrl-C ends"),
            *(Text(note, style="red") for note in notes),
            _table(window, min(limit, arguments.limit or limit), list(history)),
        )

    try:
        with Live(view(), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(arguments.interval)
                problem = ""
                try:
                    history.append(read(source))
                except CommandError as error:  # a gateway that restarts comes back
                    problem = str(error)
                live.update(view(problem), refresh=True)
    except KeyboardInterrupt:
        return OK
