"""What the live view of ``top`` shows, and what its keys do."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import fields

from mcpgateway_pool.redact import safe_text

from .scrape import EVER, Scrape
from .table import Line, courses, duration, number, share, shorten, sparkline, table
from .window import ORDERS, Figures, Order, Window

HISTORY = 30  # scrapes that are kept: what sparklines show, and the window of rates
# Fewer where there are many gateways: so many of their rows in all of them together.
_MOST_ROWS = 100_000
_MAX_FILTER_CHARS = 100

SIGNS_OF_SEVERAL = (
    "counters went back: a restart, or several workers that count each for themselves "
    "(set MCPGATEWAY_POOL_METRICS_DIR)"
)
_HELP = """
 q        quit; so does Ctrl-C
 s        sort by the next of: acquires, waiters, p99 of waits, failures, name
 /        show only gateways whose name or id has what you type; Enter keeps it, Esc ends it
 ↑ ↓      choose a gateway; also k and j, Page Up and Page Down
 Enter    all about the chosen gateway; Esc goes back
 h ?      this help; Esc goes back

 Rates, failures and p99 are of the time that the heading names. Columns that do not fit are left
 out, the least telling ones first: a wider terminal shows more. docs/cli.md says what each means.
"""
_FORMATS = {"hit_rate": share, "saturation": share}


def heading(window: Window, shown: str, clock: str | None = None) -> str:
    """The first line.

    Args:
        window: which is shown.
        shown: the endpoint.
        clock: the time of day; default now.
    """
    span = "since the start" if window.seconds is None else f"in the last {window.seconds:.0f} s"
    return f"{shown}   {clock or time.strftime('%H:%M:%S')}   rates and failures {span}"


class View:
    """The state of the live view.

    Args:
        shown: the endpoint, as it may be shown.
        totals: show what happened since the processes started.
        limit: most gateways.
        order: by what they are sorted.
        having: only those whose name or id contains this.
        clock: the time of day to show; default now.
    """

    def __init__(
        self,
        shown: str,
        *,
        totals: bool = False,
        limit: int | None = None,
        order: Order = "acquires",
        having: str = "",
        clock: str | None = None,
    ) -> None:
        self.is_over = False
        self.problem = ""
        self._shown = shown
        self._clock = clock
        self._totals = totals
        self._limit = limit
        self._order = order
        self._having = having
        self._mode = "table"  # or "help", "detail", "filter"
        self._chosen: str | None = None
        self._page = 1
        self._history: deque[Scrape] = deque(maxlen=HISTORY)
        self._gateways: list[str] = []
        self._went_back = False

    def add(self, scrape: Scrape) -> None:
        """Show a newer scrape."""
        self._history.append(scrape)
        while len(self._history) > 2 and len(self._history) * len(scrape.gateways) > _MOST_ROWS:
            self._history.popleft()
        self.problem = ""
        older = self._history[-2] if len(self._history) > 1 else EVER
        self._went_back = Window(older, scrape).went_back() is not None
        self._sort()

    def press(self, key: str) -> None:
        """A key, by its name of :mod:`.terminal`."""
        if self._mode == "filter":
            self._type(key)
        elif key == "q":
            self.is_over = True
        elif key in {"h", "?"}:
            self._mode = "help"
        elif key == "escape":
            if self._mode == "table":
                self._having = ""
            self._mode = "table"
        elif key == "s":
            self._order = ORDERS[(ORDERS.index(self._order) + 1) % len(ORDERS)]
        elif key == "/":
            self._mode = "filter"
        elif key == "enter" and self._gateways:
            self._chosen = self._chosen or self._gateways[0]
            self._mode = "detail"
        elif key in {"up", "k", "down", "j", "page up", "page down"}:
            step = self._page if key.startswith("page") else 1
            self._choose(-step if key in {"up", "k", "page up"} else step)
        self._sort()

    def _type(self, key: str) -> None:
        if key in {"enter", "escape"}:
            self._mode = "table"
            if key == "escape":
                self._having = ""
        elif key == "backspace":
            self._having = self._having[:-1]
        elif len(key) == 1 and key.isprintable():
            self._having = (self._having + key)[:_MAX_FILTER_CHARS]

    def _choose(self, step: int) -> None:
        if not self._gateways:
            return
        at = self._gateways.index(self._chosen) + step if self._chosen in self._gateways else 0
        self._chosen = self._gateways[min(max(at, 0), len(self._gateways) - 1)]

    def _window(self) -> Window:
        since = EVER if self._totals or len(self._history) == 1 else self._history[0]
        return Window(since, self._history[-1])

    def _sort(self) -> None:
        self._gateways = self._window().gateways(self._order, self._having)[: self._limit]

    # ---- lines

    def lines(self, width: int, height: int) -> list[Line]:
        """What fits a terminal of this size; there is a scrape."""
        window = self._window()
        lines: list[Line] = [[(heading(window, self._shown, self._clock), "")]]
        notes = [self.problem] if self.problem else []
        if self._went_back:
            notes.append(SIGNS_OF_SEVERAL)
        lines += [[(note, "red")] for note in notes]
        if self._mode == "help":
            body: list[Line] = [[(line, "")] for line in _HELP.split("\n")]
        elif self._mode == "detail" and self._chosen is not None:
            body = _detail(window, self._chosen, list(self._history), width)
        else:
            # Three lines of headings, one of what is left out, an empty one, all, and the foot.
            self._page = max(1, height - len(lines) - 7)
            start = self._start(self._page)
            shown = self._gateways[start : start + self._page]
            body = table(
                window,
                shown,
                width,
                more=len(window.new.gateways) - len(shown),
                history=list(self._history),
                selected=self._chosen,
            )
        lines += body[: max(0, height - len(lines) - 1)]
        return [*lines, [(self._foot(), "dim")]][:height]

    def _start(self, page: int) -> int:
        """The first gateway that is shown, so that the chosen one is."""
        at = self._gateways.index(self._chosen) if self._chosen in self._gateways else 0
        return max(0, at - page + 1)

    def _foot(self) -> str:
        if self._mode == "filter":
            return f"filter: {self._having}_   Enter keeps it, Esc ends it"
        if self._mode != "table":
            return "Esc back   q quit"
        having = f" ({safe_text(self._having, 20)})" if self._having else ""
        return f"q quit  s sort ({self._order})  / filter{having}  ↑↓ choose  Enter detail  ? help"


def _detail(window: Window, gateway: str, history: list[Scrape], width: int) -> list[Line]:
    """All about one gateway."""
    row = window.figures(gateway)
    name = window.new.gateway_name(gateway)
    title = gateway if name is None else f"{name}   {gateway}"
    lines: list[Line] = [[("", "")], [(shorten(title, width), "bold")], [("", "")]]
    names = [field.name for field in fields(Figures) if field.name not in ("gateway_id", "name")]
    for name in names:
        value = getattr(row, name)
        form = _FORMATS.get(name, duration if name.endswith("_seconds") else number)
        lines.append([(f"  {name.replace('_', ' '):<26}{form(value):>12}", "")])
    for name in ("evictions_total", "acquire_rejections_total", "unpooled_calls_total"):
        reasons = {reason: window.increase(name, gateway, reason) for reason in window.new.values(name)}
        some = [f"{reason} {number(count)}" for reason, count in reasons.items() if count]
        lines.append(
            [(f"  {name.removesuffix('_total').replace('_', ' '):<26}{', '.join(some) or 'none':>12}", "")]
        )
    if len(history) > 1:
        acquires, waiters = courses(gateway, history)
        lines += [[("", "")], [(f"  {'acquires':<10}{sparkline(acquires)}", "")]]
        lines.append([(f"  {'waiters':<10}{sparkline(waiters)}", "")])
    return lines
