"""Makes mistakes in the code, one at a time, and counts those that the tests see.

`make mutants`, or with arguments: `make mutants SECONDS=600 N=50 SEED=7`. Places are drawn evenly from all
where a mistake can be made and that a test reaches; the same seed draws the same on the same tree. Everything
happens in a temporary copy. A mistake is caught when a test fails, crashes or hangs that passes without it.
Mistakes that change nothing that anybody could notice are listed in scripts/mutants_equivalent.txt: they do
not count, nor do those for which the compiler makes the same code.

Prints the score and what survived, and exits with 1 where the score is below `--least`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from mutants_build import PACKAGE, copy_checkout
from mutants_judge import Judge, Outcome, Verdict
from mutants_reach import SUITES, Reach, Surveyor
from mutants_sites import Mutation, all_sites
from process_sessions import run_interruptibly

EQUIVALENT = HERE / "mutants_equivalent.txt"
FOLDERS = ("csrc", PACKAGE)


@dataclass(frozen=True, slots=True)
class Key:
    """Names a mistake without its path and line, which change: by function, line of code, and change."""

    function: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A mistake and what became of it."""

    mutation: Mutation
    key: Key
    verdict: Verdict

    def __str__(self) -> str:
        where = f"{self.mutation.path}:{self.mutation.line} {self.key.function or '(top)'}"
        return f"{where} [{self.mutation.operator}]\n    - {self.key.before}\n    + {self.key.after}"


def say(text: str) -> None:
    """Print a line now."""
    print(text, flush=True)


def read_equivalent(text: str) -> dict[Key, str]:
    """The listed mistakes and why each changes nothing.

    Each is a paragraph: the function ("(top)" outside of any), "- " and the line before, "+ " and the line
    after, "= " and the reason. Lines that begin with # say something to the reader.

    Raises:
        ValueError: a paragraph has another form.
    """
    listed = {}
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in filter(None, (part.strip() for part in re.split(r"\n\s*\n", kept))):
        lines = paragraph.splitlines()
        marks = [line[:2] for line in lines[1:]]
        if marks != ["- ", "+ ", "= "]:
            raise ValueError(f"not of the form function, -, +, =: {paragraph!r}")
        function = "" if lines[0] == "(top)" else lines[0]
        listed[Key(function, lines[1][2:], lines[2][2:])] = lines[3][2:]
    return listed


def key_of(mutation: Mutation, source: bytes) -> Key:
    """What names a mistake."""
    return Key(mutation.function, *mutation.change(source))


def drawn(sites: Sequence[Sequence[Mutation]], seed: int) -> list[Mutation]:
    """A mistake of each site, in an order that only the seed decides."""
    chance = random.Random(seed)
    order = list(sites)
    chance.shuffle(order)
    return [chance.choice(site) for site in order]


def summary(judged: Sequence[Judged], seed: int, seconds: float) -> str:
    """The score and the survivors."""
    counts = Counter(each.verdict.outcome for each in judged)
    caught, survived = counts[Outcome.CAUGHT], counts[Outcome.SURVIVED]
    lines = []
    for outcome, title in ((Outcome.SURVIVED, "survivors"), (Outcome.UNREACHED, "reached by no test")):
        found = [f"{each}" for each in judged if each.verdict.outcome is outcome]
        lines += [f"{title}:", *found] if found else []
    lines += [
        f"    (judged by {each.verdict.tests} of {each.verdict.all_tests} tests) {each.mutation.path}:"
        f"{each.mutation.line}"
        for each in judged
        if each.verdict.outcome is Outcome.SURVIVED and each.verdict.tests < each.verdict.all_tests
    ]
    left_out = ", ".join(
        f"{counts[outcome]} {outcome.value}"
        for outcome in Outcome
        if outcome not in {Outcome.CAUGHT, Outcome.SURVIVED} and counts[outcome]
    )
    if left_out:
        lines.append(f"not counted: {left_out}")
    score = score_of(judged)
    spread = 196 * math.sqrt(score * (1 - score) / max(caught + survived, 1))
    lines.append(
        f"{caught} of {caught + survived} mistakes caught, {100 * score:.1f} % (±{spread:.1f}), "
        f"seed {seed}, {seconds / 60:.0f} min"
    )
    return "\n".join(lines)


def score_of(judged: Sequence[Judged]) -> float:
    """The share of what was caught."""
    counts = Counter(each.verdict.outcome for each in judged)
    return counts[Outcome.CAUGHT] / max(counts[Outcome.CAUGHT] + counts[Outcome.SURVIVED], 1)


class Run:
    """One sample; ``judged`` has what was judged so far.

    Args:
        options: the arguments.
        folder: for the copy and all that is built; the caller removes it.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.judged: list[Judged] = []
        self._options = options
        self._tree = folder / "tree"
        copy_checkout(ROOT, self._tree)
        bases = [
            (suite, Path(f"{Path(options.venv).absolute()}{suite.venv}"))
            for suite in SUITES
            if suite.name in options.suites
        ]
        self._suites = [(suite, base) for suite, base in bases if (base / "bin" / "python").exists()]
        for suite, base in bases:
            if (suite, base) not in self._suites:
                say(f"!!! without the {suite.name} tests, as there is no {base}")
        options.kept.mkdir(parents=True, exist_ok=True)
        self._reach: Reach = Surveyor(self._tree, folder, options.kept, say).survey(self._suites)
        self._judge = Judge(self._tree, folder, self._suites, options.test_seconds)
        self._listed = read_equivalent(EQUIVALENT.read_text(encoding="utf-8"))

    def sample(self) -> None:
        """Judge mistakes until there are enough, or the time is over."""
        options = self._options
        end = time.monotonic() + options.seconds
        sites, sources = all_sites(self._tree, FOLDERS)
        say(f"{len(sites)} places for a mistake")
        count = 0
        for mutation in drawn(sites, options.seed):
            if count >= options.count or time.monotonic() >= end:
                break
            key = key_of(mutation, sources[mutation.path])
            if options.only not in f"{mutation.path}:{mutation.line} {key.function} {key.before}":
                continue
            if key in self._listed:
                verdict = Verdict(Outcome.LISTED)
            else:
                source = sources[mutation.path]
                verdict = self._judge.judge(mutation, source, self._reach.tests_for(mutation))
            self.judged.append(Judged(mutation, key, verdict))
            if verdict.outcome in {Outcome.CAUGHT, Outcome.SURVIVED}:
                count += 1
                how = f"caught by {verdict.by}" if verdict.by else f"SURVIVED: {key.before}  ->  {key.after}"
                say(f"{count:4} {mutation.path}:{mutation.line} [{mutation.operator}] {how}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=3600, help="stop after so long; default an hour")
    add("--count", type=int, default=200, help="mistakes that count; default 200")
    today = dt.datetime.now(dt.UTC).toordinal()
    add("--seed", type=int, default=today, help="another draws other mistakes; default: the day's number")
    add("--only", default="", metavar="TEXT", help="only where `path:line function code` has this in it")
    add("--test-seconds", type=float, default=60, help="tests for each, the quickest first; default a minute")
    names = [suite.name for suite in SUITES]
    add("--suites", nargs="+", default=names, choices=names, help="the tests that judge; default all")
    add("--least", type=float, default=0.0, help="exit with 1 below this share; default 0")
    add("--venv", default=str(ROOT / ".venv"), help="folder of the release environment")
    add("--kept", type=Path, default=ROOT / "build" / "mutants", help="for the summary and what tests reach")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        one = Run(options, folder)
        try:
            one.sample()
        finally:  # also of a run that was interrupted
            text = summary(one.judged, options.seed, time.monotonic() - begin)
            (options.kept / "summary.txt").write_text(f"{text}\n", encoding="utf-8")
            say(text)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if score_of(one.judged) < options.least else 0


if __name__ == "__main__":
    run_interruptibly(main)
