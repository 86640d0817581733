"""Settings that keep the gateway's modules to the process that imports them, and to a folder of its own.

To be set before anything imports ``mcpgateway``, which reads its settings once.
"""

from __future__ import annotations

_COMMON = {
    "CACHE_TYPE": "memory",
    "AUTH_REQUIRED": "false",
    "JWT_SECRET_KEY": "a-test-secret-Of-40-characters-9f3b7c1d2e",
    "AUTH_ENCRYPTION_SECRET": "another-test-secret-Of-40-chars-5a8e0b4c",
    "PLATFORM_ADMIN_PASSWORD": "A-test-passw0rd!",
}


def settings_of_pool(folder: str) -> dict[str, str]:
    """Of a release with the pool."""
    return {
        **_COMMON,
        **_files_in(folder),
        "HEALTH_CHECK_INTERVAL": "3600",  # else its own checks take sessions, and count, at any time
        "MCP_SESSION_POOL_ENABLED": "true",
        "MCPGATEWAY_ADMIN_API_ENABLED": "true",
    }


def settings_of_registry(folder: str) -> dict[str, str]:
    """Of a release with the registry."""
    return {
        **_COMMON,
        **_files_in(folder),
        "BASIC_AUTH_PASSWORD": "A-test-passw0rd!",
        "DEFAULT_USER_PASSWORD": "A-test-passw0rd!",
        "SSRF_ALLOW_LOCALHOST": "true",
    }


def _files_in(folder: str) -> dict[str, str]:
    return {"DATABASE_URL": f"sqlite:///{folder}/gateway.db", "FILELOCK_NAME": f"{folder}/leader.lock"}
