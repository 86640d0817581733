"""Puts our module in the place of the gateway's, or our class into the gateway's module, before or after the
gateway was imported, and back.

The module in ``sys.modules`` under the gateway's name is our stand-in itself, not a copy: whoever replaces a
name in ``mcpgateway.services.mcp_session_pool`` replaces it where our code looks it up. It keeps its own
``__name__`` and ``__spec__``, so that pickling and ``importlib.reload()`` work.

Nothing here imports the gateway's application; ``mcpgateway`` itself is imported for its version only.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from types import CodeType, FunctionType, ModuleType
from typing import Any

import _mcpgateway_pool_switch as hook
from mcpgateway_pool.prometheus.gateway_names import NAMES

from .endpoint import ENDPOINT, counters_problem, describe_counters
from .gateway_rows import read_gateway_names
from .releases import Family, Release, describe_supported, installed_release
from .settings import SettingError, did_you_mean, read, unknown_variables

_log = logging.getLogger("mcpgateway_pool")

# Calls of install() and uninstall() wait for each other. find_spec() must not take it: it runs under the
# import system's lock, which install() may need while it holds this one.
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock, and is not there to let go of it."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

# The gateway's own modules that were loaded when ours took their places.
_stock: dict[str, ModuleType] = {}

# The gateway's own classes that ours have replaced, by their modules.
_stock_classes: dict[str, type] = {}

# Those that ours have replaced, so that this is said once.
_begun: set[str] = set()


def install() -> bool:
    """Make the gateway use this pool, before or after ``mcpgateway.main`` was imported; twice is harmless.

    Returns:
        Whether it does. A release that is not supported keeps its own pool, and so does any where
        MCPGATEWAY_POOL_ENABLED is neither true nor false; that is logged. Where it is false, or not set, this
        call counts.

    Raises:
        ImportError: there is no gateway, or what the pool needs is missing.
        RuntimeError: the gateway's own pool is running already. Nothing was changed.
    """
    with _lock:
        release = installed_release()
        family = release.family
        if family is None:
            _say_unsupported(release)
            return False
        try:
            read("enabled")
        except SettingError as error:
            _log.warning("%s: mcpgateway-pool stays off", error)
            hook.remove()  # which would only say it once more
            return False
        loaded = sys.modules.get(family.module)
        if loaded is not None and family.class_name is not None:
            if not _has_our_class(loaded, family):
                _require_stopped(loaded, family, "install")
                _put_class(family, loaded)
                _begin(release, family)
        elif loaded is not None and loaded is not sys.modules.get(family.stand_in):
            _require_stopped(loaded, family, "install")
            stand_in = importlib.import_module(family.stand_in)
            _stock[family.module] = loaded
            _put(family, loaded, stand_in)
            _begin(release, family)
        hook.FINDER.mistake = None
        hook.add()
        return True


def uninstall() -> None:
    """Give the gateway its own pool back; harmless where :func:`install` was not called.

    Raises:
        RuntimeError: our pool is running. Nothing was changed.
    """
    with _lock:
        release = installed_release()
        family = release.family
        loaded = None if family is None else sys.modules.get(family.module)
        if family is not None and family.class_name is not None:
            if loaded is not None and _has_our_class(loaded, family):
                _require_stopped(loaded, family, "uninstall")
                setattr(loaded, family.class_name, _stock_classes.pop(family.module))
                sys.modules[f"{family.stand_in}.calls.entrances"].close_entrances()
                sys.modules[f"{family.stand_in}.default_clients"].restore(loaded)
        elif family is not None:
            stand_in = sys.modules.get(family.stand_in)
            if stand_in is not None and sys.modules.get(family.module) is stand_in:
                _require_stopped(stand_in, family, "uninstall")
                hook.remove()
                stock = _stock.pop(family.module, None)
                if stock is None:
                    del sys.modules[family.module]
                    stock = importlib.import_module(family.module)
                _put(family, stand_in, stock)
        hook.remove()
        _begun.clear()
        ENDPOINT.hide()
        NAMES.use(None)
        tls = sys.modules.get(f"{__package__}.tls")
        if tls is not None:  # else it has replaced nothing
            tls.restore()


def is_installed() -> bool:
    """Whether the gateway uses this pool, or will when it is imported."""
    release = installed_release()
    if release.family is None:
        return False
    loaded = sys.modules.get(release.family.module)
    if loaded is None:
        return hook.FINDER in sys.meta_path and hook.FINDER.mistake is None
    if release.family.class_name is not None:
        return _has_our_class(loaded, release.family)
    return loaded is sys.modules.get(release.family.stand_in)


def find_spec(name: str, path: Sequence[str] | None = None) -> ModuleSpec | None:
    """What the import hook answers: our module for the one that is replaced, the gateway's own with our class
    for the one that is kept, None for any other.

    Args:
        name: of a module that the hook watches.
        path: where its package is.
    """
    release = installed_release()
    family = release.family
    if family is None:
        _say_unsupported(release)
        return None
    if name != family.module:
        return None
    if family.class_name is not None:
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _ClassLoader(spec.loader, release, family)
        return spec
    stand_in = importlib.import_module(family.stand_in)
    _begin(release, family)
    return ModuleSpec(name, _StandInLoader(stand_in), origin=stand_in.__file__)


class _StandInLoader(Loader):
    """Loads a module that exists: the stand-in."""

    def __init__(self, stand_in: ModuleType) -> None:
        self._stand_in = stand_in
        self._own_spec = stand_in.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return self._stand_in

    def exec_module(self, module: ModuleType) -> None:
        """It was executed under its own name; the import system has set ``__spec__`` in the meantime."""
        module.__spec__ = self._own_spec

    def get_code(self, name: str) -> CodeType | None:
        """Of the stand-in: ``python -m`` asks for it."""
        loader: Any = self._own_spec.loader if self._own_spec is not None else None
        code: CodeType | None = loader.get_code(self._stand_in.__name__)
        return code


class _ClassLoader(Loader):
    """Loads the gateway's module by the gateway's loader, then puts our class into it."""

    def __init__(self, stock: Loader, release: Release, family: Family) -> None:
        self._stock = stock
        self._release = release
        self._family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stock, name)  # get_source(), get_code() and what else tools ask for

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the gateway's loader does."""
        return self._stock.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute it. If our class cannot be put in, that is logged, and the gateway keeps its own."""
        self._stock.exec_module(module)
        if self._family.class_name is None:
            return
        try:
            _put_class(self._family, module)
            _begin(self._release, self._family)
        except Exception:
            _log.exception(
                "mcpgateway-pool cannot take the place of %s; the gateway goes on without it",
                self._family.replaced,
            )


def _put_class(family: Family, module: ModuleType) -> None:
    """Our class under the name of the module's own, which is kept for :func:`uninstall`."""
    assert family.class_name is not None
    ours = getattr(importlib.import_module(family.stand_in), family.class_name)
    stock = getattr(module, family.class_name)
    if stock is not ours:
        _stock_classes[family.module] = stock
        setattr(module, family.class_name, ours)


def _has_our_class(module: ModuleType, family: Family) -> bool:
    ours = sys.modules.get(family.stand_in)
    name = family.class_name or ""
    return ours is not None and getattr(module, name, None) is getattr(ours, name)


def _require_stopped(module: ModuleType, family: Family, what: str) -> None:
    if getattr(module, family.running, None) is not None:
        raise RuntimeError(
            f"{what}(): the session {family.what} of {module.__name__} is running: call it before the"
            " gateway's application starts, or after it has shut down"
        )


def _put(family: Family, old: ModuleType, new: ModuleType) -> None:
    """Replace a module, and what other modules of the gateway imported from it by name."""
    changed: dict[int, Any] = {id(old): new}
    for name, value in vars(old).items():
        if hasattr(new, name) and _is_defined_in(old, value):
            changed[id(value)] = getattr(new, name)
    sys.modules[family.module] = new
    for module_name, module in list(sys.modules.items()):
        if module is not new and (module_name == "mcpgateway" or module_name.startswith("mcpgateway.")):
            for name, value in list(vars(module).items()):
                if changed.get(id(value), value) is not value:
                    setattr(module, name, changed[id(value)])


def _is_defined_in(module: ModuleType, value: object) -> bool:
    """Whether this is a class or a function of that module, or of our package. What it imported from
    elsewhere stays; so do numbers and strings, which may be one object by chance.
    """
    if not isinstance(value, (type, FunctionType)):
        return False
    return value.__module__ == module.__name__ or value.__module__.partition(".")[0] == "mcpgateway_pool"


def _begin(release: Release, family: Family) -> None:
    """Show the series, and say in one line what runs; once, however often the module is imported."""
    if family.module in _begun:
        return
    _begun.add(family.module)
    ENDPOINT.show(family.exposition)
    with contextlib.suppress(SettingError):  # which stops the start, a little later
        NAMES.use(read_gateway_names if read("gateway_names") else None)
    # By the logger of the module that is replaced: the gateway lets its own loggers say more than others.
    log = logging.getLogger(family.module)
    log.info(
        "mcpgateway-pool %s is on: session %s of ContextForge %s, %s",
        _own_version(),
        family.what,
        release.version,
        describe_counters(),
    )
    problem = counters_problem()
    if problem is not None:  # an error, because the gateway's default level shows no less
        log.error("mcpgateway-pool: the workers do not share their counters: %s", problem)
    for name, nearest in unknown_variables():
        log.warning("mcpgateway-pool: %s is set, which means nothing here%s", name, did_you_mean(nearest))
    if family.what == "registry":
        with contextlib.suppress(SettingError):  # which stops the start, a little later
            log.info("mcpgateway-pool: %s", read("calls_without_session").described())


def _own_version() -> str:
    try:
        return version("mcpgateway-pool")
    except PackageNotFoundError:  # run from a checkout
        return "(unknown version)"


_said: set[str] = set()


def _say_unsupported(release: Release) -> None:
    if release.version not in _said:
        _said.add(release.version)
        _log.warning(
            "mcpgateway-pool stays off: it supports ContextForge %s, not %s; the gateway runs as it would"
            " without it",
            describe_supported(),
            release.version,
        )
