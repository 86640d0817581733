"""``make demo`` does what it says, on a real gateway with the registry."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from support.examples import processes_left, read_until, start_example


@pytest.mark.long("boots three gateways for its comparison; what it shows has tests of its own")
@pytest.mark.timeout(400)
def test_the_demo_adds_up_goes_on_serving_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_example(tmp_path, "registry_demo.py", "--keep") as process:
        summary = read_until(process, "token  ")
        assert "Every number adds up" in summary, summary
        url = re.search(r"series\s+(http://\S+)", summary)
        assert url is not None, summary
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert re.search(r"\d more calls, 0 failed", output), output
    assert processes_left(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
