"""What somebody else chose (a gateway id, a file's name, an answer) gives a terminal no orders.

Labels in the two text formats: tests/unit/test_collector.py and test_exposition.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.command import Run, command, exposition
from support.endpoint import Answer, serving

# Colours, the title, the cursor; Unicode that turns the reading order round, or shows nothing.
EVIL = "\x1b[2J\x1b]0;title\x07\x9b31m\u202egnp\u2066\u200b\ttab\x7f"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return command(capsys, monkeypatch)


def assert_obeys_nobody(*texts: str) -> None:
    for text in texts:
        for line in text.split("\n"):
            assert line.isprintable(), ascii(line)


@pytest.mark.parametrize("options", [["--once", "--totals"], ["--json", "--once", "--totals"]])
def test_gateway_ids_of_top(run: Run, options: list[str]) -> None:
    with serving(exposition(gateway=EVIL + r"\n\"\\")) as endpoint:
        code, out, err = run("top", *options, endpoint.url)
    assert code == 0
    assert_obeys_nobody(out, err)
    if "--json" in options:
        (row,) = json.loads(out)["gateways"]
        assert row["gateway_id"] == EVIL + '\n"\\'


@pytest.mark.parametrize(
    "answer",
    [
        Answer(exposition(), content_type=f"text/{EVIL}".encode("ascii", "ignore").decode()),
        Answer("Bad", status=500),
        Answer(f"# TYPE {EVIL} counter\n{EVIL} 1\n"),
        Answer(f'mcp_session_pool_hits_total{{gateway_id="{EVIL}"}} {EVIL}\n'),
    ],
)
def test_answers_of_an_endpoint(run: Run, answer: Answer) -> None:
    with serving(answer) as endpoint:
        for words in (["top", "--once", "--totals"], ["doctor", "--url"]):
            _, out, err = run(*words, endpoint.url)
            assert_obeys_nobody(out, err)


@pytest.mark.parametrize("words", [["top", "--once"], ["doctor", "--url"]])
def test_url_of_the_command_line(run: Run, words: list[str]) -> None:
    for url in (f"http://127.0.0.1:1/{EVIL}", f"http://{EVIL}/", EVIL):
        _, out, err = run(*words, url)
        assert_obeys_nobody(out, err)


def test_names_in_the_directory_of_counters(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / f"counters{EVIL}"
    directory.mkdir(0o700)
    for name in (f"other{EVIL}", f"mcpgateway_pool-{EVIL}\nforged.counters"):
        (directory / name).touch(0o600)
    _, out, err = run("doctor", "--metrics-dir", str(directory))
    assert "left out" in out
    assert_obeys_nobody(out, err)
