"""``mcpgateway-pool dashboards`` and ``rules``: the files that Grafana and Prometheus take."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from .common import OK, CommandError, say

DASHBOARD = "mcpgateway-pool.json"
RULES = "mcpgateway-pool.rules.yaml"


def text_of(name: str) -> str:
    """The text of a packaged file."""
    return importlib.resources.files("mcpgateway_pool").joinpath("dashboards", name).read_text("utf-8")


def write_or_print(names: list[str], to: str | None, *, force: bool) -> int:
    """Write packaged files into a folder, which is made where it is missing, or print the first one.

    Raises:
        CommandError: the folder cannot be written, or holds such a file with other contents.
    """
    if to is None:
        say(text_of(names[0]).rstrip("\n"))
        return OK
    folder = Path(to)
    texts = {folder / name: text_of(name) for name in names}
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
