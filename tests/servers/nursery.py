"""Test servers as forks of one process that has imported all they need: to start one takes milliseconds, a
new interpreter more than a second.

:class:`Nursery` is the side of the tests, standard library only. As a script, this is the process that forks.
They speak over a socket, one message for one answer: to start a server, with its arguments and its standard
streams, or for the exit code of one that has ended. The nursery ends when its socket does, a server when its
standard input does.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

_MOST_BYTES = 1 << 20
_ANSWER_SECONDS = 60.0


class ForkedServer:
    """A process that the nursery has forked; the methods are those of ``subprocess.Popen``.

    Attributes:
        pid: of the process.
    """

    def __init__(self, nursery: Nursery, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._pidfd = pidfd
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None and select.select([self._pidfd], [], [], 0)[0]:
            self._code = self._nursery.exit_code(self.pid)
            os.close(self._pidfd)
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; ``subprocess.TimeoutExpired`` when it does not in time."""
        if self._code is None and not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("test server", timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing when it has ended."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """One process that forks test servers; it ends with this one.

    Args:
        python: the interpreter.
    """

    def __init__(self, python: str) -> None:
        self._lock = threading.Lock()  # one message and its answer at a time
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen([python, __file__], stdin=theirs, stdout=subprocess.DEVNULL)
        self._socket.settimeout(_ANSWER_SECONDS)
        atexit.register(self._end, os.getpid())

    def start(self, arguments: list[str], stdin: int, stdout: int, stderr: int) -> ForkedServer:
        """Start a server with this environment, in this folder.

        Args:
            arguments: of ``mcp_server.py``.
            stdin, stdout, stderr: descriptors for its standard streams.
        """
        request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
        answer, descriptors = self._ask(request, [stdin, stdout, stderr])
        return ForkedServer(self, answer["pid"], descriptors[0])

    def exit_code(self, pid: int) -> int:
        """That of a server that has ended; it can be asked for once."""
        return int(self._ask({"ended": pid})[0]["code"])

    def _ask(
        self, request: dict[str, Any], descriptors: list[int] | None = None
    ) -> tuple[dict[str, Any], list[int]]:
        with self._lock:
            _send(self._socket, request, descriptors or [])
            answer, received = _receive(self._socket)
        if answer is None:
            raise RuntimeError("the process that forks test servers has ended")
        return answer, received

    def _end(self, owner: int) -> None:
        if os.getpid() == owner:  # not in a fork of this process
            self._socket.close()
            self._process.wait()


@functools.cache
def nursery(python: str) -> Nursery:
    """That of an interpreter, started when it is first asked for."""
    return Nursery(python)


def _send(connection: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    socket.send_fds(connection, [json.dumps(message).encode()], descriptors)


def _receive(connection: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """A message and what came with it; None when the other side has gone."""
    data, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
    return (json.loads(data) if data else None), descriptors


def _serve(connection: socket.socket) -> None:
    """Fork servers until the other side has gone."""
    while True:
        request, descriptors = _receive(connection)
        if request is None:
            return
        if "ended" in request:
            _, status = os.waitpid(request["ended"], 0)
            _send(connection, {"code": os.waitstatus_to_exitcode(status)}, [])
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            _be_a_server(request, descriptors)
        # Whoever has this descriptor learns of the end, and cannot mean another process of the same number.
        pidfd = os.pidfd_open(pid)
        _send(connection, {"pid": pid}, [pidfd])
        for descriptor in (pidfd, *descriptors):
            os.close(descriptor)


def _be_a_server(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    code = 1
    try:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.argv[1:] = request["arguments"]
        mcp_server.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever uses it
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import mcp_server

    _serve(socket.socket(fileno=os.dup(0)))
