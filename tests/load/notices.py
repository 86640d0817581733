"""Whether the load test would notice: runs it with the pool broken on purpose, each time in another way, and
ends with 1 when one of them passes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from faulty_pool import FaultyPool

from load import Load

CALLERS = 1000
PAUSE_SECONDS = 0.5
# What is lost at the end is waited for so long.
REST_SECONDS = 15.0
# Exit code of one that was found out.
FOUND = 3


class LosesAPlace(FaultyPool):
    """The end of one close is not told, by nobody."""

    lost: Any = None

    def _on_close(self, pooled: Any, ticket: Any, reason: str) -> asyncio.Task[None] | None:
        if self.lost is None and sum(self.closes.values()) > 200:
            self.lost = ticket
        return super()._on_close(pooled, ticket, reason)

    def _close_ended(self, ticket: Any) -> bool:
        return False if ticket is self.lost else super()._close_ended(ticket)


class LosesCounts(FaultyPool):
    """A failed creation in ten is counted as another caller's."""

    def _create_failed(self, pending: Any, counts: bool) -> None:
        super()._create_failed(pending, counts)
        if self.chance.random() < 0.1:
            self.creations["gateway-0", "failed"] += 1


class KeepsSessions(FaultyPool):
    """One session in fifty is kept for ever."""

    def hand_out(self, pooled: Any, key: Any) -> Any:
        if self.chance.random() < 0.02:
            self.__dict__.setdefault("kept", []).append(pooled.session)
        return super().hand_out(pooled, key)


class MixesUpKeys(FaultyPool):
    """One caller in a hundred gets another user's session."""

    async def acquire(self, url: str, headers: Any = None, *arguments: Any, **options: Any) -> Any:
        if self.chance.random() < 0.01:
            headers, options["user_identity"] = {"Authorization": "user-0"}, "user-0"
        return await super().acquire(url, headers, *arguments, **options)


class MissesDeaths(FaultyPool):
    """Nobody is told that a session died."""

    def _mark_broken(self, pooled: Any, is_dead: bool, is_suspect: bool) -> bool:
        return False


class IgnoresDrains(FaultyPool):
    """Drains do nothing."""

    def _drain(self) -> None:
        pass


BROKEN: tuple[type[FaultyPool], ...] = (
    LosesAPlace, LosesCounts, KeepsSessions, MixesUpKeys, MissesDeaths, IgnoresDrains,
)  # fmt: skip


def problems_of(name: str, seconds: float) -> list[str]:
    """What the load test finds wrong with a pool; in a process of its own, as series are the process's."""
    command = [sys.executable, "-P", __file__, "--seconds", str(seconds), "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in {0, FOUND}:
        raise RuntimeError(f"{name}: {done.stderr}")
    return done.stdout.splitlines() if done.returncode else []


def run_one(make_pool: Callable[..., FaultyPool], seconds: float) -> int:
    """The exit code."""
    load = Load(seconds, 1, CALLERS, PAUSE_SECONDS, make_pool=make_pool, rest_seconds=REST_SECONDS)
    problems = asyncio.run(load.run())
    print(*problems, sep="\n")
    return FOUND if problems else 0


def main() -> int:
    """Parse the arguments and run."""
    pools = {make_pool.__name__: make_pool for make_pool in (FaultyPool, *BROKEN)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each, default 10")
    parser.add_argument("--one", choices=pools, help="only this one, here")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.one:
        return run_one(pools[options.one], options.seconds)
    wrong = []
    for name, make_pool in pools.items():
        problems = problems_of(name, options.seconds)
        print(f"{name}: {problems[0][:150] if problems else 'nothing wrong'}", flush=True)
        if bool(problems) != (make_pool is not FaultyPool):
            wrong.append(name)
    if wrong:
        print("judged wrongly:", *wrong)
    print(f"{len(BROKEN) - len(wrong)} of {len(BROKEN)} pools broken on purpose were found out")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
