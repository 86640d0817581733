"""Draws panels of the dashboard from the demo, as a real Prometheus saw it: docs/images/dashboard.png.

Runs ``mcpgateway-pool demo`` and the program ``prometheus`` for a while, asks for the queries of the
dashboard's graphs as Grafana would, and draws them with matplotlib. Needs the dependency group ``plots``, the
extra ``[mcp]``, and Debian's package prometheus.
"""

from __future__ import annotations

import argparse
import importlib.resources
import io
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter
from PIL import Image

from support.prometheus import Prometheus

TARGET = ROOT / "docs" / "images" / "dashboard.png"
JOB = "demo"
RATE_INTERVAL = "5s"  # scrapes are half a second apart
STEP = 1.0
PANELS = (
    "Hit rate by gateway, lowest 10",
    "Acquires",
    "Acquires without a session",
    "Sessions",
    "Saturation by gateway, highest 10",
    "Waiters by gateway, highest 10",
    "Wait for a session",
    "Creation of a session",
    "Evictions by reason",
    "Creations",
    "Health checks",
    "Circuit breakers",
)
COLUMNS = 3
STYLE = {
    "figure.facecolor": "#111217",
    "axes.facecolor": "#181b1f",
    "axes.edgecolor": "#3a3d43",
    "axes.labelcolor": "#ccccdc",
    "text.color": "#ccccdc",
    "xtick.color": "#8e8e9a",
    "ytick.color": "#8e8e9a",
    "grid.color": "#2c2f34",
    "font.size": 8,
    "legend.frameon": False,
    "axes.prop_cycle": mpl.cycler(
        color=["#73bf69", "#5794f2", "#f2cc0c", "#ff780a", "#b877d9", "#f2495c", "#8ab8ff", "#96d98d"]
    ),
}
UNITS = {
    "percentunit": lambda value, _: f"{value:.0%}",
    "s": lambda value, _: f"{value * 1000:g} ms" if value < 1 else f"{value:g} s",
    "reqps": lambda value, _: f"{value:g}/s",
}

Line = tuple[str, list[float], list[float]]


def record(seconds: float, panels: list[dict[str, Any]]) -> list[list[Line]]:
    """The lines of each panel, seconds from the start on the x axis, while the demo ran so long."""
    command = [sys.executable, "-P", "-m", "mcpgateway_pool.cli", "demo"]
    with (
        tempfile.TemporaryDirectory(prefix="plot-dashboard-") as folder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo,
    ):
        try:
            assert demo.stdout is not None
            found = re.search(r"http://(\S+)/metrics", demo.stdout.readline())
            if found is None:
                raise RuntimeError("the demo did not start")
            with Prometheus(Path(folder), {JOB: found.group(1)}) as prometheus:
                prometheus.wait_for("count_over_time(mcp_session_pool_size[1m]) >= 2", 30)
                start = time.time()
                time.sleep(seconds)
                span = {"start": str(start), "end": str(start + seconds), "step": str(STEP)}
                return [
                    [line for target in panel["targets"] for line in ask(prometheus, target, span)]
                    for panel in panels
                ]
        finally:
            demo.terminate()


def ask(prometheus: Prometheus, target: dict[str, Any], span: dict[str, str]) -> list[Line]:
    query = target["expr"]
    for name, value in (
        ("$job", JOB),
        ("$instance", ".*"),
        ("$gateway", ".*"),
        ("$__rate_interval", RATE_INTERVAL),
    ):
        query = query.replace(name, value)
    lines = []
    for series in prometheus.get("query_range", query=query, **span)["result"]:
        labels = series["metric"]
        legend = re.sub(
            r"\{\{(\w+)\}\}", lambda name, of=labels: of.get(name.group(1), ""), target["legendFormat"]
        )
        at, values = [], []
        for when, value in series["values"]:
            if at and when - float(span["start"]) - at[-1] > 1.5 * STEP:  # no line where there was no value
                at.append(at[-1] + STEP)
                values.append(math.nan)
            at.append(when - float(span["start"]))
            values.append(float(value))
        lines.append((legend, at, values))
    return lines


def draw(panels: list[dict[str, Any]], lines: list[list[Line]], target: Path) -> None:
    rows = -(-len(panels) // COLUMNS)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(4.2 * COLUMNS, 2.3 * rows), sharex=True)
        for axis, panel, drawn in zip(axes.flat, panels, lines, strict=True):
            defaults = panel["fieldConfig"]["defaults"]
            # What stays at zero is no news, unless nothing else is there.
            shown = [line for line in drawn if any(value > 0 for value in line[2])] or drawn
            for legend, at, values in shown:
                axis.plot(at, values, linewidth=1.1, label=legend)
                axis.fill_between(at, values, alpha=0.08)
            axis.set_title(panel["title"], loc="left", fontsize=9)
            top = max((value for _, _, values in shown for value in values if value > 0), default=1.0)
            axis.set_ylim(0, top * 1.35)  # room for the legend
            if "max" in defaults:
                axis.set_yticks([defaults["max"] * quarter / 4 for quarter in range(5)])
                axis.set_ylim(0, defaults["max"] * 1.35)
            if defaults["unit"] in UNITS:
                axis.yaxis.set_major_formatter(FuncFormatter(UNITS[defaults["unit"]]))
            axis.grid(visible=True, linewidth=0.5)
            axis.legend(loc="upper left", fontsize=6.5, ncols=2)
        for axis in axes[-1]:
            axis.set_xlabel("seconds")
        figure.tight_layout()
        target.parent.mkdir(exist_ok=True)
        picture = io.BytesIO()
        figure.savefig(picture, dpi=90)
        plt.close(figure)
    # A palette: a third of the size, and nothing to be seen of it.
    Image.open(picture).convert("RGB").quantize(256).save(target, optimize=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the demo runs (default 60)")
    parser.add_argument(
        "--to", type=Path, default=TARGET, help="the picture (default docs/images/dashboard.png)"
    )
    arguments = parser.parse_args()
    text = importlib.resources.files("mcpgateway_pool").joinpath("dashboards", "mcpgateway-pool.json")
    by_title = {panel["title"]: panel for panel in json.loads(text.read_text("utf-8"))["panels"]
                if panel["type"] == "timeseries"}  # fmt: skip
    panels = [by_title[title] for title in PANELS]
    draw(panels, record(arguments.seconds, panels), arguments.to)
    print(f"{arguments.to}: {arguments.to.stat().st_size // 1024} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
