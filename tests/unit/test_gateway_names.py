"""The series gateway_info: the names of the gateways that have rows, read beside the scrapes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest as their_page

from mcpgateway_pool import forget_gateway, generate_latest, register_collector, unregister_collector
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.prometheus import collector, exposition
from mcpgateway_pool.prometheus.gateway_names import NAMES_LAST_SECONDS, GatewayNames
from support.fakes import URL, FakeClock, FakePool


class Names(GatewayNames):
    """Reads when the test says so."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.started: list[Callable[[], None]] = []
        super().__init__(clock=self.clock, start=self.started.append)

    def read_now(self) -> None:
        """What was started runs."""
        while self.started:
            self.started.pop(0)()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    for module in (collector, exposition):
        monkeypatch.setattr(module, "NAMES", names)
    return names


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    register_collector(registry)
    yield registry
    unregister_collector(registry)


@pytest.fixture
def gateways() -> Iterator[list[str]]:
    """Gateways that have rows, and nothing open."""
    gateways = ["g1", "g2", 'q"\\\n', ""]

    async def use() -> None:
        async with FakePool() as pool:
            for gateway in gateways:
                await pool.release(await pool.acquire(URL, gateway_id=gateway))

    asyncio.run(use())
    yield gateways
    for gateway in gateways:
        assert forget_gateway(gateway)


def lines_of(registry: CollectorRegistry) -> list[str]:
    """The lines of the series, of a page that is the same whoever writes it."""
    page = generate_latest(registry)
    assert page == their_page(registry)
    return [line for line in page.decode().splitlines() if line.startswith("mcp_session_pool_gateway_info{")]


def known(names: Mapping[str, str]) -> Callable[[Sequence[str]], dict[str, str]]:
    return lambda asked: {one: names[one] for one in asked if one in names}


def test_nobody_who_has_names_means_no_line(
    names: Names, registry: CollectorRegistry, gateways: list[str]
) -> None:
    assert lines_of(registry) == []
    assert not names.started


def test_a_scrape_shows_what_is_known_and_has_the_rest_read(
    names: Names, registry: CollectorRegistry, gateways: list[str]
) -> None:
    asked: list[str] = []

    def read(ids: Sequence[str]) -> dict[str, str]:
        asked.extend(ids)
        return {"g1": "first", 'q"\\\n': 'say "a\\b"\n', "not asked for": "x", "g2": ""}

    names.use(read)
    assert lines_of(registry) == []  # no scrape waits for names
    assert len(names.started) == 1
    names.read_now()
    assert set(gateways[:3]) <= set(asked)
    assert not {"none", "__overflow__"} & set(asked)
    assert lines_of(registry) == [
        'mcp_session_pool_gateway_info{gateway_id="g1",name="first"} 1.0',
        'mcp_session_pool_gateway_info{gateway_id="q\\"\\\\\\n",name="say \\"a\\\\b\\"\\n"} 1.0',
    ]
    assert not names.started  # they are new


def test_a_name_goes_with_its_row_also_where_it_was_read_before(
    names: Names, registry: CollectorRegistry, gateways: list[str]
) -> None:
    names.use(known({"g1": "first", "g2": "second"}))
    names.known()
    names.read_now()
    assert len(lines_of(registry)) == 2
    assert forget_gateway("g1")
    assert lines_of(registry) == ['mcp_session_pool_gateway_info{gateway_id="g2",name="second"} 1.0']
    names.clock.advance(NAMES_LAST_SECONDS)
    names.known()
    names.read_now()
    assert set(names.known()) & {"g1", "g2"} == {"g2"}  # nor is it kept


def test_a_gateway_that_was_renamed_has_one_name_and_one_that_was_deleted_its_last(
    names: Names, registry: CollectorRegistry, gateways: list[str]
) -> None:
    names.use(known(found := {"g1": "first", "g2": "second"}))
    names.known()
    names.read_now()
    found["g1"] = "renamed"
    del found["g2"]
    names.clock.advance(NAMES_LAST_SECONDS - 0.1)
    assert 'name="first"' in lines_of(registry)[0]
    assert not names.started
    names.clock.advance(0.1)
    lines_of(registry)
    names.read_now()
    assert lines_of(registry) == [
        'mcp_session_pool_gateway_info{gateway_id="g1",name="renamed"} 1.0',
        'mcp_session_pool_gateway_info{gateway_id="g2",name="second"} 1.0',
    ]


def test_names_are_cut_and_cleaned_as_labels_are(
    names: Names, registry: CollectorRegistry, gateways: list[str]
) -> None:
    names.use(known({"g1": "n" * 10_000, "g2": "nul \0, lone \ud800"}))
    names.known()
    names.read_now()
    assert names.known()["g1"] == gateway_label("n" * 10_000)
    assert len(lines_of(registry)[0]) < 400
    assert "\0" not in lines_of(registry)[1]


def test_a_database_that_fails_is_said_once_and_costs_no_name(
    names: Names, registry: CollectorRegistry, gateways: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "mcpgateway_pool")
    reads = 0

    def read(ids: Sequence[str]) -> dict[str, str]:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise ConnectionError("no answer")
        return {"g1": "first"}

    names.use(read)
    for _ in range(3):
        names.clock.advance(NAMES_LAST_SECONDS)
        lines_of(registry)
        names.read_now()
    assert lines_of(registry) == ['mcp_session_pool_gateway_info{gateway_id="g1",name="first"} 1.0']
    assert reads == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the names of gateways cannot be read: ConnectionError: no answer"
    ]


def test_names_that_arrive_after_they_were_switched_off_are_not_shown(
    names: Names, registry: CollectorRegistry, gateways: list[str]
) -> None:
    def read(ids: Sequence[str]) -> dict[str, str]:
        names.use(None)
        return {"g1": "first"}

    names.use(read)
    names.known()
    names.read_now()
    assert lines_of(registry) == []


def test_one_reader_at_a_time(names: Names, gateways: list[str]) -> None:
    reads = 0

    def read(ids: Sequence[str]) -> dict[str, str]:
        nonlocal reads
        reads += 1
        names.clock.advance(NAMES_LAST_SECONDS)
        names.known()
        names.read_now()  # a database that is so slow that the next is due
        return {}

    names.use(read)
    names.known()
    names.read_now()
    assert reads == 1


def test_many_gateways_are_asked_for_in_parts(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"gateway {number}" for number in range(1203)]
    monkeypatch.setattr("mcpgateway_pool._core.row_labels", lambda: labels)
    sizes: list[int] = []

    def read(ids: Sequence[str]) -> dict[str, str]:
        sizes.append(len(ids))
        return {one: one.upper() for one in ids}

    names.use(read)
    names.known()
    names.read_now()
    assert sizes == [500, 500, 203]
    assert len(names.known()) == 1203
