"""A real Prometheus scrapes a pool to which everything happens: every query of the dashboard, every rule and
every query of the documentation is run there, and gives numbers.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.waiting import wait_until
from support.prometheus import Prometheus, needs_prometheus

pytestmark = [needs_prometheus, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
PACKAGED = importlib.resources.files("mcpgateway_pool").joinpath("dashboards")
RULES = PACKAGED.joinpath("mcpgateway-pool.rules.yaml").read_text("utf-8")
DASHBOARD: dict[str, Any] = json.loads(PACKAGED.joinpath("mcpgateway-pool.json").read_text("utf-8"))
JOB = "pool"

QUERIES = {
    f"{panel['title']}, {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
}
DOCUMENTED = re.findall(
    r"```promql\n(.*?)\n```", ROOT.joinpath("docs", "metrics.md").read_text("utf-8"), re.DOTALL
)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port of a program whose pool has rows and little else, and the program."""
    program = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("busy_program.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        try:
            assert program.stdout is not None
            yield int(program.stdout.readline()), program
        finally:
            program.kill()


@pytest.fixture(scope="module")
def prometheus(
    endpoint: tuple[int, subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that saw the rows first, and then everything happen."""
    port, program = endpoint
    assert program.stdin is not None
    assert program.stdout is not None
    with Prometheus(tmp_path_factory.mktemp("prometheus"), {JOB: f"127.0.0.1:{port}"}, RULES) as prometheus:
        # Two samples, so that what is counted from now on is an increase for rate().
        prometheus.wait_for("count_over_time(mcp_session_pool_size[1m]) >= 2")
        program.stdin.write("go\n")
        program.stdin.flush()
        assert program.stdout.readline() == "done\n"
        prometheus.wait_for('increase(mcp_session_pool_acquire_timeouts_total{gateway_id="busy"}[1m]) > 0')
        yield prometheus


def substituted(expression: str) -> str:
    """As Grafana would send it."""
    for name, value in (("$job", JOB), ("$gateway", ".*"), ("$__rate_interval", "5m")):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize("title", QUERIES)
def test_every_query_of_the_dashboard_gives_numbers(prometheus: Prometheus, title: str) -> None:
    assert prometheus.wait_for(substituted(QUERIES[title]))


@pytest.mark.parametrize("query", DOCUMENTED)
def test_every_documented_query_gives_numbers(prometheus: Prometheus, query: str) -> None:
    assert prometheus.wait_for(query)


@pytest.mark.parametrize("name", re.findall(r"- record: (\S+)", RULES))
def test_every_recording_rule_gives_numbers(prometheus: Prometheus, name: str) -> None:
    assert prometheus.wait_for(name)


@pytest.mark.parametrize("name", re.findall(r"- alert: (\S+)", RULES))
def test_every_alert_sees_its_trouble(prometheus: Prometheus, name: str) -> None:
    def alerts() -> list[Any]:
        groups = prometheus.get("rules")["groups"]
        rule = next(rule for group in groups for rule in group["rules"] if rule["name"] == name)
        assert rule["health"] != "err", rule["lastError"]
        return [alert for alert in rule["alerts"] if alert["state"] in {"pending", "firing"}]

    for alert in wait_until(alerts, 20):
        assert alert["labels"]["job"] == JOB
        assert "<no value>" not in json.dumps(alert["annotations"])


def test_the_variables_of_the_dashboard_have_values(prometheus: Prometheus) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        values = prometheus.get(f"label/{label}/values", **{"match[]": substituted(series)})
        assert {"job": JOB, "gateway": "busy"}[variable["name"]] in values


def test_a_gateway_that_is_picked_is_the_only_one_in_the_table(prometheus: Prometheus) -> None:
    expression = QUERIES["Gateways, C"].replace("$gateway", "busy")
    assert prometheus.wait_for(substituted(expression)) == {'{"gateway_id": "busy"}': 2}


def test_prometheus_has_the_numbers_of_the_program(prometheus: Prometheus) -> None:
    def value(expression: str) -> float:
        (number,) = prometheus.wait_for(expression).values()
        return number

    assert value('job_gateway:mcp_session_pool_saturation:max{gateway_id="busy"}') == 1
    assert value('mcp_session_pool_waiters{gateway_id="busy"}') == 2
    assert value('mcp_session_pool_oldest_waiter_seconds{gateway_id="busy"}') > 0
    assert value('mcp_session_pool_evictions_total{gateway_id="busy", reason="manual"}') == 60
    assert 20 < value('job_gateway:mcp_session_pool_acquire_wait_seconds:p99_rate5m{gateway_id="busy"}') <= 30
    assert value('mcp_session_pool_circuit_breakers_open{gateway_id="down"}') == 1
    assert value(f'up{{job="{JOB}"}}') == 1


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on PATH: NOT checked")
def test_promtool_finds_the_scrape_valid(
    prometheus: Prometheus, endpoint: tuple[int, subprocess.Popen[str]]
) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{endpoint[0]}/metrics", timeout=20) as response:
        text = response.read()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, timeout=110, check=False
    )
    assert b"mcp_session_pool" not in done.stdout + done.stderr, done.stdout + done.stderr
