"""Builds the extension mcpgateway_pool._core; everything else is in pyproject.toml.

Switches, from the environment (for developers and CI; a user's install sets none):
    MGP_DEBUG=1                         asserts, and a check of the whole pool after every operation
    MGP_SANITIZE=address,undefined      the same with these sanitizers; Python then needs LD_PRELOAD=libasan
    MGP_WERROR=1                        compiler warnings are errors
"""

import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent


def sources(pattern: str) -> list[str]:
    # Sorted, so that the same sources always link into the same file.
    return sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob(pattern))


def switched_on(name: str) -> bool:
    return os.environ.get(name, "0") not in {"", "0"}


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
    compile_args += ["-O2"]
if sanitizers:
    # No recovery: undefined behaviour must fail the test that meets it, not print a line among others.
    # No wrapv, which Python's own flags contain: it would define signed overflow instead of reporting it.
    link_args += [f"-fsanitize={sanitizers}"]
    compile_args += [*link_args, "-fno-sanitize-recover=all", "-fno-wrapv", "-fno-omit-frame-pointer"]
if switched_on("MGP_WERROR"):
    compile_args += ["-Werror"]

setup(
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
