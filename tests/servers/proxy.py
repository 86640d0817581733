"""A TCP proxy in the test's own event loop, to break connections in ways that a server cannot ask for."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self


class BreakingProxy:
    """Forwards 127.0.0.1 connections to a server until told to break them; an async context manager.

    Args:
        port: the server's port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Answer every open connection with a TCP reset."""
        for writer in self._clients:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def half_close(self) -> None:
        """End the server's side of every open connection, and leave the client's open."""
        for writer in self._clients:
            if writer.can_write_eof() and not writer.is_closing():
                writer.write_eof()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._clients.add(writer)
        self.accepted += 1
        upstream: asyncio.StreamWriter | None = None
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(_copy(reader, upstream), _copy(upstream_reader, writer))
        except (OSError, RuntimeError, asyncio.CancelledError):
            pass  # broken on purpose, or ending
        finally:
            self._clients.discard(writer)
            for side in (writer, upstream):
                if side is not None:
                    side.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
