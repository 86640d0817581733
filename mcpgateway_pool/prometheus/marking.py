"""A family that stands for all of the pool's: where a page is written (``exposition.py``), and where a
registry is asked for the pool's collector (``collector.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from prometheus_client import Metric

if TYPE_CHECKING:
    from .collector import PoolCollector

_DOCUMENTATION = "mark"


class Mark(Metric):
    """A family without samples, and with a name that nobody else has."""

    def __init__(self) -> None:
        super().__init__(f"mcp_session_pool_mark_{secrets.token_hex(16)}", _DOCUMENTATION, "gauge")
        self.names: frozenset[str] | None = None
        self.collector: PoolCollector | None = None  # which has given it

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
