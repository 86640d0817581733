"""References, objects, blocks and memory left behind by each operation of the pool, in a process for each.

    python tests/refleaks/refleaks.py [--rounds N]

Objects, memory blocks and the resident set are judged; the total of references is shown where Python has one
(a debug build; Debian: python3.11-dbg). Exit code 1 where one grows with the number of calls.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support.leak_scenarios import SCENARIOS
from support.scripts import run_script

MEASURE = """
import array, logging
logging.disable()
kept = lambda pool: (pool.closed_sessions, pool.checked, pool.open_now, pool.most_open)
forget = lambda pool: [what.clear() for what in kept(pool)]
TIMES = 20
WARM_UP = 15  # rounds until caches, free lists and pages have the size that they keep

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def measure(once, rounds):
    # Made before, and of no objects: what is noted must not count itself.
    numbers = [array.array("q", [0, 0, 0, 0]) for _ in range(rounds + WARM_UP)]
    for now in numbers:
        for _ in range(TIMES):
            await once()
        await turns(20)
        gc.collect()
        now[0] = getattr(sys, "gettotalrefcount", int)()
        now[1], now[2], now[3] = len(gc.get_objects()), sys.getallocatedblocks(), rss()
    first, last = numbers[WARM_UP], numbers[-1]
    grown = [b - a for a, b in zip(first, last)]
    calls = TIMES * (rounds - 1)
    print(*grown, calls)
    # One left by every call, with many rounds by every other one, would be more. Python's free lists count as
    # blocks, and are as long as the most that was free at once: 150. The total of references is shown only:
    # where the extension's own are not counted, it says nothing.
    assert all(each < calls // 5 + 150 for each in grown[1:3]), grown
    assert grown[3] < 4_000_000, grown
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", help="of operations; default all")
    parser.add_argument("--rounds", type=int, default=40, help="compared rounds of 20 calls (default 40)")
    arguments = parser.parse_args()
    rounds, names = arguments.rounds, arguments.names or list(SCENARIOS)
    failed, calls = [], 0
    for name in names:
        body = SCENARIOS[name]
        done = run_script(
            MEASURE
            + "async def main():\n"
            + "    pool = FakePool(max_sessions_per_key=2, circuit_breaker_threshold=10**6)\n"
            + "    async def once():\n"
            + body
            + f"\n        forget(pool)\n    await measure(once, {rounds})\n    await pool.close_all()\n"
            + "asyncio.run(main())\n",
            timeout=600,
        )
        if done.returncode or done.stderr:
            failed.append(name)
            print(f"{name}: FAILED\n{done.stdout}{done.stderr}")
        else:
            references, objects, blocks, memory, count = map(int, done.stdout.split())
            calls += count
            counted = f"{references:+} references, " if hasattr(sys, "gettotalrefcount") else ""
            print(
                f"{name}: {counted}{objects:+} objects, {blocks:+} blocks, {memory / 1024:+.0f} KiB",
                flush=True,
            )
    what = (
        "references and objects" if hasattr(sys, "gettotalrefcount") else "objects, no debug build of Python"
    )
    print(f"{len(names)} operations, {calls} calls, {len(failed)} that leave something behind ({what})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
