"""The command line: what it prints, its exit codes, and that a user's mistake never ends in a traceback."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from mcpgateway_pool import PoolCollector
from mcpgateway_pool.cli import _parser
from mcpgateway_pool.cli.fetch import source_of
from mcpgateway_pool.cli.scrape import ALL, EVER, Scrape, parse
from mcpgateway_pool.cli.table import sparkline
from mcpgateway_pool.cli.window import Window
from support.command import TOKEN, Run, command, exposition
from support.endpoint import Answer, serving
from support.fakes import URL, FakePool


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command(capsys, monkeypatch)


def histogram(stem: str, counts: dict[str, int], gateway: str = "g") -> str:
    lines = [f"# TYPE mcp_session_pool_{stem} histogram"]
    lines += [
        f'mcp_session_pool_{stem}_bucket{{gateway_id="{gateway}",le="{bound}"}} {count}'
        for bound, count in counts.items()
    ]
    return "\n".join(lines) + "\n"


def scraped(text: str, at: float = 0.0) -> Scrape:
    scrape = parse("text/plain", [text.encode()])
    scrape.at = at
    return scrape


# ---- usage


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in
                                       ("top", "doctor", "demo", "dashboards", "rules"))])  # fmt: skip
def test_help_ends_with_0(run: Run, arguments: list[str]) -> None:
    code, out, _ = run(*arguments)
    assert code == 0
    assert out.startswith("usage: mcpgateway-pool")


def test_version_is_the_package_version(run: Run) -> None:
    from mcpgateway_pool import __version__

    assert run("--version") == (0, f"mcpgateway-pool {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["top"],
        ["top", "http://127.0.0.1:1/", "--interval", "0"],
        ["top", "http://127.0.0.1:1/", "--interval", "nan"],
        ["top", "http://127.0.0.1:1/", "--timeout", "soon"],
        ["top", "http://127.0.0.1:1/", "--limit", "0"],
        ["rules", "--to"],
        ["demo", "--seconds", "-1"],
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "mcpgateway-pool" in err


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "ftp://host/metrics",
        "http://host:notaport/",
        "http://[::1/",
        "file:///etc/passwd",
        "http://ä..b/",
        "http://h/\udcff",
        "http://user:\udcff@h/",
    ],
)
@pytest.mark.parametrize("command", [["top", "--once"], ["doctor", "--url"]])
def test_a_bad_url_ends_with_2(run: Run, url: str, command: list[str]) -> None:
    code, out, err = run(*command, url)
    assert (code, out) == (2, "")
    assert "not an HTTP URL" in err


def test_the_live_view_needs_a_terminal(run: Run) -> None:
    code, _, err = run("top", "http://127.0.0.1:1/")
    assert code == 2
    assert "--once" in err


def test_table_without_rich_says_what_to_install_and_json_works(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with serving(exposition(hits=1)) as endpoint:
        code, _, err = run("top", "--once", "--totals", endpoint.url)
        assert code == 2
        assert "pip install 'mcpgateway-pool[cli]'" in err
        assert run("top", "--once", "--totals", "--json", endpoint.url)[0] == 0


# ---- reading an endpoint


def test_connection_refused_is_a_message(run: Run) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can get the port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, out, err = run("top", "--once", f"http://127.0.0.1:{port}/metrics")
    assert (code, out) == (1, "")
    assert f"http://127.0.0.1:{port}/metrics: connection refused" in err


@pytest.mark.parametrize(
    ("status", "advice"),
    [(401, "token"), (403, "token"), (404, "/metrics/prometheus"), (500, "answered 500")],
)
def test_an_http_error_is_a_message_with_advice(run: Run, status: int, advice: str) -> None:
    with serving(Answer("no", status)) as endpoint:
        code, out, err = run("top", "--once", endpoint.url)
    assert (code, out) == (1, "")
    assert f"answered {status}" in err
    assert advice in err


def test_no_answer_in_time_is_a_message(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, _, err = run(
            "top", "--once", "--timeout", "0.2", f"http://127.0.0.1:{silent.getsockname()[1]}/"
        )
    assert code == 1
    assert "did not answer within 0.2 s" in err


def test_an_answer_that_is_not_http_is_a_message(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = f"http://127.0.0.1:{server.getsockname()[1]}/"
        client = subprocess.Popen(
            [sys.executable, "-P", "-m", "mcpgateway_pool.cli", "top", "--once", command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"220 smtp\r\n")
        _, err = client.communicate(timeout=30)
    assert client.returncode == 1
    assert "cannot be reached" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "text", ["<html><body>Log in</body></html>", '{"a": 1}', "hello world", "mcp_session_pool_size{ oops\n"]
)
@pytest.mark.parametrize("content_type", ["text/html", "text/plain", "application/openmetrics-text"])
def test_what_is_not_prometheus_text_is_a_message(run: Run, text: str, content_type: str) -> None:
    with serving(Answer(text, content_type=content_type)) as endpoint:
        code, _, err = run("top", "--once", endpoint.url)
    assert code == 1
    assert "did not answer with Prometheus text" in err


@pytest.mark.parametrize("text", ["", "# HELP other_total x\n# TYPE other_total counter\nother_total 1.0\n"])
def test_an_endpoint_without_the_pool_is_a_message_that_names_doctor(run: Run, text: str) -> None:
    with serving(text) as endpoint:
        code, _, err = run("top", "--once", endpoint.url)
    assert code == 1
    assert "shows no series of the session pool" in err
    assert "doctor" in err


def test_the_token_of_the_environment_a_file_or_the_option_is_sent_and_not_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    with serving(exposition()) as endpoint:
        once = ("top", "--once", "--totals", "--json", endpoint.url)
        assert run(*once, "--token", TOKEN)[0] == 0
        assert run(*once, "--token-file", str(file))[0] == 0
        monkeypatch.setenv("MCPGATEWAY_POOL_TOKEN", TOKEN)
        assert run(*once)[0] == 0
    assert [request["authorization"] for request in endpoint.requests] == [f"Bearer {TOKEN}"] * 3


def test_a_redirect_to_another_host_does_not_get_the_token(run: Run) -> None:
    with (
        serving(exposition()) as target,
        serving(Answer("", 302, headers={"Location": target.url})) as endpoint,
    ):
        assert run("top", "--once", "--totals", "--json", endpoint.url, "--token", TOKEN)[0] == 0
    assert endpoint.requests[0]["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in target.requests[0]


def test_credentials_of_the_url_are_sent_as_basic_and_not_shown(run: Run) -> None:
    with serving(Answer("no", 401)) as endpoint:
        code, _, err = run("top", "--once", endpoint.url.replace("//", f"//user:{TOKEN}@") + f"?key={TOKEN}")
    assert code == 1
    assert "answered 401" in err
    assert endpoint.requests[0]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("end", ["\n", "é", " x"])
def test_a_token_that_no_header_can_hold_is_a_message_without_it(run: Run, end: str) -> None:
    code, _, err = run("top", "--once", "http://127.0.0.1:1/", "--token", TOKEN + end)
    assert code == 2
    assert "token" in err


def test_a_token_file_that_cannot_be_read_is_a_message(run: Run, tmp_path: Path) -> None:
    code, _, err = run("top", "--once", "http://127.0.0.1:1/", "--token-file", str(tmp_path / "none"))
    assert code == 2
    assert "none: No such file" in err


def test_proxies_of_the_environment_are_not_used_for_this_machine(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(exposition()) as endpoint:
        assert run("top", "--once", "--totals", "--json", endpoint.url)[0] == 0


def test_a_url_without_a_scheme_is_http() -> None:
    assert source_of("localhost:4444/metrics").url == "http://localhost:4444/metrics"
    assert TOKEN not in repr(source_of("http://h/", TOKEN))


# ---- numbers


async def test_own_exposition_in_both_formats_parses_to_what_the_pool_counted() -> None:
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    gateway = 'cli "quoted"\nnew line \\ \u2028'
    async with FakePool(max_sessions_per_key=3) as pool:
        for _ in range(3):
            async with pool.session(URL, gateway_id=gateway):
                pass
        classic = parse("text/plain", [generate_latest(registry)])
        openmetrics = parse("application/openmetrics-text", [generate_openmetrics(registry)])
    for scrape in (classic, openmetrics):
        row = Window(EVER, scrape).figures(gateway)
        assert (row.acquires, row.hit_rate, row.size, row.active) == (3, pytest.approx(2 / 3), 1, 0)
        assert scrape.get("max_sessions_per_key", ALL) >= 3


def test_figures_are_of_the_time_between_two_scrapes() -> None:
    old = scraped(exposition(hits=10, misses=10, acquire_timeouts=5), at=100.0)
    new = scraped(exposition(hits=28, misses=12, acquire_timeouts=6, active_sessions=3), at=110.0)
    row = Window(old, new).figures("g")
    assert (row.acquires_per_second, row.hit_rate, row.acquire_failures) == (2.0, 0.9, 1)
    assert (row.active, row.saturation) == (3, 0.75)


def test_a_counter_that_went_back_counts_from_zero_and_is_reported() -> None:
    old, new = scraped(exposition(hits=10, misses=10)), scraped(exposition(hits=4, misses=10))
    window = Window(old, new)
    assert window.figures("g").acquires == 4
    assert window.went_back() == "mcp_session_pool_hits_total"
    assert Window(old, old).went_back() is None


def test_all_is_the_sum_of_the_gateways() -> None:
    text = exposition(hits=3, misses=1, gateway="a") + exposition(hits=5, misses=1, gateway="b")
    window = Window(EVER, scraped(text))
    assert window.gateways() == ["b", "a"]
    assert window.figures(ALL).acquires == 10


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"1": 0, "2": 100, "+Inf": 100}, 1.99),
        ({"1": 50, "2": 100, "+Inf": 100}, 1.98),
        ({"1": 100, "2": 100, "+Inf": 100}, 0.99),
        ({"1": 0, "2": 0, "+Inf": 10}, 2.0),  # beyond the largest bound
        ({"1": 0, "2": 0, "+Inf": 0}, None),
        ({}, None),
    ],
)
def test_quantiles_are_those_of_prometheus(counts: dict[str, int], expected: float | None) -> None:
    new = scraped(exposition() + histogram("acquire_wait_seconds", counts))
    value = Window(EVER, new).figures("g").wait_p99_seconds
    assert value == (None if expected is None else pytest.approx(expected))


def test_quantiles_are_of_the_time_between_two_scrapes() -> None:
    old = scraped(exposition() + histogram("acquire_wait_seconds", {"1": 1000, "2": 1000, "+Inf": 1000}))
    new = scraped(exposition() + histogram("acquire_wait_seconds", {"1": 1000, "2": 1010, "+Inf": 1010}))
    assert Window(old, new).figures("g").wait_p99_seconds == pytest.approx(1.99)


def test_sparklines_go_from_zero_to_the_largest() -> None:
    assert sparkline([0, 1, 2, 4, 8]) == "▁▂▃▅█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


# ---- top


def test_top_once_shows_every_gateway_and_what_is_wrong(run: Run) -> None:
    texts = iter(
        [
            exposition(hits=10),
            exposition(hits=10, misses=5, acquire_timeouts=3, waiters=2, circuit_breakers_open=1),
        ]
    )
    with serving(lambda: next(texts)) as endpoint:
        code, out, err = run("top", "--once", "--interval", "0.01", endpoint.url)
    assert (code, err) == (0, "")
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["g"])
    assert row[2:] == ["0.0%", "1/2", "25.0%", "2", "0", "ms", "-", "3", "0", "0", "open"]
    assert any(line.split()[:1] == ["all"] for line in out.splitlines())


def test_top_totals_needs_one_scrape(run: Run) -> None:
    with serving(exposition(hits=9, misses=1)) as endpoint:
        code, out, _ = run("top", "--once", "--totals", endpoint.url)
    assert code == 0
    assert len(endpoint.requests) == 1
    assert "since the start" in out
    assert "90.0%" in out


def test_top_json_is_one_object_with_every_gateway(run: Run) -> None:
    with serving(exposition(hits=3, misses=1)) as endpoint:
        code, out, _ = run("top", "--once", "--totals", "--json", endpoint.url)
    value: dict[str, Any] = json.loads(out)
    assert code == 0
    assert value["gateways"][0]["gateway_id"] == "g"
    assert value["gateways"][0]["hit_rate"] == 0.75
    assert value["all"]["acquires"] == 4


def test_top_says_when_counters_go_back(run: Run) -> None:
    texts = iter([exposition(hits=10), exposition(hits=2)])
    with serving(lambda: next(texts)) as endpoint:
        code, _, err = run("top", "--once", "--interval", "0.01", endpoint.url)
    assert code == 0
    assert "counters went back" in err


def test_top_shows_only_the_busiest_where_asked(run: Run) -> None:
    text = exposition(hits=3, gateway="calm") + exposition(hits=5, gateway="busy")
    with serving(text) as endpoint:
        _, out, _ = run("top", "--once", "--totals", "--limit", "1", endpoint.url)
    assert "busy" in out
    assert "calm" not in out
    assert "1 more" in out


def test_a_hostile_gateway_id_cannot_write_to_the_terminal(run: Run) -> None:
    with serving(exposition(gateway="[red]\x1b[2J[/red]")) as endpoint:
        _, out, _ = run("top", "--once", "--totals", endpoint.url)
    assert "\x1b" not in out
    assert "[red]\\x1b[2J[/red]" in out


# ---- files


def test_dashboards_and_rules_are_written_once_and_not_over_changed_ones(run: Run, tmp_path: Path) -> None:
    to = tmp_path / "a" / "b"
    assert run("dashboards", "--to", str(to))[0] == 0
    assert sorted(path.name for path in to.iterdir()) == [
        "mcpgateway-pool.json",
        "mcpgateway-pool.rules.yaml",
    ]
    assert run("dashboards", "--to", str(to))[0] == 0  # the same again
    rules = to / "mcpgateway-pool.rules.yaml"
    rules.write_text("# mine\n")
    code, _, err = run("rules", "--to", str(to))
    assert (code, rules.read_text()) == (1, "# mine\n")
    assert "--force" in err
    assert run("rules", "--to", str(to), "--force")[0] == 0
    assert "alert:" in rules.read_text()


def test_links_lead_to_the_runbook_where_it_is_kept(run: Run, tmp_path: Path) -> None:
    address = "https://wiki.test/pages/runbook?id=7"
    assert run("dashboards", "--to", str(tmp_path), "--runbook", address)[0] == 0
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert f"{address}#mcpsessionpoolserverdown" in text
        assert "docs/runbook.md" not in text


@pytest.mark.parametrize(
    "address", ["", "https://wiki.test/a b", "https://wiki.test/x#y", 'https://x/"', "{{ x }}", "a\nb"]
)
def test_an_address_that_would_break_the_files_is_refused(run: Run, address: str) -> None:
    code, out, err = run("rules", "--runbook", address)
    assert (code, out) == (2, "")
    assert "must be the address of a page" in err


def test_without_a_folder_they_are_printed(run: Run) -> None:
    assert json.loads(run("dashboards")[1])["uid"] == "mcpgateway-pool"
    assert run("rules")[1].startswith("# Recording rules")


def test_a_folder_that_cannot_be_made_is_a_message(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run("rules", "--to", str(tmp_path / "file" / "below"))
    assert code == 1
    assert "file" in err


# ---- as a process


def test_a_reader_that_closes_the_pipe_early_is_no_error() -> None:
    command = f"{sys.executable} -P -m mcpgateway_pool.cli dashboards | head -c 10"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=110, check=False)
    assert done.stdout == b'{\n "uid": '
    assert done.stderr == b""


def test_the_command_starts_without_any_optional_package(tmp_path: Path) -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("rich", "mcp", "uvicorn", "mcpgateway", "yaml")))
from mcpgateway_pool.cli import _parser, main
sys.exit(main(["rules", "--to", sys.argv[1]]))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "mcpgateway-pool.rules.yaml").exists()


def test_every_command_and_option_is_documented() -> None:
    page = Path(__file__).resolve().parents[2].joinpath("docs", "cli.md").read_text("utf-8")
    for name, parser in parsers().items():
        assert f"`mcpgateway-pool {name}" in page
        section = page.partition(f"\n## {name}")[2] or page.partition("\n## dashboards and rules")[2]
        own = section.partition("\n## ")[0]
        for option in parser._option_string_actions:
            if option.startswith("--") and option != "--help":
                assert (
                    f"`{option}" in own + page.partition("\n## Reading an endpoint")[2].partition("\n## ")[0]
                )


def parsers() -> dict[str, argparse.ArgumentParser]:
    (commands,) = (
        action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return dict(commands)
