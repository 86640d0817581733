"""What to tell who imports the package without its C extension."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def explained(error: ImportError) -> ImportError:
    """An error that says why the extension does not import, and what to do about it.

    Args:
        error: what importing it raised; it is given back where the extension is there, and is itself wrong.
    """
    if any(_PACKAGE.joinpath(f"_core{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
        return error
    if _PACKAGE.with_name("csrc").is_dir():
        return ImportError(
            "you are in the source folder of mcpgateway-pool, whose C extension is not built here, and Python"
            " looks in the current folder first. For the installed package, change to another folder, or run"
            " python -P; to build it, see docs/testing.md",
            name=error.name,
            path=error.path,
        )
    return ImportError(
        "mcpgateway-pool is installed without its C extension for this Python: install it again, by pip",
        name=error.name,
        path=error.path,
    )
