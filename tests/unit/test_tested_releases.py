"""tests/gateways.txt is the list of the gateway releases that are tested; what else names them agrees.
And what `make next-gateway` says of a newer one.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mcpgateway_pool.gateway.releases import find_family, parse_version
from support import release_docs

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line.split()
    for line in (ROOT / "tests" / "gateways.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
POOL = [release for release, family, *_ in ROWS if family == "pool"]
REGISTRY = [release for release, family, *_ in ROWS if family == "registry"]


def text_of(*path: str) -> str:
    return ROOT.joinpath(*path).read_text(encoding="utf-8")


def gateways(*arguments: str) -> list[str]:
    done = subprocess.run(
        [ROOT / "scripts" / "gateways", *arguments], capture_output=True, text=True, timeout=110, check=True
    )
    return done.stdout.split()


def test_releases_are_in_order_and_of_the_family_that_is_said() -> None:
    versions = [parse_version(release) for release, *_ in ROWS]
    assert None not in versions
    assert versions == sorted(versions)  # type: ignore[type-var]
    for release, family, *pythons in ROWS:
        found = find_family(release)
        assert found is not None
        assert found.what == family
        assert pythons


def test_both_families_are_tested() -> None:
    assert len(POOL) == 1
    assert len(REGISTRY) >= 2


def test_pyproject_has_a_group_for_each_release_and_no_other() -> None:
    groups = tomllib.loads(text_of("pyproject.toml"))["dependency-groups"]
    installed = {
        name: entry.partition("==")[2]
        for name, entries in groups.items()
        for entry in entries
        if isinstance(entry, str) and entry.startswith("mcp-contextforge-gateway")
    }
    assert installed == {"gateway": POOL[0], **{f"gateway-{release}": release for release in REGISTRY}}


def test_the_documentation_has_each_in_the_line_of_its_family() -> None:
    rows = release_docs.rows()
    for release, _, *pythons in ROWS:
        [row] = [row for row in rows if row.has(release)]
        family = find_family(release)
        assert family is not None
        assert row.tested == release
        assert family.module in row.replaced or row.replaced == "the same class"
        first = row.pythons.partition("–")[0].partition(",")[0]
        assert {f"python{first}"} <= set(pythons)
    assert sorted(row.tested for row in rows if row.tested != "–") == sorted(POOL + REGISTRY)
    assert ", ".join(POOL + REGISTRY) in text_of("README.md")


@pytest.mark.parametrize(
    "release", ["1.0.0b2", "1.0.0rc1", "1.0.0", "1.0.6", "1.0.8", "1.0.10", "1.0.11", "1.1.9"]
)
def test_the_documentation_has_one_line_for_each_supported_release(release: str) -> None:
    assert find_family(release) is not None
    assert len([row for row in release_docs.rows() if row.has(release)]) == 1


@pytest.mark.parametrize("release", ["1.0.0b1", "1.2.0", "0.9.0"])
def test_the_documentation_has_no_line_for_others(release: str) -> None:
    assert find_family(release) is None
    assert [row for row in release_docs.rows() if row.has(release)] == []


def test_benchmarks_take_the_release_with_the_pool() -> None:
    assert f"mcp-contextforge-gateway=={POOL[0]}" in text_of("benchmarks", "peer.py")


def test_the_script_reads_the_list() -> None:
    assert gateways("list", "pool") == POOL
    assert gateways("list", "registry") == REGISTRY
    assert gateways("pythons", REGISTRY[-1]) == ROWS[-1][2:]


def test_the_newest_is_one_for_which_there_is_a_python() -> None:
    for family, releases in (("pool", POOL), ("registry", REGISTRY)):
        assert gateways("newest", family)[0] in releases


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    yield importlib.import_module("gateway_names")
    sys.modules.pop("gateway_names", None)


BEFORE = """
LIMIT: int = 3
class Registry(Base):
    def acquire(self, url: str): pass
    def evict(self): pass
def make(): pass
"""
AFTER = """
LIMIT: int = 4
class Registry(Base):
    async def acquire(self, url: str, *, wait: float = 1.0): pass
    def evict(self): pass
    @property
    def size(self) -> int: pass
"""


def test_what_is_gone_new_or_different_is_said(names: ModuleType) -> None:
    said = names.changes(names.names_defined(BEFORE), names.names_defined(AFTER))
    assert said == [
        "- make: def ()",
        "+ Registry.size: @property def (self) -> int",
        "! Registry.acquire: def (self, url: str)",
        "                    async def (self, url: str, *, wait: float=1.0)",
    ]
    assert names.changes(names.names_defined(AFTER), names.names_defined(AFTER)) == []


def test_what_the_gateway_imports_is_found(names: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text("def f():\n    from gate.registry import get, put as p\n")
    (tmp_path / "b.py").write_text("from gate.registry import get\nfrom gate.other import registry\n")
    assert names.names_used(tmp_path, "gate.registry") == {
        "get": "in b.py, inner/a.py",
        "put": "in inner/a.py",
    }
