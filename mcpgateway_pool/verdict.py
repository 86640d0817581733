"""One verdict, from evidence: is this session lost? is its URL suspect? whose fault was it?

Everybody who has to decide asks here: ``session()``, the registry's lease, owner tasks, watches on requests,
creations, health checks, the breaker. What counts is what was *seen*: the end of a transport, the HTTP status
of a request that named its session, a request that was given up. A JSON-RPC code says nothing about a
session, because any server may send any code for any reason; neither does a message, nor the exception that a
caller's block raised, nor what happened to be handled when it was raised.

Exceptions come wrapped in groups (anyio's task groups) and chained by causes, and of classes from libraries
that need not be installed; so classes are recognised by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

from .redact import safe_error, safe_text

# ---- sessions and their URLs


class State(Enum):
    """What is to become of a session."""

    KEPT = "kept"
    DOUBTFUL = "doubtful"
    """Kept, and checked once before its next hand-out."""
    LOST = "lost"
    """Closed, and never handed out again."""


class Verdict(NamedTuple):
    """What follows from something that was seen.

    Attributes:
        session: what is to become of the session on which it was seen.
        is_url_suspect: whether older idle sessions of its URL are checked once before their next hand-out.
    """

    session: State
    is_url_suspect: bool


KEPT = Verdict(State.KEPT, False)
"""An answer, whatever it says."""
DOUBTFUL = Verdict(State.DOUBTFUL, False)
"""A request was given up before its answer came; the stream beside all requests ended."""
FAILING = Verdict(State.DOUBTFUL, True)
"""The server answers that it cannot serve, or does not answer in time."""
LOST = Verdict(State.LOST, True)
"""The transport ended, or the server knows the session no more."""


def of_status(status: int, *, names_session: bool) -> Verdict:
    """What the HTTP status of the answer to a message says.

    Args:
        status: the status.
        names_session: whether the request carried a session id, in a header or in its URL. Only then can 404
            mean that the server has forgotten that session.
    """
    if status == HTTPStatus.NOT_FOUND and names_session:
        return LOST
    return FAILING if status >= HTTPStatus.INTERNAL_SERVER_ERROR else KEPT


def of_request_error(error: BaseException) -> Verdict:
    """What an exception says that the HTTP library raised in place of an answer, or within one."""
    names = _class_names(error)
    if names & _TIMEOUTS and not names & _CONNECT_TIMEOUTS:
        # The server may still work on it. A connection that could not be made in time is none.
        return KEPT if names & _LOCAL_SHORTAGES else FAILING
    if fault_of(error) in (Fault.CALLER, Fault.MACHINE):
        return KEPT  # nothing was sent
    return LOST


# ---- whose fault


class Fault(Enum):
    """Who is to blame for a failed creation. Only SERVER counts for the circuit breaker."""

    SERVER = "server"
    """It gives no sign of life, or answers HTTP 5xx, or something that is no MCP."""
    REFUSAL = "refusal"
    """It lives, and refused this caller."""
    CALLER = "caller"
    """The caller's own function, headers or arguments."""
    MACHINE = "machine"
    """A shortage of this machine: descriptors, memory, ports."""
    UNKNOWN = "unknown"
    """Nothing that was seen speaks against the server."""


def fault_of_status(status: int) -> Fault:
    """Whose fault it is that a request was answered with an HTTP status that is no success."""
    return Fault.SERVER if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Fault.REFUSAL


def blame(error: BaseException, fault: Fault) -> None:
    """Note on an exception whose fault it is, where more was seen than it tells."""
    with contextlib.suppress(AttributeError):  # a class without a __dict__: then it is judged by its class
        setattr(error, _MARK, fault)


def fault_of(error: BaseException) -> Fault | None:
    """Whose fault an exception shows: its own mark, or else what is found in it, its groups and causes.

    A shortage of this machine outweighs what it led to, and the caller's mistake does.

    Returns:
        None for an exception that shows nothing.
    """
    found = {_fault_shown_by(current) for current in _exceptions_in(error)}
    return next((fault for fault in _BY_WEIGHT if fault in found), None)


def counts_for_breaker(error: BaseException) -> bool:
    """Whether a failed creation is evidence that its server is down.

    An exception that shows nothing counts: it comes from a ``_create_session()`` of the user's own, which has
    failed to connect for a reason that nobody here can know.
    """
    return not isinstance(error, asyncio.CancelledError) and fault_of(error) in (Fault.SERVER, None)


def _fault_shown_by(error: BaseException) -> Fault | None:
    mark = getattr(error, _MARK, None)
    if isinstance(mark, Fault):
        return mark
    number = getattr(error, "errno", None)
    if number in _SHORTAGES:
        return Fault.MACHINE
    names = _class_names(error)
    status = _proxys_status(error) if names & _PROXY_ERRORS else _status_of(error)
    if status is not None:
        return fault_of_status(status)
    if isinstance(error, socket.gaierror) and (number == socket.EAI_MEMORY or _lacks_descriptors()):
        return Fault.MACHINE
    if isinstance(error, ssl.SSLError) and _refuses_certificate(error):
        return Fault.CALLER
    by_class = (fault for fault in _BY_WEIGHT if names & _CLASSES[fault])
    # Without a number: as anyio and asyncio word what several attempts came to.
    is_unreachable = number in _UNREACHABLE or (type(error) is OSError and number is None)
    return next(by_class, Fault.SERVER if is_unreachable else None)


def _proxys_status(error: BaseException) -> int | None:
    """The status by which a proxy refused to connect, with which the message begins."""
    begin = str(error)[:4].split(" ", 1)[0]
    return int(begin) if len(begin) == 3 and begin.isascii() and begin.isdecimal() else None


def _refuses_certificate(error: ssl.SSLError) -> bool:
    """Whether the server lives, and refused the certificate of this client, or that it had none."""
    reason = str(getattr(error, "reason", None) or "")
    return "ALERT" in reason and any(word in reason for word in _CERTIFICATE_ALERTS)


def _lacks_descriptors() -> bool:
    """Whether this process can open nothing now: looking up a name then fails as if there were none such."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in _SHORTAGES
    return False


# ---- what to say


def real_cause(error: BaseException) -> BaseException:
    """The first leaf of nested exception groups that is no cancellation, else the first; the error itself
    when it is no group.
    """
    leaves: list[BaseException] = []
    stack = [error]
    while stack:
        current = stack.pop()
        if isinstance(current, BaseExceptionGroup):
            stack.extend(reversed(current.exceptions))
        elif isinstance(current, asyncio.CancelledError):
            leaves.append(current)
        else:
            return current
    return leaves[0]


def describe(error: BaseException, clean: Callable[[str], str] | None = None) -> str:
    """An exception for a message: its class, and its innermost cause with the words of that.

    A library's own exception often says less than what made it raise: ``ConnectError: ConnectionRefusedError:
    [Errno 111] …`` instead of "All connection attempts failed".

    Args:
        error: any exception.
        clean: takes out of the words of others what must not be shown.
    """
    error = real_cause(error)
    inner = error
    for _ in range(_MAX_EXCEPTIONS):
        cause = _cause_of(inner)
        if cause is None:
            break
        inner = real_cause(cause)
    if inner is error or not safe_error(inner).partition(": ")[2]:
        return safe_error(error, clean=clean)
    return f"{safe_text(type(error).__name__, 60)}: {safe_error(inner, clean=clean)}"


def texts_of(error: BaseException) -> Iterator[str]:
    """What would be read of an exception where it is logged with all that hangs on it."""
    for current in _exceptions_in(error, with_contexts=True):
        with contextlib.suppress(Exception):
            yield str(current)


# ---- looking into exceptions


def _exceptions_in(error: BaseException, *, with_contexts: bool = False) -> Iterator[BaseException]:
    """The exception, the members of its groups and its causes, each once, nearest first; at most 1000.
    Contexts are no evidence: those were merely handled when it was raised.
    """
    queue = [error]
    seen: set[int] = set()
    for current in queue:
        if id(current) in seen:
            continue
        seen.add(id(current))
        if len(seen) > _MAX_EXCEPTIONS:
            return
        yield current
        if isinstance(current, BaseExceptionGroup):
            queue.extend(current.exceptions)
        cause = _cause_of(current)
        if cause is not None:
            queue.append(cause)
        elif with_contexts and current.__context__ is not None:
            queue.append(current.__context__)


def _cause_of(error: BaseException) -> BaseException | None:
    """What an exception was made of. httpcore takes the cause off its own, but leaves it as an argument."""
    if error.__cause__ is not None:
        return error.__cause__
    first = error.args[0] if error.args else None
    return first if isinstance(first, BaseException) and first is not error else None


def _status_of(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if type(status) is int else None


def _class_names(error: BaseException) -> set[str]:
    """``package.Class`` of its class and its bases; the second generations of libraries as their first."""
    return {
        f"{base.__module__.partition('.')[0].removesuffix('2')}.{base.__name__}"
        for base in type(error).__mro__
    }


_MAX_EXCEPTIONS = 1000
_MARK = "_mcpgateway_pool_fault"
_BY_WEIGHT = (Fault.MACHINE, Fault.CALLER, Fault.UNKNOWN, Fault.SERVER, Fault.REFUSAL)

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})

_PROXY_ERRORS = frozenset({"httpx.ProxyError", "httpcore.ProxyError"})
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")

_TIMEOUTS = frozenset({"httpx.TimeoutException"})
_CONNECT_TIMEOUTS = frozenset({"httpx.ConnectTimeout"})
_LOCAL_SHORTAGES = frozenset({"builtins.MemoryError", "httpx.PoolTimeout", "httpcore.PoolTimeout"})
_CLASSES = {
    Fault.MACHINE: _LOCAL_SHORTAGES,
    Fault.UNKNOWN: frozenset(),
    Fault.CALLER: frozenset(
        {
            "httpx.InvalidURL",
            "httpx.LocalProtocolError",
            "httpx.UnsupportedProtocol",
            "httpcore.LocalProtocolError",
            "httpcore.UnsupportedProtocol",
            "h11.LocalProtocolError",
        }
    ),
    Fault.SERVER: frozenset(
        {
            "builtins.ConnectionError",
            "builtins.TimeoutError",
            "ssl.SSLError",
            "socket.gaierror",
            "socket.herror",
            "anyio.BrokenResourceError",
            "anyio.ClosedResourceError",
            "anyio.EndOfStream",
            "httpx.TransportError",
            "httpx.StreamError",
            "httpx.DecodingError",
            "httpcore.NetworkError",
            "httpcore.TimeoutException",
            "httpcore.ProtocolError",
            "pydantic_core.ValidationError",  # an answer that is no MCP
        }
    ),
    # Errors of the SDK: the server sent them. What the SDK made up by itself is marked by who saw that.
    Fault.REFUSAL: frozenset({"mcp.McpError", "mcp.MCPError"}),
}
