"""Measures growth curves and draws them: ``docs/images/bench-*.png`` from ``benchmarks/figures/*.json``.

Takes about ten minutes; ``--draw`` only draws what was measured before. What ``gateway.py --docs`` and
``gateway_calls.py --docs`` wrote into ``benchmarks/figures`` is drawn, too. Needs the dependency group
``plots``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import curves
import matplotlib as mpl
import peer
from workers import Workers

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
UNITS = {"µs": 1e6, "ms": 1e3}
COLOURS = {"ours": ("#1f6fb2", "#5aa9e6"), "others": ("#c8553d", "#8a8d91")}
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def short(value: float, _: object = None) -> str:
    """A number of an axis."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def colours_of(names: list[str]) -> dict[str, str]:
    """Blue is this pool, whatever it is compared with."""
    left = {kind: list(shades) for kind, shades in COLOURS.items()}
    return {name: left["ours" if name.startswith(curves.OURS) else "others"].pop(0) for name in names}


def log_axes(axes: Axes, ticks: list[int]) -> None:
    """Both axes logarithmic, with plain numbers."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(short))
        axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, name: str) -> None:
    """Write a picture with few colours: it is a line drawing."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100)
    plt.close(figure)
    picture.seek(0)
    target = IMAGES / f"bench-{name}.png"
    Image.open(picture).convert("RGB").quantize(64).save(target, optimize=True)
    print(f"wrote {target.relative_to(ROOT)}, {target.stat().st_size // 1024} KiB")


def draw_curve(name: str, found: dict[str, dict[int, float]]) -> None:
    """One picture of growth."""
    curve = curves.CURVES[name]
    factor = next(factor for unit, factor in UNITS.items() if curve.y.endswith(unit))
    sizes = sorted({size for points in found.values() for size in points})
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    for line, colour in colours_of(list(found)).items():
        points = found[line]
        if len(points) == 1:  # of no size: what all others are compared with
            axes.axhline(next(iter(points.values())) * factor, color=colour, linestyle="--", label=line)
        else:
            seconds = [value * factor for value in points.values()]
            axes.plot(list(points), seconds, marker="o", color=colour, label=line)
    log_axes(axes, sizes)
    if len(found) == 1:
        axes.set_ylim(bottom=1, top=10 * max(value * factor for value in next(iter(found.values())).values()))
    axes.set(title=curve.title, xlabel=curve.x, ylabel=curve.y)
    if len(found) > 1:
        axes.legend()
    save(figure, name)


def draw_gateway(levels: dict[str, dict[str, dict[str, float]]]) -> None:
    """Latency and failures in the real gateway against the number of callers."""
    figure, (times, failed) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    at_once = [int(level) for level in levels]
    # The last is drawn over the others.
    titles = {"own pool": "the gateway's own pool", "no pool": "no pool", "our pool": curves.OURS}
    colours = colours_of(list(titles.values()))
    for side, title in titles.items():
        found = [level[side] for level in levels.values()]
        colour = colours[title]
        times.plot(at_once, [level["p50"] for level in found], marker="o", color=colour, label=title)
        times.plot(at_once, [level["p99"] for level in found], marker="o", color=colour, linestyle=":")
        shares = [100 * level["failed"] / level["calls"] for level in found]
        failed.plot(at_once, shares, marker="o", color=colour, label=title)
    log_axes(times, at_once)
    failed.set_xscale("log")
    failed.set_xticks(at_once)
    failed.xaxis.set_major_formatter(FuncFormatter(short))
    failed.xaxis.set_minor_formatter(NullFormatter())
    failed.set_ylim(bottom=-1)
    times.set(title="A tool call: median, and p99 dotted", xlabel="calls at a time", ylabel="s")
    failed.set(title="Calls that failed", xlabel="calls at a time", ylabel="%")
    failed.legend()
    save(figure, "gateway")


def draw_gateway_calls(levels: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    """Calls a second without a downstream session, against calls at a time; a panel for each distance."""
    figure, panels = plt.subplots(
        1, len(levels), figsize=(9, 3.8), layout="constrained", sharey=True, squeeze=False
    )
    titles = {"without": "the gateway alone", "with": curves.OURS}
    colours = colours_of(list(titles.values()))
    for axes, (away, found) in zip(panels[0], levels.items(), strict=True):
        at_once = [int(level) for level in found]
        for side, title in titles.items():
            calls = [level[side]["answered_per_second"] for level in found.values()]
            axes.plot(at_once, calls, marker="o", color=colours[title], label=title)
        log_axes(axes, at_once)
        axes.set_title("server near" if away == "0" else f"server {away} ms away")
        axes.set_xlabel("calls at a time")
    panels[0][0].set_ylabel("calls a second")
    panels[0][0].set_yticks([1, 3, 10, 30, 100])
    panels[0][0].legend()
    save(figure, "gateway-calls")


# Pictures of what other programs have measured, by the names of their figures.
MEASURED_ELSEWHERE = {"gateway": draw_gateway, "gateway-calls": draw_gateway_calls}


def main() -> int:
    """Parse the arguments, measure, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*curves.CURVES, *MEASURED_ELSEWHERE]
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    parser.add_argument("--only", choices=names, nargs="+", default=names)
    parser.add_argument("--largest", type=int, help="no sizes beyond this, to try")
    parser.add_argument("--peer-python", help="an interpreter that has the peer, instead of .venv-peer")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.only if name in curves.CURVES]
    try:
        if not arguments.draw and chosen:
            peer_python = arguments.peer_python or str(peer.ensure_environment(ROOT / ".venv-peer"))
            with Workers(peer_python) as workers:
                for name in chosen:
                    curves.save(name, curves.CURVES[name].measure(workers, arguments.largest))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        for name in chosen:
            found = curves.load(name)
            if found is not None:
                draw_curve(name, found)
        for name, draw in MEASURED_ELSEWHERE.items():
            figures = curves.FOLDER / f"{name}.json"
            if name in arguments.only and figures.exists():
                draw(json.loads(figures.read_text())["levels"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
