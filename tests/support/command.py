"""The command line, run within the test's process, and pages for it to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mcpgateway_pool.cli import main

TOKEN = "s3cret-t0ken"

Run = Callable[..., tuple[int, str, str]]  # arguments; exit code, output and errors


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """What runs the command, in an environment without its variables.

    It asserts that no run ends in a traceback or prints ``TOKEN``.
    """
    for name in (
        "COLUMNS",  # which pytest-xdist sets
        "MCPGATEWAY_POOL_TOKEN",
        "MCPGATEWAY_POOL_METRICS_DIR",
        "PROMETHEUS_MULTIPROC_DIR",
    ):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code: Any = main(arguments)
        except SystemExit as error:  # argparse
            code = error.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert TOKEN not in out + err
        return code, out, err

    return run


def exposition(hits: int = 0, misses: int = 0, gateway: str = "g", **values: float) -> str:
    """A scrape of one gateway, as text; other series by the end of their names."""
    rows = {"size": 2, "active_sessions": 1, "keys": 1, "waiters": 0, "circuit_breakers_open": 0}
    counters = {"hits": hits, "misses": misses, "acquire_timeouts": 0, "create_failures": 0, "evictions": 0,
                "health_check_failures": 0}  # fmt: skip
    lines = [
        "# HELP other_total Of somebody else.",
        "# TYPE other_total counter",
        'other_total{gateway_id="g"} 7.0',
        "# TYPE mcp_session_pool_max_sessions_per_key gauge",
        "mcp_session_pool_max_sessions_per_key 4.0",
    ]
    for name, value in {**rows, **{k: v for k, v in values.items() if k in rows}}.items():
        lines += [
            f"# TYPE mcp_session_pool_{name} gauge",
            f'mcp_session_pool_{name}{{gateway_id="{gateway}"}} {value}',
        ]
    for name, value in {**counters, **{k: v for k, v in values.items() if k in counters}}.items():
        lines += [
            f"# TYPE mcp_session_pool_{name}_total counter",
            f'mcp_session_pool_{name}_total{{gateway_id="{gateway}"}} {value}',
        ]
    return "\n".join(lines) + "\n"
