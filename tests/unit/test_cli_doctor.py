"""``mcpgateway-pool doctor``: what it finds, and that looking changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mcpgateway_pool.cli import doctor
from support.command import Run, command, exposition
from support.endpoint import Answer, serving

TESTS = str(Path(__file__).resolve().parents[1])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command(capsys, monkeypatch)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "counters"
    folder.mkdir(mode=0o700)
    return folder


def findings(run: Run, *arguments: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code, and the texts with their levels by what was looked at."""
    code, out, _ = run("doctor", "--json", *arguments)
    found: dict[str, list[str]] = {}
    for finding in json.loads(out)["findings"]:
        found.setdefault(finding["what"], []).append(f"{finding['level']}: {finding['text']}")
    return code, found


def test_doctor_finds_nothing_wrong_with_an_endpoint_that_shows_the_pool(run: Run) -> None:
    with serving(exposition(hits=1)) as endpoint:
        code, found = findings(run, "--url", endpoint.url)
    assert code == 0
    assert found["endpoint"] == [f"ok: {endpoint.url} shows the pool; gateways: 1"]
    assert found["workers"][0].startswith("ok: ")


def test_doctor_prints_each_problem_with_what_to_do(run: Run) -> None:
    with serving(Answer("no", 401)) as endpoint:
        code, out, _ = run("doctor", "--url", endpoint.url)
    assert code == 1
    lines = out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("problem  endpoint"))
    assert "MCPGATEWAY_POOL_TOKEN" in lines[at + 1]
    assert "1 problem" in lines[-1]


def test_doctor_notices_workers_that_count_each_for_themselves(run: Run) -> None:
    counts = iter([50, 3, 50, 3])
    with serving(lambda: exposition(hits=next(counts))) as endpoint:
        code, found = findings(run, "--url", endpoint.url)
    assert code == 1
    assert "hits_total went back" in found["workers"][0]


def test_doctor_accepts_a_private_directory(run: Run, directory: Path) -> None:
    code, found = findings(run, "--metrics-dir", str(directory))
    assert code == 0
    assert any(text.startswith("ok: ") for text in found["counters"])


def test_doctor_takes_the_directory_from_the_environment_ours_first(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(directory / "not there" / "counters"))
    assert findings(run)[0] == 1
    monkeypatch.setenv("MCPGATEWAY_POOL_METRICS_DIR", str(directory))
    code, found = findings(run)
    assert code == 0
    assert "(MCPGATEWAY_POOL_METRICS_DIR)" in " ".join(found["counters"])


def make_open(folder: Path) -> str:
    folder.chmod(0o770)
    return "mode 0770"


def make_file(folder: Path) -> str:
    folder.rmdir()
    folder.write_text("")
    return "no directory"


def make_missing_below_a_file(folder: Path) -> str:
    folder.rmdir()
    folder.parent.joinpath("file").write_text("")
    folder.symlink_to(folder.parent / "file" / "counters")
    return "Not a directory"


def put_junk(folder: Path) -> str:
    """Where a process's counters would be."""
    junk = folder / f"mcpgateway_pool-{'0' * 32}"
    junk.write_bytes(b"junk")
    junk.chmod(0o600)
    return "left out: mcpgateway_pool-"


@pytest.mark.parametrize("spoil", [make_open, make_file, make_missing_below_a_file, put_junk])
def test_doctor_finds_what_is_wrong_with_a_directory(
    run: Run, directory: Path, spoil: Callable[[Path], str]
) -> None:
    what = spoil(directory)
    code, found = findings(run, "--metrics-dir", str(directory))
    assert code == 1
    assert any(text.startswith("problem: ") and what in text for text in found["counters"]), found


def test_doctor_warns_of_a_directory_that_others_can_read(run: Run, directory: Path) -> None:
    directory.chmod(0o755)
    code, found = findings(run, "--metrics-dir", str(directory))
    assert code == 0
    assert any(text.startswith("warning: ") and "mode 0755" in text for text in found["counters"])


@pytest.mark.parametrize(
    ("block", "blocks", "is_enough"),
    [(4096, 4096, True), (4096, 4095, False), (1, 2**24, True), (1, 2**24 - 1, False)],
)
def test_doctor_warns_of_less_than_16_mebibytes_that_are_free_to_this_user(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch, block: int, blocks: int, is_enough: bool
) -> None:
    space = SimpleNamespace(f_frsize=block, f_bsize=2 * block, f_bavail=blocks, f_bfree=2**30, f_blocks=2**30)
    monkeypatch.setattr(os, "statvfs", lambda _: space)
    code, found = findings(run, "--metrics-dir", str(directory))
    warned = [text for text in found["counters"] if text.startswith("warning: ") and "16 MiB" in text]
    assert (code, len(warned)) == (0, 0 if is_enough else 1)


def test_doctor_says_that_a_missing_directory_will_be_made(run: Run, tmp_path: Path) -> None:
    code, found = findings(run, "--metrics-dir", str(tmp_path / "new"))
    assert code == 0
    assert found["counters"][0].startswith("hint: ")
    assert not (tmp_path / "new").exists()


def test_doctor_does_not_make_the_directory_that_the_environment_names(tmp_path: Path) -> None:
    environment = {**os.environ, "MCPGATEWAY_POOL_METRICS_DIR": str(tmp_path / "new")}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mcpgateway_pool.cli", "doctor"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "(MCPGATEWAY_POOL_METRICS_DIR) is not there" in done.stdout
    assert not (tmp_path / "new").exists()


def test_doctor_reads_what_processes_counted(run: Run, directory: Path) -> None:
    program = """
import asyncio
from support.fakes import *
async def main():
    async with FakePool() as pool:
        for gateway in ("one", "two"):
            await pool.release(await pool.acquire(URL, gateway_id=gateway))
asyncio.run(main())
"""
    environment = {**os.environ, "MCPGATEWAY_POOL_METRICS_DIR": str(directory), "PYTHONPATH": TESTS}
    subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, timeout=110, check=True
    )
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    code, found = findings(run, "--metrics-dir", str(directory))
    assert code == 0
    assert found["counters"][-1].endswith("can be read; gateways: 2")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_doctor_names_foreign_files_but_not_those_of_prometheus_client(run: Run, directory: Path) -> None:
    (directory / "notes.txt").write_text("")
    (directory / "counter_12.db").write_text("")
    code, found = findings(run, "--metrics-dir", str(directory))
    assert code == 0
    warned = [text for text in found["counters"] if text.startswith("warning: ")]
    assert len(warned) == 1
    assert warned[0].endswith("holds other files: notes.txt")


def make_missing_parent(folder: Path) -> Path:
    return folder / "missing" / "counters"


def make_file_above(folder: Path) -> Path:
    folder.joinpath("file").touch()
    return folder / "file" / "counters"


@pytest.mark.parametrize("spoil", [make_missing_parent, make_file_above])
def test_a_directory_that_cannot_be_made_is_a_problem(
    run: Run, directory: Path, spoil: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_METRICS_DIR", str(spoil(directory)))
    code, found = findings(run)
    assert code == 1
    [text] = found["counters"]
    assert text.startswith("problem: ")
    assert "MCPGATEWAY_POOL_METRICS_DIR" in text


def test_doctor_names_every_bad_value_and_every_misspelt_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCPGATEWAY_POOL_MAX_WAITERS", "many")
    monkeypatch.setenv("MCPGATEWAY_POOL_ISOLATION", "user")
    monkeypatch.setenv("MCPGATEWAY_POOL_ENABLE", "true")
    code, found = findings(run)
    assert code == 1
    texts = found["settings"]
    assert texts[0] == "warning: MCPGATEWAY_POOL_ENABLE is set, which means nothing here"
    assert [text.split()[1] for text in texts[1:]] == [
        "MCPGATEWAY_POOL_ISOLATION",
        "MCPGATEWAY_POOL_MAX_WAITERS",
    ]
    _, out, _ = run("doctor")
    assert "> did you mean MCPGATEWAY_POOL_ENABLED?" in out


UNPOOLED = 'mcp_session_pool_unpooled_calls_total{{gateway_id="{}",reason="{}"}} {}\n'


@pytest.mark.parametrize(
    ("reason", "level", "why", "advice"),
    [
        ("switched_off", "hint", "CALLS_WITHOUT_SESSION is own", "unset it"),
        ("excepted", "hint", "names their gateways", "take those out of it"),
        ("no_user", "warning", "did not know who called", "token of their own user"),
        ("new_reason", "hint", "new_reason", ""),
    ],
)
def test_doctor_says_how_many_calls_pass_the_pool_by_why_and_what_to_set(
    run: Run, reason: str, level: str, why: str, advice: str
) -> None:
    page = exposition() + UNPOOLED.format("little", reason, 2) + UNPOOLED.format("much", reason, 1500)
    page += 'mcp_session_pool_gateway_info{gateway_id="much",name="Weather"} 1\n'
    with serving(page + UNPOOLED.format("much", "other", 0)) as endpoint:
        _, out, _ = run("doctor", "--json", "--url", endpoint.url)
    [finding] = [found for found in json.loads(out)["findings"] if found["what"] == "calls"]
    assert finding["level"] == level
    assert finding["text"].startswith(f"1,502 calls passed the pool by ({reason}), most of them to Weather: ")
    assert why in finding["text"]
    assert advice in finding["advice"]


def test_doctor_and_top_read_a_page_of_a_thousand_gateways(run: Run) -> None:
    page = "".join(exposition(hits=number, gateway=f"gateway-{number}") for number in range(1000))
    with serving(page) as endpoint:
        code, found = findings(run, "--url", endpoint.url)
        assert (code, found["endpoint"]) == (0, [f"ok: {endpoint.url} shows the pool; gateways: 1,000"])
        code, out, _ = run("top", "--once", "--totals", endpoint.url)
    assert code == 0
    assert sum(line.startswith("gateway-") for line in out.splitlines()) == 1000


@pytest.mark.parametrize(
    ("value", "in_file", "is_told"),
    [(None, "", True), ("false", "", True), ("true", "", False), ("True", "", False), (None, "=true", False)],
)
def test_a_gateway_that_shows_no_series_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None, in_file: str, is_told: bool
) -> None:
    monkeypatch.delenv(doctor.ENDPOINT, raising=False)
    if value is not None:
        monkeypatch.setenv(doctor.ENDPOINT, value)
    env_file = tmp_path / ".env"
    env_file.write_text(f"{doctor.ENDPOINT}{in_file}\n" if in_file else "")
    found = list(doctor.check_shown(env_file))
    assert [finding.level for finding in found] == ["warning"] * is_told
    assert all("503" in finding.text for finding in found)
