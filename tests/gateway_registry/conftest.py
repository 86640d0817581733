"""The gateway's package, imported here with settings that keep it to this process and to a folder of its own.

For releases with the registry. Tests that start a gateway as a process give it an environment of its own
instead.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from support.fake_upstreams import FakeUpstream
from support.gateway_in_process import settings_of_registry
from support.registry_calls import Make

_FOLDER = tempfile.mkdtemp(prefix="mcpgateway-pool-tests-")

# Before anything imports mcpgateway: it reads its settings once.
os.environ.update(settings_of_registry(_FOLDER))


def pytest_unconfigure() -> None:
    shutil.rmtree(_FOLDER, ignore_errors=True)


@pytest.fixture(scope="session")
def release() -> Iterator[ModuleType]:
    """The release's ``upstream_session_registry``, with our class in it."""
    from mcpgateway_pool import gateway

    assert gateway.install()
    try:
        from mcpgateway.services import upstream_session_registry

        yield upstream_session_registry
    finally:
        gateway.uninstall()


@pytest.fixture
def upstream(release: ModuleType) -> FakeUpstream:
    return FakeUpstream(release)


@pytest.fixture
async def make(
    release: ModuleType, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Make]:
    """Makes a registry; ``environment`` holds our settings without their prefix. Closed in the end."""
    made = []

    def make(environment: dict[str, str] | None = None, **settings: Any) -> Any:
        for name, value in (environment or {}).items():
            monkeypatch.setenv(f"MCPGATEWAY_POOL_{name}", value)
        registry = release.UpstreamSessionRegistry(session_factory=upstream.open, **settings)
        made.append(registry)
        return registry

    yield make
    upstream.gate.set()
    for registry in made:
        await registry.close_all()
    assert upstream.open_now == []
