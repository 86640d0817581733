"""``mcpgateway-pool dashboards`` and ``rules``: the files that Grafana and Prometheus take."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from .common import OK, CommandError, say

DASHBOARD = "mcpgateway-pool.json"
RULES = "mcpgateway-pool.rules.yaml"
RUNBOOK = "docs/runbook.md"  # as the packaged files name it


def text_of(name: str, runbook: str = RUNBOOK) -> str:
    """The text of a packaged file, with links to the runbook at this address."""
    text = importlib.resources.files("mcpgateway_pool").joinpath("dashboards", name).read_text("utf-8")
    return text.replace(RUNBOOK, runbook)


def write_or_print(names: list[str], to: str | None, *, runbook: str = RUNBOOK, force: bool) -> int:
    """Write packaged files into a folder, which is made where it is missing, or print the first one.

    Args:
        names: of the files.
        to: the folder; None: print.
        runbook: the address of the runbook that they link to.
        force: replace files that differ.

    Raises:
        CommandError: the folder cannot be written, or holds such a file with other contents.
    """
    if to is None:
        say(text_of(names[0], runbook).rstrip("\n"))
        return OK
    folder = Path(to)
    texts = {folder / name: text_of(name, runbook) for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            if not force and path.exists() and path.read_text("utf-8", errors="replace") != text:
                raise CommandError(f"{path} is there already, and differs", "--force replaces it")
        for path, text in texts.items():
            path.write_text(text, "utf-8")
            say(str(path))
    except OSError as error:
        raise CommandError(f"{error.filename or folder}: {error.strerror or error}") from None
    return OK
