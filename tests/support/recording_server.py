"""A server on 127.0.0.1 that writes down every byte it gets, and refuses each request with 401."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_REFUSAL = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Sent:
    """What one connection sent.

    Attributes:
        raw: every byte.
    """

    raw: bytes

    @property
    def lines(self) -> list[bytes]:
        """The lines of the head, as the most forgiving of servers would split them."""
        return re.split(rb"[\r\n\0\x0b\x0c]+", self.raw.partition(b"\r\n\r\n")[0])

    @property
    def names(self) -> list[bytes]:
        """The names of the headers, in lower case."""
        return [line.partition(b":")[0].strip().lower() for line in self.lines[1:]]

    @property
    def has_one_request(self) -> bool:
        """Whether nothing follows the first request's body."""
        head, _, body = self.raw.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        return len(body) == (int(length.group(1)) if length else 0)


class RecordingServer:
    """An async context manager; ``sent`` has one entry for each connection that sent something."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """An MCP endpoint."""
        return f"http://127.0.0.1:{self.port}/mcp"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_MAX_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self.all_read()

    async def all_read(self) -> None:
        """Wait until every connection that there was has ended."""
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        raw = b""
        try:
            raw = await reader.readuntil(b"\r\n\r\n")
            writer.write(_REFUSAL)
            while data := await reader.read(65536):  # until the client ends the connection
                raw += data
        except asyncio.IncompleteReadError as rest:
            raw = rest.partial
        except (ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            if raw:
                self.sent.append(Sent(raw))
            writer.close()
            self._tasks.discard(task)
