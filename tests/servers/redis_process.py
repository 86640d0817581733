"""A real Redis server as a process of its own: start, kill, restart, freeze. Standard library only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from .program import Program, free_port
from .waiting import wait_until

EXECUTABLE = shutil.which("redis-server")
MISSING = "redis-server is not on PATH (Debian package redis-server): session affinity was NOT tested"


class RedisProcess(Program):
    """One Redis server on a Unix socket, and on a port if asked.

    Args:
        folder: for its socket and its log; its path is short, because a socket's has at most 107 bytes.
        tcp: whether it listens on a port too, or on the socket alone; default False.
        start_timeout: seconds to wait for it to answer.
    """

    def __init__(self, folder: Path, *, tcp: bool = False, start_timeout: float = 30.0) -> None:
        if EXECUTABLE is None:
            raise RuntimeError(MISSING)
        self.folder = folder
        self.port = free_port() if tcp else 0
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        """Its Unix socket."""
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket_path}"

    def start(self) -> None:
        """Start it and wait until it answers; RuntimeError, with its log, when it does not in time."""
        if self._process is not None:
            raise RuntimeError("Redis runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        command = [
            str(EXECUTABLE),
            *("--port", str(self.port), "--bind", "127.0.0.1"),
            *("--unixsocket", str(self.socket_path)),
            *("--dir", str(self.folder), "--appendonly", "no", "--save", ""),
        ]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._answers_or_ended, self._start_timeout, every=0.01)
        except TimeoutError:
            self.kill()
        if self._process is None or self._process.poll() is not None:
            self.kill()
            raise RuntimeError(f"Redis did not start\n{log.read_text(errors='replace')[-4000:]}")

    def _answers_or_ended(self) -> bool:
        return self._answers() or self._process is None or self._process.poll() is not None

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket_path))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it at once (SIGKILL); it forgets everything. Harmless when it is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """The process id; RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError("Redis is not running")
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; RuntimeError when it does not run."""
        os.kill(self.pid, number)
