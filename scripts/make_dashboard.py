"""Writes mcpgateway_pool/dashboards/mcpgateway-pool.json, the Grafana dashboard, from the panels below.

The JSON is in the classic model, which every Grafana imports. ``--check`` only says whether the file is up to
date (exit code 1 when it is not). After a change, also draw the picture again: ``make plots``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parent.parent / "mcpgateway_pool" / "dashboards" / "mcpgateway-pool.json"

Json = dict[str, Any]
Queries = list[tuple[str, str]]  # PromQL and legend

PREFIX = "mcp_session_pool_"
JOB = 'job=~"$job"'
GATEWAY = f'{JOB}, gateway_id=~"$gateway"'
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
MOST = 10  # lines of a panel by gateway: there may be thousands of gateways


def of(stem: str, more: str = "") -> str:
    """A series by gateway, as selected at the top of the dashboard."""
    return f"{PREFIX}{stem}{{{GATEWAY}{more}}}"


def rate(stem: str, by: str = "", more: str = "") -> str:
    total = f"(rate({of(stem + '_total', more)}[$__rate_interval]))"
    return f"sum by ({by}) {total}" if by else f"sum{total}"


def hit_rate(by: str = "") -> str:
    hits, misses = rate("hits", by), rate("misses", by)
    return f"{hits} / ({hits} + {misses} > 0)"


LIMIT = f"{of('keys')} * ignoring (gateway_id) group_left () {PREFIX}max_sessions_per_key{{{JOB}}}"


def saturation(by: str) -> str:
    """Of the fullest instance, because limits are per instance; gateways without keys have none."""
    return f"max by ({by}) ({of('active_sessions')} / ({LIMIT} > 0))"


SATURATION = f"max({of('active_sessions')} / ({LIMIT} > 0))"


def quantile(which: float, stem: str, by: str = "le") -> str:
    return f"histogram_quantile({which}, sum by ({by}) (rate({of(stem + '_bucket')}[$__rate_interval])))"


def quantiles(stem: str) -> Queries:
    return [(quantile(which, stem), f"p{which * 100:.0f}") for which in (0.5, 0.95, 0.99)]


def used(stem: str, limit: str) -> str:
    """Of a limit of each instance; 0, unlimited, has no share."""
    return f"sum without (gateway_id) ({PREFIX}{stem}{{{JOB}}}) / ({PREFIX}{limit}{{{JOB}}} > 0)"


def failing() -> str:
    return f"{rate('acquire_timeouts')} + {rate('acquire_rejections')}"


# ---- panels


def targets(queries: Queries, **more: Any) -> list[Json]:
    return [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": expr,
            "legendFormat": legend,
            **(more or {"range": True}),
        }
        for index, (expr, legend) in enumerate(queries)
    ]


def steps(*marks: tuple[str, float]) -> Json:
    """Colours from a value on; green below the first."""
    first: list[Json] = [{"color": "green", "value": None}]
    return {"mode": "absolute", "steps": first + [{"color": color, "value": mark} for color, mark in marks]}


def stat(title: str, text: str, expr: str, unit: str, thresholds: Json, width: int = 3) -> Json:
    return {
        "type": "stat",
        "title": title,
        "description": text,
        "size": (width, 4),
        "fieldConfig": {
            "defaults": {"unit": unit, "thresholds": thresholds, "color": {"mode": "thresholds"}},
            "overrides": [],
        },
        "options": {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
        },
        "targets": targets([(expr, title)]),
    }


def graph(
    title: str, text: str, queries: Queries, unit: str = "short", width: int = 8, *, stack: bool = False,
    top: float | None = None,
) -> Json:  # fmt: skip
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if stack else 10,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    limits = {"min": 0} if top is None else {"min": 0, "max": top}
    return {
        "type": "timeseries",
        "title": title,
        "description": text,
        "size": (width, 8),
        "fieldConfig": {
            "defaults": {"unit": unit, "color": {"mode": "palette-classic"}, "custom": custom, **limits},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": targets(queries),
    }


TABLE_COLUMNS = (
    ("Hit rate", hit_rate("gateway_id"), "percentunit"),
    ("Acquires/s", f"{rate('hits', 'gateway_id')} + {rate('misses', 'gateway_id')}", "reqps"),
    ("Active", f"sum by (gateway_id) ({of('active_sessions')})", "short"),
    ("Size", f"sum by (gateway_id) ({of('size')})", "short"),
    ("Keys", f"sum by (gateway_id) ({of('keys')})", "short"),
    ("Saturation", saturation("gateway_id"), "percentunit"),
    ("Waiters", f"sum by (gateway_id) ({of('waiters')})", "short"),
    (
        "Wait p99",
        quantile(0.99, "acquire_wait_seconds", "gateway_id, le"),
        "s",
    ),
    ("Create failures/s", rate("create_failures", "gateway_id"), "reqps"),
    ("Breakers open", f"sum by (gateway_id) ({of('circuit_breakers_open')})", "short"),
)


def gateway_table() -> Json:
    queries = targets([(expr, name) for name, expr, _ in TABLE_COLUMNS], instant=True, format="table")
    names = {
        f"Value #{query['refId']}": name for query, (name, _, _) in zip(queries, TABLE_COLUMNS, strict=True)
    }
    return {
        "type": "table",
        "title": "Gateways",
        "description": "Each gateway now. A gateway without traffic has no hit rate.",
        "size": (24, 10),
        "fieldConfig": {
            "defaults": {"custom": {"align": "auto", "filterable": True}, "decimals": 2},
            "overrides": [
                {
                    "matcher": {"id": "byName", "options": name},
                    "properties": [{"id": "unit", "value": unit}],
                }
                for name, _, unit in TABLE_COLUMNS
            ],
        },
        "options": {"showHeader": True, "sortBy": [{"displayName": "Acquires/s", "desc": True}]},
        "targets": queries,
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "renameByName": {"gateway_id": "Gateway", **names},
                },
            },
        ],
    }


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
                ),
                stat(
                    "Waiters",
                    "Callers waiting for a session.",
                    f"sum({of('waiters')})",
                    "short",
                    steps(("orange", 1)),
                ),
                stat(
                    "Oldest waiter",
                    "How long the oldest of them has waited. At acquire_timeout_seconds it fails.",
                    f"max({of('oldest_waiter_seconds')})",
                    "s",
                    steps(("orange", 5), ("red", 24)),
                ),
                stat("Failing acquires", "Timed out or refused.", failing(), "reqps", steps(("red", 0.001))),
                stat(
                    "Breakers open",
                    "Open or half-open circuit breakers.",
                    f"sum({of('circuit_breakers_open')})",
                    "short",
                    steps(("red", 1)),
                ),
                stat(
                    "Workers",
                    "Scrape targets that are up, of the jobs that show the pool.",
                    f"sum(up{{{JOB}}} and on (job) {PREFIX}max_sessions_per_key)",
                    "short",
                    steps(),
                ),
            ],
        ),
        (
            "Traffic",
            [
                graph(
                    f"Hit rate by gateway, lowest {MOST}",
                    "Share of the acquires that found an open session; no line without traffic.",
                    [(f"bottomk({MOST}, {hit_rate('gateway_id')})", "{{gateway_id}}")],
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
                    12,
                    stack=True,
                ),
                graph(
                    f"Requests sent once more by gateway, highest {MOST}",
                    "On a fresh session, because the server certainly had not executed them.",
                    [(f"topk({MOST}, {rate('replays', 'gateway_id')})", "{{gateway_id}}")],
                    "reqps",
                    12,
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
                    [(f"topk({MOST}, {saturation('gateway_id')})", "{{gateway_id}}")],
                    "percentunit",
                    top=1,
                ),
                graph(
                    f"Waiters by gateway, highest {MOST}",
                    "Callers waiting for a session.",
                    [(f"topk({MOST}, sum by (gateway_id) ({of('waiters')}))", "{{gateway_id}}")],
                ),
            ],
        ),
        (
            "Latency",
            [
                graph(
                    "Wait for a session",
                    "Only acquires that had to wait.",
                    quantiles("acquire_wait_seconds"),
                    "s",
                    5,
                ),
                graph(
                    f"Oldest waiter by gateway, highest {MOST}",
                    "How long the oldest caller in the queue has waited.",
                    [
                        (
                            f"topk({MOST}, max by (gateway_id) ({of('oldest_waiter_seconds')}))",
                            "{{gateway_id}}",
                        )
                    ],
                    "s",
                    5,
                ),
                graph("Creation of a session", "From start to ready.", quantiles("create_seconds"), "s", 5),
                graph("Use of a session", "From acquire to release.", quantiles("use_seconds"), "s", 5),
                graph(
                    f"Long checkouts by gateway, highest {MOST}",
                    "Checkouts that lasted for leak_detection_seconds. The log says which code began them.",
                    [(f"topk({MOST}, {rate('long_checkouts', 'gateway_id')})", "{{gateway_id}}")],
                    "reqps",
                    4,
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
                ),
                graph(
                    "Health checks",
                    "Checks of idle sessions, and those that found one unusable.",
                    [(rate("health_checks"), "made"), (rate("health_check_failures"), "failed")],
                    "reqps",
                    6,
                ),
                graph(
                    "Circuit breakers",
                    "Open or half-open now, and how often one opened.",
                    [
                        (f"sum by (gateway_id) ({of('circuit_breakers_open')}) > 0", "open: {{gateway_id}}"),
                        (
                            f"sum(increase({of('circuit_breaker_trips_total')}[$__rate_interval]))",
                            "opened, in the interval",
                        ),
                    ],
                    width=6,
                ),
            ],
        ),
        (
            "Process",
            [
                graph(
                    "Workers",
                    "Scrape targets that are up, and those that show the pool. They should be equal.",
                    [
                        (
                            f"sum by (job) (up{{{JOB}}} and on (job) {PREFIX}max_sessions_per_key)",
                            "{{job}}: up",
                        ),
                        (f"count by (job) ({PREFIX}max_sessions_per_key{{{JOB}}})", "{{job}}: show the pool"),
                    ],
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
        "annotations": {"list": []},
        "links": [],
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
                variable("gateway", "Gateway", f"label_values({PREFIX}size{{{JOB}}}, gateway_id)"),
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
