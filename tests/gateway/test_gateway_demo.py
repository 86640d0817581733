"""``make demo`` does what it says, on a real gateway."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.examples import assert_gateway_demo_adds_up, processes_left, read_until, start_example


@pytest.mark.long("boots three gateways for its comparison; what it shows has tests of its own")
@pytest.mark.timeout(400)
def test_the_demo_adds_up_goes_on_serving_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert_gateway_demo_adds_up(tmp_path, "gateway_demo.py", "series  ")


@pytest.mark.long("boots three gateways; the interrupted demo without a gateway is short")
@pytest.mark.timeout(200)
def test_an_interrupted_demo_ends_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_example(tmp_path, "gateway_demo.py") as process:
        assert "registered through" in read_until(process, "registered through")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert processes_left(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
