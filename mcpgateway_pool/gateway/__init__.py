"""Everything that knows the gateway, ContextForge (``mcpgateway``).

>>> from mcpgateway_pool.gateway import install
"""

from .switch import install, is_installed, uninstall

__all__ = ["install", "is_installed", "uninstall"]
