"""The import hook that puts mcpgateway_pool into the gateway.

It stands outside the package, because importing the package loads the C extension and prometheus_client. The
file mcpgateway_pool.pth runs ``start()`` when Python starts, in every program of the environment, but only
where MCPGATEWAY_POOL_ENABLED is set. ``mcpgateway_pool.gateway.install()`` uses the same hook.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

VARIABLE = "MCPGATEWAY_POOL_ENABLED"
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})

# The modules that the package replaces, or replaces a class in; mcpgateway_pool.gateway.releases says which
# of them, in which release.
REPLACED = frozenset(
    {"mcpgateway.services.mcp_session_pool", "mcpgateway.services.upstream_session_registry"}
)
# Imported by every gateway process: where none of those exists, this is the place to say so.
_MAIN = "mcpgateway.main"


class Finder:
    """Finds the modules of the gateway that are replaced; for all other names it answers None at once.

    Whatever goes wrong in here is logged and answered with None too: the gateway then imports its own.

    Attributes:
        mistake: the value of MCPGATEWAY_POOL_ENABLED, where it is neither true nor false.
    """

    def __init__(self) -> None:
        self.mistake: str | None = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if name not in REPLACED and (name != _MAIN or _has_replaced_module(path)):
            return None
        try:
            if self.mistake is not None:
                self._say_mistake()
                return None
            from mcpgateway_pool.gateway import switch

            return switch.find_spec(name, path)
        except Exception:
            import logging

            logging.getLogger("mcpgateway_pool").exception(
                "mcpgateway-pool cannot take the place of %s; the gateway goes on without it", name
            )
            return None

    def _say_mistake(self) -> None:
        import logging

        logging.getLogger("mcpgateway_pool").warning(
            "%s must be true or false (or 1, 0, yes, no, on, off), not %.60r: mcpgateway-pool stays off",
            VARIABLE,
            self.mistake,
        )


def _has_replaced_module(path: Sequence[str] | None) -> bool:
    """Whether the gateway in this folder has a module that is replaced, so that its import will come."""
    files = [name.partition(".")[2].replace(".", os.sep) + ".py" for name in REPLACED]
    return any(os.path.exists(os.path.join(folder, file)) for folder in path or () for file in files)


FINDER = Finder()


def add() -> None:
    """Put the hook before all others; twice is harmless."""
    if FINDER not in sys.meta_path:
        sys.meta_path.insert(0, FINDER)


def remove() -> None:
    """Take the hook out; harmless where it is not in."""
    if FINDER in sys.meta_path:
        sys.meta_path.remove(FINDER)


def start() -> None:
    """Add the hook if MCPGATEWAY_POOL_ENABLED says so. A value that is neither true nor false is off; the
    hook then only says so, in the gateway and in no other program.
    """
    value = os.environ.get(VARIABLE, "")
    word = value.strip().lower()
    if word in FALSE:
        return
    FINDER.mistake = None if word in TRUE else value
    add()
