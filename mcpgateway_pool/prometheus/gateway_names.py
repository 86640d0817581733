"""The names of gateways, for ``mcp_session_pool_gateway_info``.

Whoever has names says how they are read. They are read beside the scrapes, on a thread of their own: no call
and no scrape waits for them, and a scrape shows what is known by then.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from mcpgateway_pool import _core
from mcpgateway_pool.labels import NO_GATEWAY, gateway_label
from mcpgateway_pool.redact import safe_error

logger = logging.getLogger("mcpgateway_pool")

# Names by gateway id; ids that it does not know are missing.
Read = Callable[[Sequence[str]], Mapping[str, str]]

NAMES_LAST_SECONDS = 10.0
_MOST_AT_ONCE = 500

_NO_NAMES = frozenset({NO_GATEWAY, _core.OVERFLOW_LABEL})


def _on_a_thread(work: Callable[[], None]) -> None:
    # One that nothing waits for: a database may never answer.
    threading.Thread(target=work, name="mcpgateway-pool-names", daemon=True).start()


class GatewayNames:
    """The names of the gateways that have rows; no other is kept.

    Args:
        clock: monotonic seconds.
        start: does work in the background.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _on_a_thread,
    ) -> None:
        self._clock = clock
        self._start = start
        self._read: Read | None = None
        self._names: dict[str, str] = {}  # replaced as a whole: a scrape may read it meanwhile
        self._read_at = -NAMES_LAST_SECONDS
        self._reading = threading.Lock()
        self._has_warned = False

    def use(self, read: Read | None) -> None:
        """Where the names come from, from now on; None: there are none."""
        self._read = read
        self._names = {}
        self._read_at = self._clock() - NAMES_LAST_SECONDS

    def known(self) -> dict[str, str]:
        """Names by label, as far as they are known; not to be changed. Where they are old, they are read
        again, for the scrapes to come.
        """
        if self._read is not None and self._clock() - self._read_at >= NAMES_LAST_SECONDS:
            self._read_at = self._clock()
            self._start(self._refresh)
        return self._names

    def _refresh(self) -> None:
        """Read the names of all gateways that have rows now. A gateway that has none any more, because it was
        forgotten, loses its name; one that was deleted keeps the last one until then.
        """
        read = self._read
        if read is None or not self._reading.acquire(blocking=False):  # one at a time
            return
        try:
            labels = [label for label in _core.row_labels() if label not in _NO_NAMES]
            names = {label: self._names[label] for label in labels if label in self._names}
            for at in range(0, len(labels), _MOST_AT_ONCE):
                found = read(labels[at : at + _MOST_AT_ONCE])
                names.update({label: gateway_label(name) for label, name in found.items() if name})
            if read is self._read:
                self._names = names
        except Exception as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("the names of gateways cannot be read: %s", safe_error(error))
        finally:
            self._reading.release()

    def _after_fork_in_child(self) -> None:
        """The thread that held the lock is not there to let go of it."""
        self._reading = threading.Lock()


NAMES = GatewayNames()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=NAMES._after_fork_in_child)
