"""The gateway's application with this pool in it, for any ASGI server:

    uvicorn mcpgateway_pool.gateway.asgi:app

Where the pool cannot be put in, that is logged, and the application is as it would be without it.
"""

from __future__ import annotations

import logging

from .switch import install

try:
    install()
except Exception:
    logging.getLogger("mcpgateway_pool").exception(
        "mcpgateway-pool cannot be put into the gateway, which goes on without it"
    )

from mcpgateway.main import app  # after install(): it imports what that replaces

__all__ = ["app"]
