"""The gateway's package, imported here with settings that keep it to this process and to a folder of its own.

Tests that start a gateway as a process give it an environment of its own instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from types import ModuleType

import pytest

from support.gateway_in_process import settings_of_pool

_FOLDER = tempfile.mkdtemp(prefix="mcpgateway-pool-tests-")

# Before anything imports mcpgateway: it reads its settings once.
os.environ.update(settings_of_pool(_FOLDER))


def pytest_unconfigure() -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[ModuleType]:
    """``mcpgateway.services.mcp_session_pool`` as gateway code imports it while our pool is switched on."""
    from mcpgateway_pool import gateway

    gateway.install()
    try:
        from mcpgateway.services import mcp_session_pool

        yield mcp_session_pool
    finally:
        gateway.uninstall()
