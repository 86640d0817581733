"""The benchmarks: what is compared, judged and shown. Nothing here depends on how long anything takes."""

from __future__ import annotations

import importlib
import inspect
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

# What the project promised to measure, and to reach; a row each, in this order.
PROMISED = [
    ("hit, 2 headers", "peer", "at least 40x faster"),
    ("hit, 2 headers", "doing nothing", "at most 2x"),
    ("async with session()", "peer", "at least 35x faster"),
    ("hit, 1.5 KB token, 20 headers", "peer", "–"),
    ("hit, 1.5 KB token, 20 headers", "2 headers", "at most 1.00 µs more"),
    ("hit, 10,000 keys, max_total_sessions set", "the same, not set", "at most 1.1x"),
    ("one count, inside C", "labels().inc()", "at most 10.0 ns"),
    ("one count, inside C", "inc() of a kept child", "at most 10.0 ns"),
    ("hand-off to 1 of 10,000 waiters", "1 of 10", "at most 1.5x"),
    ("longest pause, 20,000 idle keys evicted", "peer", "at most 1.00 ms"),
    ("longest pause, 100,000 idle keys evicted", "peer", "at most 1.00 ms"),
    ("tool call through the pool, real server", "a new session for each call", "–"),
    ("tool call through the pool, real server", "peer", "–"),
    ("the pool's share of it, in a loop", "peer", "at most 1.00 µs"),
    ("the pool's share of it, between calls", "doing nothing", "at most 1.00 µs more"),
    ("the pool's share of it, between calls", "peer", "–"),
    ("session creation, streamable HTTP", "peer", "at most 8.00 ms"),
    ("memory of an open session, streamable HTTP", "peer", "at most 90.0 KiB"),
    ("session creation, streamable HTTP", "the SDK alone, TLS shared", "–"),
    ("steady caller, p99 of a call", "peer", "–"),
    ("steady caller, p99 divided by p50", "peer", "at most 1.50x"),
    ("steady caller, limit 1 a key: most sessions at once", "the limit not set", "at most 1"),
    ("2 steady callers, limit 2 in total: most sessions at once", "the limit not set", "at most 2"),
    ("session object", "peer", "at most 250 B"),
    ("idle key beyond its session object, 100,000 keys", "peer", "at most 500 B"),
    ("scrape, 1,000 gateways, the pool's collector", "the same series as native metrics", "at most 0.6x"),
    ("scrape, 1,000 gateways, samples that are there already", "the same series as native metrics", "–"),
    ("scrape, 1,000 gateways, text by C", "the same series as native metrics", "at least 50x faster"),
    ("scrape, 10,000 gateways, text by C", "the same series as native metrics", "at least 50x faster"),
    (
        "scrape, 16 workers, 1,000 gateways each",
        "MultiProcessCollector, same series",
        "at least 80x faster",
    ),
    ("hit, 1,000,000 keys", "1 key", "at most 2x"),
]

CALLGRIND = """\
events: Ir Dr D1mr
ob=/usr/lib/libpython3.11.so.1.0
fl=ceval.c
fn=eval
10 1000 300 7
fi=object.h
11 200
fe=ceval.c
cob=/site-packages/mcpgateway_pool/_core.cpython-311.so
cfi=checkout.c
cfn=acquire
calls=3 388
12 700 200 5
cfn=lookup
calls=1 5
13 30
fn=eval'2
10 50

ob=/site-packages/mcpgateway_pool/_core.cpython-311.so
fl=checkout.c
fn=acquire
1 400
cfn=hash
calls=3 9
2 100
cob=/usr/lib/libc.so.6
cfn=memcpy
calls=3 9
3 200

fn=hash
1 100
totals: 1980
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(FOLDER)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def judged(
    module: Any, goal: str, target: float | None, project: Sequence[float], beside: Sequence[float]
) -> Any:
    rows = module("rows")
    figure = rows.Figure("project", "hit")
    return rows.Row("a row", figure, figure, "peer", goal, target).judge(project, beside)


def test_the_table_has_every_promised_row_with_its_target(module: Any) -> None:
    table = module("targets").table()
    assert [(row.what, row.beside_name, row.target_text()) for row in table] == PROMISED


@pytest.mark.parametrize("scale", ["FULL", "QUICK"])
def test_every_figure_names_a_measure_and_its_options(module: Any, scale: str) -> None:
    targets, measures = module("targets"), module("measures")
    for row in targets.table(getattr(targets, scale)):
        for figure in (row.project, row.beside):
            inspect.signature(getattr(measures, figure.measure)).bind("side", **figure.options)


def test_every_curve_names_a_measure_and_its_options(module: Any) -> None:
    curves, measures = module("curves"), module("measures")
    for curve in curves.CURVES.values():
        for line in curve.lines:
            for size in line.sizes:
                figure = line.figure(size)
                inspect.signature(getattr(measures, figure.measure)).bind("side", **figure.options)


def test_ratios_are_of_the_figures_of_one_round(module: Any) -> None:
    # By the medians of each side it would be 30 times: a machine that was slow for a round slows both.
    outcome = judged(module, "faster", 40, [1.0, 10.0, 1.0], [45.0, 440.0, 30.0])
    assert (outcome.comparison, outcome.spread) == ("44.0x faster", "30.0x to 45.0x")
    assert outcome.is_met


@pytest.mark.parametrize(
    ("goal", "target", "project", "beside", "verdict"),
    [
        ("faster", 40, 1.0, 40.0, "met"),
        ("faster", 40, 1.0, 20.0, "not met"),
        ("slower", 2, 2.0, 1.0, "met"),
        ("slower", 2, 2.5, 1.0, "not met"),
        ("more", 1e-6, 1.9e-6, 1e-6, "met"),
        ("more", 1e-6, 2.5e-6, 1e-6, "not met"),
        ("below", 1e-3, 1e-3, 1e-9, "met"),
        ("below", 1e-3, 3e-3, 1.0, "not met"),
        ("slower", None, 3.0, 1.0, "–"),
    ],
)
def test_a_row_says_whether_its_target_is_met(
    module: Any, goal: str, target: float | None, project: float, beside: float, verdict: str
) -> None:
    outcome = judged(module, goal, target, [project], [beside])
    assert outcome.verdict == verdict
    assert outcome.is_met is (verdict != "not met")
    assert outcome.spread == "one round"


@pytest.mark.parametrize(
    ("amount", "unit", "text"),
    [
        (3.3e-9, "s", "3.3 ns"),
        (0.4e-6, "s", "0.40 µs"),
        (1.2, "s", "1200.00 ms"),
        (559.2, "B", "559 B"),
        (92160, "B", "90.0 KiB"),
        (1.234, "times", "1.23x"),
        (2.0, "sessions", "2"),
    ],
)
def test_amounts_have_the_unit_of_their_size(module: Any, amount: float, unit: str, text: str) -> None:
    assert module("rows").amount_text(amount, unit) == text


@pytest.mark.parametrize(("part", "value"), [(0.5, 50), (0.99, 99), (1, 100)])
def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(
    module: Any, part: float, value: int
) -> None:
    assert module("steady").quantile(range(1, 101), part) == value


def test_tables_line_up_and_are_valid_markdown(module: Any) -> None:
    tables, lines = module("tables"), [["what", "time"], ["a longer one", "1 s"]]
    assert tables.plain(lines) == "what          time\na longer one  1 s"
    assert tables.markdown(lines) == "| what | time |\n| --- | --- |\n| a longer one | 1 s |"


def test_a_table_replaces_the_one_between_its_marks(module: Any, tmp_path: Path) -> None:
    tables, page = module("tables"), tmp_path / "page.md"
    page.write_text(
        "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\nkept\n<!-- y: end -->\n"
    )
    for _ in range(2):
        tables.put_into_page("x", "new\n", page)
    assert page.read_text() == (
        "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n<!-- y: begin -->\nkept\n<!-- y: end -->\n"
    )
    with pytest.raises(ValueError, match="no marks"):
        tables.put_into_page("z", "new", page)


def test_the_page_has_a_place_for_instructions(module: Any) -> None:
    assert module("tables").text_between("instructions")


def test_instructions_are_counted_once_each(module: Any) -> None:
    instructions = module("instructions")
    profile = instructions.parse(CALLGRIND)
    by_function = {function: spent for (_, function), spent in profile.own.items()}
    assert by_function == {"eval": 1250, "acquire": 400, "hash": 100}
    assert profile.total == 1750
    assert profile.of_extension == 500
    assert profile.misses == 7
    assert profile.within == 700  # what the interpreter called; not what the extension calls of itself


def test_the_difference_of_two_profiles_is_what_the_longer_one_has_more(module: Any) -> None:
    instructions = module("instructions")
    shorter = instructions.parse(CALLGRIND)
    longer = instructions.parse(
        CALLGRIND.replace("1 400", "1 900").replace("12 700", "12 1200").replace("300 7", "300 9")
    )
    more = instructions.difference(longer, shorter)
    assert (more.total, more.within, more.misses) == (500, 500, 2)


def test_growth_figures_are_read_as_they_were_written(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = module("curves")
    monkeypatch.setattr(curves, "FOLDER", tmp_path / "figures")
    assert curves.load("keys") is None
    found = {"this pool": {100: 1e-6, 1000: 1.5e-6}}
    curves.save("keys", found)
    assert curves.load("keys") == found


def test_a_level_of_the_gateway_counts_failed_calls_with_their_time(module: Any) -> None:
    gateway = module("gateway")
    level = gateway.Level(seconds=[float(n) for n in range(1, 101)], failed=4, elapsed_seconds=32.0)
    summary = level.summary()
    assert (summary["calls"], summary["failed"], summary["answered_per_second"]) == (100, 4, 3.0)
    assert [summary[name] for name in ("p50", "p95", "p99", "max")] == [51.0, 96.0, 100.0, 100.0]
    line = module("pool_table").lines("16", {"own pool": summary, "our pool": {**summary, "p99": 25.0}})[1]
    assert line[:4] == ["16", "our pool", "100", "4"]
    assert line[8:10] == ["1.00", "0.25"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler: count.c was NOT built")
def test_the_c_program_counts(module: Any) -> None:
    assert module("counting").run_program() > 0


def test_a_row_that_cannot_be_measured_says_why_and_the_others_go_on() -> None:
    # With this interpreter for both sides there is no peer: of the two rows, one fails.
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--only", "hit, 2 headers", "--markdown"]
    done = subprocess.run(
        [*command, "--peer-python", sys.executable], capture_output=True, text=True, timeout=110, check=False
    )
    shown = [line for line in done.stdout.splitlines() if line.startswith("| hit, 2 headers")]
    assert len(shown) == 2, done.stdout + done.stderr
    assert "| not measured: peer, hit: its process ended |" in shown[0]
    assert "doing nothing" in shown[1]
    assert "not measured" not in shown[1]
    assert done.returncode == 1


# ---- real gateways


def answer(module: Any, seconds: float, *, is_failed: bool = False) -> Any:
    body = {"error": "no"} if is_failed else {"result": {}}
    return module("gateway_runs").Answer(200, body, seconds)


def test_a_level_of_calls_is_all_its_rounds_together(module: Any) -> None:
    level = module("gateway_runs").Level()
    process = SimpleNamespace(pid=os.getpid())
    level.add(process, lambda: [answer(module, 0.3), answer(module, 0.1)])
    level.add(process, lambda: [answer(module, 0.2, is_failed=True), answer(module, 0.4)])
    level.elapsed_seconds, level.cpu_seconds = 1.5, 0.2
    found = level.summary()
    assert {name: found[name] for name in ("calls", "failed", "p50", "p99", "max")} == {
        "calls": 4,
        "failed": 1,
        "p50": 0.3,
        "p99": 0.4,
        "max": 0.4,
    }
    assert (found["answered_per_second"], found["cpu_seconds_per_call"]) == (2.0, 0.05)


def sides(**differences: float) -> dict[str, dict[str, float]]:
    """Figures of both sides: with this package four times the calls for 0.4 of the CPU, unless it differs."""
    alone = {
        "calls": 40.0,
        "failed": 0.0,
        "requests_per_call": 7.0,
        "p50": 0.16,
        "p99": 0.2,
        "answered_per_second": 10.0,
        "cpu_seconds_per_call": 0.05,
    }
    pooled = {"requests_per_call": 1.0, "answered_per_second": 40.0, "cpu_seconds_per_call": 0.02}
    return {"without": alone, "with": {**alone, **pooled, **differences}}


@pytest.mark.parametrize(
    ("away", "at_once", "differences", "verdict"),
    [
        ("0", "1", {}, "4 and 0.45: met"),
        ("0", "8", {"answered_per_second": 39.0}, "4 and 0.45: not met"),
        ("0", "8", {"cpu_seconds_per_call": 0.03}, "4 and 0.45: not met"),
        ("0", "8", {"failed": 1.0}, "4 and 0.45: not met"),
        ("50", "8", {}, "5 and 0.45: not met"),
        ("50", "1", {"answered_per_second": 50.0}, "5 and 0.45: met"),
        ("200", "64", {}, ""),
    ],
)
def test_calls_through_gateways_are_judged_by_their_targets(
    module: Any, away: str, at_once: str, differences: dict[str, float], verdict: str
) -> None:
    calls = module("calls_table")
    assert calls.verdict(away, at_once, sides(**differences)) == verdict
    alone, pooled = calls.lines({away: {at_once: sides(**differences)}})
    assert (alone[0], alone[2], alone[-1]) == (f"{away} ms", "without", "")
    assert (pooled[2], pooled[-1]) == ("with", verdict)
    assert len(alone) == len(pooled) == len(calls.TITLES)


def test_a_gateway_that_answers_nothing_spoils_no_table(module: Any) -> None:
    calls = module("calls_table")
    silent = sides()
    silent["without"] |= {"answered_per_second": 0.0, "failed": 40.0}
    assert calls.lines({"0": {"1": silent}})[1][-3:] == ["nan", "0.40", "4 and 0.45: not met"]


def test_the_readme_has_near_and_far_servers_at_few_and_many_calls(module: Any) -> None:
    calls = module("calls_table")
    found = calls.readme_lines(
        {"0": {"1": sides(), "4": sides(), "64": sides()}, "50": {"8": sides()}, "200": {"1": sides()}}
    )
    assert [line[:3] for line in found] == [
        ["near", "1", "7 → 1"],
        ["near", "64", "7 → 1"],
        ["50 ms away", "8", "7 → 1"],
    ]
    assert found[0][3:] == ["160 ms → 160 ms", "50 ms → 20 ms", "10 → 40", "4.0 ×"]
    assert all(len(line) == len(calls.README_TITLES) for line in found)


def test_calls_are_made_until_the_time_is_up_and_once_by_each_caller(module: Any, tmp_path: Path) -> None:
    gateway = module("gateway_runs").Gateway(tmp_path)
    assert len(gateway.call_for(0, 3, lambda: answer(module, 0.1))) == 3
    begun = threading.Barrier(2, timeout=10)

    def call() -> Any:
        begun.wait()  # each call is one of a pair: two callers are at work at a time
        return answer(module, 0.1)

    assert len(gateway.call_for(0, 2, call)) == 2
