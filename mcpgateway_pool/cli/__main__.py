"""``python -m mcpgateway_pool.cli``: the same as ``mcpgateway-pool``."""

from . import run

run()
