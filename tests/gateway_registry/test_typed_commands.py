"""What README and docs/gateway.md have their readers type, typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.typed_gateway import assert_documented_commands_work


@pytest.mark.long("a gateway to boot for each way of starting it that is documented")
@pytest.mark.timeout(400)
def test_the_commands_of_readme_and_docs_work_as_they_are_typed(tmp_path: Path) -> None:
    assert_documented_commands_work(tmp_path, is_pooled_by_default=True)
