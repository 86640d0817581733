"""An HTTP endpoint on 127.0.0.1 that answers as the test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CLASSIC = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Answer:
    """What to answer with; ``body`` is called for each request where it is a function."""

    body: str | Callable[[], str] = ""
    status: int = 200
    content_type: str = CLASSIC
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Endpoint:
    """Where it is, and the headers of each request so far, names in lower case."""

    url: str
    requests: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def serving(answer: Answer | Callable[[], str] | str) -> Iterator[Endpoint]:
    """Serve until the block ends. Text, or a function of it, is answered as Prometheus text."""
    given = answer if isinstance(answer, Answer) else Answer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class wants this name
            endpoint.requests.append({name.lower(): value for name, value in self.headers.items()})
            body = (given.body if isinstance(given.body, str) else given.body()).encode()
            self.send_response(given.status)
            self.send_header("Content-Type", given.content_type)
            self.send_header("Content-Length", str(len(body)))
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/metrics")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()


Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def answering(talk: Talk) -> Iterator[str]:
    """A server that leaves each connection to ``talk``, bytes and all: the URL of it until the block ends.

    ``talk`` may send for as long as somebody reads: a connection that the other side has closed ends it.
    """
    talking: list[threading.Thread] = []

    def run(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            talk(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # it was closed
                return
            connection.settimeout(30)
            talking.append(threading.Thread(target=run, args=(connection,)))
            talking[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in talking:
                thread.join()
