"""The series at the endpoint that the gateway makes, on an application that has nothing else."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_fastapi_instrumentator import Instrumentator, instrumentation

from mcpgateway_pool import PoolCollector, unregister_collector
from mcpgateway_pool.gateway import endpoint as endpoint_module
from mcpgateway_pool.gateway.endpoint import Endpoint

EXPOSITION = "prometheus_fastapi_instrumentator.instrumentation"
HITS = "# TYPE mcp_session_pool_hits_total counter"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    stock = instrumentation.generate_latest
    endpoint = Endpoint()
    try:
        yield endpoint
    finally:
        endpoint.hide()
        instrumentation.generate_latest = stock


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    Instrumentator().expose(app, endpoint="/metrics/prometheus", should_gzip=True)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        yield client


@pytest.fixture
def multiprocess(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable that makes the endpoint build a registry for each scrape."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))


async def scrape(client: httpx.AsyncClient) -> str:
    response = await client.get("/metrics/prometheus", headers={"Accept-Encoding": "identity"})
    assert response.status_code == 200
    return response.text


async def test_series_show_once_and_are_gone_when_hidden(
    client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    assert (await scrape(client)).count(HITS) == 0
    endpoint.show(EXPOSITION)
    endpoint.show(EXPOSITION)
    assert (await scrape(client)).count(HITS) == 1
    assert "python_info" in (await scrape(client))
    endpoint.hide()
    assert (await scrape(client)).count(HITS) == 0


@pytest.mark.usefixtures("multiprocess")
async def test_series_show_once_with_a_multiprocess_directory(
    client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    assert (await scrape(client)).count(HITS) == 0
    endpoint.show(EXPOSITION)
    assert [(await scrape(client)).count(HITS) for _ in range(3)] == [1, 1, 1]
    compressed = await client.get("/metrics/prometheus", headers={"Accept-Encoding": "gzip"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert compressed.text.count(HITS) == 1
    endpoint.hide()
    assert (await scrape(client)).count(HITS) == 0


async def test_series_show_again_after_somebody_else_unregistered_every_collector(
    client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    endpoint.show(EXPOSITION)
    collectors = list(REGISTRY._collector_to_names)
    for collector in collectors:
        REGISTRY.unregister(collector)
    try:
        assert (await scrape(client)).count(HITS) == 1
        endpoint.hide()
        assert (await scrape(client)).count(HITS) == 0
    finally:
        unregister_collector()
        for collector in collectors:
            if not isinstance(collector, PoolCollector):
                REGISTRY.register(collector)


def test_hiding_puts_the_endpoints_own_function_back(endpoint: Endpoint) -> None:
    stock = instrumentation.generate_latest
    endpoint.show(EXPOSITION)
    assert instrumentation.generate_latest is not stock
    endpoint.hide()
    assert instrumentation.generate_latest is stock


@pytest.mark.usefixtures("multiprocess")
async def test_whoever_wrapped_the_function_after_us_keeps_theirs(
    client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    endpoint.show(EXPOSITION)
    ours = instrumentation.generate_latest

    def theirs(*args: Any) -> bytes:
        return b"# theirs\n" + ours(*args)

    instrumentation.generate_latest = theirs  # the fixture puts it back
    endpoint.hide()
    assert ((await scrape(client)).count("# theirs"), (await scrape(client)).count(HITS)) == (1, 0)
    endpoint.show(EXPOSITION)
    assert ((await scrape(client)).count("# theirs"), (await scrape(client)).count(HITS)) == (1, 1)


@pytest.mark.usefixtures("multiprocess")
async def test_the_endpoint_answers_without_the_series_when_they_fail(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint.show(EXPOSITION)

    def fail(registry: CollectorRegistry) -> None:
        raise OSError("out of order")

    monkeypatch.setattr(endpoint_module, "register_collector", fail)
    assert [(await scrape(client)).count(HITS) for _ in range(2)] == [0, 0]
    assert [record.levelname for record in caplog.records if "something is wrong" in record.message] == [
        "ERROR"
    ]


@pytest.mark.parametrize("is_multiprocess", [False, True])
async def test_where_our_text_fails_that_of_prometheus_client_is_served(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    is_multiprocess: bool,
) -> None:
    if is_multiprocess:
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    endpoint.show(EXPOSITION)

    def series(text: str) -> list[str]:
        return [line for line in text.splitlines() if "mcp_session_pool_" in line]

    ours = series(await scrape(client))

    def fail(*args: Any) -> bytes:
        raise OSError("out of order")

    monkeypatch.setattr(endpoint_module.exposition, "generate_latest", fail)
    theirs = [series(await scrape(client)) for _ in range(2)]
    assert ours
    assert theirs == [ours, ours]
    assert [record.levelname for record in caplog.records if "something is wrong" in record.message] == [
        "ERROR"
    ]


def test_somebody_elses_series_of_the_same_name_are_an_error(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    unregister_collector()
    theirs = Gauge("mcp_session_pool_size", "theirs")
    try:
        endpoint.show(EXPOSITION)
    finally:
        REGISTRY.unregister(theirs)
    (record,) = caplog.records
    assert record.levelname == "ERROR"  # the gateway shows no less by default
    assert "cannot be registered" in record.message
    assert "mcp_session_pool_size" in record.message


@pytest.mark.parametrize("exposition", ["no_such_module", "types"])
def test_an_endpoint_made_elsewhere_is_a_warning_only_where_series_would_be_missing(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, exposition: str
) -> None:
    assert not hasattr(types, "generate_latest")
    endpoint.show(exposition)
    assert caplog.text == ""
    endpoint.hide()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nonexistent")
    endpoint.show(exposition)
    assert "cannot show the series" in caplog.text
