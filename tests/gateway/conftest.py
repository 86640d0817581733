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

_FOLDER = tempfile.mkdtemp(prefix="mcpgateway-pool-tests-")

# Before anything imports mcpgateway: it reads its settings once.
os.environ.update(
    {
        "DATABASE_URL": f"sqlite:///{_FOLDER}/gateway.db",
        "FILELOCK_NAME": f"{_FOLDER}/leader.lock",
        "CACHE_TYPE": "memory",
        "HEALTH_CHECK_INTERVAL": "3600",  # else its own checks take sessions, and count, at any time
        "AUTH_REQUIRED": "false",
        "MCP_SESSION_POOL_ENABLED": "true",
        "MCPGATEWAY_ADMIN_API_ENABLED": "true",
        "JWT_SECRET_KEY": "a-test-secret-Of-40-characters-9f3b7c1d2e",
        "AUTH_ENCRYPTION_SECRET": "another-test-secret-Of-40-chars-5a8e0b4c",
        "PLATFORM_ADMIN_PASSWORD": "A-test-passw0rd!",
    }
)


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
