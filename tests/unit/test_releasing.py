"""What decides how wheels are built, what they may promise, and what a release says."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEEL = "mcpgateway_pool-0.2.0-cp312-cp312-{}.whl".format


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports one of scripts/."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    before = set(sys.modules)
    yield importlib.import_module
    for path in (ROOT / "scripts").glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


# ---------------------------------------------------------------- the platform that a wheel promises


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("manylinux_2_28_x86_64", "manylinux_2_28_x86_64"),
        ("musllinux_1_2_aarch64", "musllinux_1_2_aarch64"),
        ("manylinux_2_34_x86_64.manylinux_2_17_x86_64", "manylinux_2_17_x86_64"),
        ("linux_x86_64", "None"),
        ("any", "None"),
    ],
)
def test_a_wheels_name_promises_the_oldest_platform_in_it(
    script: Callable[[str], ModuleType], name: str, expected: str
) -> None:
    assert str(script("wheel_platform").Platform.of_wheel(WHEEL(name))) == expected


@pytest.mark.parametrize(
    ("granted", "promised", "is_enough"),
    [
        ("manylinux_2_26_x86_64", "manylinux_2_28_x86_64", True),  # what needs less loads there, too
        ("manylinux_2_28_x86_64", "manylinux_2_28_x86_64", True),
        ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", False),
        ("manylinux_2_9_x86_64", "manylinux_2_28_x86_64", True),  # versions are numbers, not text
        ("manylinux_2_28_aarch64", "manylinux_2_28_x86_64", False),
        ("musllinux_1_2_x86_64", "manylinux_2_28_x86_64", False),
    ],
)
def test_a_grant_covers_the_same_libc_of_that_version_or_later(
    script: Callable[[str], ModuleType], granted: str, promised: str, is_enough: bool
) -> None:
    of = script("wheel_platform").Platform.of
    assert of(granted).covers(of(promised)) is is_enough


def test_the_grant_is_what_auditwheel_calls_consistent(script: Callable[[str], ModuleType]) -> None:
    shown = """
x-cp312-cp312-manylinux_2_28_aarch64.whl
is consistent with the following platform tag:
"manylinux_2_26_aarch64".

The wheel references external versioned symbols in these
system-provided shared libraries: libc.so.6 with versions {'GLIBC_2.17'}
"""
    platforms = script("wheel_platform")
    assert str(platforms.granted(shown)) == "manylinux_2_26_aarch64"
    assert platforms.granted(shown.replace("manylinux_2_26_aarch64", "linux_aarch64")) is None
    assert platforms.granted("") is None


# ---------------------------------------------------------------- what each wheel is built with


def test_there_is_a_wheel_for_each_python_libc_and_processor(script: Callable[[str], ModuleType]) -> None:
    targets = script("build_wheels").TARGETS
    assert len(targets) == len(set(targets)) == 12
    assert {target.platform for target in targets} == {
        "manylinux_2_28_x86_64",
        "manylinux_2_28_aarch64",
        "musllinux_1_2_x86_64",
        "musllinux_1_2_aarch64",
    }
    classifiers = (ROOT / "pyproject.toml").read_text()
    for python in {target.python for target in targets}:
        assert f'"Programming Language :: Python :: {python}"' in classifiers


@pytest.mark.parametrize(
    ("libc", "compiler_target", "suffix"),
    [
        ("gnu", "aarch64-linux-gnu.2.28", ".cpython-313-aarch64-linux-gnu.so"),
        ("musl", "aarch64-linux-musl", ".cpython-313-aarch64-linux-musl.so"),
    ],
)
def test_compiler_and_name_of_the_extension_are_for_the_same_machine(
    script: Callable[[str], ModuleType], tmp_path: Path, libc: str, compiler_target: str, suffix: str
) -> None:
    target = script("build_wheels").Target("3.13", "aarch64", libc)
    variables = target.variables(tmp_path)
    for name in ("CC", "LDSHARED"):
        assert f" -target {compiler_target} " in variables[name] + " "
        assert "rpath" not in variables[name]
    assert variables["SETUPTOOLS_EXT_SUFFIX"] == suffix
    assert variables["_PYTHON_HOST_PLATFORM"] == "linux-aarch64"


@pytest.mark.parametrize(
    ("tag", "machine", "libc", "expected"),
    [
        ("manylinux_2_28_x86_64", "x86_64", "glibc", True),
        ("manylinux_2_28_x86_64", "x86_64", "musl", False),
        ("manylinux_2_28_aarch64", "x86_64", "glibc", False),
        ("musllinux_1_2_x86_64", "x86_64", "musl", True),
        ("musllinux_1_2_x86_64", "x86_64", "glibc", False),
        ("linux_x86_64", "x86_64", "glibc", True),
    ],
)
def test_what_this_machine_can_load_is_tried_and_nothing_else(
    script: Callable[[str], ModuleType], tag: str, machine: str, libc: str, expected: bool
) -> None:
    check_dist = script("check_dist")
    assert check_dist.fits(WHEEL(tag), machine, libc) is expected
    assert check_dist.version_of(WHEEL(tag)) == "3.12"


def compiled(folder: Path, source: str, *arguments: str) -> bytes:
    """A shared library of that C source."""
    library = folder / "library.so"
    (folder / "library.c").write_text(source)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", *arguments, folder / "library.c", "-o", library], check=True, timeout=60
    )
    return library.read_bytes()


@pytest.mark.parametrize(
    ("source", "arguments", "expected"),
    [
        ("int PyInit__core(void) { return 0; }", ["-s"], None),
        ("int PyInit__core(void) { return 0; } int leaked;", ["-s"], "exports ['PyInit__core', 'leaked']"),
        ("int PyInit__core(void) { return 0; }", ["-s", "-Wl,-rpath,/opt/builder"], "/opt/builder"),
        ("int PyInit__core(void) { return 0; }", ["-g"], "is not stripped: .debug"),
    ],
)
def test_what_an_extension_should_not_carry_is_found(
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    source: str,
    arguments: list[str],
    expected: str | None,
) -> None:
    check_wheels = script("check_wheels")
    library = compiled(tmp_path, source, *arguments)
    machine = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}[check_wheels.machine_of(library)]
    problems = check_wheels.extension_problems(library, machine)
    if expected is None:
        assert problems == []
    else:
        assert any(expected in problem for problem in problems)
    other = "aarch64" if machine == "x86_64" else "x86_64"
    assert any(f"not for {other}" in problem for problem in check_wheels.extension_problems(library, other))


# ---------------------------------------------------------------- what a release says

CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Tomorrow's.

## [0.2.0] - 2026-11-30

### Fixed

- A fault.

## [0.1.0] - unreleased

- The first.
"""


def test_notes_are_the_section_of_that_version_alone(script: Callable[[str], ModuleType]) -> None:
    assert script("release_notes").notes(CHANGELOG, "0.2.0") == "### Fixed\n\n- A fault."


@pytest.mark.parametrize(
    ("version", "why"), [("0.3.0", "says nothing of 0.3.0"), ("0.1.0", "no date for 0.1.0")]
)
def test_version_without_notes_or_date_is_no_release(
    script: Callable[[str], ModuleType], version: str, why: str
) -> None:
    release_notes = script("release_notes")
    with pytest.raises(release_notes.ReleaseError, match=why):
        release_notes.notes(CHANGELOG, version)


def test_every_section_of_the_changelog_says_something(script: Callable[[str], ModuleType]) -> None:
    sections = script("release_notes").sections((ROOT / "CHANGELOG.md").read_text())
    assert "Unreleased" in sections
    assert all(text for version, (_, text) in sections.items() if version != "Unreleased")


def test_a_tag_of_another_version_is_refused() -> None:
    script = ROOT / "scripts" / "release_notes.py"
    done = subprocess.run(
        [sys.executable, script, "--tag", "v0.0.0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "the tag is v0.0.0" in done.stderr


# ---------------------------------------------------------------- what is written twice


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_workflows_make_goals_that_there_are() -> None:
    goals = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {goal for path in WORKFLOWS for goal in re.findall(r"\bmake ([a-z-]+)", path.read_text())}
    assert {"lint", "test", "test-py", "wheels", "sanitize"} <= asked <= goals


def test_workflows_find_the_packages_that_ci_installs() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    [expression] = re.findall(r"\$\(sed -n '([^']+)' \.ci/run\)", workflow)
    command = ["sed", "-n", expression, ROOT / ".ci" / "run"]
    packages = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert {"gcc", "clang", "valgrind", "prometheus", "redis-server", "iproute2"} <= set(packages)
    assert all(re.fullmatch(r"[a-z0-9.+-]+", package) for package in packages)


def test_the_claim_that_is_left_out_under_an_emulator_is_one(script: Callable[[str], ModuleType]) -> None:
    ports = script("test_ports")
    runs = "".join(path.read_text() for path in (ROOT / "tests" / "c").glob("test_*.c"))
    assert f"RUN({ports.LEFT_OUT});" in runs
    assert {port.name for port in ports.ports() if port.variables} == {"aarch64", "s390x"}
