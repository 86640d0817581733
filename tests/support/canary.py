"""A secret that must not come out, and everything that comes out."""

from __future__ import annotations

import gc
import logging
import traceback
from types import TracebackType
from typing import Self

CANARY = "c4n4ry-t0ken"

# Credentials in every place where callers put them.
HEADERS = {
    "Authorization": f"Bearer {CANARY}",
    "Cookie": f"session={CANARY}",
    "X-Api-Key": CANARY,
    "X-Tenant-Id": CANARY,
    "X-Mcp-Session-Id": CANARY,
    "X-Of-Their-Own": CANARY,
}


def with_secrets(url: str) -> str:
    """The URL with credentials as userinfo, in the query and in the fragment."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{CANARY}:{CANARY}@{rest}?key={CANARY}#{CANARY}"


class Listener(logging.Handler):
    """Takes down every log record that shows the secret, of every logger and level, as a context manager.

    Attributes:
        leaks: logger, level and text of each.
    """

    def __init__(self) -> None:
        super().__init__(level=0)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self.leaks: list[tuple[str, int, str]] = []
        self._level = logging.NOTSET

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self)
        root.setLevel(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.collect()  # what the event loop says of tasks that nobody waited for
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)  # with the traceback, if any
        if CANARY in text:
            self.leaks.append((record.name, record.levelno, text))

    def inexcusable(self) -> list[tuple[str, int, str]]:
        """Without what other libraries log at DEBUG and INFO by themselves, as docs/security.md says."""
        ours = ("mcpgateway_pool", "asyncio", "py.warnings")
        return [leak for leak in self.leaks if leak[1] >= logging.WARNING or leak[0].startswith(ours)]


def shown_by(error: BaseException) -> str:
    """All that is printed of an exception, its causes, contexts and notes included."""
    return "\n".join([str(error), repr(error), *traceback.format_exception(error)])
