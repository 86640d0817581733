"""The rows of gateways that a process counts in, which outlive the tests that made them."""

from __future__ import annotations

from mcpgateway_pool import PoolCollector, forget_gateway

HITS = "mcp_session_pool_hits"


def forget_gateways() -> None:
    """Forget all gateways of which nothing is open: a page of many rows is slow to write and to read."""
    hits = next(family for family in PoolCollector().collect() if family.name == HITS)
    for sample in hits.samples:
        forget_gateway(sample.labels["gateway_id"])
