"""The simulation of the pool machine alone adds up; how fast it is, `make simulate` says."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or shutil.which("make") is None,
    reason="cc or make is not on PATH: the pool machine was NOT simulated",
)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulation_command", BENCHMARKS / "simulation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program(simulation: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The debug build, not optimised, which is built soonest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", "cc")
        patch.setenv("CFLAGS", "-O0")
        built = simulation.build(tmp_path_factory.mktemp("simulation"), "debug")
    assert isinstance(built, Path)
    return built


def test_every_count_and_every_session_is_accounted_for(simulation: ModuleType, program: Path) -> None:
    simulation.check_everything(program)


def test_traffic_meets_every_kind_of_event(simulation: ModuleType, program: Path) -> None:
    figures, _ = simulation.run(program, "traffic", keys=5_000, operations=20_000, check=1_000_000)
    assert all(figures[name] > 0 for _, name in simulation.TRAFFIC), figures


def test_a_key_with_its_session_stays_within_its_budget(simulation: ModuleType, program: Path) -> None:
    """As in the table of targets: 500 bytes beyond the session struct, which takes 250 at most."""
    figures, _ = simulation.run(program, "memory", keys=20_000, check=1_000_000)
    assert figures["key_bytes"] + figures["array_bytes"] <= 500
    assert figures["session_bytes"] <= 250


def test_a_run_that_does_not_add_up_is_an_error(simulation: ModuleType, program: Path) -> None:
    with pytest.raises(simulation.SimulationError, match="not true"):
        simulation.run(program, "traffic", keys=1_000, operations=1_000, fault=1, check=1_000_000)
    with pytest.raises(simulation.SimulationError, match="usage"):
        simulation.run(program, "traffic", keys=0)


def test_too_little_memory_is_said_and_that_size_left_out(
    simulation: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulation, "available_bytes", lambda: 2 << 30)
    assert simulation.fits(1_000_000)
    assert not simulation.fits(10_000_000)
    assert "SKIPPED 10,000,000 keys: they need 8.4 GiB" in capsys.readouterr().err
