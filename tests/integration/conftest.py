"""Servers of the MCP SDK that is installed, on both transports."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from servers.nursery import nursery
from servers.process import ServerProcess


@pytest.fixture(autouse=True, scope="session")
def nursery_is_there() -> None:
    """Before any test counts this process's descriptors."""
    nursery(sys.executable)


@pytest.fixture(scope="module", params=["sse", "streamablehttp"])
def shared(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server for tests that leave it alive."""
    with ServerProcess(request.param) as server:
        yield server


@pytest.fixture
def server(shared: ServerProcess) -> ServerProcess:
    """The shared server, without faults that an earlier test planned."""
    shared.fault("clear")
    return shared


@pytest.fixture(params=["sse", "streamablehttp"])
def mortal(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server for one test, to be killed."""
    with ServerProcess(request.param) as server:
        yield server
