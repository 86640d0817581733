"""Fixtures that every test may use. Helpers are imported from tests/ (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

import signal

# A shell without job control starts what it runs in the background with SIGINT ignored, which programs that
# tests start would inherit: what they do on Ctrl-C could not be seen, and tests would wait for it for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
