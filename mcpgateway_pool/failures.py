"""What an exception says about a session: which HTTP status, which JSON-RPC code, is the session lost, whose
mistake.

Exceptions come wrapped in groups (anyio's task groups), chained by causes, and of classes from libraries that
need not be installed; so classes are recognised by name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from mcpgateway_pool.upstream import sdk

_TRANSPORT_CLASSES = frozenset(
    {
        ("anyio", "BrokenResourceError"),
        ("anyio", "ClosedResourceError"),
        ("anyio", "EndOfStream"),
        ("httpx", "TransportError"),
        ("httpx2", "TransportError"),
        ("httpx", "StreamError"),
        ("httpx2", "StreamError"),
        ("httpcore", "NetworkError"),
        ("httpcore2", "NetworkError"),
        ("httpcore", "ProtocolError"),
        ("httpcore2", "ProtocolError"),
    }
)

_MAX_EXCEPTIONS = 1000
_CALLER_MARK = "_mcpgateway_pool_callers_mistake"


def exceptions_in(error: BaseException) -> Iterator[BaseException]:
    """The exception, the members of its groups and its causes, each once, nearest first; at most 1000."""
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
        if current.__cause__ is not None:
            queue.append(current.__cause__)
        elif current.__context__ is not None and not current.__suppress_context__:
            queue.append(current.__context__)


def real_cause(error: BaseException) -> BaseException:
    """The first leaf of nested exception groups that is no cancellation; the error itself when it is no
    group.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [real_cause(member) for member in error.exceptions]
    return next((leaf for leaf in leaves if not isinstance(leaf, asyncio.CancelledError)), leaves[0])


def http_status_of(error: BaseException) -> int | None:
    """The HTTP status of the response that an exception, a group member or a cause stands for; None without
    one.
    """
    for current in exceptions_in(error):
        status = getattr(getattr(current, "response", None), "status_code", None)
        if type(status) is int:
            return status
    return None


def is_session_fatal(error: BaseException) -> bool:
    """Whether a session that raised this may be unusable.

    True for transport errors and the JSON-RPC codes ±32600 and -32000, also as a cause or in a group. False
    for tool errors, other JSON-RPC errors, cancellation, and whatever else a caller's own code raises.
    """
    return any(_is_fatal(current) for current in exceptions_in(error))


def _is_fatal(error: BaseException) -> bool:
    if isinstance(error, ConnectionError):
        return True
    if sdk.error_code(error) in sdk.BROKEN_CODES:
        return True
    return any(
        (base.__module__.partition(".")[0], base.__name__) in _TRANSPORT_CLASSES
        for base in type(error).__mro__
    )


def mark_callers_mistake(error: BaseException) -> None:
    """Remember that an exception came out of the caller's own function or arguments."""
    with contextlib.suppress(AttributeError):  # a class without a __dict__: then it counts as the server's
        setattr(error, _CALLER_MARK, True)


def is_callers_mistake(error: BaseException) -> bool:
    """Whether a creation failed by the caller's own client factory or headers, so that it says nothing about
    the server.
    """
    return any(getattr(current, _CALLER_MARK, False) is True for current in exceptions_in(error))
