from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from model import figures


@pytest.fixture(autouse=True, scope="package")
def little_garbage() -> Iterator[None]:
    """What other tests left does not slow down the many collections here, nor change when they are."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was tried."""
    for line in figures.lines:
        terminalreporter.write_line(line)
