"""Asks the package index for a release of the gateway that is newer than those that are tested, says what
changed in the names that this package replaces, and runs the tests of the registry in it.

    next_gateway.py                     the newest that is not in tests/gateways.txt
    next_gateway.py --release 1.0.11    this one

The environment, .venv-gateway-next, stays. Exits with 1 when a test failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.version import Version

from mcpgateway_pool.gateway.releases import FAMILIES, Family, find_family

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from gateway_names import Names, changes, names_defined, names_used

PACKAGE = "mcp-contextforge-gateway"


def run(*command: object, **environment: str) -> str:
    """The output of a command.

    Raises:
        SystemExit: it failed; with what it said.
    """
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}")
    return done.stdout


def known_releases() -> list[str]:
    """Those that are tested, oldest first."""
    lines = (ROOT / "tests" / "gateways.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def releases_of_index() -> list[str]:
    """Those of the index, newest first, for whatever Python."""
    asked = run(
        sys.executable,
        "-m",
        "pip",
        "index",
        "versions",
        "--pre",
        "--ignore-requires-python",
        "--json",
        PACKAGE,
    )
    return sorted(json.loads(asked)["versions"], key=Version, reverse=True)


def requirements_for(release: str, like: str) -> list[str]:
    """What pyproject.toml has the environment of a tested release contain, with another release."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]

    def expand(name: str) -> list[str]:
        found = []
        for entry in groups[name]:
            found += expand(entry["include-group"]) if isinstance(entry, dict) else [entry]
        return found

    return [
        re.sub(r"==.*", f"=={release}", entry) if entry.startswith(PACKAGE) else entry
        for entry in expand(f"gateway-{like}")
    ]


def make_environment(folder: Path, release: str, like: str) -> None:
    """An environment with a release, for the Pythons of a tested one."""
    pythons = run("scripts/gateways", "pythons", like).split()
    python = run("scripts/find-python", *pythons).strip()
    print(f"making {folder.name} with {python}", flush=True)
    run(python, "-m", "venv", "--clear", folder)
    main = {"MAIN_VENV": str(Path(sys.executable).parents[1])}
    run("scripts/install", folder, *requirements_for(release, like), **main)
    run("scripts/install", folder, "--no-deps", "--no-build-isolation", "--force-reinstall", ".", **main)


def package_in(environment: Path) -> Path:
    """The folder of the gateway's package."""
    [folder] = environment.glob("lib/python3.*/site-packages/mcpgateway")
    return folder


def names_in(package: Path, module: str) -> tuple[Names, Names]:
    """What a module of the gateway defines, and what the others use of it; nothing where it is gone."""
    path = package.parent.joinpath(*module.split(".")).with_suffix(".py")
    defined = names_defined(path.read_text(encoding="utf-8")) if path.exists() else {}
    return defined, names_used(package, module)


def print_changes(before: Path, after: Path, family: Family) -> None:
    """What changed between two environments in what is replaced, and where the series are put in."""
    for module in (family.module, family.exposition):
        old, new = names_in(package_in(before), module), names_in(package_in(after), module)
        for title, lines in (
            (f"defined in {module}", changes(old[0], new[0])),
            ("used of it by the rest of the gateway", changes(old[1], new[1])),
        ):
            print(f"\n{title}: {'as before' if not lines else ''}")
            print("\n".join(f"  {line}" for line in lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", help="default: the newest of the index")
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-gateway-next", help="made anew")
    parser.add_argument("--tested", type=Path, help="environment of the newest tested release")
    options = parser.parse_args(arguments)
    like = known_releases()[-1]
    release = options.release
    if release is None:
        release = releases_of_index()[0]
        if Version(release) <= Version(like):
            print(f"the newest release of {PACKAGE} is {release}, and {like} is tested")
            return 0
    tested = options.tested or ROOT / f".venv-gateway-{like}"
    make_environment(options.environment, release, like)
    family = find_family(release)
    print(f"\n{PACKAGE} {release}, compared with {like}")
    if family is None:
        family = FAMILIES[-1]
        print(f"!!! {release} belongs to no supported family: the gateway would keep its own {family.what}")
    print_changes(tested, options.environment, family)
    print(flush=True)
    pytest = [options.environment / "bin" / "python", "-P", "-m", "pytest", "-o", "filterwarnings=default"]
    limits = ["--timeout", "400", "-o", "faulthandler_timeout=430"]
    workers = ["-n", str(os.cpu_count()), "--dist", "loadfile"]
    return subprocess.run(
        [*pytest, *limits, *workers, "tests/gateway_registry"], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
