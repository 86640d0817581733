"""Checks the sdist and the wheels in a folder: what is in them, and that each installs and works by itself.

Each is installed into an empty environment outside the checkout, with what it declares as dependencies and
nothing else. A wheel for another kind of machine is only looked into. Usage: check_dist.py FOLDER
"""

import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# What switches the pool on when Python starts; it must lie beside the package to be seen there.
STARTUP_FILE = "mcpgateway_pool.pth"
OUTSIDE_PACKAGE = {STARTUP_FILE, "_mcpgateway_pool_switch.py"}
REQUIRED_IN_WHEEL = OUTSIDE_PACKAGE | {
    "mcpgateway_pool/__init__.py",
    "mcpgateway_pool/_core.pyi",
    "mcpgateway_pool/cli/demo_server.py",
    "mcpgateway_pool/dashboards/mcpgateway-pool.json",
    "mcpgateway_pool/dashboards/mcpgateway-pool.rules.yaml",
    "mcpgateway_pool/py.typed",
}
REQUIRED_IN_SDIST = OUTSIDE_PACKAGE | {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "pyproject.toml",
    "setup.py",
}

TRY_IT = """
import mcpgateway_pool
mcpgateway_pool.register_collector()
mcpgateway_pool.register_collector()
from prometheus_client import REGISTRY, generate_latest
generate_latest(REGISTRY)
mcpgateway_pool.unregister_collector()
print("works:", mcpgateway_pool.__version__, "from", mcpgateway_pool.__file__)
"""


# Without the variable the startup file does nothing; with it, it adds a hook and imports nothing else.
START = """
import sys
hooked = any(type(finder).__module__ == "_mcpgateway_pool_switch" for finder in sys.meta_path)
sys.exit(hooked is not {expected} or "mcpgateway_pool" in sys.modules)
"""


def startup_problems(wheel: zipfile.ZipFile) -> list[str]:
    lines = wheel.read(STARTUP_FILE).decode().splitlines()
    problems = []
    if len(lines) != 1 or not lines[0].startswith("import "):
        problems.append(f"{STARTUP_FILE} is not one line of code")
    [record] = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
    if f"\n{STARTUP_FILE},sha256=" not in "\n" + wheel.read(record).decode():
        problems.append(f"{STARTUP_FILE} is not in RECORD, so uninstalling would leave it")
    return problems


def wheel_problems(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        startup = startup_problems(wheel) if STARTUP_FILE in names else []
    problems = [f"{name} is missing" for name in sorted(REQUIRED_IN_WHEEL - names)]
    if not any(name.startswith("mcpgateway_pool/_core.") and name.endswith(".so") for name in names):
        problems.append("the extension is missing")
    for name in sorted(names):
        top = name.split("/")[0]
        if name.endswith((".c", ".h")):
            problems.append(f"{name} is a C source")
        elif top != "mcpgateway_pool" and not top.endswith(".dist-info") and name not in OUTSIDE_PACKAGE:
            problems.append(f"{name} is outside the package")
    return problems + startup


def sdist_problems(path: Path) -> list[str]:
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    checkout = Path(__file__).parent.parent
    needed = REQUIRED_IN_SDIST | {
        str(file.relative_to(checkout))
        for folder, pattern in (("csrc", "*.[ch]"), ("tests", "*.py"), ("tests", "*.[ch]"))
        for file in (checkout / folder).rglob(pattern)
    }
    problems = [f"{name} is missing" for name in sorted(needed - names)]
    problems += [f"{name} was built" for name in sorted(names) if name.endswith((".o", ".so", ".pyc"))]
    return problems


def fits(wheel: str, machine: str, libc: str) -> bool:
    """Whether a Python on that processor (x86_64) with that libc (glibc, musl) can load the wheel."""
    kinds = {"glibc": ("manylinux", "linux"), "musl": ("musllinux", "linux")}[libc]
    tags = wheel.removesuffix(".whl").rpartition("-")[2].split(".")
    return any(tag.startswith(kinds) and tag.endswith(f"_{machine}") for tag in tags)


def loads_here(wheel: str) -> bool:
    """Whether a Python of this machine can load a wheel of that file name."""
    return fits(wheel, platform.machine(), platform.libc_ver()[0] or "musl")


def interpreter(version: str | None = None) -> Path:
    """A Python of this machine of that version (3.12), or of any."""
    if version is None:
        return Path(sys.executable)
    command: list[str | Path] = [Path(__file__).with_name("find-python"), f"python{version}"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def version_of(wheel: str) -> str:
    """The Python that a wheel is for: 3.12 of cp312."""
    tag = wheel.split("-")[-3]
    return f"{tag[2]}.{tag[3:]}"


def try_in_empty_environment(path: Path, base: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="check-dist-") as folder:
        environment = Path(folder, "venv")
        subprocess.run([base, "-m", "venv", environment], check=True)
        python = environment / "bin" / "python"
        pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", path.resolve()], check=True, cwd=folder)
        subprocess.run([*pip, "check"], check=True, cwd=folder)
        subprocess.run([python, "-I", "-W", "error", "-c", TRY_IT], check=True, cwd=folder)
        for value, expected in (("", False), ("false", False), ("true", True)):
            code = START.format(expected=expected)
            variables = {**os.environ, "MCPGATEWAY_POOL_ENABLED": value}
            subprocess.run([python, "-c", code], check=True, cwd=folder, env=variables)
        subprocess.run([*pip, "uninstall", "--yes", "mcpgateway-pool"], check=True, cwd=folder)
        left = [str(file) for file in environment.rglob("*mcpgateway*") if file.is_file()]
        if left:
            raise RuntimeError(f"uninstalling {path.name} left {left}")


def check(folder: Path) -> list[str]:
    """Looks into everything in the folder, and tries what this machine can load; what is wrong."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    if not wheels or len(sdists) != 1:
        return [f"expected one sdist and its wheels in {folder}"]
    problems = [f"{wheel.name}: {problem}" for wheel in wheels for problem in wheel_problems(wheel)]
    problems += [f"{sdists[0].name}: {problem}" for problem in sdist_problems(sdists[0])]
    native = [wheel for wheel in wheels if loads_here(wheel.name)]
    if not native:
        problems.append(f"no wheel in {folder} is for this machine")
    if not problems:
        for path in (*native, *sdists):
            print(f"trying {path.name}", flush=True)
            try_in_empty_environment(path, interpreter(version_of(path.name) if path in native else None))
    return problems


def main() -> int:
    problems = check(Path(sys.argv[1]))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
