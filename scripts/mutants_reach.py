"""Which tests reach which line: measured once for each file of tests, kept until it or the sources change.

Lines of Python by `coverage`, lines of C by `gcov`; both for each test, also in the processes that it starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mutants_build import GCOV_LINK, PACKAGE, BuildError, Environment, Extension, run, run_or_raise
from mutants_sites import Mutation

HERE = Path(__file__).resolve().parent
# The line of a .pth file.
START_COVERAGE = (
    "import os; 'COVERAGE_PROCESS_START' in os.environ and __import__('coverage').process_startup()\n"
)
# Seconds for all tests of a suite: one that hangs must not hang this.
SUITE_LIMIT = 3600.0
PROGRAM_LIMIT = 300.0
C_TESTS = "tests/c"


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests that run in one environment.

    Attributes:
        name: of it.
        venv: what is behind the name of the release environment.
        paths: of its tests.
        options: more for pytest.
        without: files that do not judge.
        has_extension: C mistakes are judged by it too.
    """

    name: str
    venv: str
    paths: tuple[str, ...]
    options: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    has_extension: bool = False


GATEWAY_OPTIONS = ("-o", "filterwarnings=default")
SUITES = (
    Suite(
        "python",
        "",
        ("tests/unit", "tests/security", "tests/isolated", "tests/integration"),
        # Of what lies beside the package, and of faults that last for minutes.
        without=frozenset(
            f"test_{name}.py"
            for name in ("lab", "benchmarks", "simulation", "examples", "faults", "faults_pool")
        ),
        has_extension=True,
    ),
    Suite("gateway", "-gateway", ("tests/gateway",), GATEWAY_OPTIONS),
    Suite("registry", "-gateway-1.1.0", ("tests/gateway_registry",), GATEWAY_OPTIONS),
)


@dataclass(frozen=True, slots=True)
class Test:
    """One test, or one program of tests/c."""

    suite: str
    name: str
    seconds: float


# For each file, for each line, the tests that reach it, by number.
Lines = dict[str, dict[int, set[int]]]


def no_lines() -> Lines:
    """To be filled."""
    return defaultdict(lambda: defaultdict(set))


@dataclass
class Reach:
    """Which tests reach which lines."""

    tests: list[Test] = field(default_factory=list)
    lines: Lines = field(default_factory=no_lines)

    def add(self, suite: str, kept: dict[str, Any]) -> None:
        """Add what was kept of a file of tests."""
        first = len(self.tests)
        self.tests += [Test(suite, name, seconds) for name, seconds in kept["tests"]]
        for path, lines in kept["lines"].items():
            for line, tests in lines.items():
                self.lines[path][int(line)].update(first + test for test in tests)

    def tests_for(self, mutation: Mutation) -> list[Test]:
        """The tests that reach a mistake, the quickest first.

        A line that is no statement of its own is reached with the statement around it; what stands outside of
        functions is reached by whoever reaches the file.
        """
        lines = self.lines.get(mutation.path, {})
        found = set(lines.get(mutation.line, ()))
        if not found and mutation.function:
            first, last = mutation.statement
            found = set().union(*(lines.get(line, ()) for line in range(first, min(last, mutation.line) + 1)))
        if self._is_outside(mutation):
            found = set().union(*lines.values())
        return sorted((self.tests[number] for number in found), key=lambda test: (test.seconds, test.name))

    @staticmethod
    def _is_outside(mutation: Mutation) -> bool:
        # The body of a class in Python is run when the module is imported.
        last = mutation.function.rpartition(".")[2]
        return not last or (mutation.path.endswith(".py") and last.lstrip("_")[:1].isupper())


class Surveyor:
    """Measures what is reached.

    Args:
        tree: the copy of the checkout.
        folder: for builds and data.
        kept: where the results are kept from run to run.
        say: prints a line.
    """

    def __init__(self, tree: Path, folder: Path, kept: Path, say: Callable[[str], None]) -> None:
        self._tree = tree
        self._folder = folder
        self._kept = kept
        self._say = say
        self._sources = digest_of(tree, ["csrc", PACKAGE, "setup.py"])
        self._helpers = digest_of(tree, ["tests/support", "tests/servers", "tests/conftest.py"])

    def survey(self, suites: Iterable[tuple[Suite, Path]]) -> Reach:
        """Measure what is not known yet.

        Args:
            suites: each with its base environment.
        """
        reach = Reach()
        self._survey_programs()
        for suite, base in suites:
            self._survey_suite(suite, base)
        names = ["c", *(suite.name for suite, _ in suites)]
        for name in names:
            for path in sorted((self._kept / name).glob("*.json")):
                kept = json.loads(path.read_text(encoding="utf-8"))
                if kept["digest"] == self._digest(kept["file"]):
                    reach.add(name, kept)
        return reach

    def _digest(self, file: str) -> str:
        if not (self._tree / file).exists():
            return ""
        helpers = digest_of(self._tree, [str(Path(file).parent / "conftest.py")])
        return "-".join((self._sources, self._helpers, helpers, digest_of(self._tree, [file])))

    def _is_known(self, suite: str, file: str) -> bool:
        path = self._path(suite, file)
        return path.exists() and json.loads(path.read_text(encoding="utf-8"))["digest"] == self._digest(file)

    def _path(self, suite: str, file: str) -> Path:
        return self._kept / suite / (file.replace("/", "-") + ".json")

    def _keep(self, suite: str, file: str, tests: list[tuple[str, float]], lines: Lines) -> None:
        path = self._path(suite, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {
            "file": file,
            "digest": self._digest(file),
            "tests": tests,
            "lines": {
                path: {line: sorted(tests) for line, tests in lines.items()} for path, lines in lines.items()
            },
        }
        path.write_text(json.dumps(kept), encoding="utf-8")

    # ---- C

    def _survey_programs(self) -> None:
        folder = self._tree / C_TESTS
        names = sorted(path.stem for path in folder.glob("test_*.c"))
        names = [name for name in names if not self._is_known("c", f"{C_TESTS}/{name}.c")]
        if not names:
            return
        self._say(f"measuring what {len(names)} C test programs reach")
        build = self._folder / "c-reach"
        make: list[str | Path] = [
            "make",
            "-C",
            folder,
            "programs",
            f"BUILD={build}",
            "CFLAGS=--coverage -Wno-error",
            f"LDFLAGS={GCOV_LINK}",  # for children that are killed: harness_note_reached()
        ]
        run_or_raise([*make, f"TESTS={' '.join(names)}"], self._tree)
        for name in names:
            prefix = self._folder / "gcov" / name
            variables = {"GCOV_PREFIX": str(prefix)}
            begin = time.monotonic()
            code, _ = run([build / name], folder, limit=PROGRAM_LIMIT, variables=variables)
            seconds = time.monotonic() - begin
            if code != 0:
                self._say(f"{name} is left out: it fails without a mistake (exit code {code})")
                continue
            reached = gcov_lines(prefix, self._tree)
            lines = {path: {line: {0} for line in numbers} for path, numbers in reached.items()}
            self._keep("c", f"{C_TESTS}/{name}.c", [(name, round(seconds, 3))], lines)

    # ---- Python

    def _survey_suite(self, suite: Suite, base: Path) -> None:
        stale = {folder: self._stale_files(suite, folder) for folder in suite.paths}
        if not any(stale.values()):
            return
        environment = Environment(self._folder / f"{suite.name}-reach", base, self._tree)
        if suite.has_extension:
            python, build = base / "bin" / "python", self._folder / "extension-reach"
            extension = Extension(self._tree, python, build, "--coverage -O0", GCOV_LINK)
            environment.put_extension(extension.build())
        environment.install("coverage>=7.10")
        shutil.copy2(HERE / "mutants_plugin.py", environment.site)
        (environment.site / "mutants.pth").write_text(START_COVERAGE, encoding="utf-8")
        for folder, files in stale.items():
            if files:
                self._say(f"measuring what {len(files)} files of {folder} reach")
                self._survey_folder(suite, environment, folder, files)

    def _stale_files(self, suite: Suite, folder: str) -> list[str]:
        """The files of tests in a folder that are not known yet."""
        paths = sorted((self._tree / folder).glob("test_*.py"))
        files = [f"{folder}/{path.name}" for path in paths if path.name not in suite.without]
        return [file for file in files if not self._is_known(suite.name, file)]

    def _survey_folder(self, suite: Suite, environment: Environment, folder: str, files: list[str]) -> None:
        data = self._folder / folder.replace("/", "-")
        data.mkdir()
        variables = self._watch(environment, data)
        command: list[str | Path] = [environment.python, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [
            "-p",
            "mutants_plugin",
            "-m",
            "not release_build and not long",
            "--timeout",
            "200",
            *suite.options,
        ]
        code, output = run([*command, *files], self._tree, limit=SUITE_LIMIT, variables=variables)
        (self._kept / f"{data.name}.log").write_text(output, encoding="utf-8")
        results = read_results(data / "results")
        if not results:
            raise BuildError(f"no test in {folder} ran (exit code {code}):\n{output[-4000:]}")
        failed = [name for name, result in results.items() if result["outcome"] == "failed"]
        if failed or code != 0:
            self._say(f"left out, as they fail without a mistake: {', '.join(failed)} (exit code {code})")
        self._keep_results(suite, environment, data, files, results)
        shutil.rmtree(data)

    def _watch(self, environment: Environment, data: Path) -> dict[str, str]:
        """What lets each process of this environment write down what it reaches, as variables."""
        settings = data / "coveragerc"
        settings.write_text(
            "[run]\n"
            "core = ctrace\n"
            "parallel = True\n"
            f"data_file = {data / 'coverage'}\n"
            "context = ${MUTANTS_CONTEXT-}\n"
            f"include = {environment.package}/*\n"
            "concurrency = thread\n",
            encoding="utf-8",
        )
        return {
            "COVERAGE_PROCESS_START": str(settings),
            "MUTANTS_CONTEXT": "",
            "MUTANTS_REACH": str(data),
            "MUTANTS_RESULTS": str(data / "results"),
            "GCOV_PREFIX": str(data / "gcov" / "start"),
        }

    def _keep_results(
        self,
        suite: Suite,
        environment: Environment,
        data: Path,
        files: list[str],
        results: dict[str, dict[str, Any]],
    ) -> None:
        by_file: dict[str, list[tuple[str, float]]] = defaultdict(list)
        numbers: dict[str, int] = {}
        for name, result in results.items():
            if result["outcome"] == "passed":
                file = name.partition("::")[0]
                numbers[name] = len(by_file[file])
                by_file[file].append((name, result["seconds"]))
        lines: dict[str, Lines] = defaultdict(no_lines)
        for name, path, line in self._reached(environment, data):
            if name in numbers:
                lines[name.partition("::")[0]][path][line].add(numbers[name])
        for file in files:
            self._keep(suite.name, file, by_file[file], lines[file])

    def _reached(self, environment: Environment, data: Path) -> Iterator[tuple[str, str, int]]:
        """Test, path and line, for each line that a test reached."""
        code = (
            "import sys, json, coverage\n"
            "c = coverage.Coverage(data_file=sys.argv[1], config_file=False)\n"
            "c.combine(sys.argv[2:])\n"
            "d = c.get_data()\n"
            "for f in d.measured_files():\n"
            "    print(json.dumps([f, d.contexts_by_lineno(f)]))\n"
        )
        combined = data.parent / f"{data.name}-combined"
        written = sorted(data.glob("coverage.*"))
        command: list[str | Path] = [environment.python, "-P", "-W", "ignore", "-c", code, combined, *written]
        output = run_or_raise(command, self._tree)
        for row in output.splitlines():
            if not row.startswith("["):
                continue
            file, contexts = json.loads(row)
            path = f"{PACKAGE}/{Path(file).relative_to(environment.package)}"
            for line, names in contexts.items():
                for context in names:
                    for name in context.split("|"):
                        yield name, path, int(line)
        for folder in sorted((data / "gcov").glob("*/test")):
            name = folder.read_text(encoding="utf-8")
            for path, reached in gcov_lines(folder.parent, self._tree).items():
                for line in reached:
                    yield name, path, line


def gcov_lines(prefix: Path, tree: Path) -> dict[str, set[int]]:
    """The lines of csrc that were reached, from the data of gcov below a folder. The data is removed."""
    data = []
    for path in sorted(prefix.rglob("*.gcda")):
        notes = Path("/", path.relative_to(prefix)).with_suffix(".gcno")
        if notes.exists():
            (path.with_suffix(".gcno")).symlink_to(notes)
            data.append(path)
    reached: dict[str, set[int]] = defaultdict(set)
    if not data:
        return reached
    code, output = run(["gcov", "--json-format", "--stdout", *data], prefix)
    if code != 0:
        raise BuildError(f"gcov: exit code {code}\n{output[-2000:]}")
    for row in output.splitlines():
        if not row.startswith("{"):
            continue
        report = json.loads(row)
        for file in report["files"]:
            name = os.path.relpath(os.path.join(report["current_working_directory"], file["file"]), tree)
            if name.startswith("csrc/"):
                reached[name].update(line["line_number"] for line in file["lines"] if line["count"])
    shutil.rmtree(prefix)
    return reached


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """What the plugin wrote of each test."""
    if not path.exists():
        return {}
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    return {row["test"]: row for row in rows}


def digest_of(root: Path, names: Iterable[str]) -> str:
    """A short digest of files and folders."""
    digest = hashlib.sha256()
    for name in names:
        paths = [root / name] if (root / name).is_file() else sorted((root / name).rglob("*"))
        for path in paths:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
