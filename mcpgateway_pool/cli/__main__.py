"""``python -m mcpgateway_pool.cli``: the same as ``mcpgateway-pool``."""

import sys

from . import main

sys.exit(main())
