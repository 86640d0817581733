"""What every test has. Helpers are imported from tests/ (`pythonpath` in pyproject.toml)."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from support import outcomes

# A shell without job control starts what it runs in the background with SIGINT ignored, which programs that
# tests start would inherit: what they do on Ctrl-C could not be seen, and tests would wait for it for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    outcomes.record(config)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.get_closest_marker("both_loops"):
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.hookimpl(tryfirst=True)  # while all of them are still there
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    outcomes.check_long_marks(items)
    outcomes.only_those_asked_for(config, items)
