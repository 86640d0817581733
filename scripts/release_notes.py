"""Prints the notes of a release: its section of CHANGELOG.md.

Usage: release_notes.py [--tag v0.2.0]    with a tag, it must name the version of pyproject.toml
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>.+))?$", re.MULTILINE)


class ReleaseError(Exception):
    """What is missing for a release."""


def sections(changelog: str) -> dict[str, tuple[str, str]]:
    """The date of each version, and what changed in it."""
    headings = list(HEADING.finditer(changelog))
    ends = [heading.start() for heading in headings[1:]] + [len(changelog)]
    return {
        heading["version"]: (heading["date"] or "", changelog[heading.end() : end].strip())
        for heading, end in zip(headings, ends, strict=True)
    }


def notes(changelog: str, version: str) -> str:
    """What changed in that version, which must have its date."""
    date, text = sections(changelog).get(version, ("", ""))
    if not text:
        raise ReleaseError(f"CHANGELOG.md says nothing of {version}: [Unreleased] becomes [{version}] - date")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise ReleaseError(f"CHANGELOG.md has no date for {version}")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Prints the notes of a release.")
    parser.add_argument("--tag", help="the tag of the release")
    arguments = parser.parse_args()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if arguments.tag not in {None, f"v{version}"}:
        print(f"the tag is {arguments.tag}, the version in pyproject.toml {version}", file=sys.stderr)
        return 1
    try:
        print(notes((ROOT / "CHANGELOG.md").read_text(), version))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
