"""The series at the gateway's own Prometheus endpoint, ``/metrics/prometheus``.

The gateway serves ``prometheus_client.REGISTRY``, where the Collector is registered. With
``PROMETHEUS_MULTIPROC_DIR`` set it makes a new registry for each scrape instead, which holds nothing but the
values that ``prometheus_client`` keeps in that folder. Either way the text comes from ``generate_latest``, a
name in the module that makes the endpoint: it is replaced there by a function that adds the Collector to a
registry that does not have it, or not any more, and writes the same text faster.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from typing import Any

import prometheus_client
from prometheus_client import REGISTRY

from mcpgateway_pool.prometheus import exposition, shared_counters
from mcpgateway_pool.prometheus.collector import register_collector, unregister_collector
from mcpgateway_pool.redact import safe_text

_log = logging.getLogger("mcpgateway_pool")


class Endpoint:
    """The endpoint of one gateway; every method is harmless where there is nothing to do.

    Nothing here stops the gateway or its endpoint: what fails is logged, and the endpoint shows what it can.
    """

    def __init__(self) -> None:
        self._module: Any = None
        self._stock: Callable[..., bytes] | None = None
        self._is_shown = False
        self._has_warned = False

    def show(self, module_name: str) -> None:
        """Show the series from now on.

        Args:
            module_name: the name of the module whose ``generate_latest`` the endpoint calls.
        """
        self._is_shown = True
        self._has_warned = False
        try:
            register_collector()
        except ValueError as error:  # somebody else has series of these names
            # An error, here and below, because the gateway's default level shows no less.
            self._is_shown = False
            _log.error("the series of mcpgateway-pool cannot be registered: %s", error)
            return
        if self._module is not None:
            return
        try:
            module: Any = importlib.import_module(module_name)
            self._stock = module.generate_latest
        except (ImportError, AttributeError) as error:
            if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
                _log.error("the gateway's endpoint cannot show the series of mcpgateway-pool: %s", error)
            return
        self._module = module
        module.generate_latest = self.generate_latest

    def hide(self) -> None:
        """Undo :meth:`show`."""
        self._is_shown = False
        unregister_collector()
        # Where somebody else has replaced it since, ours stays behind theirs and only passes calls on.
        if self._module is not None and self._module.generate_latest == self.generate_latest:
            self._module.generate_latest = self._stock
            self._module = None

    def generate_latest(self, registry: Any = REGISTRY, *args: Any, **kwargs: Any) -> bytes:
        """The text of a scrape, called by the gateway as ``prometheus_client.generate_latest``; it may run in
        any thread.
        """
        assert self._stock is not None
        if self._is_shown:
            try:
                # A new registry does not have it, and of REGISTRY somebody may have unregistered it.
                register_collector(registry)
                # Where somebody else has replaced theirs before, it is called below.
                if self._stock is prometheus_client.generate_latest:
                    return exposition.generate_latest(registry, *args, **kwargs)
            except Exception:
                if not self._has_warned:
                    self._has_warned = True
                    _log.error(
                        "something is wrong with the series of mcpgateway-pool at the endpoint", exc_info=True
                    )
        return self._stock(registry, *args, **kwargs)


ENDPOINT = Endpoint()


def describe_counters() -> str:
    """Whether workers share their counters, in the words of the line that is logged at start."""
    directory, problem = shared_counters.wanted_directory(), counters_problem()
    if directory is None or problem is not None:
        return "own counters in each process" + (f" ({problem})" if problem else "")
    return f"shared counters in {safe_text(directory, 4096)}"


def counters_problem() -> str | None:
    """Why workers do not share their counters where the environment says that they are to; None: they do."""
    directory = shared_counters.wanted_directory()
    reason = None if directory is None else shared_counters.why_unusable(directory)
    return None if directory is None or reason is None else f"{safe_text(directory, 4096)}: {reason}"
