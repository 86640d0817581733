"""What two calls must have in common to share a session, and what is a call's own."""

from __future__ import annotations

import itertools
import ssl
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcpgateway_pool.config import DEFAULT_IDENTITY_HEADERS

from .callers import Caller

# Headers that change with each call: in the key, each call would have a session of its own. They are set on
# the requests of their call alone. Names in lower case.
CALL_HEADERS = frozenset(
    {
        "baggage",
        "b3",
        "correlation-id",
        "grpc-trace-bin",
        "idempotency-key",
        "request-id",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "uber-trace-id",
        "x-amzn-trace-id",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-correlation-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-trace-id",
        "x-idempotency-key",
        "x-request-id",
        "x-span-id",
        "x-trace-id",
    }
)

# What belongs to the downstream session stays at the gateway.
_INTERNAL_HEADERS = frozenset({"x-mcp-session-id", "mcp-session-id"})

Headers = dict[str, str]

_serials = itertools.count()
_contexts: weakref.WeakKeyDictionary[ssl.SSLContext, int] = weakref.WeakKeyDictionary()


def split_headers(headers: Mapping[str, str] | None, more: frozenset[str]) -> tuple[Headers, Headers]:
    """A call's headers in two: those that the session has, and those of the call alone.

    Args:
        headers: what the release would send.
        more: names in lower case that count as the call's, beside ``CALL_HEADERS``.
    """
    pinned: Headers = {}
    own: Headers = {}
    for name, value in (headers or {}).items():
        lower = name.lower()
        if lower in CALL_HEADERS or lower in more:
            own[name] = value
        elif lower not in _INTERNAL_HEADERS:
            pinned[name] = value
    return pinned, own


def names_identity(pinned: Mapping[str, str]) -> bool:
    """Whether one of the headers says who calls, as the pool's own keys see it."""
    return any(name.lower() in DEFAULT_IDENTITY_HEADERS for name in pinned)


def key_of(caller: Caller, pinned: Mapping[str, str], factory: Callable[..., Any] | None) -> str:
    """What the callers of one session have in common, beside URL, transport and gateway, which the pool
    compares by itself.

    Each part stands with its length, so that no value can imitate another split.
    """
    headers = sorted((name.lower(), str(value)) for name, value in pinned.items())
    teams = ("-",) if caller.teams is None else ("+", *caller.teams)
    groups: tuple[Iterable[str], ...] = (
        (caller.service,),
        caller.users,
        teams,
        itertools.chain.from_iterable(headers),
        _tls_parts(factory),
    )
    return "".join(_framed("".join(map(_framed, group))) for group in groups)


def _framed(part: str) -> str:
    return f"{len(part)}:{part}"


def _tls_parts(factory: Callable[..., Any] | None) -> Iterable[str]:
    """What decides the TLS of the connections that a client factory makes.

    The release's factories are functions that enclose it: the texts of certificates and keys, or a TLS
    context made of them.
    """
    code = getattr(factory, "__code__", None)
    cells = getattr(factory, "__closure__", None) or ()
    if code is None:
        return
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned
            continue
        if isinstance(value, str):
            yield name
            yield value
        elif isinstance(value, bytes):
            yield name
            yield value.decode("latin-1")
        elif isinstance(value, ssl.SSLContext):
            serial = _contexts.get(value)
            if serial is None:
                serial = _contexts[value] = next(_serials)
            yield name
            yield f"context {serial}"
