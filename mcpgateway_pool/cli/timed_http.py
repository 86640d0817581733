"""Connections of urllib that keep one deadline, whatever comes over them and however slowly."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import time
import urllib.parse
import urllib.request
from functools import partial
from typing import Any


def seconds_until(deadline: float) -> float:
    """What is left until a moment of ``time.monotonic()``.

    Raises:
        TimeoutError: nothing.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _TimedReads(io.RawIOBase):
    """What comes from a socket: a time-out of the socket alone bounds each read, and not all of them."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, deadline: float) -> None:
        self._sock, self._raw, self._deadline = sock, raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(seconds_until(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer to GET or CONNECT: its status, headers, chunk sizes and trailers are timed reads, too."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp: Any = io.BufferedReader(_TimedReads(sock, self.fp.detach(), deadline))


def _connection(deadline: float, kind: Any, *args: Any, **kwargs: Any) -> Any:
    made = kind(*args, **kwargs)
    made.response_class = partial(_Response, deadline=deadline)
    return made


class _Handler(urllib.request.HTTPSHandler):
    """Opens http and https; of redirects and errors it makes HTTPError."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def do_open(self, http_class: Any, req: Any, **options: Any) -> Any:
        return super().do_open(partial(_connection, self._deadline, http_class), req, **options)

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(http.client.HTTPConnection, req)

    http_request = urllib.request.AbstractHTTPHandler.do_request_


def opener_for(url: str, deadline: float) -> urllib.request.OpenerDirector:
    """With the environment's proxies, but where they cannot be meant; for no other scheme, and it does not
    follow redirects, whose bodies it would read.
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = False
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if is_local else None),
        _Handler(deadline),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener
