"""Session affinity over Redis: one worker owns a downstream session, the others forward its requests to it.

Keys, values, channels and messages are those of the gateway's own module, so that workers of both kinds work
together. Nothing here needs the gateway, and Redis is used only through the client that is given.
"""

from __future__ import annotations

from .context import AffinitySettings
from .keys import (
    digest,
    is_valid_mcp_session_id,
    pool_owner_key,
    sanitize_key_component,
    session_mapping_key,
    worker_heartbeat_key,
)
from .session_affinity import SessionAffinity

__all__ = [
    "AffinitySettings",
    "SessionAffinity",
    "digest",
    "is_valid_mcp_session_id",
    "pool_owner_key",
    "sanitize_key_component",
    "session_mapping_key",
    "worker_heartbeat_key",
]
