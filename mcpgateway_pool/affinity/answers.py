"""Answers to requests that failed."""

from __future__ import annotations

import json
from typing import Any

_INTERNAL_ERROR = -32603  # JSON-RPC


def rpc_error(message: str) -> dict[str, Any]:
    """The answer to an RPC request that failed."""
    return {"error": {"code": _INTERNAL_ERROR, "message": message}}


def http_error(status: int, message: str) -> dict[str, Any]:
    """The answer to an HTTP request that failed."""
    return {
        "status": status,
        "headers": {"content-type": "application/json"},
        "body": json.dumps({"error": message}).encode().hex(),
    }
