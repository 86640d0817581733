"""What the dashboard of make_dashboard.py is made of: its queries, and panels of each kind."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
Queries = list[tuple[str, str]]  # PromQL and legend

PREFIX = "mcp_session_pool_"
JOB = 'job=~"$job", instance=~"$instance"'
CHOSEN = 'gateway_id=~"$gateway"'
GATEWAY = f"{JOB}, {CHOSEN}"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RUNBOOK = "docs/runbook.md"  # `mcpgateway-pool dashboards --runbook URL` puts an address in its place
MOST = 10  # lines of a panel by gateway: there may be thousands of gateways


def of(stem: str, more: str = "") -> str:
    """A series by gateway, as selected at the top of the dashboard."""
    return f"{PREFIX}{stem}{{{GATEWAY}{more}}}"


# One name for each gateway; its id where none is known.
NAMES = (
    f"topk by (gateway_id) (1, group by (gateway_id, name) ({of('gateway_info')})) or on (gateway_id)"
    f' label_replace(group by (gateway_id) ({of("size")}), "name", "$1", "gateway_id", "(.*)")'
)


def named(expr: str) -> str:
    """What is by gateway, with the label ``name``."""
    return f"({expr}) * on (gateway_id) group_left (name) ({NAMES})"


def highest(expr: str) -> Queries:
    """A panel's lines by gateway."""
    return [(named(f"topk({MOST}, {expr})"), "{{name}}")]


def rate(stem: str, by: str = "", more: str = "") -> str:
    total = f"(rate({of(stem + '_total', more)}[$__rate_interval]))"
    return f"sum by ({by}) {total}" if by else f"sum{total}"


def hit_rate(by: str = "") -> str:
    hits, misses = rate("hits", by), rate("misses", by)
    return f"{hits} / ({hits} + {misses} > 0)"


LIMIT = f"{of('keys')} * ignoring (gateway_id) group_left () {PREFIX}max_sessions_per_key{{{JOB}}}"


# Of the fullest instance, because limits are per instance. Gateways without keys have none; nor has any where
# a key has one session at most, which is full whenever it is used.
SHARE_IN_USE = (
    f"{of('active_sessions')} / ({of('keys')} * ignoring (gateway_id) group_left ()"
    f" ({PREFIX}max_sessions_per_key{{{JOB}}} > 1) > 0)"
)
SATURATION = f"max({SHARE_IN_USE})"
SATURATION_BY_GATEWAY = f"max by (gateway_id) ({SHARE_IN_USE})"


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


def to_runbook(alert: str) -> list[Json]:
    """The link of a panel to what is to be done when an alert of this name fires; none without a name."""
    link = {"title": f"Runbook: {alert}", "url": f"{RUNBOOK}#{alert.lower()}", "targetBlank": True}
    return [link] if alert else []


def stat(
    title: str, text: str, expr: str, unit: str, thresholds: Json, width: int = 3, *, alert: str = ""
) -> Json:  # fmt: skip
    return {
        "type": "stat",
        "title": title,
        "description": text,
        "links": to_runbook(alert),
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
    top: float | None = None, alert: str = "",
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
        "links": to_runbook(alert),
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
    ("Saturation", SATURATION_BY_GATEWAY, "percentunit"),
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
    queries = targets([(named(expr), name) for name, expr, _ in TABLE_COLUMNS], instant=True, format="table")
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
                    "indexByName": {"name": 0, "gateway_id": 1},
                    "renameByName": {"name": "Gateway", "gateway_id": "Id", **names},
                },
            },
        ],
    }
