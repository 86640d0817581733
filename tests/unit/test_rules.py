"""The rules are valid, each alert is tested and in the runbook; the dashboard is as its script writes it."""

from __future__ import annotations

import importlib.resources
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from mcpgateway_pool import PoolCollector
from mcpgateway_pool.cli.files import RUNBOOK

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = importlib.resources.files("mcpgateway_pool").joinpath("dashboards")
RULES = PACKAGED.joinpath("mcpgateway-pool.rules.yaml").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads(PACKAGED.joinpath("mcpgateway-pool.json").read_text("utf-8"))
TESTS = ROOT / "tests" / "rules" / "alerts.test.yaml"
ALERTS = re.findall(r"- alert: (\w+)", RULES)

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not on PATH (Debian package prometheus): the rules were NOT checked",
)


def promtool(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mcpgateway-pool.rules.yaml").write_text(RULES, "utf-8")
    shutil.copy(TESTS, tmp_path)
    return tmp_path


@needs_promtool
def test_promtool_finds_every_rule_valid(folder: Path) -> None:
    count = len(re.findall(r"- (?:alert|record): ", RULES))
    assert f"{count} rules found" in promtool("check", "rules", "mcpgateway-pool.rules.yaml", folder=folder)


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then(folder: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", TESTS.name, folder=folder)


@needs_promtool
def test_the_rule_tests_notice_each_alert_that_is_missing(folder: Path) -> None:
    rules = folder / "mcpgateway-pool.rules.yaml"
    rules.write_text(re.sub(r"- alert: \w+\n", "- alert: Other\n", RULES))
    done = subprocess.run(
        ["promtool", "test", "rules", TESTS.name],
        cwd=folder, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    missed = set(re.findall(r"alertname: (\w+),", done.stdout + done.stderr))
    assert missed == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_firing_and_a_silent_test(alert: str) -> None:
    cases = re.findall(rf"alertname: {alert}\n +exp_alerts:(.*)", TESTS.read_text("utf-8"))
    assert cases.count(" []") >= 1
    assert any(case != " []" for case in cases)


def anchors(text: str) -> list[str]:
    """Of the headings of a page, as GitHub and GitLab make them."""
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_every_alert_has_annotations_and_a_section_in_the_runbook() -> None:
    runbook = ROOT.joinpath("docs", "runbook.md").read_text("utf-8")
    assert sorted(re.findall(r"\n## (McpSessionPool\w+)\n", runbook)) == sorted(ALERTS)
    bodies = re.split(r"- alert: \w+\n", RULES)[1:]
    for alert, body in zip(ALERTS, bodies, strict=True):
        for name in ("severity", "summary", "description"):
            assert re.search(rf"\n +{name}: \S", body), (alert, name)
        assert f"runbook_url: {RUNBOOK}#{alert.lower()}\n" in body


@pytest.mark.parametrize("text", [RULES, json.dumps(DASHBOARD)], ids=["rules", "dashboard"])
def test_every_link_to_the_runbook_leads_to_a_section_that_exists(text: str) -> None:
    links = re.findall(rf"{re.escape(RUNBOOK)}#([\w-]*)", text)
    assert links
    assert set(links) <= set(anchors((ROOT / RUNBOOK).read_text("utf-8")))


def test_alerts_by_gateway_name_the_gateway() -> None:
    for alert, body in zip(ALERTS, re.split(r"- alert: \w+\n", RULES)[1:], strict=True):
        is_by_gateway = "gateway_id" in body.partition("labels:")[0]
        assert ("group_left (name)" in body) is is_by_gateway, alert
        assert ("{{ $labels.name }}" in body) is is_by_gateway, alert


def test_every_section_of_the_runbook_says_what_it_means_what_to_look_at_and_what_to_do() -> None:
    runbook = ROOT.joinpath("docs", "runbook.md").read_text("utf-8")
    for section in re.split(r"\n## ", runbook)[1:]:
        if section.startswith("McpSessionPool"):
            assert re.findall(r"\n\*\*([\w ]+)\.\*\*", section) == ["It means", "Look at", "Do"], section[:40]


def series_of(expression: str) -> set[str]:
    """The pool's series that an expression reads, without what the rules record."""
    return set(re.findall(r"(?<![\w:])mcp_session_pool_\w+", expression))


def test_dashboard_and_rules_read_every_series_and_no_other() -> None:
    there = set()
    for family in PoolCollector().describe():
        suffix = {"counter": "_total", "histogram": "_bucket"}.get(family.type, "")
        there.add(family.name + suffix)
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
        for name in series_of(target["expr"])
    }
    assert shown == there
    assert series_of(re.sub(r"#.*", "", RULES)) <= there


def test_the_dashboard_is_what_its_script_writes() -> None:
    script = ROOT / "scripts" / "make_dashboard.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_dashboard_has_variables_for_data_source_job_instance_and_gateway_and_uses_them() -> None:
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "job",
        "instance",
        "gateway",
    ]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'job=~"$job", instance=~"$instance"' in target["expr"], target["expr"]


# What Grafana's own model of a dashboard leaves to the data source, and to the editor.
_OF_DATA_SOURCE = re.compile(
    r"\.annotations\.list\.\d+\.(step|tagKeys|textFormat|titleFormat|useValueForTime)"
    r"|\.templating\.list\.\d+\.definition"
)


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every single value of a JSON document, by its path."""
    if isinstance(value, dict):
        children = {f"{path}.{name}": child for name, child in value.items()}
    elif isinstance(value, list):
        children = {f"{path}.{at}": child for at, child in enumerate(value)}
    else:
        return {path: value}
    return {at: leaf for place, child in children.items() for at, leaf in leaves(child, place).items()}


def test_grafanas_own_model_understands_every_value_of_the_dashboard() -> None:
    register_default_plugins()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    after = leaves(understood)
    lost = {path for path, value in leaves(DASHBOARD).items() if after.get(path) != value}
    assert {path for path in lost if not _OF_DATA_SOURCE.fullmatch(path)} == set()


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
