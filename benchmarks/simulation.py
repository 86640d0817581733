"""The pool machine alone, without Python, from 1,000 to 10,000,000 keys: one command, tables in Markdown.

Builds ``benchmarks/simulation/`` with the C compiler, and runs it, sizes taking turns, round by round. Times
are processor time, medians over the rounds; the longest steps are those of the quietest round, because
whatever else the machine does only ever adds to them. Each run holds what it counted against what the pool
counted, and fails where they differ. Exit code 0: everything added up; 1: not; 2: nothing could be built.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent

SIZES: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SHORT_SIZES: tuple[int, ...] = (1_000, 10_000, 100_000)
INSTRUCTION_SIZES = (1_000, 10_000, 100_000)

# What a key with its session takes here at most, with arrays while they grow, and this program's own records.
BYTES_PER_KEY = 900

# The cache that callgrind imitates: a common first level, and as the last one 32 MiB.
CACHES = ("--I1=32768,8,64", "--D1=32768,8,64", "--LL=33554432,16,64")

Figures = dict[str, float]

# Row of the table: what is printed, and the name of its figure.
TIMES = (
    ("hit: acquire + release, keys by Zipf's law", "hit_zipf_ns"),
    ("hit, keys uniform: the caches' worst case", "hit_uniform_ns"),
    ("miss: acquire, created, release; growth included", "open_ns"),
    ("miss where the pool is full: the least recently used goes", "evict_and_open_ns"),
    ("hand-off: release, grant, take; the next caller waits", "hand_off_ns"),
    ("a waiter times out", "time_out_ns"),
    ("expire one, unused for too long", "expire_idle_ns"),
    ("expire one, lifetime over", "expire_lifetime_ns"),
    ("mixed traffic, all that one arrival causes", "traffic_ns"),
)
LONGEST = (
    ("one step of upkeep, idle time-outs", "expire_idle_longest_ns"),
    ("one step of upkeep, lifetimes", "expire_lifetime_longest_ns"),
    ("a slice of 8 steps, idle time-outs", "expire_idle_longest_slice_ns"),
    ("a slice of 8 steps, lifetimes", "expire_lifetime_longest_slice_ns"),
    ("one miss where the pool is full", "evict_and_open_longest_ns"),
    ("one miss while the pool grows", "open_longest_ns"),
)
MEMORY = (
    ("a session", "session_bytes"),
    ("a key, with its 128 bytes", "key_bytes"),
    ("arrays: tables, deadlines, tickets", "array_bytes"),
    ("together: a key with one idle session", "all_bytes"),
    ("resident, as the kernel says", "resident_bytes"),
)
TRAFFIC = (
    ("hits", "hits"),
    ("misses", "misses"),
    ("answers after a wait", "waited"),
    ("waiters that timed out", "timeouts"),
    ("callers that went away", "cancellations"),
    ("failed creations", "create_failures"),
    ("refused by an open breaker", "circuit_open"),
    ("breakers opened", "trips"),
    ("health checks", "checks"),
    ("evicted: lifetime over", "evicted_ttl_expired"),
    ("evicted: unused", "evicted_idle_timeout"),
    ("evicted: capacity", "evicted_capacity"),
    ("evicted: breaker", "evicted_circuit_breaker"),
    ("evicted: broken", "evicted_broken"),
)


class SimulationError(Exception):
    """A run failed; the message is what it printed."""


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- building and running --------------------------------------------------------------------------------


def build(folder: Path, variant: str) -> Path:
    """The program, built in a folder; ``variant`` is ``release`` or ``debug``.

    Raises:
        SimulationError: there is no compiler or no make, or one of them failed.
    """
    compiler = os.environ.get("CC", "cc")
    for tool in (compiler, "make"):
        if shutil.which(tool) is None:
            raise SimulationError(f"{tool} is not on PATH: nothing was simulated")
    make = ["make", f"-j{os.cpu_count() or 1}", "-C", str(HERE / "simulation"), f"CC={compiler}"]
    # Not the settings of a make that this runs under.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    done = subprocess.run(
        [*make, f"VARIANT={variant}", f"BUILD={folder / variant}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SimulationError(f"the simulation could not be built:\n{done.stdout}{done.stderr}")
    return folder / variant / "simulate"


def run(program: Path, part: str, *, wrapper: Sequence[str] = (), **options: int) -> tuple[Figures, str]:
    """One part of the simulation: its figures by name, and what was written to the standard error output.

    Raises:
        SimulationError: something did not add up.
    """
    arguments = [f"{name}={value}" for name, value in options.items()]
    command = [*wrapper, str(program), part, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or lines[-1:] != ["ok"]:
        raise SimulationError(f"{' '.join(command)}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
    return {name: float(value) for name, value in (line.split() for line in lines[:-1])}, done.stderr


def instructions(program: Path, keys: int, traffic: str, folder: Path) -> Figures:
    """What callgrind counts for one hit: instructions, and misses in the caches that it imitates."""
    wrapper = ["valgrind", "--tool=callgrind", "--cache-sim=yes", *CACHES, "--toggle-collect=counted_hits"]
    wrapper.append(f"--callgrind-out-file={folder / 'callgrind.out'}")
    figures, text = run(program, f"instructions_{traffic}", wrapper=wrapper, keys=keys)
    (folder / "callgrind.out").unlink(missing_ok=True)
    collected = re.search(r"Collected : ([\d ]+)", text)
    if collected is None:
        raise SimulationError(f"callgrind counted nothing:\n{text}")
    # Zeros at the end are left out.
    events = [int(value) for value in collected[1].split()]
    fetched, _, _, _, read_1, write_1, _, read_last, write_last = [*events, *[0] * 9][:9]
    hits = figures["counted_hits"]
    return {
        "instructions": fetched / hits,
        "first_level_misses": (read_1 + write_1) / hits,
        "last_level_misses": (read_last + write_last) / hits,
    }


def available_bytes() -> int | None:
    """What the kernel could give without swapping; None where it does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", text)
    return None if found is None else int(found[1]) * 1024


def fits(keys: int) -> bool:
    """Whether there is memory for so many keys; says so, loudly, where there is not."""
    needed, available = keys * BYTES_PER_KEY, available_bytes()
    if available is None or available >= needed + (512 << 20):
        return True
    note(
        f"!!! SKIPPED {keys:,} keys: they need {needed / 2**30:.1f} GiB and half a GiB to spare, "
        f"MemAvailable is {available / 2**30:.1f} GiB"
    )
    return False


def rounds_of(keys: int, rounds: int) -> int:
    """The largest pools take minutes to fill: fewer rounds."""
    return min(rounds, 2) if keys > 1_000_000 else rounds


def simulate(program: Path, sizes: Iterable[int], rounds: int, operations: int) -> dict[int, Figures]:
    """All figures of all sizes that fit into memory."""
    samples: dict[int, dict[str, list[float]]] = {}
    for number in range(rounds):
        for keys in sizes:
            if number >= rounds_of(keys, rounds) or not fits(keys):
                continue
            parts = ["time", "traffic"] + ["memory"] * (number == 0)  # memory is the same each time
            for part in parts:
                note(f"... {keys:,} keys, {part}, round {number + 1}")
                figures, _ = run(program, part, keys=keys, operations=operations)
                for name, value in figures.items():
                    samples.setdefault(keys, {}).setdefault(name, []).append(value)
    return {
        keys: {name: (min if "longest" in name else median)(values) for name, values in by_name.items()}
        for keys, by_name in sorted(samples.items())
    }


def check_everything(program: Path) -> int:
    """Run small pools with a walk over the whole pool after operations; how many keys they had."""
    for part in ("time", "traffic"):
        run(program, part, keys=1_000, operations=4_000, check=64)
        run(program, part, keys=64, operations=4_000, check=1, gateways=7)
    return 1_000


# ---- tables ----------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: float, unit: float = 1.0, digits: int = 0) -> str:
    return f"{value / unit:,.{digits}f}"


def time_table(results: Mapping[int, Figures]) -> str:
    first = results[min(results)]
    return table(
        ["ns (ratio to the first column)", *(f"{keys:,} keys" for keys in results)],
        (
            [what, *(f"{cell(of[name])} ({of[name] / first[name]:.1f})" for of in results.values())]
            for what, name in TIMES
        ),
    )


def plain_table(
    title: str,
    rows: Sequence[tuple[str, str]],
    results: Mapping[int, Figures],
    unit: float = 1.0,
    digits: int = 0,
) -> str:
    return table(
        [title, *(f"{keys:,} keys" for keys in results)],
        ([what, *(cell(of[name], unit, digits) for of in results.values())] for what, name in rows),
    )


def instruction_table(program: Path, sizes: Iterable[int], folder: Path) -> str:
    rows = []
    for keys in sizes:
        for traffic in ("zipf", "uniform"):
            note(f"... {keys:,} keys, {traffic}, under callgrind")
            of = instructions(program, keys, traffic, folder)
            rows.append(
                [
                    f"{keys:,} keys, {traffic}",
                    cell(of["instructions"]),
                    cell(of["first_level_misses"], digits=1),
                    cell(of["last_level_misses"], digits=1),
                ]
            )
    return table(["for one hit", "instructions", "misses, 32 KiB", "misses, 32 MiB"], rows)


def plot(results: Mapping[int, Figures], folder: Path) -> None:
    """Growth curves as PNG. Needs matplotlib."""
    import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]

    curves = (
        ("hit, keys by Zipf's law", "hit_zipf_ns"),
        ("hit, keys uniform", "hit_uniform_ns"),
        ("miss", "open_ns"),
        ("hand-off", "hand_off_ns"),
        ("expire one", "expire_lifetime_ns"),
    )
    figure, (times, bytes_) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for label, name in curves:
        times.plot(list(results), [of[name] for of in results.values()], marker="o", label=label)
    times.set(xscale="log", yscale="log", xlabel="keys", ylabel="ns an operation", ylim=(100, None))
    times.legend(frameon=False, fontsize=8)
    bottom = [0.0] * len(results)
    for label, name in MEMORY[:3]:
        heights = [of[name] for of in results.values()]
        bytes_.bar([f"{keys:,}" for keys in results], heights, bottom=bottom, label=label, width=0.6)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    bytes_.set(xlabel="keys", ylabel="bytes for a key with one idle session", ylim=(0, max(bottom) * 1.35))
    bytes_.tick_params(axis="x", labelsize=7)
    bytes_.legend(frameon=False, fontsize=8)
    for axes in (times, bytes_):
        axes.spines[["top", "right"]].set_visible(False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "scale-growth.png", dpi=90)
    plt.close(figure)


# ---- the command -----------------------------------------------------------------------------------------


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="up to 100,000 keys, one round: some seconds")
    parser.add_argument("--sizes", help="numbers of keys, with commas between them")
    parser.add_argument("--rounds", type=int, default=5, help="default 5; the largest pools take two at most")
    parser.add_argument("--operations", type=int, default=400_000, help="hits, arrivals: default 400,000")
    parser.add_argument("--no-instructions", action="store_true", help="without callgrind")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw scale-growth.png there")
    parser.add_argument("--save", type=Path, metavar="FILE", help="all figures, as JSON")
    parser.add_argument("--build", type=Path, default=HERE / "simulation" / "build", help="where to build")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    start = time.monotonic()
    sizes = SHORT_SIZES if options.short else SIZES
    if options.sizes:
        sizes = tuple(sorted(int(size.replace("_", "")) for size in options.sizes.split(",")))
    rounds, operations = (1, 20_000) if options.short else (options.rounds, options.operations)
    try:
        program, debug = build(options.build, "release"), build(options.build, "debug")
    except SimulationError as error:
        note(str(error))
        return 2
    try:
        checked = check_everything(debug)
        results = simulate(program, sizes, rounds, operations)
        if not results:
            note("no size fits into memory")
            return 1
        print(time_table(results), end="\n\n")
        print(plain_table("longest, µs", LONGEST, results, unit=1e3), end="\n\n")
        print(plain_table("bytes", MEMORY, results), end="\n\n")
        print(plain_table(f"of {operations:,} arrivals", TRAFFIC, results), end="\n\n")
        if options.short or options.no_instructions:
            pass
        elif shutil.which("valgrind") is None:
            note("!!! SKIPPED the counts of instructions: valgrind is not on PATH")
        else:
            counted = [keys for keys in INSTRUCTION_SIZES if keys <= max(sizes)]
            print(instruction_table(program, counted, options.build), end="\n\n")
    except SimulationError as error:
        note(f"the simulation FAILED\n{error}")
        return 1
    if options.save is not None:
        options.save.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.plot is not None:
        plot(results, options.plot)
    small, large = min(results), max(results)
    ratio = results[large]["hit_zipf_ns"] / results[small]["hit_zipf_ns"]
    print(
        f"{small:,} to {large:,} keys, every count and every session accounted for (whole pool walked at "
        f"{checked:,} keys); a hit at {large:,} keys takes {ratio:.1f} times that at {small:,}; "
        f"{time.monotonic() - start:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
