"""The table of releases in ``docs/gateway.md``."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from mcpgateway_pool.gateway.releases import Version, parse_version

from .doc_commands import ROOT

PYTHONS = ("3.11", "3.12", "3.13")


@dataclass(frozen=True)
class Row:
    """One line of it.

    Attributes:
        releases: as it names them.
        pythons: "3.11–3.13", or a list by commas.
        sdk: "1.x" or "2.x", and what to install besides.
        replaced: the module or the class.
        tested: the release that is tested, or a dash.
    """

    releases: str
    pythons: str
    sdk: str
    replaced: str
    tested: str

    def has(self, release: str) -> bool:
        """Whether it is about a release."""
        version = _version(release)
        return any(_is_within(version, part) for part in self.releases.split(", "))


def _version(text: str) -> Version:
    version = parse_version(text)
    assert version is not None, text
    return version


def _is_within(version: Version, part: str) -> bool:
    first, _, last = part.partition(" to ")
    if last.startswith("the last release candidate of "):
        return _version(first) <= version < _version(last.rpartition(" ")[2])
    if last:
        return _version(first) <= version <= _version(last)
    if part.endswith(".x"):
        return version[:2] == tuple(map(int, part.removesuffix(".x").split(".")))
    return version == _version(part)


def rows() -> list[Row]:
    """All of it."""
    text = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    table = text.partition("| release | Python | MCP SDK |")[2].partition("\n\n")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [Row(*(cell.strip() for cell in line)) for line in lines]


def assert_installed_release_is_as_documented() -> None:
    """The gateway of this environment wants the Pythons and the SDK that its line says."""
    metadata = importlib.metadata.metadata("mcp-contextforge-gateway")
    [row] = [row for row in rows() if row.has(metadata["Version"])]
    wanted = SpecifierSet(metadata["Requires-Python"])
    pythons = [python for python in PYTHONS if wanted.contains(python)]
    assert row.pythons == (f"{pythons[0]}–{pythons[-1]}" if len(pythons) > 2 else ", ".join(pythons))
    requirements = [Requirement(text) for text in metadata.get_all("Requires-Dist") or []]
    [sdk] = [one.specifier for one in requirements if one.name == "mcp" and one.marker is None]
    generations = [generation for generation in ("1.99", "2.0.0") if sdk.contains(generation)]
    if row.sdk.startswith("1.x"):
        assert ("`'mcp<2'`" in row.sdk) is ("2.0.0" in generations)
        assert "1.99" in generations
    else:
        assert (row.sdk, generations) == ("2.x", ["2.0.0"])
