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
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
# The alerts as they are, but for how long each must last: what is true at two evaluations fires.
QUICK_RULES = re.sub(r"(?m)^( +)(for|interval): \d+[ms]$", r"\1\2: 500ms", RULES)
ALERTS = re.findall(r"- alert: (\S+)", RULES)
OF_TARGETS = ("McpSessionPoolGone", "McpSessionPoolAbsent")  # of targets that show no pool

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
    with Prometheus(
        tmp_path_factory.mktemp("prometheus"), {JOB: f"127.0.0.1:{port}"}, QUICK_RULES
    ) as prometheus:
        # Two samples, so that what is counted from now on is an increase for rate().
        prometheus.wait_for("count_over_time(mcp_session_pool_size[1m]) >= 2")
        program.stdin.write("go\n")
        program.stdin.flush()
        assert program.stdout.readline() == "done\n"
        prometheus.wait_for('increase(mcp_session_pool_acquire_timeouts_total{gateway_id="busy"}[1m]) > 0')
        yield prometheus


def substituted(expression: str) -> str:
    """As Grafana would send it."""
    for name, value in (("$job", JOB), ("$instance", ".*"), ("$gateway", ".*"), ("$__rate_interval", "5m")):
        expression = expression.replace(name, value)
    assert "$" not in expression.replace('"$1"', "")
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


def firing(prometheus: Prometheus, name: str) -> list[Any]:
    """The alerts of this name that fire."""
    groups = prometheus.get("rules")["groups"]
    rule = next(rule for group in groups for rule in group["rules"] if rule["name"] == name)
    assert rule["health"] != "err", rule["lastError"]
    return [alert for alert in rule["alerts"] if alert["state"] == "firing"]


@pytest.mark.parametrize("name", [name for name in ALERTS if name not in OF_TARGETS])
def test_every_alert_fires_at_its_trouble(prometheus: Prometheus, name: str) -> None:
    for alert in wait_until(lambda: firing(prometheus, name), 20):
        assert alert["labels"]["job"] == JOB
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert "<no value>" not in json.dumps(alert["annotations"])


def test_alerts_name_gateways_by_their_names_or_else_by_their_ids(prometheus: Prometheus) -> None:
    def names(alert: str) -> dict[str, str]:
        labels = [found["labels"] for found in firing(prometheus, alert)]
        return {found["gateway_id"]: found["name"] for found in labels}

    assert wait_until(lambda: names("McpSessionPoolCallersWaiting") == {"busy": "Busy server"}, 20)
    assert wait_until(lambda: names("McpSessionPoolServerDown") == {"down": "down"}, 20)


@pytest.mark.long("a second Prometheus, and a target that changes under it")
def test_alerts_of_targets_fire_where_the_pool_is_shown_no_more(tmp_path: Path) -> None:
    shown = [b"mcp_session_pool_max_sessions_per_key 10\nother 1\n"]

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(shown[0])

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            target = f"127.0.0.1:{server.server_port}"
            with Prometheus(tmp_path, {JOB: target}, QUICK_RULES) as prometheus:
                prometheus.wait_for("mcp_session_pool_max_sessions_per_key")
                wait_until(lambda: not any(firing(prometheus, name) for name in OF_TARGETS), 20)
                shown[0] = b"other 1\n"
                [gone] = wait_until(lambda: firing(prometheus, "McpSessionPoolGone"), 20)
                assert gone["labels"]["instance"] == target
                assert wait_until(lambda: firing(prometheus, "McpSessionPoolAbsent"), 20)
        finally:
            server.shutdown()
            thread.join()


def test_the_variables_of_the_dashboard_have_values(prometheus: Prometheus) -> None:
    expected = {"job": JOB, "gateway": "busy"}
    for variable in DASHBOARD["templating"]["list"][1:]:
        kind, query, label = re.fullmatch(  # type: ignore[union-attr]
            r"(label_values|query_result)\((.*?)(?:, (\w+))?\)", variable["query"]["query"]
        ).groups()
        if kind == "label_values":
            values = prometheus.get(f"label/{label}/values", **{"match[]": substituted(query)})
            assert expected.get(variable["name"], values[0]) in values
            continue
        # As Grafana reads what query_result() gives: a name to show, and an id to select by.
        pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
        choices = {}
        for labels in prometheus.wait_for(substituted(query)):
            line = ", ".join(f'{name}="{value}"' for name, value in sorted(json.loads(labels).items()))
            found = pattern.search("{" + line + "}")
            assert found is not None, line
            choices[found["value"]] = found["text"]
        assert choices["busy"] == "Busy server"
        assert choices["calm"] == "calm"


def test_the_annotations_of_the_dashboard_are_the_alerts_that_fire(prometheus: Prometheus) -> None:
    [annotation] = DASHBOARD["annotations"]["list"]
    found = [json.loads(labels) for labels in prometheus.wait_for(substituted(annotation["expr"]), 20)]
    assert {one["alertname"] for one in found} <= set(ALERTS)


def test_a_gateway_that_is_picked_is_the_only_one_in_the_table(prometheus: Prometheus) -> None:
    expression = QUERIES["Gateways, C"].replace("$gateway", "busy")
    assert prometheus.wait_for(substituted(expression)) == {
        '{"gateway_id": "busy", "name": "Busy server"}': 2
    }


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
