"""The rows of gateways that a process counts in, which outlive the tests that made them."""

from __future__ import annotations

from mcpgateway_pool import _core, forget_gateway


def forget_gateways() -> None:
    """Forget all gateways of which nothing is open: a page of many rows is slow to write and to read."""
    for label in _core.row_labels():
        forget_gateway(label)
