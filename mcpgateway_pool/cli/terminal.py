"""A terminal that shows a screen and gives keys, and is left as it was found, however the command ends."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live

from .table import Line, text_of

# What terminals send for keys that are no characters; keys are given by these names, others as themselves.
_SEQUENCES = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b": "escape", "\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace",
}  # fmt: skip
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def keys_of(text: str) -> list[str]:
    """What was typed, from what the terminal sent at one time."""
    keys = []
    while text:
        found = max((known for known in _SEQUENCES if text.startswith(known)), key=len, default=text[0])
        if found == "\x1b" and text[1:2] in {"[", "O"}:  # a key that means nothing here
            end = next((at for at in range(2, len(text)) if text[at].isalpha() or text[at] == "~"), len(text))
            text = text[end + 1 :]
            continue
        keys.append(_SEQUENCES.get(found, found))
        text = text[len(found) :]
    return keys


class Terminal:
    """The screen and the keys, from ``with`` to its end.

    Signals that end a program, or stop it, are acted on in :meth:`wait` only, so that nothing is half drawn.
    Where the standard input is no terminal, there are no keys.

    Attributes:
        ended_by: the signal that asks the program to end, if any.
    """

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.ended_by: int | None = None
        self._live: Live | None = None
        self._stdin: int | None = None
        self._modes: list[Any] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_to_stop = False
        self._handlers: dict[int, Any] = {}
        # Signals, and other threads, wake whoever waits. A socket, because sending to one that is closed is
        # an error, where the number of a closed pipe may be that of another file by then.
        self._awake, self._waker = socket.socketpair()
        self._awake.setblocking(False)
        self._waker.setblocking(False)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.isatty(sys.stdin.fileno()):
                self._stdin = sys.stdin.fileno()

    @property
    def width(self) -> int:
        return self.console.width

    @property
    def height(self) -> int:
        return self.console.height

    def __enter__(self) -> Self:
        for number in _ENDING:
            self._handlers[number] = signal.signal(number, self._end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._waker.close()
        self._awake.close()

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines; what is wider than the terminal is cut.

        Raises:
            OSError: the terminal has gone.
        """
        assert self._live is not None
        self._live.update(Group(*map(text_of, lines)), refresh=True)

    def wake(self) -> None:
        """Let :meth:`wait` return; from any thread."""
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, a signal or :meth:`wake`, at most so long.

        Returns:
            The keys.
        """
        files: list[Any] = [self._awake] if self._stdin is None else [self._awake, self._stdin]
        ready, _, _ = select.select(files, [], [], seconds)
        if self._awake in ready:
            with contextlib.suppress(BlockingIOError):
                while self._awake.recv(1024):
                    pass
        if self._is_to_stop:
            self._stand_still()
        if self._stdin is None or self._stdin not in ready:
            return []
        try:
            typed = os.read(self._stdin, 1024)
        except OSError:
            typed = b""
        if not typed:  # the terminal has gone, and its signal may come a little later
            self.ended_by = self.ended_by or signal.SIGHUP
        return keys_of(self._decoder.decode(typed))

    def _end(self, number: int, _: object) -> None:
        self.ended_by = number

    def _stop(self, *_: object) -> None:
        self._is_to_stop = True

    def _stand_still(self) -> None:
        """Ctrl-Z: the shell gets its terminal, until it lets this go on."""
        self._is_to_stop = False
        self._give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop)
        self._take()

    def _take(self) -> None:
        if self._stdin is not None:
            self._modes = termios.tcgetattr(self._stdin)
            tty.setcbreak(self._stdin, termios.TCSANOW)
        self._live = Live(console=self.console, screen=True, auto_refresh=False)
        self._live.start()

    def _give_back(self) -> None:
        live, self._live = self._live, None
        with contextlib.suppress(OSError):
            if live is not None:
                live.stop()
        with contextlib.suppress(OSError, termios.error):
            if self._stdin is not None:
                termios.tcsetattr(self._stdin, termios.TCSANOW, self._modes)
