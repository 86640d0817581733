"""``docs/gateway.md`` has every setting of the installed gateway's pool and of ours, with its default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcpgateway.config import Settings

from mcpgateway_pool.gateway import settings
from mcpgateway_pool.gateway.registry.calls import call_pool
from support.release_docs import assert_installed_release_is_as_documented

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")


def documented(prefix: str) -> dict[str, list[str]]:
    """The defaults of each setting that begins so, as its tables have them."""
    rows = [line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith(f"| `{prefix}")]
    assert all(len(row) == 3 and row[2].strip() for row in rows), "a setting has no meaning"
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row[0].strip().strip("`"), []).append(row[1].strip().strip("`"))
    return found


def shown(default: Any) -> str:
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return default if isinstance(default, str) else json.dumps(default)


def test_every_setting_of_the_gateways_pool_is_there_with_its_default() -> None:
    in_code = {
        name.upper(): [shown(field.default)]
        for name, field in Settings.model_fields.items()
        if name.startswith("mcp_session_pool_")
    }
    assert documented("MCP_SESSION_POOL_") == in_code


def test_every_setting_of_ours_is_there_with_its_default() -> None:
    defaults = settings.read_all({})
    in_words = {"calls_without_session": "pooled", "call_headers": "none"}
    in_code = {
        settings.variable_of(name): [in_words.get(name) or shown(getattr(defaults, name))]
        for name in settings.GatewaySettings.__slots__
    }
    # Two defaults: for calls without a downstream session, and for the sessions of downstream sessions.
    for name, default in (
        ("session_ttl_seconds", call_pool.SESSION_TTL_SECONDS),
        ("idle_timeout_seconds", call_pool.IDLE_TIMEOUT_SECONDS),
        ("acquire_timeout_seconds", call_pool.ACQUIRE_TIMEOUT_SECONDS),
    ):
        assert getattr(defaults, name) is None
        in_code[settings.variable_of(name)] = [shown(default), "0"]
    assert defaults.calls_without_session.are_pooled
    assert not defaults.calls_without_session.excepted
    assert not defaults.call_headers
    assert documented(settings.PREFIX) == {**in_code, "MCPGATEWAY_POOL_METRICS_DIR": ["none"]}


def test_the_release_is_in_the_table_with_its_pythons_and_its_sdk() -> None:
    assert_installed_release_is_as_documented()
