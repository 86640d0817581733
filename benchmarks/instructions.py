"""Counts the instructions of the pool's operations under valgrind (callgrind): figures that do not depend on
how busy the machine is.

An operation is done N times and then 2 N times in one process; the difference, divided by N, is what one
costs, and what comes before and after cancels out. Beside the pool stands the floor: the same loop over
methods of the same signatures that do nothing. Then the functions that the instructions are spent in, which
is the profile that says what a figure consists of. Takes a minute or two; needs valgrind. Instructions in the
kernel are not counted.

    python benchmarks/instructions.py
    python benchmarks/instructions.py --only hit --top 30
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import counted
import tables

HERE = Path(__file__).resolve().parent
EXTENSION = "mcpgateway_pool/_core"
TITLES = {
    "hit": "hit: acquire + release, 2 headers",
    "hit_many_headers": "hit, 1.5 KB token, 20 headers",
    "hit_many_keys": f"hit, a random one of {counted.MANY_KEYS:,} keys",
    "session": "async with session()",
    "hand_off": "hand-off to a waiter, until it runs",
    "miss": "miss: create (a fake), use, close",
}
MARKS = 6  # of each operation
FLOOR = "hit"  # the operation that others do, too
MISSES = ("D1mr", "D1mw")  # by reads and writes of data
NOTHING = "hit, by two methods that do nothing"
PEER = "hit, by the gateway's own pool"


@dataclass
class Profile:
    """What a stretch of a program took.

    ``own``: instructions by (object file, function), without what it calls; ``within``: those spent in calls
    of the extension from outside it, with all that these call; ``misses``: accesses to data that are not in
    the first level of cache, by the simulation of one of this machine's size.
    """

    own: Counter[tuple[str, str]] = field(default_factory=Counter)
    within: int = 0
    misses: int = 0

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.own.values())

    @property
    def of_extension(self) -> int:
        """What the extension's own functions take, without what they call of Python and the C library."""
        return sum(count for (place, _), count in self.own.items() if EXTENSION in place)


def parse(text: str) -> Profile:
    """Read a file of callgrind, which was told not to compress names and positions."""
    profile = Profile()
    place = function = called_place = ""
    events: list[str] = []
    is_call = False
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if line[:1].isdigit():
            # Zeros at the end of a line are left out.
            costs = dict(zip(events, map(int, line.split()[1:]), strict=False))
            if not is_call:
                profile.own[place, function] += costs["Ir"]
                profile.misses += sum(costs.get(event, 0) for event in MISSES)
            elif EXTENSION in called_place and EXTENSION not in place:
                profile.within += costs["Ir"]
            is_call, called_place = False, ""  # no object named: the callee is in the same one
        elif line.startswith("events:"):
            events = line.split()[1:]
        elif separator and key == "ob":
            place = value
        elif separator and key == "fn":
            # Without '2 and so on, the deeper levels of a recursion, and without .lto_priv.0 and the like.
            function = value.partition("'")[0].partition(".")[0]
        elif separator and key == "cob":
            called_place = value
        elif separator and key == "calls":
            is_call = True
    return profile


def difference(longer: Profile, shorter: Profile) -> Profile:
    """What the longer one has more of."""
    own = Counter(longer.own)
    own.subtract(shorter.own)
    return Profile(own, longer.within - shorter.within, longer.misses - shorter.misses)


def count(side: str, python: str, names: Sequence[str], times: int) -> dict[str, Profile]:
    """What so many of each operation take.

    Raises:
        RuntimeError: the program that is measured failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/part"]
        command += [f"--dump-before={counted.MARK_FUNCTION}", "--dump-line=no"]
        command += ["--compress-strings=no", "--compress-pos=no", "--cache-sim=yes"]
        command += [python, str(HERE / "counted.py"), side, str(times), *names]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"counting {side} failed:\n{done.stderr[-3000:]}")

        def stage(number: int) -> Profile:
            return parse(Path(folder, f"part.{number}").read_text())

        # A part ends with each mark. Of each operation: rest, warm-up, rest, N, rest, 2 N.
        marks = sum(file.suffix[1:].isdigit() for file in Path(folder).glob("part.*"))
        others = marks - MARKS * len(names)  # calls of the marking function by what the side imports
        firsts = {name: others + MARKS * index + 1 for index, name in enumerate(names)}
        return {name: difference(stage(first + 5), stage(first + 3)) for name, first in firsts.items()}


# ---- what is printed


def overview(found: dict[str, Profile], others: dict[str, Profile], times: int) -> list[list[str]]:
    """One line for each operation; the first of the others does nothing, and all are compared with it."""
    lines = [
        ["operation", "instructions", "compared with nothing", "in calls of the extension", "its own code"]
    ]
    lines[0].append("cache misses (data, level 1)")
    floor = others[NOTHING]
    for title, profile in {**others, **found}.items():
        lines.append(
            [
                TITLES.get(title, title),
                f"{profile.total / times:,.0f}",
                f"{profile.total / floor.total:.2f}x",
                f"{profile.within / times:,.0f}",
                f"{profile.of_extension / times:,.0f}",
                f"{profile.misses / times:.1f}",
            ]
        )
    return lines


def functions(profile: Profile, times: int, top: int) -> list[list[str]]:
    """The functions that take most, without what they call."""
    lines = [["function", "of", "instructions", "share"]]
    for (place, function), spent in profile.own.most_common(top):
        owner = "extension" if EXTENSION in place else Path(place).name.partition(".")[0]
        lines.append([function, owner, f"{spent / times:,.1f}", f"{100 * spent / profile.total:.1f} %"])
    return lines


def report(
    found: dict[str, Profile],
    others: dict[str, Profile],
    times: int,
    detailed: dict[str, int],
    show: Callable[[Sequence[Sequence[str]]], str],
) -> str:
    """All tables; ``detailed``: of which operations to show how many functions."""
    texts = [f"Python {platform.python_version()}, {platform.machine()}; instructions of one operation."]
    texts.append(show(overview(found, others, times)))
    for name, top in detailed.items():
        texts.append(f'The functions that take most of "{TITLES[name]}", without what they call:')
        texts.append(show(functions(found[name], times, top)))
    return "\n\n".join(texts)


def main() -> int:
    """Parse the arguments, count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=2000, help="N, default 2000")
    parser.add_argument("--only", choices=list(TITLES), nargs="+", default=list(TITLES), help="operations")
    parser.add_argument("--top", type=int, default=12, help="functions to show of each, default 12")
    parser.add_argument(
        "--peer-python", help="an interpreter that has the peer, which is counted then, too: ten minutes more"
    )
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown")
    parser.add_argument("--docs", action="store_true", help="put them into docs/performance.md, too")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: nothing to count with", file=sys.stderr)
        return 1
    times, names = arguments.times, arguments.only
    try:
        found = count("project", sys.executable, names, times)
        others = {NOTHING: count("floor", sys.executable, [FLOOR], times)[FLOOR]}
        if arguments.peer_python:
            others[PEER] = count("peer", arguments.peer_python, [FLOOR], times)[FLOOR]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    show = tables.markdown if arguments.markdown else tables.plain
    print(report(found, others, times, dict.fromkeys(names, arguments.top), show))
    if arguments.docs:
        detailed = {FLOOR: arguments.top} if FLOOR in names else {}
        tables.put_into_page("instructions", report(found, others, times, detailed, tables.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
