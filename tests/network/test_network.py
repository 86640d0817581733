"""Cases of the laboratory, with settings that notice a silent network in seconds. `make lab` runs all cases,
with the default ones, over both transports, on both SDKs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from network import expected
from servers.waiting import wait_until

LABORATORY = Path(__file__).with_name("laboratory.py")

pytestmark = [
    pytest.mark.long("real networks take real seconds to fall silent"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module", autouse=True)
def _a_system_that_permits_it() -> None:
    said = subprocess.run(
        [sys.executable, "-P", str(LABORATORY), "--check"], capture_output=True, text=True, check=True
    )
    if said.stdout.strip():
        pytest.skip(f"there can be no laboratory of networks here: {said.stdout.strip()}")


def problems_in(transport: str, *cases: str) -> list[str]:
    """What does not hold of these cases."""
    command = [sys.executable, "-P", str(LABORATORY), "--fast", "--transport", transport, *cases]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    outcomes = [json.loads(line) for line in ended.stdout.splitlines()]
    if [outcome["case"] for outcome in outcomes] != list(cases):
        return [f"it ended early, {ended.returncode}", ended.stderr[-2000:]]
    return [
        f"{outcome['case']}: {problem}"
        for outcome in outcomes
        for problem in expected.wrong_with(outcome, is_fast=True)
    ]


@pytest.mark.parametrize("transport", ["sse", "streamablehttp"])
def test_a_silent_network_is_noticed_and_costs_nobody_else_anything(transport: str) -> None:
    vanished = (
        "vanished_while_idle",
        "vanished_in_a_call",
        "vanished_before_a_creation",
        "vanished_at_close",
    )
    assert not problems_in(transport, *vanished, "firewall_forgets", "loss_and_latency")


def test_names_that_hang_move_or_have_a_dead_address_stall_nobody() -> None:
    assert not problems_in("sse", "names_hang", "name_moves", "name_has_a_dead_address")


def test_servers_that_pause_or_start_anew_or_are_hasty_and_a_shortage_of_descriptors_cost_no_session() -> (
    None
):
    assert not problems_in("streamablehttp", "paused_server", "power_loss", "few_descriptors", "hasty_server")


def test_every_case_is_expected() -> None:
    defined = Path(__file__).with_name("cases.py").read_text(encoding="utf-8").split("@case\n")[1:]
    names = {function.split("(")[0].removeprefix("async def ") for function in defined}
    assert names == set(expected.EXPECTED)


# ---- nothing is left


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", str(LABORATORY), "vanished_in_a_call"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LABORATORY_OF": str(tmp_path)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_laboratory_that_is_ended_leaves_no_process_and_so_no_namespace(
    laboratory: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    """A namespace without a name ends with the last process in it. Its number is soon another's."""

    def processes() -> set[int]:
        found = set()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if str(tmp_path).encode() in environment.read_bytes():
                    found.add(int(environment.parent.name))
        return found

    wait_until(lambda: len(processes()) == 4, 60, every=0.2)  # its own, the wire's, and two servers'
    assert "wire" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    laboratory.send_signal(number)
    laboratory.wait(60)
    wait_until(lambda: not processes(), 60, every=0.2)
