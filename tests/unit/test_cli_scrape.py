"""The reader of scrapes: what prometheus_client's parser reads, and nothing that it would not read."""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mcpgateway_pool.cli import scrape as scrape_module
from mcpgateway_pool.cli import text_format
from mcpgateway_pool.cli.common import CommandError
from mcpgateway_pool.cli.scrape import ALL, Scrape, parse
from mcpgateway_pool.cli.text_format import MAX_LINE_BYTES, BadTextError, blocks_of, read_sample, unescape
from support.command import exposition

PREFIX = "mcp_session_pool_"

Read = tuple[str, dict[str, str], float]


def ours(line: str, *, is_openmetrics: bool = False) -> Read:
    name, labels, value = read_sample(line.encode(), is_openmetrics=is_openmetrics)
    return name.decode(), {key.decode(): unescape(label) for key, label in labels.items()}, float(value)


def theirs(line: str) -> Read:
    [family] = text_string_to_metric_families(line + "\n")
    [sample] = family.samples
    return sample.name, sample.labels, sample.value


def assert_same(one: Read, other: Read) -> None:
    assert one[:2] == other[:2]
    assert one[2] == other[2] or (math.isnan(one[2]) and math.isnan(other[2]))


# ---- one line


# No lone surrogates: they are no text. No carriage return: their parser takes it for the end of a line.
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
)
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


@settings(max_examples=20, deadline=None)
@given(
    labels=st.dictionaries(
        names.filter(lambda name: not name.startswith("__")), texts, min_size=1, max_size=4
    ),
    value=st.floats(),
)
def test_what_prometheus_client_writes_is_read(labels: dict[str, str], value: float) -> None:
    registry = CollectorRegistry()
    Gauge("written", "", list(labels), registry=registry).labels(**labels).set(value)
    for page, is_openmetrics in ((generate_latest(registry), False), (generate_openmetrics(registry), True)):
        [line] = [line for line in page.decode().split("\n") if line.startswith("written")]
        assert_same(ours(line, is_openmetrics=is_openmetrics), ("written", labels, value))


PIECES = r"""name a _ : { } = , " \ \n \" \\ é 0 1 9 . + - e E Inf NaN # nan inf x 1_0 0x1"""
LABELS = r"""{} {,} {a="b"} {a="\\"} {a="}"} {a=b} {a="b",,c="d"} {a="b" {a="b",a="c"} {a="\x"}"""
VALUES = "1 +1 -.5 1. 1e9 1E-9 Inf +Inf NaN nan 1_0 . 0x1 e"
shapes = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(["name", " name", "na:me", "9name", "name\t", ""]),
    st.sampled_from(["", "{ }", '{ a = "b" , c="d" , }', *LABELS.split()]),
    st.sampled_from(["", " ", "\t ", "  "]),
    st.sampled_from(["", *VALUES.split()]),
    st.sampled_from(["", " ", " 1", " 1.5", " -1", " x", " 1 2", " # {} 1"]),
)


@settings(max_examples=150, deadline=None)
@given(
    line=st.one_of(
        shapes, st.lists(st.sampled_from([*PIECES.split(), " ", "\t", "\x00"]), max_size=14).map("".join)
    )
)
def test_what_is_read_is_what_prometheus_client_reads(line: str) -> None:
    try:
        read = ours(line)
    except BadTextError:
        return
    assert_same(read, theirs(line))


REFUSED = r"""name
9name 1
name 1 2 3
name 1_0
name 0x1
name nan
name inf
name 1e
name{a=b} 1
name{a="b} 1
name{a="b"} x
name{a="b" c="d"} 1
name{a="b",,c="d"} 1
name{,} 1
name{a="b",a="c"} 1
name{a="\x"} 1
name{9="b"} 1
name{a:b="c"} 1
name{a="b"} 1 # {} 1
name+1
name{a="b"}} 1
{} 1
é 1
"""


@pytest.mark.parametrize("line", [*REFUSED.split("\n"), "name ", "name{} ", "name 1\r", "name\u00a01"])
def test_what_the_format_does_not_have_is_refused(line: str) -> None:
    with pytest.raises(BadTextError):
        ours(line)


@pytest.mark.parametrize(
    "line",
    [
        'name_total{a="b"} 1 # {c="d"} 0.5',
        'name_total{a="b"} 1.5 123.5 # {} 0.5 123.5',
        'name{a="b"} 1 123.5',
    ],
)
def test_exemplars_and_times_of_openmetrics_are_read_over(line: str) -> None:
    assert ours(line, is_openmetrics=True)[1] == {"a": "b"}


def test_a_label_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(CommandError, match="Prometheus text"):
        parse("text/plain", [b'mcp_session_pool_size{gateway_id="\xff"} 1\n'])


# A pattern that can match in two ways takes years for each of these, and the test's time-out ends it.
@pytest.mark.parametrize(
    "line",
    [
        " " * MAX_LINE_BYTES,
        "name" + " " * MAX_LINE_BYTES,
        "name" * 250_000,
        "name{" + " " * MAX_LINE_BYTES,
        "name{" + 'a="b",' * 150_000,
        "name{" + 'a="b" ,' * 150_000 + "}",
        'name{a="' + "\\\\" * 500_000,
        'name{a="' + '\\"' * 500_000 + "} 1",
        "name " + "1" * MAX_LINE_BYTES + "x",
        "name 1" + " " * MAX_LINE_BYTES + "x",
        "name 1 # {" + " " * MAX_LINE_BYTES,
        "name " + "{" * MAX_LINE_BYTES,
    ],
    ids=str.__len__,
)
def test_no_line_takes_longer_than_it_is_long(line: str) -> None:
    for is_openmetrics in (False, True):
        with pytest.raises(BadTextError):
            ours(line, is_openmetrics=is_openmetrics)
    for text in (f"x{line}\n", PREFIX + "size" + line + "\n", PREFIX + 'size{gateway_id="' + line + "\n"):
        with pytest.raises(CommandError, match="did not answer with Prometheus text"):
            parse("text/plain", [text.encode()])


# ---- a page


def in_parts(page: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    at = 0
    while at < len(page):
        size = next(sizes)
        yield page[at : at + size]
        at += size


@settings(max_examples=50, deadline=None)
@given(lines=st.lists(st.binary(max_size=5).filter(lambda line: b"\n" not in line)), seed=st.integers())
def test_lines_are_those_of_the_page_however_it_comes(lines: list[bytes], seed: int) -> None:
    rng = random.Random(seed)
    page = b"".join(line + b"\n" for line in lines)
    blocks = blocks_of(in_parts(page, iter(lambda: rng.randrange(1, 5), 0)))
    assert [line for block in blocks for line in block] == lines


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 65536
            yield b"x" * 65536

    with pytest.raises(CommandError, match="Prometheus text"):
        parse("text/plain", endless())
    assert taken <= 2 * MAX_LINE_BYTES


@pytest.mark.parametrize("sizes", [[2**20], [1, 2**20 - 1], [2**20 - 1, 1]])
def test_a_line_has_a_mebibyte_at_most_however_it_comes(sizes: list[int]) -> None:
    parts = [b"x" * size for size in sizes]
    assert list(blocks_of([*parts, b"\n"])) == [[b"x" * 2**20]]
    with pytest.raises(BadTextError):
        list(blocks_of([*parts, b"x", b"\n"]))


SERIES = {  # the label that is kept apart, and how gateways come together
    "hits_total": ("", sum),
    "size": ("", sum),
    "oldest_waiter_seconds": ("", max),
    "evictions_total": ("reason", sum),
    "create_seconds_bucket": ("le", sum),
    "somebody_else": ("reason", sum),
}
gateways = st.sampled_from(["a", "b", 'q"\\\n', "ü {} ,", "__overflow__"])
samples = st.lists(
    st.tuples(
        st.sampled_from(sorted(SERIES)),
        gateways,
        st.sampled_from(["0.1", "+Inf", "5"]),
        st.sampled_from(["", "x", "y"]),  # a label that relabelling has added
        st.integers(0, 1000),
    ),
    unique_by=lambda sample: sample[:4],
    max_size=30,
)


@settings(max_examples=50, deadline=None)
@given(samples=samples, pad=st.sampled_from(["", " "]))
def test_numbers_are_those_of_the_samples_added_up(
    samples: list[tuple[str, str, str, str, int]], pad: str
) -> None:
    lines, expected = [], defaultdict[tuple[str, str, str], list[float]](list)
    for name, gateway, value, instance, number in samples:
        escaped = gateway.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        label = SERIES[name][0]
        labels = [f'gateway_id="{escaped}"'] + ([f'{label}="{value}"'] if label else [])
        labels += [f'instance="{instance}"'] if instance else []
        lines.append(f"{PREFIX}{name}{pad}{{{f',{pad}'.join(labels)}}} {number}\n")
        expected[name, gateway, value if label else ""].append(number)
    page = "# HELP x y\n" + "".join(lines)
    scrape = parse("text/plain", [page.encode()])
    for (name, gateway, value), numbers in expected.items():
        if name == "somebody_else":
            assert name not in scrape.names
            continue
        together = SERIES[name][1]
        assert scrape.get(name, gateway, value) == together(numbers)
        of_all = [n for (key, _, v), list_ in expected.items() if (key, v) == (name, value) for n in list_]
        assert scrape.get(name, ALL, value) == together(of_all)
    known = {gateway for name, gateway, *_ in samples if name != "somebody_else"}
    assert set(scrape.gateways) == known


def test_what_has_no_gateway_counts_for_all() -> None:
    page = exposition(hits=3) + "mcp_session_pool_hits_total 4\nmcp_session_pool_label_overflow_total 2\n"
    scrape = parse("text/plain", [page.encode()])
    assert (scrape.get("hits_total", ALL), scrape.get("hits_total", "g")) == (7, 3)
    assert scrape.get("label_overflow_total", ALL) == 2
    assert scrape.gateways == ["g"]


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999"])
def test_a_number_that_no_pool_counts_is_refused(value: str) -> None:
    with pytest.raises(CommandError, match="Prometheus text"):
        parse("text/plain", [f'mcp_session_pool_size{{gateway_id="g"}} {value}\n'.encode()])


@pytest.mark.parametrize("labels", ['gateway_id="g"', 'gateway_id="g",le="x"', 'gateway_id="g",le="NaN"'])
def test_a_bucket_without_a_bound_is_refused(labels: str) -> None:
    with pytest.raises(CommandError, match="Prometheus text"):
        parse("text/plain", [f"mcp_session_pool_create_seconds_bucket{{{labels}}} 1\n".encode()])


def test_a_page_with_too_many_gateways_or_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape_module, "MAX_GATEWAYS", 10)
    rows = [f'mcp_session_pool_size{{gateway_id="{number}"}} 1\n'.encode() for number in range(11)]
    assert len(parse("text/plain", rows[:10]).gateways) == 10
    with pytest.raises(CommandError, match="more than 10 gateways"):
        parse("text/plain", rows)
    label = b'mcp_session_pool_size{gateway_id="%s"} 1\n'
    assert parse("text/plain", [label % (b"\\\\" * 256)]).gateways == ["\\" * 256]
    with pytest.raises(CommandError, match="Prometheus text"):
        parse("text/plain", [label % (b"x" * 2000)])
    bounds = [
        f'mcp_session_pool_create_seconds_bucket{{gateway_id="g",le="{n}"}} 1\n'.encode() for n in range(999)
    ]
    with pytest.raises(CommandError, match="Prometheus text"):
        parse("text/plain", bounds)


def test_a_scrape_of_many_gateways_holds_little() -> None:
    """Its rows are numbers without objects: a few hundred bytes for each gateway."""
    page = "".join(
        f'mcp_session_pool_{name}{{gateway_id="{number}"}} 1\n'
        for name in ("hits_total", "misses_total", "size", "waiters")
        for number in range(500)
    )
    scrape = parse("text/plain", [page.encode()])
    assert isinstance(scrape, Scrape)
    assert max(row.itemsize * len(row) for row in scrape._rows.values()) <= 8 * 16


def test_no_group_of_the_readers_patterns_is_possessive() -> None:
    """CPython before 3.11.5 goes on behind one that it has matched in part: it read "1e" as a number."""
    line = scrape_module._usual_rest.__self__
    patterns = [value for value in vars(text_format).values() if isinstance(value, re.Pattern)]
    assert len(patterns) >= 4
    for pattern in (*patterns, line):
        assert not re.search(rb"(?<!\\)\)[?*+]\+", pattern.pattern), pattern.pattern
