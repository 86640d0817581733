"""Judges one mistake: makes it in the work copy, runs the tests that reach it, and takes it back."""

from __future__ import annotations

import enum
import importlib.util
import marshal
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutants_build import PACKAGE, BuildError, Environment, Extension, run, run_or_raise
from mutants_reach import C_TESTS, Suite, Test, read_results
from mutants_sites import Mutation

# Tests of the first run: most mistakes are seen by one of the quickest.
FIRST_TESTS = 25
# A run may take so many times what its tests took without the mistake, and then some: machines are busy.
LIMIT_FACTOR = 5.0
LIMIT_SECONDS = 30.0
TEST_LIMIT_SECONDS = 20.0


class Outcome(enum.Enum):
    """How a mistake ended."""

    CAUGHT = "caught"
    SURVIVED = "survived"
    UNREACHED = "reached by no test"
    REFUSED = "refused by the compiler"
    SAME = "the same machine code or byte code"
    LISTED = "listed as equivalent"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mistake.

    Attributes:
        by: the test that saw it, "" where none did.
        tests, all_tests: how many tests ran, and how many reach it.
    """

    outcome: Outcome
    by: str = ""
    tests: int = 0
    all_tests: int = 0


class Judge:
    """The work copy with an environment without and one with a mistake for each suite.

    Args:
        tree: the copy of the checkout.
        folder: for environments and builds.
        suites: each with its base environment.
        test_seconds: tests of one mistake that together took longer are left out, the slowest first.
    """

    def __init__(
        self, tree: Path, folder: Path, suites: Sequence[tuple[Suite, Path]], test_seconds: float
    ) -> None:
        self._tree = tree
        self._folder = folder
        self._test_seconds = test_seconds
        self._suites = {suite.name: suite for suite, _ in suites}
        self._sound: dict[str, Environment] = {}
        self._broken: dict[str, Environment] = {}
        self._unreliable: set[Test] = set()
        self._extension: Extension | None = None
        for suite, base in suites:
            self._sound[suite.name] = self._environment(suite.name, base)
            self._broken[suite.name] = self._environment(f"{suite.name}-broken", base)
            if suite.has_extension:
                self._extension = Extension(tree, base / "bin" / "python", folder / "extension")
                self._library = self._extension.build()
                self._sound[suite.name].put_extension(self._library)
                self._broken[suite.name].put_extension(self._library)
        self._machine_code: dict[str, list[bytes]] = {}

    def _environment(self, name: str, base: Path) -> Environment:
        environment = Environment(self._folder / name, base, self._tree)
        plugin = Path(__file__).with_name("mutants_plugin.py")
        (environment.site / plugin.name).write_bytes(plugin.read_bytes())
        return environment

    def judge(self, mutation: Mutation, source: bytes, tests: Sequence[Test]) -> Verdict:
        """Make a mistake, run the tests that reach it, undo it."""
        tests = [test for test in tests if test not in self._unreliable]
        if not tests:
            return Verdict(Outcome.UNREACHED)
        if mutation.path.endswith(".py"):
            return self._judge_python(mutation, source, tests)
        return self._judge_c(mutation, source, tests)

    # ---- Python

    def _judge_python(self, mutation: Mutation, source: bytes, tests: Sequence[Test]) -> Verdict:
        broken = mutation.apply(source)
        try:
            if byte_code(broken) == byte_code(source):
                return Verdict(Outcome.SAME)
        except SyntaxError:
            return Verdict(Outcome.REFUSED)
        name = mutation.path.removeprefix(f"{PACKAGE}/")
        files = [environment.package / name for environment in self._broken.values()]
        try:
            for file in files:
                put(file, broken)
            return self._run(tests)
        finally:
            for file in files:
                put(file, source)

    # ---- C

    def _judge_c(self, mutation: Mutation, source: bytes, tests: Sequence[Test]) -> Verdict:
        assert self._extension is not None
        file = self._tree / mutation.path
        before = self._machine_code.get(mutation.path)
        if before is None:
            before = self._machine_code[mutation.path] = self._extension.machine_code(mutation.path)
        try:
            file.write_bytes(mutation.apply(source))
            try:
                if self._extension.machine_code(mutation.path) == before:
                    return Verdict(Outcome.SAME)
            except BuildError:
                return Verdict(Outcome.REFUSED)
            programs = [test for test in tests if test.suite == "c"]
            verdict = self._run_programs(programs)
            if verdict.outcome is Outcome.CAUGHT:
                return verdict
            others = [test for test in tests if test.suite != "c" and self._suites[test.suite].has_extension]
            if not others:
                return Verdict(verdict.outcome, "", verdict.tests, verdict.tests)
            library = self._extension.rebuild(mutation.path)
            for name, suite in self._suites.items():
                if suite.has_extension:
                    self._broken[name].put_extension(library)
            then = self._run(others)
            return Verdict(then.outcome, then.by, verdict.tests + then.tests, verdict.tests + then.all_tests)
        finally:
            file.write_bytes(source)
            self._extension.touch(mutation.path)

    def _run_programs(self, programs: Sequence[Test]) -> Verdict:
        build = self._folder / "c"
        # With the sanitizers: an access out of bounds need not show otherwise.
        make = ["make", "-s", "-C", C_TESTS, "programs", "VARIANT=asan"]
        make += [f"BUILD={build}", "CFLAGS=-Wno-error"]
        for number, program in enumerate(programs, start=1):
            # One at a time: the first often sees it, and each is linked anew.
            run_or_raise([*make, f"TESTS={program.name}"], self._tree)
            limit = program.seconds * LIMIT_FACTOR + LIMIT_SECONDS
            code, _ = run([build / program.name], self._tree / C_TESTS, limit=limit)
            if code != 0:
                how = " (time-out)" if code is None else ""
                return Verdict(Outcome.CAUGHT, program.name + how, number, len(programs))
        return Verdict(Outcome.SURVIVED, "", len(programs), len(programs))

    # ---- running

    def _run(self, tests: Sequence[Test]) -> Verdict:
        count = 0
        for batch in self._batches(tests):
            count += len(batch)
            seen = self._first_failure(self._broken, batch)
            if seen is not None and self._is_sound(seen, batch):
                return Verdict(Outcome.CAUGHT, seen, count, len(tests))
        return Verdict(Outcome.SURVIVED, "", count, len(tests))

    def _batches(self, tests: Sequence[Test]) -> Iterator[list[Test]]:
        """The tests to run, suite by suite, a few quick ones first, as long as the time allows."""
        left = self._test_seconds
        for name in self._suites:
            chosen: list[Test] = []
            for test in tests:
                if test.suite == name and (left >= test.seconds or not chosen):
                    chosen.append(test)
                    left -= test.seconds
            if chosen:
                yield chosen[:FIRST_TESTS]
            if chosen[FIRST_TESTS:]:
                yield chosen[FIRST_TESTS:]

    def _is_sound(self, seen: str, batch: Sequence[Test]) -> bool:
        """Whether the same passes without the mistake. A test that does not is left out from here on."""
        named = [test for test in batch if test.name == seen]
        again = self._first_failure(self._sound, named or batch)
        if again is None:
            return True
        self._unreliable.update(test for test in batch if test.name in {seen, again})
        return False

    def _first_failure(self, environments: dict[str, Environment], tests: Sequence[Test]) -> str | None:
        """The first test that fails; a text that says how the run ended where it told no test; None."""
        suite = self._suites[tests[0].suite]
        environment = environments[suite.name]
        results, names = self._folder / "results", self._folder / "names"
        results.unlink(missing_ok=True)
        names.write_text("\n".join(test.name for test in tests) + "\n", encoding="utf-8")
        longest = max(test.seconds for test in tests) * LIMIT_FACTOR + TEST_LIMIT_SECONDS
        limit = sum(test.seconds for test in tests) * LIMIT_FACTOR + LIMIT_SECONDS + longest
        command: list[str | Path] = [
            environment.python,
            "-P",
            "-m",
            "pytest",
            "-x",
            "-q",
            "--no-header",
            "--tb=no",
        ]
        command += ["-p", "no:cacheprovider", "-p", "mutants_plugin", *suite.options]
        command += ["--timeout", f"{longest:.0f}", "-o", f"faulthandler_timeout={longest + 5:.0f}"]
        variables = {
            "MUTANTS_RESULTS": str(results),
            "PYTHONMALLOC": "debug",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        code, _ = run([*command, f"@{names}"], self._tree, limit=limit, variables=variables)
        if code == 0:
            return None
        failed = [str(r["test"]) for r in read_results(results).values() if r["outcome"] == "failed"]
        if failed:
            return failed[0]
        return "a time-out" if code is None else f"an exit of pytest with {code}"


def byte_code(source: bytes) -> bytes:
    """What Python makes of a source, without the places in it."""
    return marshal.dumps(_bare(compile(source, "", "exec", dont_inherit=True)))


def _bare(code: types.CodeType) -> types.CodeType:
    constants = tuple(_bare(c) if isinstance(c, types.CodeType) else c for c in code.co_consts)
    return code.replace(co_consts=constants, co_linetable=b"", co_firstlineno=1)


def put(file: Path, source: bytes) -> None:
    """Write a module, and forget its byte code: two writes may have the same time stamp and size."""
    file.write_bytes(source)
    Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
