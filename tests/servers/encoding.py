"""Content encoding, as an ASGI layer around any server: each part of a body is encoded, and flushed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from faults import App, Message, Receive, Scope, Send

# Encodes a part; called with None, it ends the body.
Encoder = Callable[[bytes | None], bytes]


def _gzip() -> Encoder:
    packer = zlib.compressobj(wbits=31)
    return lambda part: (
        packer.flush() if part is None else packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
    )


def _brotli() -> Encoder:
    import brotli

    packer = brotli.Compressor()
    return lambda part: packer.finish() if part is None else packer.process(part) + packer.flush()


def _zstandard() -> Encoder:
    import zstandard

    packer = zstandard.ZstdCompressor().compressobj()
    block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return lambda part: packer.flush() if part is None else packer.compress(part) + packer.flush(block)


ENCODINGS: dict[str, Callable[[], Encoder]] = {"gzip": _gzip, "br": _brotli, "zstd": _zstandard}


class EncodingLayer:
    """Encodes all responses, whether the client says that it takes that or not.

    Args:
        app: the application.
        encoding: one of ``ENCODINGS``.
    """

    def __init__(self, app: App, encoding: str) -> None:
        self._app = app
        self._encoding = encoding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] != "http" or scope["path"] in ("/stats", "/fault"):
            await self._app(scope, receive, send)
            return
        encode = ENCODINGS[self._encoding]()

        async def encoding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Any] = [
                    (name, value) for name, value in message["headers"] if name != b"content-length"
                ]
                message = {**message, "headers": [*headers, (b"content-encoding", self._encoding.encode())]}
            elif message["type"] == "http.response.body":
                body = encode(message.get("body", b""))
                if not message.get("more_body", False):
                    body += encode(None)
                message = {**message, "body": body}
            await send(message)

        await self._app(scope, receive, encoding)
