"""Builds the extension mcpgateway_pool._core, packs the .pth file, and makes the links of README.md absolute;
everything else is in pyproject.toml.

Switches, from the environment (for developers and CI; a user's install sets none):
    MGP_DEBUG=1                         asserts, and a check of the whole pool after every operation
    MGP_SANITIZE=address,undefined      the same with these sanitizers; Python then needs LD_PRELOAD=libasan
    MGP_WERROR=1                        compiler warnings are errors
"""

import os
import re
import sysconfig
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
# Python reads it at start, from site-packages only: it switches the pool on where a variable says so.
STARTUP_FILE = "mcpgateway_pool.pth"


def sources(pattern: str) -> list[str]:
    # Sorted, so that the same sources always link into the same file.
    return sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob(pattern))


def switched_on(name: str) -> bool:
    return os.environ.get(name, "0") not in {"", "0"}


def readme() -> str:
    """README.md; its links to files of the repository are absolute, as an index has none of these files."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({project['urls']['Source']}/{kind}/HEAD/{link['path']})"

    link = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?!https?:|#)(?P<path>[^)]+)\)")
    return link.sub(absolute, (HERE / "README.md").read_text(encoding="utf-8"))


class BuildWithStartupFile(build_py):
    """Puts the .pth file beside the package, and so into the wheel and its RECORD."""

    def run(self) -> None:
        """Build as usual; an editable install has no use for the file."""
        super().run()
        if not self.editable_mode:
            self.copy_file(STARTUP_FILE, os.path.join(self.build_lib, STARTUP_FILE))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What run() makes."""
        made = [] if self.editable_mode else [os.path.join(self.build_lib, STARTUP_FILE)]
        return [*super().get_outputs(include_bytecode), *made]

    def get_source_files(self) -> list[str]:
        """What the sdist needs."""
        return [*super().get_source_files(), STARTUP_FILE]


sanitizers = os.environ.get("MGP_SANITIZE", "")
debug = bool(sanitizers) or switched_on("MGP_DEBUG")
flavour = sanitizers.replace(",", "-") or ("debug" if debug else "release")

compile_args = [
    "-std=c11",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    # Python's headers do not compile cleanly under -Wconversion and -Wshadow. A directory named by both
    # -isystem and -I (which setuptools passes) counts as a system directory, whose warnings stay silent.
    "-isystem",
    sysconfig.get_path("include"),
]
link_args = []
if debug:
    compile_args += ["-O1", "-g", "-UNDEBUG", "-DMGP_DEBUG"]
else:
    compile_args += ["-O3"]
    if "gcc" in os.environ.get("CC", sysconfig.get_config_var("CC") or ""):
        # The way of a hit leads through many small functions in many files: inlined, it takes a tenth less
        # time. Other compilers may lack the linker's part.
        compile_args += ["-flto=auto"]
        link_args += ["-flto=auto"]
if sanitizers:
    # No recovery: undefined behaviour must fail the test that meets it, not print a line among others.
    # No wrapv, which Python's own flags contain: it would define signed overflow instead of reporting it.
    link_args += [f"-fsanitize={sanitizers}"]
    compile_args += [*link_args, "-fno-sanitize-recover=all", "-fno-wrapv", "-fno-omit-frame-pointer"]
if switched_on("MGP_WERROR"):
    compile_args += ["-Werror"]

setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    py_modules=["_mcpgateway_pool_switch"],
    cmdclass={"build_py": BuildWithStartupFile},
    ext_modules=[
        Extension(
            "mcpgateway_pool._core",
            sources=sources("*.c"),
            # setuptools recompiles when one of these is newer than the built extension.
            depends=[*sources("*.h"), "setup.py"],
            include_dirs=["csrc"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
        )
    ],
    # A directory for each kind of build: setuptools looks only at time stamps, so that in a shared one a
    # release build would be taken for an up-to-date debug build.
    options={"build": {"build_base": f"build/{flavour}"}},
)
