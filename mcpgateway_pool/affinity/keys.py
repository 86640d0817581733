"""Names of Redis keys and channels. They are shared with workers that run the gateway's own module."""

from __future__ import annotations

import hashlib
import re

from mcpgateway_pool.redact import safe_text

# \Z, not $: a trailing newline is no part of a session id.
_SESSION_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
# A host name (253) and a process id.
MAX_WORKER_ID = 300
_NOT_IN_KEYS = re.compile(r"[^a-zA-Z0-9_-]")


def is_valid_mcp_session_id(session_id: object) -> bool:
    """Whether a downstream session id may be part of a key, a channel or a log line.

    Args:
        session_id: anything; only a str of 1 to 128 ASCII letters, digits, ``_`` and ``-`` is valid.
    """
    return isinstance(session_id, str) and _SESSION_ID.match(session_id) is not None


def worker_of(value: object) -> str | None:
    """The worker that an owner entry names; None where it names none, such as one that somebody else wrote.

    Args:
        value: as Redis has it, bytes or str: a worker id is 1 to 300 characters without blanks.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORKER_ID:
        return None
    return value if value.isprintable() and " " not in value else None


def sanitize_key_component(value: str) -> str:
    """A value as part of a key: every character that is no ASCII letter, digit, ``_`` or ``-`` is a ``_``."""
    return _NOT_IN_KEYS.sub("_", value) if value else ""


def digest(text: str) -> str:
    """The full SHA-256 of a text, in hex. A lone surrogate counts as the three bytes that it would take."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def user_hash(user_identity: str | None) -> str:
    """How a mapping names its user: a digest, or ``anonymous``."""
    return "anonymous" if user_identity in (None, "", "anonymous") else digest(str(user_identity))


def session_mapping_key(mcp_session_id: str, url: str, transport_type: str, gateway_id: str) -> str:
    """The key of a mapping; bounded in length, whatever the URL."""
    session = sanitize_key_component(mcp_session_id)
    return f"mcpgw:session_mapping:{session}:{digest(url)[:16]}:{transport_type}:{gateway_id}"


def pool_owner_key(mcp_session_id: str) -> str:
    """The key whose value is the id of the worker that owns a session."""
    return f"mcpgw:pool_owner:{mcp_session_id}"


def worker_heartbeat_key(worker_id: str) -> str:
    """The key that is there while a worker lives."""
    return f"mcpgw:worker_heartbeat:{worker_id}"


def rpc_channel(worker_id: str) -> str:
    """Where a worker listens for forwarded RPC requests."""
    return f"mcpgw:pool_rpc:{worker_id}"


def http_channel(worker_id: str) -> str:
    """Where a worker listens for forwarded HTTP requests."""
    return f"mcpgw:pool_http:{worker_id}"


def rpc_response_channel(request_id: str) -> str:
    """Where the answer to one forwarded RPC request is published."""
    return f"mcpgw:pool_rpc_response:{request_id}"


def http_response_channel(request_id: str) -> str:
    """Where the answer to one forwarded HTTP request is published."""
    return f"mcpgw:pool_http_response:{request_id}"


def short(mcp_session_id: object) -> str:
    """The beginning of a session id, for logs: the whole of it lets its finder use the session."""
    return safe_text(mcp_session_id[:8], 40) if isinstance(mcp_session_id, str) else "unknown"
