"""What other libraries log of a session that this package opened holds no value of a header that was sent.

The SDK and the HTTP library log what they receive, and a server may echo a token. They log on loggers of
their own, from tasks that the session's owner has started; so there is one filter on these loggers, which
knows by a context variable whose record it sees. It is there while a session is open. Records of anybody else
pass as they are.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import traceback
from collections.abc import Iterator

from .request_headers import Cleaner

_cleaner: contextvars.ContextVar[Cleaner | None] = contextvars.ContextVar("cleaner", default=None)

# Filters are of the very logger that a record is made on, not of its children.
_LOGGERS = (
    "root",  # the SDK 1.x logs there what it cannot read
    "client",
    "mcp.client.session",
    "mcp.client.sse",
    "mcp.client.streamable_http",
    "mcp.shared.dispatcher",
    "mcp.shared.jsonrpc_dispatcher",
    "mcp.shared.session",
    *(
        f"{library}{generation}{part}"
        for generation in ("", "2")
        for library, part in (
            ("httpx", ""),
            *(("httpcore", f".{part}") for part in ("connection", "http11", "http2", "proxy", "socks")),
        )
    ),
)

# pydantic quotes the two ends of what it cannot read, which may cut a secret in two.
_QUOTED_INPUT = re.compile(r"input_value=.*?(?=, input_type=|$)", re.MULTILINE)


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Take secrets out of a record of a session's tasks, for whoever handles it."""
        cleaner = _cleaner.get()
        if cleaner is not None:
            with contextlib.suppress(Exception):  # a message that cannot be formatted is for its handler
                _clean(record, cleaner)
        return True


def _clean(record: logging.LogRecord, cleaner: Cleaner) -> None:
    message = record.getMessage()
    hidden = _hide(message, cleaner)
    if hidden != message:
        record.msg, record.args = hidden, ()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        text = "".join(traceback.format_exception(error)).rstrip()
        hidden = _hide(text, cleaner)
        if hidden != text:
            # Handlers print the text; of the exception itself they could print the rest.
            record.exc_info, record.exc_text = None, hidden


def _hide(text: str, cleaner: Cleaner) -> str:
    return cleaner(_QUOTED_INPUT.sub("input_value=…", text))


_FILTER = _Filter()
# The sessions that are open, in all threads. No lock, which could be held across a fork.
_open: set[object] = set()


@contextlib.contextmanager
def no_secrets_logged(cleaner: Cleaner) -> Iterator[None]:
    """While a session is open: for the task that owns it, and all that this starts."""
    session = object()
    _open.add(session)
    _install()
    _cleaner.set(cleaner)
    try:
        yield
    finally:
        _open.discard(session)
        if not _open:
            _remove()
            if _open:  # another thread has opened one meanwhile
                _install()


@contextlib.contextmanager
def sending(cleaner: Cleaner) -> Iterator[None]:
    """While a message is handed to a transport that goes on in the context of its sender (SDK 2.x)."""
    token = _cleaner.set(cleaner)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # abandoned, and closed somewhere else
            _cleaner.reset(token)


def _install() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # once


def _remove() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_FILTER)
