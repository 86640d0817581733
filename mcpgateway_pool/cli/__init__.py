"""The command ``mcpgateway-pool``.

Exit codes: 0 all is well, 1 a problem was found, something cannot be reached or the output cannot be
written, 2 wrong usage, 130 Ctrl-C; ``top`` ends with 128 and the number of the signal that ended it.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mcpgateway_pool.redact import safe_text

from .common import (
    INTERRUPTED,
    OK,
    PROBLEM,
    USAGE,
    CommandError,
    OutputError,
    complain,
    drop_output,
    flush,
    say,
)
from .fetch import DEFAULT_TIMEOUT, TOKEN_VARIABLE, Source, is_under_way, source_of
from .files import DASHBOARD, RULES, RUNBOOK, write_or_print

__all__ = ["main", "run"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; default those of the process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no such character shows its number
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        finally:
            flush()
    except OutputError as error:
        drop_output()
        complain(f"mcpgateway-pool: the output cannot be written: {error}")
        return PROBLEM


def run() -> NoReturn:
    """The program: :func:`main`, and the end of the process."""
    code = main()
    if is_under_way():
        # A thread that comes back from the network while the interpreter ends may crash it.
        os._exit(code)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    parsed = _parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except CommandError as error:
        complain(f"mcpgateway-pool: {error}")
        if error.advice:
            complain(f"  {error.advice}")
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


# ---- the commands


def _run_top(arguments: argparse.Namespace) -> int:
    from .top import run

    return run(_source(arguments.url, arguments), arguments)


def _run_doctor(arguments: argparse.Namespace) -> int:
    from .doctor import run

    source = _source(arguments.url, arguments) if arguments.url is not None else None
    return run(source, metrics_dir=arguments.metrics_dir, as_json=arguments.json)


def _run_demo(arguments: argparse.Namespace) -> int:
    from .demo import run

    return run(arguments)


def _run_dashboards(arguments: argparse.Namespace) -> int:
    return write_or_print([DASHBOARD, RULES], arguments.to, runbook=arguments.runbook, force=arguments.force)


def _run_rules(arguments: argparse.Namespace) -> int:
    return write_or_print([RULES], arguments.to, runbook=arguments.runbook, force=arguments.force)


def _source(url: str, arguments: argparse.Namespace) -> Source:
    token = arguments.token or os.environ.get(TOKEN_VARIABLE)
    if arguments.token_file:
        try:
            token = Path(arguments.token_file).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise CommandError(f"{arguments.token_file}: {reason}", code=USAGE) from None
    return source_of(url, token, arguments.timeout)


# ---- the parser


def _seconds(text: str) -> float:
    """A finite number of seconds above zero."""
    value = float(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 86400, not {text}")
    return value


def _address(text: str) -> str:
    """Of a page. It goes into JSON and YAML, and an anchor comes after it."""
    if not re.fullmatch(r"[A-Za-z0-9/][\w.~:/?@!&()*+,;=%-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"must be the address of a page, without #, not {safe_text(text, 60)!r}"
        )
    return text


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


_seconds.__name__, _count.__name__ = "number of seconds", "number"  # for argparse's messages


def _parser() -> argparse.ArgumentParser:
    parser = _ArgumentParser(
        prog="mcpgateway-pool",
        description="See the MCP session pool: what it does now, and whether it is set up well.",
        epilog=f"Exit codes: {OK} all is well, {PROBLEM} a problem, {USAGE} wrong usage.",
    )
    parser.add_argument("--version", action=_Version, help="show the version, and end")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    top = commands.add_parser(
        "top",
        help="live view of every gateway",
        description="Show for each gateway the hit rate, sessions, waiters, waits and failures, live. Rates "
        "and failures are of the last half minute or so; with --once, of the interval between two scrapes.",
    )
    top.add_argument("url", metavar="URL", help="the metrics endpoint")
    top.add_argument("--once", action="store_true", help="print one table and end")
    top.add_argument(
        "--json", action="store_true", help="JSON; without --once an object a line, each interval"
    )
    top.add_argument("--totals", action="store_true", help="rates and failures since the processes started")
    top.add_argument(
        "--interval", type=_seconds, default=2.0, metavar="S", help="seconds between scrapes (default 2)"
    )
    top.add_argument("--limit", type=_count, metavar="N", help="show only the first N gateways")
    top.add_argument(
        "--sort",
        choices=("acquires", "waiters", "wait", "failures", "name"),
        default="acquires",
        help="what comes first: most acquires (the default), waiters, p99 of waits, failures; or by name",
    )
    top.add_argument(
        "--filter", default="", metavar="TEXT", help="show only gateways whose name or id contains this"
    )
    _add_http(top)
    top.set_defaults(run=_run_top)

    doctor = commands.add_parser(
        "doctor",
        help="check the installation, the gateway, the metrics directory and a metrics endpoint",
        description="Check what can go wrong between installing the package and seeing its series, and say "
        "what to do. Run it in the gateway's environment, as the gateway's user.",
    )
    doctor.add_argument(
        "--url", metavar="URL", help="the metrics endpoint, to see whether it shows the series"
    )
    doctor.add_argument(
        "--metrics-dir",
        metavar="DIR",
        help="the directory of shared counters (default: what the environment says)",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    _add_http(doctor)
    doctor.set_defaults(run=_run_doctor)

    demo = commands.add_parser(
        "demo",
        help="a pool at work, with its series on a local port",
        description="Start two real MCP servers on 127.0.0.1, call them through a pool at more concurrency "
        "than it allows, kill and restart one of them now and then, and serve the series. Needs the extra "
        "[mcp].",
    )
    demo.add_argument(
        "--seconds", type=_seconds, metavar="S", help="end after this time (default: at Ctrl-C)"
    )
    demo.add_argument(
        "--port", type=int, default=0, help="of the series, on 127.0.0.1 (default: any free one)"
    )
    demo.set_defaults(run=_run_demo)

    dashboards = commands.add_parser(
        "dashboards",
        help="the Grafana dashboard and the Prometheus rules",
        description="Write the Grafana dashboard and the Prometheus rules into a folder; without --to, print "
        "the dashboard.",
    )
    _add_to(dashboards)
    dashboards.set_defaults(run=_run_dashboards)

    rules = commands.add_parser(
        "rules",
        help="the Prometheus recording rules and alerts",
        description="Print the Prometheus rules, or write them into a folder.",
    )
    _add_to(rules)
    rules.set_defaults(run=_run_rules)
    return parser


def _add_http(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading the endpoint")
    group.add_argument(
        "--token", metavar="TOKEN",
        help=f"bearer token; others can see it in the list of processes, so better set {TOKEN_VARIABLE}",
    )  # fmt: skip
    group.add_argument("--token-file", metavar="FILE", help="file that holds the bearer token")
    group.add_argument(
        "--timeout", type=_seconds, default=DEFAULT_TIMEOUT, metavar="S",
        help="seconds to wait for the answer (default 10)",
    )  # fmt: skip


def _add_to(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", metavar="DIR", help="the folder to write into")
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    parser.add_argument(
        "--runbook", type=_address, default=RUNBOOK, metavar="URL",
        help=f"where your people read the runbook, for links of alerts and dashboard (default {RUNBOOK})",
    )  # fmt: skip


class _ArgumentParser(argparse.ArgumentParser):
    """Its help is output like any other: argparse passes over what cannot be written."""

    def print_help(self, file: Any = None) -> None:
        if file is None:
            say(self.format_help().rstrip("\n"))
        else:
            super().print_help(file)


class _Version(argparse.Action):
    """Reads the version when asked for: looking it up takes longer than all else."""

    def __init__(self, **options: object) -> None:
        super().__init__(nargs=0, **options)  # type: ignore[arg-type]

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import mcpgateway_pool

        say(f"mcpgateway-pool {mcpgateway_pool.__version__}")
        parser.exit(OK)
