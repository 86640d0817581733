"""A family that stands for all of the pool's while prometheus_client writes a page; see ``exposition.py``."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextvars import ContextVar

from prometheus_client import Metric

_DOCUMENTATION = "mark"


class Mark(Metric):
    """A family without samples, and with a name that nobody else has."""

    def __init__(self) -> None:
        super().__init__(f"mcp_session_pool_mark_{secrets.token_hex(16)}", _DOCUMENTATION, "gauge")
        self.names: frozenset[str] | None = None
        self.is_used = False

    def _restricted_metric(self, names: Iterable[str]) -> Mark:
        """What a restricted registry asks of each family: which of its samples have one of these names."""
        self.names = frozenset(names)
        return self

    @property
    def text(self) -> bytes:
        """What every encoder makes of it."""
        return f"# HELP {self.name} {_DOCUMENTATION}\n# TYPE {self.name} gauge\n".encode()


# What PoolCollector.collect() gives instead of its families, while it is set.
current_mark: ContextVar[Mark | None] = ContextVar("mcpgateway_pool_mark", default=None)
