"""Switching on and off where a class is replaced inside the gateway's own module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from mcpgateway_pool import gateway
from mcpgateway_pool.gateway.releases import FAMILIES, find_family

MODULE = "mcpgateway.services.upstream_session_registry"
OURS = "mcpgateway_pool.gateway.registry.upstream_registry"
Run = Callable[..., str]


def test_uninstall_gives_the_gateway_its_own_class_back(release: ModuleType) -> None:
    ours = release.UpstreamSessionRegistry
    assert gateway.is_installed()
    gateway.uninstall()
    try:
        assert release.UpstreamSessionRegistry.__module__ == MODULE
        assert not gateway.is_installed()
        assert isinstance(release.init_upstream_session_registry(), release.UpstreamSessionRegistry)
        with pytest.raises(RuntimeError, match="running"):
            gateway.install()
        assert release.UpstreamSessionRegistry.__module__ == MODULE
    finally:
        release._registry = None
        assert gateway.install()
    assert gateway.install()
    assert release.UpstreamSessionRegistry is ours


def test_uninstall_is_refused_while_ours_runs(release: ModuleType) -> None:
    ours = release.UpstreamSessionRegistry
    release.init_upstream_session_registry()
    try:
        with pytest.raises(RuntimeError, match="running"):
            gateway.uninstall()
        assert release.UpstreamSessionRegistry is ours
    finally:
        release._registry = None


@pytest.mark.parametrize(
    ("version", "what"),
    [
        ("1.0.0-RC-1", "pool"),
        ("1.0.0", "registry"),
        ("1.0.7", "registry"),
        ("1.1.0", "registry"),
        ("1.1.9", "registry"),
        ("1.2.0", None),
        ("1.2.0rc1", None),
        ("2.0.0", None),
    ],
)
def test_release_decides_what_is_replaced(version: str, what: str | None) -> None:
    family = find_family(version)
    assert (family and family.what) == what


def test_hook_watches_the_modules_of_all_families() -> None:
    import _mcpgateway_pool_switch as hook

    assert {family.module for family in FAMILIES} == hook.REPLACED


# ---- a gateway that holds hardly anything, in a fresh interpreter


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs code beside an imitation of a gateway; what it prints and logs."""
    services = tmp_path / "mcpgateway" / "services"
    services.mkdir(parents=True)
    (services / "__init__.py").touch()
    (tmp_path / "mcpgateway" / "__init__.py").write_text("__version__ = '1.1.0'\n")
    (tmp_path / "mcpgateway" / "main.py").write_text("app = 'the application'\n")
    (services / "upstream_session_registry.py").write_text(
        "class UpstreamSessionRegistry: ...\n_registry = None\ndef make(): return UpstreamSessionRegistry\n"
    )

    def run(code: str, enabled: str | None = "true") -> str:
        variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
        variables.pop("MCPGATEWAY_POOL_ENABLED", None)
        if enabled is not None:
            variables["MCPGATEWAY_POOL_ENABLED"] = enabled
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"from {MODULE} import make\n" + dedent(code)],
            check=False,
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def lines_of(output: str) -> list[str]:
    """What was logged, by level and text."""
    return [line for line in output.splitlines() if "mcpgateway-pool" in line or "counters" in line]


def spoil_parent(folder: Path) -> Path:
    return folder / "missing" / "counters"


def spoil_by_a_file(folder: Path) -> Path:
    folder.joinpath("file").touch()
    return folder / "file"


@pytest.mark.parametrize("spoil", [spoil_parent, spoil_by_a_file])
def test_a_metrics_directory_that_cannot_be_used_is_said_at_the_default_level_and_in_the_start_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], Path]
) -> None:
    directory = spoil(tmp_path)
    monkeypatch.setenv("MCPGATEWAY_POOL_METRICS_DIR", str(directory))
    package = tmp_path / "mcpgateway" / "__init__.py"
    package.write_text(package.read_text() + "import logging\nlogging.basicConfig(level='INFO')\n")
    lines = lines_of(run("make()"))
    [start] = [line for line in lines if " is on: " in line]
    assert "own counters in each process" in start
    assert f"({directory}: it " in start
    assert any(line.startswith("ERROR:") and str(directory) in line for line in lines)


def test_a_metrics_directory_that_is_still_to_be_made_is_in_the_start_line_and_is_not_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_METRICS_DIR", str(tmp_path / "counters"))
    package = tmp_path / "mcpgateway" / "__init__.py"
    package.write_text(package.read_text() + "import logging\nlogging.basicConfig(level='INFO')\n")
    [start] = [line for line in lines_of(run("make()")) if " is on: " in line]
    assert start.endswith(f"shared counters in {tmp_path / 'counters'}")
    assert not (tmp_path / "counters").exists()


def test_a_misspelt_variable_is_warned_of_with_the_nearest(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_MAX_SESSION_PER_KEY", "3")
    [line] = lines_of(run("make()"))
    assert "MCPGATEWAY_POOL_MAX_SESSION_PER_KEY is set, which means nothing here" in line
    assert line.endswith("did you mean MCPGATEWAY_POOL_MAX_SESSIONS_PER_KEY?")


def test_variable_puts_our_class_into_the_gateways_module(run: Run) -> None:
    said = run(f"""
        import inspect, importlib, sys
        module = sys.modules[{MODULE!r}]
        source = inspect.getsource(module)
        print(make().__module__, module.__name__, source.startswith("class UpstreamSessionRegistry: ..."))
        importlib.reload(module)
        print(module.make().__module__)
    """)
    assert said.splitlines() == [f"{OURS} {MODULE} True", OURS]


@pytest.mark.parametrize("enabled", [None, "false"])
def test_without_the_variable_the_gateway_keeps_its_own(run: Run, enabled: str | None) -> None:
    assert run("print(make().__module__)", enabled) == f"{MODULE}\n"


def test_install_after_the_import_is_as_good(run: Run) -> None:
    said = run(
        """
        from mcpgateway_pool.gateway import install, uninstall
        print(install(), make().__module__)
        uninstall()
        print(make().__module__)
        """,
        enabled=None,
    )
    assert said.splitlines() == [f"True {OURS}", MODULE]


def test_install_again_is_as_good_as_the_first_time(run: Run) -> None:
    said = run(
        """
        import logging, sys
        from prometheus_client import REGISTRY, generate_latest
        from mcpgateway_pool.gateway import install, is_installed, uninstall
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        def state():
            is_shown = b"mcp_session_pool_hits_total" in generate_latest(REGISTRY)
            return is_installed(), is_shown, make().__module__
        for _ in range(3):
            install(), install()
            print(*state())
            uninstall(), uninstall()
            print(*state())
        """,
        enabled=None,
    )
    lines = said.splitlines()
    assert [line for line in lines if "mcpgateway-pool" not in line] == [
        f"True True {OURS}",
        f"False False {MODULE}",
    ] * 3
    assert len([line for line in lines if " is on: " in line]) == 3


def test_what_goes_wrong_is_said_and_the_gateway_goes_on_with_its_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "anyio.py").write_text("raise ImportError('broken')\n")
    said = run("print(make().__module__)")
    assert MODULE in said.splitlines()
    assert "cannot take the place of" in said
