"""The live view of ``top``: what it shows at which size, its keys, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcpgateway_pool.cli.scrape import EVER, Scrape, parse
from mcpgateway_pool.cli.table import Line, shorten, table
from mcpgateway_pool.cli.terminal import keys_of
from mcpgateway_pool.cli.view import View
from mcpgateway_pool.cli.window import ORDERS, Window
from support.command import Run, command, exposition
from support.endpoint import answering, serving

UUIDS = [f"{number:08x}-0000-4000-8000-{number:012x}" for number in range(40)]
ALTERNATE, PRIMARY = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command(capsys, monkeypatch)


def scraped(*pages: str, at: float = 0.0) -> Scrape:
    scrape = parse("text/plain", [page.encode() for page in pages])
    scrape.at = at
    return scrape


def plain(lines: list[Line]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def many(count: int = 40) -> Scrape:
    return scraped(
        *(exposition(hits=number, gateway=gateway) for number, gateway in enumerate(UUIDS[:count]))
    )


def typed(view: View, *keys: str) -> View:
    for key in keys:
        view.press(key)
    return view


def view_of(*scrapes: Scrape, **options: Any) -> View:
    view = View("http://h/metrics", **options)
    for scrape in scrapes:
        view.add(scrape)
    return view


# ---- what fits


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 160, 200, 300])
def test_no_line_is_wider_than_the_terminal_and_wide_ones_lack_nothing(width: int) -> None:
    new = many()
    history = [scraped(exposition(gateway=UUIDS[0]), at=float(at)) for at in range(30)]
    lines = plain(table(Window(EVER, new), new.gateways, width, history=history))
    assert max(map(len, lines)) <= width
    assert all(any(line.startswith(gateway[:7]) for line in lines) for gateway in new.gateways)
    if width >= 160:
        assert UUIDS[0] in lines[3]
        for title in (
            "acquires",
            "hit rate",
            "saturation",
            "oldest",
            "wait p99",
            "creates",
            "checks",
            "breaker",
        ):
            assert title in lines[1]
    assert ("acquires, waiters" in lines[1]) is (width >= 200)


def test_sparklines_grow_from_the_right_and_move_no_column() -> None:
    pages = [scraped(exposition(hits=hits, waiters=hits), at=float(hits)) for hits in (0, 4, 12)]
    starts = set()
    for count, bars in ((1, []), (2, ["█", "█"]), (3, ["▅█", "▃█"])):
        lines = plain(table(Window(EVER, pages[0]), ["g"], 200, history=pages[:count]))
        start = lines[1].index("acquires, waiters")
        assert lines[3][start:].split() == bars
        starts.add((start, lines[2]))
    assert len(starts) == 1


def test_columns_go_by_what_they_tell_and_never_come_back() -> None:
    window = Window(EVER, many())
    before: set[str] = set()
    for width in range(20, 200):
        words = set(re.findall(r"\S+", "\n".join(plain(table(window, UUIDS, width))[:2])))
        assert before <= words, width
        before = words
    at_80 = plain(table(window, UUIDS, 80))[1]
    for title in ("acquires", "active/size", "waiters", "hit rate", "breaker"):
        assert title in at_80


def test_a_shortened_id_has_both_ends_and_its_width() -> None:
    assert shorten("weather", 12) == "weather"
    assert shorten(UUIDS[1], 12) == "00000001…001"
    for width in range(2, 50):
        assert len(shorten("x" * 60, width)) <= width
    assert shorten("天気予報のゲートウェイ", 9) == "天気予…イ"
    assert shorten("\x1b[2J" + "x" * 60, 12).startswith("\\x1b[2J")


@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 60])
@pytest.mark.parametrize("keys", [(), ("?",), ("enter",), ("/", "a")])
def test_the_view_fits_the_terminal(height: int, keys: tuple[str, ...]) -> None:
    view = typed(view_of(many(), many()), *keys)
    lines = view.lines(80, height)
    assert len(lines) <= height
    if height >= 24 and not keys:
        assert sum(line.startswith("0000") for line in plain(lines)) >= min(40, height - 10)
        assert any(re.match("… .* more", line) for line in plain(lines)) is (height < 50)


def test_a_view_of_many_gateways_makes_figures_of_those_that_it_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    stock = Window.figures
    monkeypatch.setattr(
        Window, "figures", lambda self, gateway: (made.append(gateway), stock(self, gateway))[1]
    )
    view_of(many()).lines(80, 15)
    assert len(made) <= 10


def test_history_is_bounded_by_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpgateway_pool.cli.view._MOST_ROWS", 120)
    assert len(view_of(*[many(40)] * 10)._history) == 3
    assert len(view_of(*[many(2)] * 50)._history) == 30


# ---- keys


def shown(view: View) -> list[str]:
    """The ids in the table."""
    lines = plain(view.lines(200, 60))
    return [line.split()[0] for line in lines[4:] if line and line.split()[0] in UUIDS]


def test_s_sorts_by_the_next() -> None:
    rows = [
        exposition(hits=9, gateway=UUIDS[0]),
        exposition(hits=1, waiters=5, gateway=UUIDS[1]),
        exposition(hits=5, acquire_timeouts=2, gateway=UUIDS[2]),
    ]
    view = view_of(scraped(*rows))
    firsts = []
    for _ in ORDERS:
        firsts.append(shown(view)[0])
        typed(view, "s")
    assert firsts == [UUIDS[0], UUIDS[1], UUIDS[0], UUIDS[2], UUIDS[0]]
    assert shown(view) == [UUIDS[0], UUIDS[2], UUIDS[1]]  # as at the beginning


def test_a_filter_is_typed_kept_and_ended() -> None:
    view = typed(view_of(many()), "/", *"0000000A-", "x", "backspace")
    assert shown(view) == [UUIDS[10]]
    assert "filter: 0000000A-_" in plain(view.lines(80, 24))[-1]
    typed(view, "enter", "q")  # which quits now, as it is not typed into the filter
    assert view.is_over
    assert shown(view) == [UUIDS[10]]
    assert len(shown(typed(view, "escape"))) == 40
    assert shown(typed(view, "/", "z")) == []
    typed(view, "enter", "enter", "up", "s")  # nothing to choose, and nothing breaks
    assert shown(view) == []


def test_the_chosen_gateway_is_in_sight_and_is_shown_in_detail() -> None:
    view = view_of(many(), many())
    order = shown(view)
    typed(view, *["down"] * 25)
    assert any(line.startswith(order[24]) for line in plain(view.lines(200, 15)))
    typed(view, "page down", "page up", "k", "j", "enter")
    lines = plain(view.lines(80, 60))
    assert order[24] in lines[2]
    text = "\n".join(lines)
    for what in ("hit rate", "wait p99 seconds", "evictions", "unpooled calls", "Esc back"):
        assert what in text
    typed(view, "escape")
    assert "q quit" in plain(view.lines(80, 24))[-1]
    typed(view, *["down"] * 99)
    assert any(line.startswith(order[-1]) for line in plain(view.lines(200, 15)))


def test_a_page_is_as_many_as_are_in_sight_and_one_at_least() -> None:
    order = shown(view_of(many()))
    for height in (None, 1, 15, 24):
        view = view_of(many())
        lines = [] if height is None else plain(view.lines(200, height))
        page = max(1, sum(line.startswith("0000") for line in lines))
        typed(view, "down", "page down", "page down", "page up", "enter")
        assert order[page] in plain(view.lines(200, 60))[2]
    assert page > 10


def test_detail_names_reasons() -> None:
    page = exposition(hits=1) + 'mcp_session_pool_unpooled_calls_total{gateway_id="g",reason="no_user"} 3\n'
    lines = plain(typed(view_of(scraped(page)), "enter").lines(80, 60))
    assert any("no_user 3" in line for line in lines)


def info(gateway: str, name: str) -> str:
    return f'mcp_session_pool_gateway_info{{gateway_id="{gateway}",name="{name}"}} 1\n'


def test_gateways_are_shown_by_their_names_where_those_are_known() -> None:
    first, second, third, fourth = UUIDS[:4]
    page = "".join(exposition(hits=9, gateway=gateway) for gateway in (first, second, third, fourth, "other"))
    page += info(first, "weather") + info(second, "twice") + info(third, "twice") + info(fourth, "other")
    page = info("no row", "ghost") + page
    new = scraped(page)
    window = Window(EVER, new)
    order = window.gateways("name")
    # Two of one name, and a name that is another's id, have their ids beside it.
    expected = [f"other {fourth}", "other", f"twice {second}", f"twice {third}", "weather"]
    assert [new.shown(gateway) for gateway in order] == sorted(expected)
    lines = plain(table(window, order, 200))
    assert any(line.startswith("weather ") for line in lines)
    assert "ghost" not in "\n".join(lines)
    for having in ("WEATH", first[:9]):
        assert window.gateways(having=having) == [first]
    assert [window.figures(gateway).as_json()["name"] for gateway in (first, "other")] == ["weather", None]
    detail = plain(typed(view_of(new, having="weather"), "enter").lines(80, 60))
    assert detail[2] == f"weather   {first}"


def test_the_chosen_gateway_is_marked_also_where_it_has_a_name() -> None:
    new = scraped(exposition(hits=9, gateway="g") + info("g", "weather"))
    marked = [
        text
        for line in table(Window(EVER, new), ["g"], 100, selected="g")
        for text, style in line
        if style == "reverse"
    ]
    assert [text.strip() for text in marked] == ["weather"]


def test_help_names_every_key() -> None:
    text = "\n".join(plain(typed(view_of(many()), "?").lines(100, 40)))
    for key in ("q ", "s ", "/ ", "↑ ↓", "Enter", "h ?", "Esc", "Ctrl-C"):
        assert key in text
    for order in ORDERS:
        assert {"wait": "p99 of waits"}.get(order, order) in text


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1bOB", ["up", "down"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("\x1b", ["escape"]),
        ("\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        ("\x1b[1;5Cé\x1b[<35;1;1M", ["é"]),
        ("\x1b[", []),
    ],
)
def test_what_a_terminal_sends_are_keys(text: str, keys: list[str]) -> None:
    assert keys_of(text) == keys


# ---- piped


def test_what_is_piped_has_no_trailing_blanks_and_every_column(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving("".join(exposition(hits=1, gateway=gateway) for gateway in UUIDS)) as endpoint:
        code, out, _ = run("top", "--once", "--totals", endpoint.url)
        assert code == 0
        assert [line for line in out.splitlines() if line != line.rstrip()] == []
        assert all(gateway in out for gateway in UUIDS)
        assert "checks" in out
        monkeypatch.setenv("COLUMNS", "80")
        _, narrow, _ = run("top", "--once", "--totals", endpoint.url)
    assert max(map(len, narrow.splitlines()[1:])) <= 80


def test_sort_and_filter_are_options_too(run: Run) -> None:
    page = (
        exposition(hits=9, gateway="busy")
        + exposition(waiters=1, gateway="Waiting")
        + exposition(gateway="x")
    )
    with serving(page) as endpoint:
        _, out, _ = run("top", "--once", "--totals", "--sort", "waiters", "--filter", "I", endpoint.url)
    names = [line.split()[0] for line in out.splitlines()[5:] if line]
    assert names == ["Waiting", "…", "all"]


# ---- on a terminal


class OnTerminal:
    """The command on a pseudo-terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 100, lines: int = 30) -> None:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.modes = termios.tcgetattr(self._slave)
        self.output = ""
        environment = {**os.environ, "TERM": "xterm-256color"}
        for name in (
            "COLUMNS",
            "LINES",
            "NO_COLOR",
            "MCPGATEWAY_POOL_METRICS_DIR",
            "PROMETHEUS_MULTIPROC_DIR",
        ):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", START, *arguments],
            stdin=self._slave, stdout=self._slave, stderr=subprocess.PIPE,
            start_new_session=True, env=environment,
        )  # fmt: skip

    def until(self, text: str) -> str:
        """Wait for this on the screen, and return what has come since the last time."""
        seen = ""
        while text not in seen:
            ready, _, _ = select.select([self._master], [], [], 30)
            assert ready, seen
            try:
                seen += os.read(self._master, 65536).decode("utf-8", "replace")
            except OSError:  # the command has ended
                raise AssertionError(seen) from None
        self.output += seen
        return seen

    def press(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def is_as_before(self) -> bool:
        """Whether the terminal has its modes, its own screen and its cursor."""
        while select.select([self._master], [], [], 0)[0]:
            self.output += os.read(self._master, 65536).decode("utf-8", "replace")
        is_back = self.output.rfind(PRIMARY) >= self.output.rfind(ALTERNATE)
        return is_back and SHOW_CURSOR in self.output and termios.tcgetattr(self._slave) == self.modes

    def hang_up(self) -> None:
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        for number in (self._master, self._slave):
            if number >= 0:
                os.close(number)


# The terminal is that of its session, as a shell's would be.
START = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from mcpgateway_pool.cli import run
sys.argv.insert(1, "top")
run()
"""


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., OnTerminal]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> OnTerminal:
            started = OnTerminal(*arguments, **options)
            stack.callback(started.close)
            return started

        yield start


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda top: top.press("q"), 0),
        (lambda top: top.press("\x03"), 0),
        (lambda top: top.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda top: top.process.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
        (lambda top: top.press("\x1c"), 128 + signal.SIGQUIT),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "SIGHUP", "SIGQUIT"],
)
def test_the_terminal_is_as_before_however_it_ends(
    on_terminal: Callable[..., OnTerminal], end: Callable[[OnTerminal], None], code: int
) -> None:
    with serving(exposition(hits=3, gateway="weather")) as endpoint:
        top = on_terminal(endpoint.url, "--interval", "60")
        top.until("q quit")
        assert ALTERNATE in top.output
        assert not termios.tcgetattr(top._slave)[3] & termios.ICANON
        end(top)
        assert top.process.wait(30) == code
    assert top.is_as_before()
    assert top.process.stderr is not None
    assert top.process.stderr.read() == b""


def test_a_terminal_that_goes_away_ends_it(on_terminal: Callable[..., OnTerminal]) -> None:
    with serving(exposition(hits=3)) as endpoint:
        top = on_terminal(endpoint.url, "--interval", "60")
        top.until("q quit")
        top.hang_up()
        assert top.process.wait(30) == 128 + signal.SIGHUP
    assert top.process.stderr is not None
    assert top.process.stderr.read() == b""


def test_keys_and_a_new_size_are_answered_between_scrapes_and_while_one_hangs(
    on_terminal: Callable[..., OnTerminal],
) -> None:
    page = exposition(hits=3, gateway="weather") + exposition(gateway="search")
    pages = iter([page])

    def talk(connection: Any) -> None:
        connection.recv(65536)
        for text in pages:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + text.encode())
            return
        while connection.recv(65536):  # never an answer, until the other side has gone
            pass

    with answering(talk) as url:
        top = on_terminal(url, "--interval", "0.01", "--timeout", "3600")
        top.until("q quit")
        top.press("/sea")
        frame = top.until("filter: sea_").rpartition("\x1b[H")[2]
        assert "search" in frame
        assert "weather" not in frame
        top.press("\r?")
        top.until("this help")
        top.press("\x1b")
        top.until("Enter detail")
        top.resize(20, 150)
        top.until("saturation")
        top.press("\r")
        top.until("Esc back")
        top.press("q")
        assert top.process.wait(30) == 0
    assert top.is_as_before()


def test_an_endpoint_that_fails_for_a_while_is_said_and_comes_back(
    on_terminal: Callable[..., OnTerminal],
) -> None:
    page = exposition(hits=3, gateway="weather")
    pages = iter([page, "no metrics", "no metrics", page])
    with serving(lambda: next(pages, page)) as endpoint:
        top = on_terminal(endpoint.url, "--interval", "0.01")
        top.until("did not answer with Prometheus text")
        while "did not answer" in top.until("q quit"):
            pass
        top.press("q")
        assert top.process.wait(30) == 0
    assert top.is_as_before()


def test_top_once_on_a_terminal_shows_what_fits(on_terminal: Callable[..., OnTerminal]) -> None:
    with serving("".join(exposition(hits=1, gateway=gateway) for gateway in UUIDS)) as endpoint:
        top = on_terminal("--once", "--totals", endpoint.url, columns=80, lines=20)
        text = top.until("\nall")
        assert top.process.wait(30) == 0
    assert len(text.splitlines()) < 20
    assert "more" in text


def test_ctrl_z_gives_the_shell_its_terminal_and_fg_draws_again(
    on_terminal: Callable[..., OnTerminal],
) -> None:
    with serving(exposition(hits=3, gateway="weather")) as endpoint:
        top = on_terminal(endpoint.url, "--interval", "60")
        top.until("q quit")
        # No shell is above its process group, so that the system does not stop it: it goes on at once.
        top.press("\x1a")
        again = top.until("q quit")
        assert PRIMARY in again
        assert again.rindex(ALTERNATE) > again.index(PRIMARY)
        top.press("q")
        assert top.process.wait(30) == 0
    assert top.is_as_before()
