from __future__ import annotations

import pytest

from model import figures


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was tried."""
    for line in figures.lines:
        terminalreporter.write_line(line)
