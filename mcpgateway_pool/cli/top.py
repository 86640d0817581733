"""``mcpgateway-pool top``: what each gateway's sessions do, live."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from typing import Any

from .common import BY_SIGNAL, OK, USAGE, CommandError, OutputError, complain, flush, missing_extra, say
from .fetch import Source
from .scrape import ALL, EVER, begin, read
from .window import Window

_LINES_AROUND = 9  # of the table of --once: headings, all, what is left out, and the prompt


def run(source: Source, arguments: argparse.Namespace) -> int:
    """The command.

    Raises:
        CommandError: the endpoint cannot be read the first time, or the terminal cannot show this.
        OutputError: the output takes no more.
    """
    if arguments.json:
        return _print_json(source, arguments)
    try:
        import rich.console  # noqa: F401  (whether it is there)
    except ImportError as error:
        raise missing_extra("rich", "cli", error) from error
    if arguments.once:
        _print_once(_two_scrapes(source, arguments), source.shown, arguments)
        return OK
    if not _is_terminal():
        raise CommandError("the output is no terminal", "use --once or --json", code=USAGE)
    return _live(source, arguments)


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


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
        say(json.dumps(_as_json(window, arguments)))
        flush()
        if arguments.once:
            return OK
        time.sleep(arguments.interval)
        window = Window(EVER if arguments.totals else window.new, read(source))


def _as_json(window: Window, arguments: argparse.Namespace) -> dict[str, Any]:
    gateways = window.gateways(arguments.sort, arguments.filter)[: arguments.limit]
    return {
        "window_seconds": None if window.seconds is None else round(window.seconds, 3),
        "max_sessions_per_key": window.new.get("max_sessions_per_key", ALL),
        "counters_went_back": window.went_back() is not None,
        "all": {
            **window.figures(ALL).as_json(),
            "gateway_id": None,
            "gateways": len(window.new.gateways),
        },
        "gateways": [window.figures(gateway).as_json() for gateway in gateways],
    }


def _print_once(window: Window, shown: str, arguments: argparse.Namespace) -> None:
    """A table of what fits the terminal; of all, where it is none."""
    from rich.console import Console

    from .table import table, text_of
    from .view import SIGNS_OF_SEVERAL, heading

    width, limit = None, arguments.limit
    console = Console(highlight=False, soft_wrap=True) if _is_terminal() else None
    if console is not None:
        width = console.width
        limit = limit or max(1, console.height - _LINES_AROUND)
    elif os.environ.get("COLUMNS", "").isdecimal():
        width = max(1, int(os.environ["COLUMNS"]))
    gateways = window.gateways(arguments.sort, arguments.filter)[:limit]
    more = len(window.new.gateways) - len(gateways)
    for line in [[(heading(window, shown), "")], [], *table(window, gateways, width, more=more)]:
        if console is None:
            say("".join(text for text, _ in line).rstrip())
            continue
        try:
            console.print(text_of(line))
        except OSError as error:
            raise OutputError(error.strerror or type(error).__name__) from None
    if window.went_back():
        complain(SIGNS_OF_SEVERAL)


def _live(source: Source, arguments: argparse.Namespace) -> int:
    """Until q, Ctrl-C or a signal."""
    from .terminal import Terminal
    from .view import View

    view = View(
        source.shown,
        totals=arguments.totals,
        limit=arguments.limit,
        order=arguments.sort,
        having=arguments.filter,
    )
    view.add(read(source))
    fetch = None
    due = time.monotonic() + arguments.interval
    with Terminal() as terminal:
        try:
            while not view.is_over and terminal.ended_by is None:
                terminal.draw(view.lines(terminal.width, terminal.height))
                seconds = fetch.seconds_left if fetch is not None else due - time.monotonic()
                for key in terminal.wait(max(seconds, 0.0)):
                    view.press(key)
                if fetch is not None and not fetch.seconds_left:
                    try:
                        view.add(fetch.result())
                    except CommandError as error:  # a gateway that restarts comes back
                        view.problem = str(error)
                    fetch, due = None, time.monotonic() + arguments.interval
                elif fetch is None and time.monotonic() >= due:
                    fetch = begin(source, terminal.wake)
        except KeyboardInterrupt:
            return OK
        except OSError:  # the terminal has gone, and its signal may come a little later
            terminal.ended_by = terminal.ended_by or signal.SIGHUP
        return OK if terminal.ended_by is None else BY_SIGNAL + terminal.ended_by
