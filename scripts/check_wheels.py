"""Checks that wheels load where their names say, and carry nothing of the machine that built them.

Usage: check_wheels.py WHEEL...
"""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from wheel_platform import Platform, granted

EXPORTS = {"PyInit__core"}
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}


@functools.cache
def auditwheel(wheel: Path) -> Platform | None:
    command: list[str | Path] = [sys.executable, "-m", "auditwheel", "show", wheel]
    return granted(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def machine_of(extension: bytes) -> str:
    """The processor, as ELF names it."""
    return str(ELFFile(io.BytesIO(extension))["e_machine"])


def extension_problems(extension: bytes, machine: str) -> list[str]:
    """What is wrong with a shared library for that machine."""
    elf = ELFFile(io.BytesIO(extension))
    problems = []
    if elf["e_machine"] != MACHINES.get(machine):
        problems.append(f"is for {elf['e_machine']}, not for {machine}")
    dynamic = elf.get_section_by_name(".dynamic")
    symbols = elf.get_section_by_name(".dynsym")
    if not isinstance(dynamic, DynamicSection) or not isinstance(symbols, SymbolTableSection):
        return [*problems, "is no shared library"]
    paths = [tag for tag in dynamic.iter_tags() if tag.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}]
    problems += [f"looks for libraries in {getattr(tag, tag.entry.d_tag[3:].lower())}" for tag in paths]
    exports = {
        symbol.name
        for symbol in symbols.iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
    }
    if exports != EXPORTS:
        problems.append(f"exports {sorted(exports)}, not {sorted(EXPORTS)}")
    left = [s.name for s in elf.iter_sections() if s.name == ".symtab" or s.name.startswith(".debug")]
    if left:
        problems.append(f"is not stripped: {', '.join(left)}")
    return problems


def wheel_problems(path: Path) -> list[str]:
    promised = Platform.of_wheel(path.name)
    if promised is None:
        return ["its name promises no manylinux or musllinux platform"]
    problems = []
    grant = auditwheel(path)
    if grant is None or not grant.covers(promised):
        problems.append(f"auditwheel grants {grant}, not {promised}")
    with zipfile.ZipFile(path) as wheel:
        extensions = [name for name in wheel.namelist() if name.endswith(".so")]
        for name in extensions:
            found = extension_problems(wheel.read(name), promised.machine)
            problems += [f"{name} {problem}" for problem in found]
    return problems if extensions else [*problems, "it has no extension"]


def main() -> int:
    paths = [Path(name) for name in sys.argv[1:]]
    problems = [f"{path.name}: {problem}" for path in paths for problem in wheel_problems(path)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
