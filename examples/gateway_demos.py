"""What the demos of the real gateway have in common: its pool's, and its registry's."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
from demo_servers import DemoServer

from support.gateway_process import Answer, GatewayError, GatewayProcess, Samples, sum_samples

THE_SIX = (
    "mcp_session_pool_hits_total",
    "mcp_session_pool_misses_total",
    "mcp_session_pool_evictions_total",
    "mcp_session_pool_health_check_failures_total",
    "mcp_session_pool_active_sessions",
    "mcp_session_pool_size",
)


def print_registered(ids: dict[str, str], servers: Sequence[DemoServer]) -> None:
    print(f"{'registered through POST /gateways':<36}gateway_id", flush=True)
    for server in servers:
        print(f"  {server.name:<9} {server.transport:<23} {ids[server.name]}", flush=True)


def print_series(samples: Samples, ids: dict[str, str]) -> None:
    rows = []
    for series in THE_SIX:
        reasons = sorted(
            {reason for name, labels in samples if name == series and (reason := dict(labels).get("reason"))}
        )
        for reason in reasons or [None]:
            labels = {} if reason is None else {"reason": reason}
            counts = [sum_samples(samples, series, gateway_id=one, **labels) for one in ids.values()]
            if reason is None or any(counts):
                rows.append([series + (f'{{reason="{reason}"}}' if reason else ""), counts])
    width = max(len(str(label)) for label, _ in rows)
    print(" " * (width + 2) + "".join(f"{name:>10}" for name in ids))
    for label, counts in rows:
        print(f"  {label:<{width}}" + "".join(f"{count:>10g}" for count in counts))
    print("  (of the evictions, the reasons that did occur)")


def reason_of(answer: Answer) -> str:
    """Why a call failed, as the caller was told, on one line."""
    error = answer.body.get("error") or answer.body.get("result") or answer.body
    text = error.get("message") if isinstance(error, dict) and "message" in error else error
    return f"HTTP {answer.status}: {' '.join(str(text).split())[:160]}"


@contextlib.contextmanager
def until_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def all_ended(gateways: Sequence[GatewayProcess], servers: Sequence[DemoServer]) -> Iterator[None]:
    """They are gone after the block, which SIGINT and SIGTERM interrupt (KeyboardInterrupt)."""

    def interrupt(*_: object) -> None:
        for gateway in gateways:
            gateway.kill()  # so that callers which wait for an answer end, too
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for process in (*gateways, *servers):
            process.kill()


def exit_code_of(demo: Callable[[], int]) -> int:
    """That of the program; what went wrong is said on the standard error output."""
    try:
        return demo()
    except KeyboardInterrupt:
        return 130
    except (GatewayError, OSError, RuntimeError) as error:
        print(f"the demo failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
