"""``docs/gateway.md`` has every setting of the installed gateway's pool and of ours, with its default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mcpgateway.config import Settings

from mcpgateway_pool.gateway import settings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")


def documented(prefix: str) -> dict[str, str]:
    """The default of each setting that begins so, as its table has it."""
    rows = [line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith(f"| `{prefix}")]
    assert all(len(row) == 3 and row[2].strip() for row in rows), "a setting has no meaning"
    return {row[0].strip().strip("`"): row[1].strip().strip("`") for row in rows}


def shown(default: Any) -> str:
    if isinstance(default, float) and default.is_integer():
        default = int(default)
    return default if isinstance(default, str) else json.dumps(default)


def test_every_setting_of_the_gateways_pool_is_there_with_its_default() -> None:
    in_code = {
        name.upper(): shown(field.default)
        for name, field in Settings.model_fields.items()
        if name.startswith("mcp_session_pool_")
    }
    assert documented("MCP_SESSION_POOL_") == in_code


def test_every_setting_of_ours_is_there_with_its_default() -> None:
    defaults = settings.read_all({})
    names = settings.GatewaySettings.__slots__
    in_code = {settings.variable_of(name): shown(getattr(defaults, name)) for name in names}
    assert documented(settings.PREFIX) == {**in_code, "MCPGATEWAY_POOL_METRICS_DIR": "none"}
