"""What an exception says about a session: which HTTP status, which JSON-RPC code, is the session lost, whose
mistake.

Exceptions come wrapped in groups (anyio's task groups), chained by causes, and of classes from libraries that
need not be installed; so classes are recognised by name.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def is_session_fatal(error: BaseException) -> bool:
    """Whether a session that raised this may be unusable.

    True for transport errors and the JSON-RPC codes ±32600 and -32000, also as a cause or in a group. False
    for tool errors, other JSON-RPC errors, cancellation, and whatever else a caller's own code raises.
    """
    return any(_is_fatal(current) for current in exceptions_in(error))


def _is_fatal(error: BaseException) -> bool:
    if isinstance(error, ConnectionError):
        return True
    if getattr(getattr(error, "error", None), "code", None) in (-32000, 32600, -32600):
        return True
    return any(
        (base.__module__.partition(".")[0], base.__name__) in _TRANSPORT_CLASSES
        for base in type(error).__mro__
    )
