"""The examples do what the documentation says, as processes of their own."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from mcpgateway_pool.upstream import sdk
from servers.process import ServerProcess
from support.examples import fetch, processes_left, read_until, start_example


def test_the_first_program_sends_three_calls_over_one_session(tmp_path: Path) -> None:
    with ServerProcess() as server:
        with start_example(tmp_path, "first_program.py", server.url) as process:
            output, errors = process.communicate(timeout=30)
        assert errors == ""
        assert output == "one\ntwo\nthree\nhit rate: 0.6666666666666666\n"
        assert server.stats()["initialize"] == 1


@pytest.mark.long("hundreds of calls for its figures; what it shows has tests of its own")
@pytest.mark.timeout(240)
@pytest.mark.skipif(
    sdk.generation() == 2,
    reason="the demo's servers are written for the MCP SDK 1.x, which make demo-lite installs",
)
def test_the_demo_adds_up_serves_its_series_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with start_example(tmp_path, "demo.py", "--keep") as process:
        summary = read_until(process, "series  http")
        assert "Every number adds up" in summary
        url = re.search(r"series\s+(http://\S+)", summary)
        assert url is not None, summary
        assert "mcp_session_pool_hits_total" in fetch(url.group(1))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert "more calls, 0 failed" in output
    assert processes_left(tmp_path) == []
