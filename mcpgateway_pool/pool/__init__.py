"""The pool itself: :class:`MCPSessionPool`, its creations, releases, upkeep and read views."""

from .mcp_session_pool import MCPSessionPool

__all__ = ["MCPSessionPool"]
