"""The table of ``top``: as many columns as fit, the most telling ones first, and shortened ids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from mcpgateway_pool.redact import safe_text

from .scrape import ALL, Scrape
from .window import Figures, Window

Line = list[tuple[str, str]]  # text and its style

_MAX_LABEL_CHARS = 300
_LABEL_WIDTH = 36  # an id that is a UUID, where there is no name
_MIN_LABEL_WIDTH = 12
_GAP = 2
_LEAST_BARS, _MOST_BARS = 8, 29
_BARS = "▁▂▃▄▅▆▇█"


# ---- numbers


def sparkline(values: Sequence[float]) -> str:
    """One character for each value, from 0 to the largest."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, max(0, int(value / top * len(_BARS))))] for value in values)


def number(value: float | None) -> str:
    """A count, or a rate."""
    if value is None:
        return "-"
    if abs(value) >= 1e9:
        return f"{value:.2e}"
    return f"{value:,.0f}" if value >= 100 or value == math.floor(value) else f"{value:.1f}"


def share(value: float | None) -> str:
    """A part of one."""
    return "-" if value is None else f"{value * 100:.1f}%"


def duration(seconds: float | None) -> str:
    """A time."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{number(seconds)} s"


def shorten(label: str, width: int) -> str:
    """A label in so many cells of a terminal: both its ends, for ids are often alike at one of them."""
    label = safe_text(label, _MAX_LABEL_CHARS)
    if cell_len(label) <= width:
        return label
    tail = ""
    for char in reversed(label):
        if cell_len(char + tail) > (width - 1) // 3:
            break
        tail = char + tail
    return set_cell_size(label, width - 1 - cell_len(tail)).rstrip() + "…" + tail


def text_of(line: Line) -> Text:
    """A line as rich shows it."""
    return Text.assemble(*line, no_wrap=True, overflow="ellipsis")


# ---- columns


def _when(style: str, is_so: Callable[[Figures], object]) -> Callable[[Figures], str]:
    return lambda row: style if is_so(row) else ""


@dataclass(frozen=True)
class _Column:
    """One of the table.

    Attributes:
        rank: the higher, the sooner it is left out.
        title: one line, or two.
    """

    rank: int
    title: str
    text: Callable[[Figures], str]
    style: Callable[[Figures], str] = lambda row: ""


_COLUMNS = (
    _Column(
        1,
        "\nacquires/s",
        lambda row: number(row.acquires if row.acquires_per_second is None else row.acquires_per_second),
    ),
    _Column(
        4,
        "\nhit rate",
        lambda row: share(row.hit_rate),
        _when("yellow", lambda row: row.hit_rate is not None and row.hit_rate < 0.5),
    ),
    _Column(2, "\nactive/size", lambda row: f"{number(row.active)}/{number(row.size)}"),
    _Column(
        8,
        "\nsaturation",
        lambda row: share(row.saturation),
        _when("red", lambda row: (row.saturation or 0) > 0.9),
    ),
    _Column(3, "\nwaiters", lambda row: number(row.waiters), _when("yellow", lambda row: row.waiters)),
    _Column(9, "\noldest", lambda row: duration(row.oldest_waiter_seconds if row.waiters else None)),
    _Column(7, "\nwait p99", lambda row: duration(row.wait_p99_seconds)),
    _Column(
        5,
        "failed\nacquires",
        lambda row: number(row.acquire_failures),
        _when("red", lambda row: row.acquire_failures),
    ),
    _Column(
        10,
        "failed\ncreates",
        lambda row: number(row.create_failures),
        _when("red", lambda row: row.create_failures),
    ),
    _Column(
        11,
        "failed\nchecks",
        lambda row: number(row.health_check_failures),
        _when("yellow", lambda row: row.health_check_failures),
    ),
    _Column(
        6,
        "\nbreaker",
        lambda row: "open" if row.breakers_open else "closed",
        _when("red", lambda row: row.breakers_open),
    ),
)


@dataclass(frozen=True)
class _Cells:
    """A column with its texts, and how wide it is."""

    column: _Column
    title: list[str]
    texts: list[str]
    width: int


def table(
    window: Window,
    gateways: Sequence[str],
    width: int | None = None,
    *,
    more: int = 0,
    history: Sequence[Scrape] = (),
    selected: str | None = None,
) -> list[Line]:
    """The gateways in this order, and all of them together.

    Args:
        window: what is shown of them.
        gateways: those to show.
        width: of the terminal; default: as wide as it comes.
        more: how many are not shown.
        history: the last scrapes, for sparklines where there is room.
        selected: the gateway that is marked.
    """
    rows = [window.figures(gateway) for gateway in (*gateways, ALL)]
    labels = [*map(window.new.shown, gateways), "all"]
    cells = (cell_len(safe_text(label, _MAX_LABEL_CHARS)) for label in labels)
    label_width = min(_LABEL_WIDTH, max(len("gateway"), *cells))
    columns = _columns_of(rows, per_second=window.seconds is not None)
    bars = 0
    if width is not None:
        columns = _fitting(columns, width - min(label_width, _MIN_LABEL_WIDTH))
        room = width - sum(column.width for column in columns)
        label_width = max(1, min(label_width, room))
        bars = _bars_in(room - label_width) if history else 0

    lines = _headings(columns, label_width, bars)
    for index, (label, row) in enumerate(zip(labels, rows, strict=True)):
        is_all = index == len(gateways)
        if is_all:
            lines += [[(f"… {more:,} more", "dim")]] if more else []
            lines.append([])
        text = shorten(label, label_width)
        mark = "reverse" if not is_all and gateways[index] == selected else ""
        line = [(text + " " * (label_width - cell_len(text)), mark)]
        line += [(of.texts[index].rjust(of.width), of.column.style(row)) for of in columns]
        if bars:
            acquires, waiters = courses(row.gateway_id, history[-bars - 1 :])
            line.append((" " * _GAP + f"{sparkline(acquires):>{bars}} {sparkline(waiters):>{bars}}", ""))
        lines.append(line)
    return lines


def _columns_of(rows: Sequence[Figures], *, per_second: bool) -> list[_Cells]:
    found = []
    for column in _COLUMNS:
        title = (column.title if per_second else column.title.removesuffix("/s")).split("\n")
        texts = [column.text(row) for row in rows]
        found.append(_Cells(column, title, texts, _GAP + max(map(len, (*title, *texts)))))
    return found


def _fitting(columns: list[_Cells], room: int) -> list[_Cells]:
    """Those that fit, by rank."""
    kept = []
    for cells in sorted(columns, key=lambda cells: cells.column.rank):
        room -= cells.width
        if room < 0:
            break
        kept.append(cells)
    return [cells for cells in columns if cells in kept]


def _bars_in(room: int) -> int:
    """How many bars a sparkline has, of two that stand side by side; 0 where that is too few."""
    bars = min(_MOST_BARS, (room - _GAP - 1) // 2)
    return bars if bars >= _LEAST_BARS else 0


def _headings(columns: list[_Cells], label_width: int, bars: int) -> list[Line]:
    """Two lines and a rule."""
    lines: list[Line] = []
    for at, (first, last) in enumerate((("", ""), ("gateway", "acquires, waiters"[: 2 * bars + 1]))):
        line = f"{first:<{label_width}}" + "".join(cells.title[at].rjust(cells.width) for cells in columns)
        lines.append([(line + (" " * _GAP + last if bars else ""), "bold")])
    end = _GAP + 2 * bars + 1 if bars else 0
    return [*lines, [("─" * (label_width + sum(cells.width for cells in columns) + end), "dim")]]


def courses(gateway: str, history: Sequence[Scrape]) -> tuple[list[float], list[float]]:
    """Acquires between each two scrapes, and waiters at the later one."""
    acquires = [Window(old, new).acquires(gateway) for old, new in pairwise(history)]
    return acquires, [scrape.get("waiters", gateway) for scrape in history[1:]]
