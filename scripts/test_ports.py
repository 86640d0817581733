#!/usr/bin/env python3
"""`make test-ports`: tests for machines of other kinds than this one, on a Debian or an Ubuntu on x86_64.

C tests on aarch64, on musl, with pointers of 32 bits, and big-endian (s390x); the package's unit tests on
aarch64, with the wheel that `make wheels` builds for it. What is not this machine's runs under qemu.
`test_ports.py --packages` prints what has to be installed for it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "ports"
DEBIAN = "bookworm"  # its Python is the one of AARCH64_PYTHON
AARCH64_PYTHON = "3.11"
# qemu ignores MADV_DONTFORK: the child keeps the mapping on which its parent's lock hangs.
LEFT_OUT = "forked_child_has_a_file_of_its_own_and_does_not_keep_its_parent_alive"


@dataclass(frozen=True)
class Port:
    """Another kind of machine: how the C tests are compiled for it, and run."""

    name: str
    compiler: str
    packages: tuple[str, ...]
    emulator: str = ""

    @property
    def command(self) -> list[str | Path]:
        """What builds and runs the C tests."""
        return [
            *("make", "-C", ROOT / "tests" / "c", "--keep-going", "run", "VARIANT=release"),
            *(f"NAME={self.name}", f"BUILD={BUILD / self.name}", f"CC={self.compiler}", "LIMIT=1200"),
            f"WRAPPER={self.emulator}",
        ]

    @property
    def variables(self) -> dict[str, str]:
        """What the tests have to know of the emulator."""
        return {"MGP_TEST_LEAVE_OUT": LEFT_OUT} if self.emulator else {}


def gcc_version() -> str:
    """The major version of this machine's gcc, which names the package with its 32-bit half."""
    try:
        return subprocess.run(
            ["gcc", "-dumpversion"], check=True, capture_output=True, text=True
        ).stdout.strip()
    except OSError:
        return "12"


def cross(machine: str, debian: str) -> Port:
    return Port(
        machine,
        f"{machine}-linux-gnu-gcc",
        (f"gcc-{machine}-linux-gnu", f"libc6-dev-{debian}-cross", "qemu-user-static"),
        f"qemu-{machine}-static -L /usr/{machine}-linux-gnu",
    )


def ports() -> list[Port]:
    """All of them."""
    return [
        cross("aarch64", "arm64"),
        cross("s390x", "s390x"),
        Port("musl", "musl-gcc", ("musl-tools",)),
        Port(
            "32-bits",
            # The gcc-multilib that would set this include folder cannot be installed beside cross compilers.
            # x87 registers keep more digits than a double has, so that equal divisions differ: hence SSE.
            "gcc -m32 -msse2 -mfpmath=sse -idirafter /usr/include/x86_64-linux-gnu",
            (f"gcc-{gcc_version()}-multilib", "libc6-dev-i386"),
        ),
    ]


def run(command: list[str | Path], variables: dict[str, str] | None = None) -> bool:
    print("+", *command, flush=True)
    return subprocess.run(command, check=False, env={**os.environ, **(variables or {})}).returncode == 0


def aarch64_root(folder: Path) -> None:
    """A Debian for aarch64 in that folder. Only unpacked: nothing in it has to be configured to be run."""
    packages = "--include=python3,libpython3-stdlib,ca-certificates,procps"
    options = ["--arch=arm64", "--foreign", "--variant=minbase", packages]
    subprocess.run(["debootstrap", *options, DEBIAN, folder], check=True, stdout=subprocess.DEVNULL)
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, folder], check=True)
    shutil.rmtree(folder / "dev")  # qemu then takes this machine's, which has terminals


def aarch64_python(root: Path) -> Path:
    """A program that runs that Debian's Python, also for what a test starts with sys.executable."""
    real = root / f"usr/bin/python{AARCH64_PYTHON}"
    wrapper = real.with_name("python")  # beside it, so that it finds its library without being told
    wrapper.write_text(f'#!/bin/sh\nexec qemu-aarch64-static -L {root} -0 "$0" {real} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def unit_tests(selection: list[str]) -> bool:
    """The package's unit tests on aarch64."""
    import build_wheels  # needs the packages of the group wheels

    target = build_wheels.Target(AARCH64_PYTHON, "aarch64", "gnu")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory(prefix="aarch64-") as name:
        folder = Path(name)
        root, wheels = folder / "root", folder / "wheels"
        wheels.mkdir()
        [wheel] = build_wheels.make([target], wheels)
        aarch64_root(root)
        packages = root / "usr/lib/python3/dist-packages"
        platforms = [f"--platform=manylinux_{version}_aarch64" for version in ("2_28", "2_17")]
        python = [f"--python-version={AARCH64_PYTHON}", "--implementation=cp", "--only-binary=:all:"]
        group = [f"--group={ROOT / 'pyproject.toml'}:test"]
        install = [*pip, "install", "--target", packages, *platforms, *python, *group, wheel]
        subprocess.run(install, check=True)
        pytest = ["-P", "-m", "pytest", "-p", "no:cacheprovider", "-m", "not long and not release_build"]
        limits = ["--timeout=1200", "-o", "faulthandler_timeout=1300"]
        tests = selection or [str(ROOT / "tests" / "unit")]
        return run([aarch64_python(root), *pytest, *limits, *tests], {"PYTHONDONTWRITEBYTECODE": "1"})


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs tests for machines of other kinds than this one.")
    parser.add_argument("--packages", action="store_true", help="print what has to be installed, and end")
    parser.add_argument("--only", choices=[*(port.name for port in ports()), "unit"], action="append")
    parser.add_argument("tests", nargs="*", help="of the unit tests, only these")
    arguments = parser.parse_args()
    if arguments.packages:
        needed = {package for port in ports() for package in port.packages}
        print(*sorted(needed | {"debootstrap", "debian-archive-keyring"}))
        return 0
    wanted = arguments.only or [*(port.name for port in ports()), "unit"]
    chosen = [port for port in ports() if port.name in wanted]
    failed = [port.name for port in chosen if not run(port.command, port.variables)]
    if "unit" in wanted and not unit_tests(arguments.tests):
        failed.append("unit")
    print("failed: " + ", ".join(failed) if failed else f"passed: {', '.join(wanted)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
