"""A session pool for MCP client sessions, and its Prometheus series.

>>> from mcpgateway_pool import MCPSessionPool, TransportType, register_collector
"""

try:
    from . import _core as _core
except ImportError as _error:
    from .unbuilt import explained

    raise explained(_error) from _error

from .config import NetworkSettings, TransportType
from .errors import (
    AcquireTimeoutError,
    CircuitOpenError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    SessionCreateError,
    SessionCreateTimeoutError,
)
from .pool.mcp_session_pool import MCPSessionPool
from .pool.server import Server
from .pool.session_context import PooledSession, SessionContext
from .pool.stats import PoolStats
from .prometheus.buckets import set_buckets
from .prometheus.collector import (
    PoolCollector,
    forget_gateway,
    register_collector,
    set_max_gateways,
    set_metrics_retention,
    unregister_collector,
)
from .prometheus.exposition import generate_latest, metrics_app
from .upstream.http_client import client_factory

__all__ = [
    "AcquireTimeoutError",
    "CircuitOpenError",
    "MCPSessionPool",
    "NetworkSettings",
    "PoolClosedError",
    "PoolCollector",
    "PoolError",
    "PoolExhaustedError",
    "PoolStats",
    "PooledSession",
    "Server",
    "SessionContext",
    "SessionCreateError",
    "SessionCreateTimeoutError",
    "TransportType",
    "client_factory",
    "forget_gateway",
    "generate_latest",
    "metrics_app",
    "register_collector",
    "set_buckets",
    "set_max_gateways",
    "set_metrics_retention",
    "unregister_collector",
]


def __getattr__(name: str) -> str:
    # Read when asked for: looking up metadata takes longer than importing all of this.
    if name == "__version__":
        from importlib.metadata import version

        return version("mcpgateway-pool")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
