"""The environment of the peer: the gateway with its own pool, from PyPI, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

# The last release that has the pool; the other two pins are what it needs to be importable today.
REQUIREMENTS = ("mcp-contextforge-gateway==1.0.0rc1", "mcp<2", "filelock<3.30")


def ensure_environment(folder: Path) -> Path:
    """Make the environment where it is not there yet, which takes a minute or two.

    Returns:
        Its interpreter.

    Raises:
        RuntimeError: the packages could not be installed.
    """
    python = folder / "bin" / "python"
    done = folder / ".installed"
    wanted = "\n".join((sys.version, *REQUIREMENTS))
    if done.exists() and done.read_text() == wanted:
        return python
    print(f"making {folder.name} with {REQUIREMENTS[0]}, once", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", *REQUIREMENTS]
    if subprocess.run(command, check=False).returncode != 0:
        raise RuntimeError(f"could not install {REQUIREMENTS[0]} into {folder}")
    done.write_text(wanted)
    return python
