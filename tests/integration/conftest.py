from __future__ import annotations

import sys

import pytest

from servers.nursery import nursery


@pytest.fixture(autouse=True, scope="session")
def nursery_is_there() -> None:
    """Before any test counts this process's descriptors."""
    nursery(sys.executable)
