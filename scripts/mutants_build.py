"""The work copy of `scripts/mutants.py`: tree, environments and builds, all in one temporary folder.

The checkout is read, and nothing in it is changed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "mcpgateway_pool"
# Seconds after which a build, or anything else that ends by itself, has gone wrong.
BUILD_LIMIT = 600.0
# gcov's functions are called from Python, so that nothing in the extension refers to them.
GCOV_LINK = "--coverage -Wl,-u,__gcov_dump,-u,__gcov_reset"


class BuildError(Exception):
    """A compiler or an installer refused; the text is its output."""


def run(
    command: Sequence[str | Path],
    folder: Path,
    *,
    limit: float = BUILD_LIMIT,
    variables: Mapping[str, str] | None = None,
) -> tuple[int | None, str]:
    """Run a program to its end, and end with it all that it started.

    Returns:
        Its exit code, None when it took longer than ``limit`` seconds, and what it printed.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        return process.returncode, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return None, f"no end after {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_or_raise(command: Sequence[str | Path], folder: Path, **arguments: object) -> str:
    """The same for what must succeed.

    Raises:
        BuildError: it did not.
    """
    code, output = run(command, folder, **arguments)  # type: ignore[arg-type]
    if code != 0:
        raise BuildError(f"{shlex.join(map(str, command))}: exit code {code}\n{output[-4000:]}")
    return output


def copy_checkout(root: Path, tree: Path) -> None:
    """Copy what Git knows of the checkout or would add to it, as it lies there."""
    listed = run_or_raise(["git", "ls-files", "-z", "-co", "--exclude-standard"], root)
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():  # not deleted
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)


class Environment:
    """An environment with a build of the package of its own, which sees the rest in another environment."""

    def __init__(self, folder: Path, base: Path, tree: Path) -> None:
        self.python = folder / "bin" / "python"
        run_or_raise([base / "bin" / "python", "-m", "venv", "--without-pip", folder], tree)
        self.site = self._site_of(folder)
        (self.site / "packages-of-base.pth").write_text(f"{self._site_of(base)}\n", encoding="utf-8")
        self._base = base
        self._tree = tree
        self.install("--no-deps", "--no-build-isolation", ".")

    @property
    def package(self) -> Path:
        """The folder of the installed package."""
        return self.site / PACKAGE

    def install(self, *arguments: str) -> None:
        """Install into it."""
        variables = {"MGP_DEBUG": "1", "MAIN_VENV": str(self._base)}
        command = ["scripts/install", str(self.python.parent.parent), *arguments]
        run_or_raise(command, self._tree, variables=variables)

    def put_extension(self, built: Path) -> None:
        """Put a build of the extension in the place of its own. Not into the same file: it may be mapped."""
        target = self.package / built.name
        target.unlink(missing_ok=True)
        shutil.copy2(built, target)

    @staticmethod
    def _site_of(folder: Path) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        return Path(run_or_raise([folder / "bin" / "python", "-c", code], folder).strip())


@dataclass
class Extension:
    """The extension, compiled file by file with the commands that setup.py uses for the debug build.

    setuptools itself compiles all files when one has changed.

    Attributes:
        tree: the copy of the checkout.
        python: the interpreter that it is built for.
        folder: for what is built.
        flags, link_flags: more for the compiler and the linker.
    """

    tree: Path
    python: Path
    folder: Path
    flags: str = ""
    link_flags: str = ""
    _compile: dict[str, list[str]] = field(default_factory=dict)
    _link: list[str] = field(default_factory=list)
    _stale: set[str] = field(default_factory=set)

    def build(self) -> Path:
        """Build all of it.

        Returns:
            The file of the extension.
        """
        self.folder.mkdir(parents=True)
        folders: list[str | Path] = ["-b", self.folder / "lib", "-t", self.folder / "temp"]
        output = run_or_raise(
            [self.python, "setup.py", "build_ext", "--force", *folders],
            self.tree,
            variables={"MGP_DEBUG": "1", "CFLAGS": f"-MMD {self.flags}", "LDFLAGS": self.link_flags},
        )
        for line in output.splitlines():
            words = shlex.split(line) if re.match(r"\S+ .*-o \S+", line) else []
            sources = [word for word in words if word.endswith(".c")]
            if len(sources) == 1 and "-c" in words:
                self._compile[sources[0]] = words
            elif "-shared" in words:
                self._link = words
        if not self._link:
            raise BuildError(f"no commands in the output of setup.py:\n{output[-4000:]}")
        return self.library

    @property
    def library(self) -> Path:
        """The built file."""
        return Path(self._link[self._link.index("-o") + 1])

    def sources_with(self, path: str) -> list[str]:
        """The sources that are, or include, a file."""
        if path in self._compile:
            return [path]
        target = (self.tree / path).resolve()
        return [source for source in self._compile if target in self._included(source)]

    def rebuild(self, path: str) -> Path:
        """Build anew after one file has changed.

        Raises:
            BuildError: the compiler refused it.
        """
        for source in {*self.sources_with(path), *self._stale}:
            run_or_raise(self._compile[source], self.tree)
        self._stale.clear()
        run_or_raise(self._link, self.tree)
        return self.library

    def machine_code(self, path: str) -> list[bytes]:
        """What the optimising compiler makes of a file and of all that include it; the same does the same.

        Raises:
            BuildError: the compiler refused it.
        """
        made = []
        output = self.folder / "optimised.o"
        for source in self.sources_with(path):
            words = [word for word in self._compile[source] if word not in {"-g", "-MMD", "-O1"}]
            words[words.index("-o") + 1] = str(output)
            run_or_raise([*words, "-O2"], self.tree)
            made.append(output.read_bytes())
        return made

    def touch(self, path: str) -> None:
        """Have the next build compile a file anew that was put back."""
        for source in self.sources_with(path):
            self._stale.add(source)

    def _included(self, source: str) -> set[Path]:
        words = self._compile[source]
        rule = Path(words[words.index("-o") + 1]).with_suffix(".d").read_text(encoding="utf-8")
        names = rule.replace("\\\n", " ").partition(":")[2].split()
        return {(self.tree / name).resolve() for name in names}
