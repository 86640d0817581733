"""What the servers of tests have in common: a process that a block starts, and that is gone after it."""

from __future__ import annotations

import signal
import socket
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Program(ABC):
    """A process of its own; a context manager that always ends what it started."""

    @abstractmethod
    def start(self) -> None:
        """Start it, and wait until it can be used."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once (SIGKILL), and wait until it is gone. Harmless when it is gone already."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """The process id; RuntimeError when it does not run."""

    @abstractmethod
    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; RuntimeError when it does not run."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def restart(self) -> None:
        """Kill it, and start it anew at the same place."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
