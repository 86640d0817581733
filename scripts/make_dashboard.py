"""Writes mcpgateway_pool/dashboards/mcpgateway-pool.json, the Grafana dashboard, from the panels below.

The JSON is in the classic model, which every Grafana imports. ``--check`` only says whether the file is up to
date (exit code 1 when it is not). After a change, also draw the picture again: ``make plots``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from dashboard_parts import (
    CHOSEN,
    DATASOURCE,
    JOB,
    LIMIT,
    MOST,
    NAMES,
    PREFIX,
    RUNBOOK,
    SATURATION,
    SATURATION_BY_GATEWAY,
    Json,
    failing,
    gateway_table,
    graph,
    highest,
    hit_rate,
    named,
    of,
    quantiles,
    rate,
    stat,
    steps,
    used,
)

TARGET = Path(__file__).resolve().parent.parent / "mcpgateway_pool" / "dashboards" / "mcpgateway-pool.json"


def rows() -> list[tuple[str, list[Json]]]:
    """The rows of the dashboard and their panels, in order."""
    return [
        (
            "Now",
            [
                stat(
                    "Hit rate",
                    "Share of the acquires that found an open session.",
                    hit_rate(),
                    "percentunit",
                    {
                        "mode": "absolute",
                        "steps": [{"color": "red", "value": None}, {"color": "green", "value": 0.5}],
                    },
                    alert="McpSessionPoolHitRateCollapsed",
                ),
                stat(
                    "Acquires", "Acquires answered.", f"{rate('hits')} + {rate('misses')}", "reqps", steps()
                ),
                stat(
                    "Saturation",
                    "Active sessions as a share of what the keys may have, of the fullest gateway.",
                    SATURATION,
                    "percentunit",
                    steps(("orange", 0.7), ("red", 0.9)),
                    alert="McpSessionPoolSaturated",
                ),
                stat(
                    "Waiters",
                    "Callers waiting for a session.",
                    f"sum({of('waiters')})",
                    "short",
                    steps(("orange", 1)),
                    alert="McpSessionPoolCallersWaiting",
                ),
                stat(
                    "Oldest waiter",
                    "How long the oldest of them has waited. At acquire_timeout_seconds it fails.",
                    f"max({of('oldest_waiter_seconds')})",
                    "s",
                    steps(("orange", 5), ("red", 24)),
                    alert="McpSessionPoolWaitNearTimeout",
                ),
                stat(
                    "Failing acquires",
                    "Timed out or refused.",
                    failing(),
                    "reqps",
                    steps(("red", 0.001)),
                    alert="McpSessionPoolAcquiresFailing",
                ),
                stat(
                    "Breakers open",
                    "Open or half-open circuit breakers.",
                    f"sum({of('circuit_breakers_open')})",
                    "short",
                    steps(("red", 1)),
                    alert="McpSessionPoolServerDown",
                ),
                stat(
                    "Workers",
                    "Processes with pools. Workers that share a port but no counters show one of them.",
                    f"sum({PREFIX}processes{{{JOB}}})",
                    "short",
                    {
                        "mode": "absolute",
                        "steps": [{"color": "red", "value": None}, {"color": "green", "value": 1}],
                    },
                    alert="McpSessionPoolAbsent",
                ),
            ],
        ),
        (
            "Traffic",
            [
                graph(
                    f"Hit rate by gateway, lowest {MOST}",
                    "Share of the acquires that found an open session; no line without traffic.",
                    [(named(f"bottomk({MOST}, {hit_rate('gateway_id')})"), "{{name}}")],
                    "percentunit",
                    top=1,
                ),
                graph(
                    "Acquires",
                    "Hits found an open session, misses paid for a new one.",
                    [(rate("hits"), "hits"), (rate("misses"), "misses")],
                    "reqps",
                    stack=True,
                ),
                graph(
                    "Acquires without a session",
                    "Time-outs, refusals by reason, and callers that went away before they were answered.",
                    [
                        (rate("acquire_timeouts"), "timed out"),
                        (rate("acquire_rejections", "reason"), "refused: {{reason}}"),
                        (rate("acquire_cancellations"), "cancelled by the caller"),
                    ],
                    "reqps",
                ),
            ],
        ),
        (
            "Calls of the gateway",
            [
                graph(
                    "Calls past the pool",
                    "Tool calls that went the gateway's own way, by reason.",
                    [(rate("unpooled_calls", "reason"), "{{reason}}")],
                    "reqps",
                    8,
                    stack=True,
                ),
                graph(
                    f"Requests sent once more by gateway, highest {MOST}",
                    "On a fresh session, because the server certainly had not executed them.",
                    highest(rate("replays", "gateway_id")),
                    "reqps",
                    8,
                ),
                graph(
                    f"Sessions replaced before their end by gateway, highest {MOST}",
                    "In the background, so that no caller waits for the end of a lifetime.",
                    highest(rate("replacements", "gateway_id")),
                    "reqps",
                    8,
                ),
            ],
        ),
        (
            "Saturation",
            [
                graph(
                    "Sessions",
                    "Open sessions, and how many the keys may have together.",
                    [
                        (f"sum({of('active_sessions')})", "active"),
                        (f"sum({of('idle_sessions')})", "idle"),
                        (f"sum({LIMIT})", "limit of the keys"),
                    ],
                ),
                graph(
                    f"Saturation by gateway, highest {MOST}",
                    "Active sessions / (keys × max_sessions_per_key), of the fullest instance.",
                    highest(SATURATION_BY_GATEWAY),
                    "percentunit",
                    top=1,
                ),
                graph(
                    f"Waiters by gateway, highest {MOST}",
                    "Callers waiting for a session.",
                    highest(f"sum by (gateway_id) ({of('waiters')})"),
                ),
            ],
        ),
        (
            "Latency",
            [
                graph(
                    "Wait for a session",
                    "Only acquires that had to wait; and the time-out, where there is one.",
                    [
                        *quantiles("acquire_wait_seconds"),
                        (f"max({PREFIX}acquire_timeout_seconds{{{JOB}}} > 0)", "time-out"),
                    ],
                    "s",
                    5,
                    alert="McpSessionPoolWaitNearTimeout",
                ),
                graph(
                    f"Oldest waiter by gateway, highest {MOST}",
                    "How long the oldest caller in the queue has waited.",
                    highest(f"max by (gateway_id) ({of('oldest_waiter_seconds')})"),
                    "s",
                    5,
                ),
                graph("Creation of a session", "From start to ready.", quantiles("create_seconds"), "s", 5),
                graph("Use of a session", "From acquire to release.", quantiles("use_seconds"), "s", 5),
                graph(
                    f"Long checkouts by gateway, highest {MOST}",
                    "Checkouts that lasted for leak_detection_seconds. The log says which code began them.",
                    highest(rate("long_checkouts", "gateway_id")),
                    "reqps",
                    4,
                    alert="McpSessionPoolSessionsLeaked",
                ),
            ],
        ),
        (
            "Sessions",
            [
                graph(
                    "Evictions by reason",
                    "Open sessions that the pool closed. broken, health_check and leaked are trouble.",
                    [(rate("evictions", "reason"), "{{reason}}")],
                    "reqps",
                    6,
                    stack=True,
                    alert="McpSessionPoolSessionsLeaked",
                ),
                graph(
                    "Creations",
                    "Sessions opened, attempts that failed, and attempts under way.",
                    [
                        (rate("creates"), "created/s"),
                        (rate("replacements"), "of these, replacements/s"),
                        (rate("create_failures"), "failed/s"),
                        (f"sum({of('session_creations_in_progress')})", "in progress"),
                    ],
                    width=6,
                    alert="McpSessionPoolCreateFailures",
                ),
                graph(
                    "Health checks",
                    "Checks of idle sessions, and those that found one unusable.",
                    [(rate("health_checks"), "made"), (rate("health_check_failures"), "failed")],
                    "reqps",
                    6,
                    alert="McpSessionPoolHealthChecksFailing",
                ),
                graph(
                    "Circuit breakers",
                    "Open or half-open now, and how often one opened.",
                    [
                        (named(f"sum by (gateway_id) ({of('circuit_breakers_open')}) > 0"), "open: {{name}}"),
                        (
                            f"sum(increase({of('circuit_breaker_trips_total')}[$__rate_interval]))",
                            "opened, in the interval",
                        ),
                    ],
                    width=6,
                    alert="McpSessionPoolBreakerOpen",
                ),
            ],
        ),
        (
            "Process",
            [
                graph(
                    "Workers",
                    "Processes with pools; targets that are up, and those that show the pool: as many.",
                    [
                        (f"sum by (job) ({PREFIX}processes{{{JOB}}})", "{{job}}: workers"),
                        (
                            f"sum by (job) (up{{{JOB}}} and on (job) {PREFIX}max_sessions_per_key)",
                            "{{job}}: targets up",
                        ),
                        (
                            f"count by (job) ({PREFIX}max_sessions_per_key{{{JOB}}})",
                            "{{job}}: targets that show the pool",
                        ),
                    ],
                    alert="McpSessionPoolGone",
                ),
                graph(
                    "Total limits in use",
                    "Of max_total_sessions and max_total_keys, by instance; unlimited has no line.",
                    [
                        (used("size", "max_total_sessions"), "{{instance}}: sessions"),
                        (used("keys", "max_total_keys"), "{{instance}}: keys"),
                    ],
                    "percentunit",
                ),
                graph(
                    "Callers without an identity, gateways without a row",
                    "Anonymous callers share sessions; gateways past the bound share the row __overflow__.",
                    [
                        (rate("anonymous_acquires"), "anonymous acquires"),
                        (
                            f"sum(rate({PREFIX}label_overflow_total{{{JOB}}}[$__rate_interval]))",
                            "counted in __overflow__",
                        ),
                    ],
                    "reqps",
                    alert="McpSessionPoolLabelOverflow",
                ),
            ],
        ),
        ("By gateway", [gateway_table()]),
    ]


# ---- the whole


def laid_out() -> list[Json]:
    """The panels with their places in Grafana's grid of 24 columns, and ids."""
    panels: list[Json] = []
    top = 0
    for title, members in rows():
        place = {"x": 0, "y": top, "w": 24, "h": 1}
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place})
        top += 1
        left = 0
        for panel in members:
            width, height = panel.pop("size")
            if left + width > 24:
                raise ValueError(f"the row {title} is too wide")
            place = {"x": left, "y": top, "w": width, "h": height}
            panels.append({"datasource": DATASOURCE, **panel, "gridPos": place})
            left += width
        top += height
    return [{"id": number, **panel} for number, panel in enumerate(panels, 1)]


def variable(name: str, label: str, query: str) -> Json:
    """Several values or all; all is one short pattern, not a list of thousands."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def gateways() -> Json:
    """The choice of gateways, by their names."""
    choice = variable("gateway", "Gateway", f"query_result({NAMES.replace(', ' + CHOSEN, '')})")
    choice["regex"] = '/gateway_id="(?<value>[^"]+)".*name="(?<text>[^"]*)"/'
    return choice


def alerts_that_fired() -> Json:
    return {
        "name": "Alerts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        # Some are of a target or a job, and of no gateway.
        "expr": (
            'ALERTS{alertname=~"McpSessionPool.*", alertstate="firing",'
            ' job=~"$job|", gateway_id=~"$gateway|"}'
        ),
        "step": "60s",
        "titleFormat": "{{alertname}}",
        "textFormat": "{{name}} {{instance}}",
        "tagKeys": "severity",
        "useValueForTime": False,
    }


def dashboard() -> Json:
    return {
        "uid": "mcpgateway-pool",
        "title": "MCP session pool",
        "description": "The session pool of an MCP gateway, or of any program that uses mcpgateway-pool.",
        "tags": ["mcp", "mcpgateway-pool"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # one crosshair in all panels
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [alerts_that_fired()]},
        "links": [
            {
                "type": "link",
                "title": "Runbook",
                "tooltip": "What each alert means and what to do",
                "icon": "doc",
                "url": f"{RUNBOOK}#runbook",
                "targetBlank": True,
                "asDropdown": False,
                "includeVars": False,
                "keepTime": False,
                "tags": [],
            }
        ],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Data source",
                    "type": "datasource",
                    "query": "prometheus",
                    "refresh": 1,
                    "current": {},
                    "options": [],
                },
                variable("job", "Job", f"label_values({PREFIX}max_sessions_per_key, job)"),
                variable(
                    "instance",
                    "Instance",
                    f'label_values({PREFIX}max_sessions_per_key{{job=~"$job"}}, instance)',
                ),
                gateways(),
            ]
        },
        "panels": laid_out(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, say whether the file is up to date"
    )
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET.name} is not what {Path(__file__).name} writes: run it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
