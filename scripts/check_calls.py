"""Keep the calls between the C files of a folder free of cycles.

    python scripts/check_calls.py csrc/core csrc/python

Each file is compiled without optimisation. It uses another one where its object needs a function that the
other's defines: that is what the linker goes by, so pointers to functions count as calls. A cycle is printed
with the functions that make it; then the exit status is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

Calls = dict[str, dict[str, set[str]]]  # file -> file -> functions


def symbols(source: Path, folder: str, compiler: list[str]) -> tuple[set[str], set[str]]:
    """The functions that a file defines for others, and what it needs of others."""
    target = Path(folder, source.stem + ".o")
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run([*compiler, "-std=c11", "-O0", include, "-c", str(source), "-o", str(target)], check=True)
    listed = subprocess.run(["nm", "-g", str(target)], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {row[-1] for row in rows if row[-2] == "T"}, {row[-1] for row in rows if row[-2] == "U"}


def calls_between(sources: list[Path], compiler: list[str]) -> Calls:
    """Which file uses which functions of which other."""
    with tempfile.TemporaryDirectory() as folder:
        found = {source.name: symbols(source, folder, compiler) for source in sources}
    home = {name: file for file, (defined, _) in found.items() for name in defined}
    calls: Calls = defaultdict(lambda: defaultdict(set))
    for file, (_, needed) in found.items():
        for name in needed & home.keys():
            calls[file][home[name]].add(name)
    return calls


def report(folder: str, calls: Calls, count: int) -> bool:
    """Print what was found; whether there is a cycle."""
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        files = error.args[1][::-1]  # each uses the next
        print(f"{folder}: a cycle of calls", file=sys.stderr)
        for file, used in pairwise(files):
            print(f"  {file} -> {used}: {', '.join(sorted(calls[file][used]))}", file=sys.stderr)
        return True
    print(f"{folder}: {count} files, {sum(map(len, calls.values()))} use another, no cycle of calls")
    return False


def main(folders: list[str]) -> int:
    compiler = os.environ.get("CC", "cc").split()
    missing = [tool for tool in (compiler[0], "nm") if shutil.which(tool) is None]
    if missing:
        print(
            f"*** SKIPPED: the calls of {' '.join(folders)}, there is no {missing[0]} here ***",
            file=sys.stderr,
        )
        return 0
    has_cycle = False
    for folder in folders:
        sources = sorted(Path(folder).glob("*.c"))
        has_cycle |= report(folder, calls_between(sources, compiler), len(sources))
    return int(has_cycle)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
