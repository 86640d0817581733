"""What one TLS context for all sessions saves in the real gateway: time to open a session, memory of each.

Run with an interpreter that has the gateway and this package (``.venv-gateway/bin/python -P``). Sessions are
opened one after the other to an ``http://`` server on 127.0.0.1; a gateway with sharing and one without take
turns. Linux only: memory is the growth of the process (VmRSS).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from servers.process import ServerProcess
from support.gateway_process import SWITCH, GatewayError, GatewayProcess, failures


def resident_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def measure(folder: Path, sessions: int, *, is_shared: bool) -> tuple[float, float]:
    """Open so many sessions in a gateway of its own.

    Returns:
        Milliseconds to open one, and KiB that the process grew by with each.
    """
    environment = {
        **SWITCH,
        "MCPGATEWAY_POOL_SHARED_TLS": str(is_shared).lower(),
        "MCP_SESSION_POOL_MAX_PER_KEY": str(sessions + 1),
        "HEALTH_CHECK_INTERVAL": "3600",
    }
    pause = 0.25  # between two calls, so that each opens its session alone
    with ServerProcess() as server, GatewayProcess(folder, environment=environment) as gateway:
        gateway.register("server", server.url)
        gateway.call("server", "echo", text="first")  # what is made once is there now
        opened, seconds = created(gateway)
        before = resident_kib(gateway.pid)
        with ThreadPoolExecutor(sessions) as threads:
            calls = []
            for number in range(sessions):
                left = (sessions - number) * pause + 1.0  # until the last has opened its session, too
                calls.append(threads.submit(gateway.call_many, 1, 1, "server", "slow", seconds=left))
                time.sleep(pause)
            answers = [answer for call in calls for answer in call.result()]
        failed = failures(answers)
        if failed:
            raise GatewayError(f"{len(failed)} calls failed")
        grown = resident_kib(gateway.pid) - before
        more, longer = created(gateway)
        return (longer - seconds) / (more - opened) * 1000, grown / (more - opened)


def created(gateway: GatewayProcess) -> tuple[float, float]:
    """How many sessions were opened so far, and the seconds that this took together."""
    name = "mcp_session_pool_create_seconds"
    return gateway.sum(f"{name}_count"), gateway.sum(f"{name}_sum")


def main() -> int:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=40, help="opened in each gateway, default 40")
    parser.add_argument("--rounds", type=int, default=3, help="gateways of each kind, default 3")
    options = parser.parse_args()
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="mcpgateway-pool-bench-") as folder:
        for number in range(options.rounds):
            for is_shared in (False, True):
                place = Path(folder, f"{number}-{is_shared}")
                found[is_shared].append(measure(place, options.sessions, is_shared=is_shared))
    title = f"{options.sessions} sessions, median of {options.rounds}"
    print(f"{title:<32} {'one each':>10} {'shared':>10} {'ratio':>7}")
    for index, label in enumerate(("to open one, ms", "growth for each, KiB")):
        each, shared = (statistics.median(row[index] for row in found[kind]) for kind in (False, True))
        print(f"{label:<32} {each:>10.1f} {shared:>10.1f} {each / shared if shared else 0:>6.1f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())
