"""The headers of one call, which change with each: correlation id, trace context; and its span."""

from __future__ import annotations

import importlib
import urllib.parse
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from .keys import Headers


def correlation_headers() -> Headers:
    """The header with the correlation id of the request that is being served; empty without one."""
    try:
        identifier = importlib.import_module("mcpgateway.utils.correlation_id").get_correlation_id()
    except (ImportError, AttributeError):
        return {}
    return {"X-Correlation-ID": identifier} if identifier else {}


def is_traced() -> bool:
    """Whether the request that is being served belongs to a trace."""
    ask = getattr(_observability(), "otel_context_active", None)
    return ask is not None and bool(ask())


def span(gateway_id: str, url: str, transport: str) -> AbstractContextManager[Any]:
    """A span around the call, beneath the release's own; nothing where spans are not to be had."""
    create = getattr(_observability(), "create_span", None)
    if create is None:
        return nullcontext()
    target = urllib.parse.urlsplit(url)
    attributes = {
        "contextforge.gateway_id": gateway_id,
        "contextforge.transport": transport,
        "contextforge.runtime": "python",
        "network.protocol.name": "mcp",
        "server.address": target.hostname,
        "mcpgateway_pool.pooled": True,
    }
    made: AbstractContextManager[Any] = create("mcp.client.call", attributes)
    return made


def trace_headers() -> Headers:
    """``traceparent``, ``tracestate`` and ``baggage`` of the current span, where the release sends them."""
    inject = getattr(_observability(), "inject_trace_context_headers", None)
    return {} if inject is None else dict(inject({}))


def meta_of_call(meta: Any, headers: Headers) -> Any:
    """A tool call's ``_meta``, with the trace parent that its headers name; as the release does it."""
    try:
        sync = importlib.import_module("mcpgateway.services.tool_service")._sync_meta_traceparent
    except (ImportError, AttributeError):
        return meta
    return sync(meta, headers)


def _observability() -> Any:
    try:
        return importlib.import_module("mcpgateway.observability")
    except ImportError:
        return None
