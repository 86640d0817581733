"""``make demo`` does what it says, on a real gateway with the registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.examples import assert_gateway_demo_adds_up


@pytest.mark.long("boots two gateways for its comparison; what it shows has tests of its own")
@pytest.mark.timeout(400)
def test_the_demo_adds_up_goes_on_serving_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert_gateway_demo_adds_up(tmp_path, "registry_demo.py", "token  ")
