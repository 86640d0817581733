"""The text that Prometheus scrapes: the pool's families written by C, all others by prometheus_client.

A scrape of many gateways costs prometheus_client several microseconds for each sample, C a small fraction of
one. The page is the same, byte by byte: prometheus_client's encoder runs over the registry as ever, but the
pool's collector gives it one family that marks the place, which is then replaced by what C writes. Whatever
the registry does (order, restriction to names, further collectors) holds for the pool's families, too.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qs

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder as _choose_encoder
from prometheus_client.exposition import generate_latest as _generate_classic
from prometheus_client.openmetrics.exposition import generate_latest as _generate_openmetrics
from prometheus_client.registry import CollectorRegistry

from mcpgateway_pool import _core

from .collector import read_counters, register_collector
from .gateway_names import NAMES
from .marking import Mark, current_mark

Encoder = Callable[[Any], bytes]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# How names may be escaped without a change of ours. Another scheme changes every underscore.
_PLAIN_ESCAPING = (None, "underscores", "allow-utf-8")

# A page of many gateways is megabytes, but repeats itself: more effort makes it little smaller.
_GZIP_LEVEL = 1


class Collecting(Protocol):
    """A registry, whole or restricted to some names, or a single collector."""

    def collect(self) -> Any:
        """The families."""


def generate_latest(registry: Collecting | None = None, escaping: str | None = None) -> bytes:
    """The page of a registry in the classic text format, as ``prometheus_client.generate_latest()`` has it.

    Where the pool's collector is registered, its families are written by C. Safe from any thread.

    Args:
        registry: default ``prometheus_client.REGISTRY``; also what ``registry.restricted_registry(names)``
            returns.
        escaping: how prometheus_client, from 0.22 on, escapes names; default: as it does by default.

    Raises:
        Exception: what a collector of the registry raised.
    """
    options: dict[str, Any] = {} if escaping is None else {"escaping": escaping}
    return _encode(partial(_generate_classic, **options), REGISTRY if registry is None else registry)


def choose_encoder(accept: str | None) -> tuple[Encoder, str]:
    """The format that a client wants, as ``prometheus_client.exposition.choose_encoder()`` chooses it.

    Args:
        accept: the value of the header ``Accept``.

    Returns:
        A function of a registry that gives the page, and the page's content type.
    """
    encoder, content_type = _choose_encoder(accept or "")
    return partial(_encode, encoder), content_type


def _encode(encoder: Encoder, registry: Collecting) -> bytes:
    function = encoder.func if isinstance(encoder, partial) else encoder
    options = encoder.keywords if isinstance(encoder, partial) else {}
    is_openmetrics = function is _generate_openmetrics
    if not (is_openmetrics or function is _generate_classic):
        return encoder(registry)
    if options.get("escaping") not in _PLAIN_ESCAPING:
        return encoder(registry)
    mark = Mark()
    token = current_mark.set(mark)
    try:
        page = encoder(registry)
    finally:
        current_mark.reset(token)
    if mark.collector is None:
        return page
    before, found, after = page.partition(mark.text)
    if not found:  # whatever stands between the registry and us lets no mark pass
        return encoder(registry)
    return read_counters(partial(_core.text, before, after, is_openmetrics, mark.names, NAMES.known()))


def metrics_app(registry: CollectorRegistry | None = None, *, disable_compression: bool = False) -> App:
    """An ASGI application that serves the page of a registry, at every path of its own.

    It registers the pool's collector, chooses the format by ``Accept``, compresses for who accepts gzip, and
    shows only the samples named by ``?name[]=…&name[]=…``. Pages are made on a thread: no call waits for one.

    >>> app = Starlette(routes=[Mount("/metrics", metrics_app())])

    Args:
        registry: default ``prometheus_client.REGISTRY``.
        disable_compression: never compress.

    Raises:
        ValueError: the registry has series of these names from elsewhere.
    """
    registry = REGISTRY if registry is None else registry
    register_collector(registry)

    def make_page(scope: Message) -> tuple[list[tuple[bytes, bytes]], bytes]:
        encoder, content_type = choose_encoder(_header(scope, b"accept"))
        headers = [(b"content-type", content_type.encode())]
        names = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]")
        page = encoder(registry if names is None else registry.restricted_registry(names))
        if not disable_compression:
            headers.append((b"vary", b"accept-encoding"))
            if _accepts_gzip(_header(scope, b"accept-encoding")):
                headers.append((b"content-encoding", b"gzip"))
                page = gzip.compress(page, _GZIP_LEVEL, mtime=0)
        return headers, page

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"metrics are served by http, not by {scope['type']}")
        status, body = 200, b""
        headers = [(b"allow", b"GET, HEAD, OPTIONS")]
        if scope["method"] in {"GET", "HEAD"}:
            headers, body = await asyncio.to_thread(make_page, scope)
        elif scope["method"] != "OPTIONS":
            status = 405
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


async def _live(receive: Receive, send: Send) -> None:
    """Start and stop, where the application is not part of another: there is nothing to do."""
    while True:
        phase = (await receive())["type"]
        await send({"type": f"{phase}.complete"})
        if phase == "lifespan.shutdown":
            return


def _header(scope: Message, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)


def _accepts_gzip(accept_encoding: str) -> bool:
    for part in accept_encoding.split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "").lower() not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
