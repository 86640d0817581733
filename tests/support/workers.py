"""Worker processes that share their counters through a directory, told what to do line by line."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from support.scripts import PRELUDE

_TESTS = str(Path(__file__).resolve().parent.parent)
_ANSWER_SECONDS = 40

_SERVE = """
import json, signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: forking while threads run
from mcpgateway_pool import PoolCollector, forget_gateway
clock = FakeClock()
pool = FakePool(max_sessions_per_key=50, max_total_sessions=100, clock=clock)
held = []

def scrape():
    return {
        "|".join([sample.name, *sample.labels.values()]): sample.value
        for family in PoolCollector().collect()
        for sample in family.samples
    }

async def use(gateway, times):
    for _ in range(int(times)):
        await pool.release(await pool.acquire(URL, user_identity="ann", gateway_id=gateway))

async def hold(gateway):
    held.append(await pool.acquire(URL, user_identity="ann", gateway_id=gateway))

async def killed_children(gateway, count):
    for _ in range(int(count)):
        pid = os.fork()
        if pid == 0:
            async def count_and_die():
                await hold(gateway)
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                asyncio.run(count_and_die())
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL

async def many(prefix, count):
    for number in range(int(count)):
        await use(f"{prefix}{number}", 1)

async def later(seconds):
    clock.advance(float(seconds))
    await upkeep(pool)

async def drain():
    held.clear()
    await pool.drain_all()

async def forget(gateway):
    return forget_gateway(gateway)

async def show():
    return scrape()

async def serve():
    commands = {"use": use, "hold": hold, "killed_children": killed_children, "many": many, "forget": forget,
                "scrape": show, "drain": drain, "later": later}
    print(json.dumps("ready"), flush=True)
    for line in iter(sys.stdin.readline, ""):
        name, *arguments = line.split()
        print(json.dumps(await commands[name](*arguments)), flush=True)
asyncio.run(serve())
"""


class Worker:
    """A process with one pool.

    Attributes:
        process: of the operating system.
        errors: path of what it wrote to its standard error output.
    """

    def __init__(self, directory: Path, errors: Path) -> None:
        self.errors = errors
        environment = {**os.environ, "PYTHONPATH": _TESTS, "MCPGATEWAY_POOL_METRICS_DIR": str(directory)}
        with errors.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", "-c", PRELUDE + _SERVE],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    @property
    def _stdout(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def tell(self, *words: object) -> None:
        """Give it a command, and do not wait for the answer.

        The commands: use GATEWAY TIMES, hold GATEWAY, many PREFIX COUNT, killed_children GATEWAY COUNT,
        forget GATEWAY, drain, later SECONDS, scrape.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def has_answered(self) -> bool:
        """Whether an answer can be read without waiting."""
        return bool(select.select([self._stdout], [], [], 0)[0])

    def answer(self) -> Any:
        """The next answer."""
        assert select.select([self._stdout], [], [], _ANSWER_SECONDS)[0], "no answer in time"
        line = self._stdout.readline()
        assert line, self.errors.read_text()
        return json.loads(line)

    def ask(self, *words: object) -> Any:
        """Give it a command and wait for the answer."""
        self.tell(*words)
        return self.answer()

    def scrape(self) -> dict[str, float]:
        """``name|gateway|…`` -> value, as a scrape of this process shows it."""
        return dict(self.ask("scrape"))

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Close its input, which ends it, and wait."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(_ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stdout.close()


@contextmanager
def workers(directory: Path, errors: Path, count: int) -> Iterator[list[Worker]]:
    """Workers that are ready, and that are gone afterwards.

    Args:
        directory: for the counters; it need not exist.
        errors: a directory for what they write to their standard error outputs.
        count: how many.
    """
    started: list[Worker] = []
    try:
        started.extend(Worker(directory, errors / f"worker{number}.err") for number in range(count))
        for worker in started:
            assert worker.answer() == "ready"
        yield started
    finally:
        for worker in started:
            worker.end()
