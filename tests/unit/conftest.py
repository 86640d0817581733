"""Every test here fails when the event loop has something to complain of: "Task was destroyed", "exception
was never retrieved", an exception in a callback.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    try:
        yield complaints.messages
    finally:
        logger.removeHandler(complaints)


@pytest.fixture(autouse=True)
def no_complaints() -> Iterator[None]:
    """None during a test."""
    with _heard() as messages:
        yield
    assert not messages


@pytest.fixture(autouse=True, scope="module")
def no_late_complaints() -> Iterator[None]:
    """None about what a module's tests left as garbage."""
    yield
    with _heard() as messages:
        gc.collect()
    assert not messages
