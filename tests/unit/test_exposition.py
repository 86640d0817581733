"""The text that C writes is the text that prometheus_client writes."""

from __future__ import annotations

import asyncio
import gc
import gzip
import inspect
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import prometheus_client
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import choose_encoder as their_choice
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.utils import floatToGoString

from mcpgateway_pool import (
    PoolCollector,
    forget_gateway,
    generate_latest,
    metrics_app,
    register_collector,
    unregister_collector,
)
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.prometheus.exposition import choose_encoder
from support.fakes import URL, FakeClock, FakePool, turns, until_timer
from support.rows import forget_gateways

PREFIX = "mcp_session_pool_"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ACCEPTS = [
    None,
    "",
    "text/plain",
    "*/*",
    "text/plain; version=1.0.0",
    "text/plain; version=1.0.0; escaping=allow-utf-8",
    "text/plain; version=1.0.0; escaping=dots",
    "text/plain; version=1.0.0; escaping=values",
    "application/openmetrics-text",
    OPENMETRICS,
    OPENMETRICS + "; escaping=allow-utf-8",
    OPENMETRICS + "; escaping=underscores",
    OPENMETRICS + "; escaping=dots",
    OPENMETRICS + "; escaping=values",
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    f"{OPENMETRICS};escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.2",
]
HAS_ESCAPING = "escaping" in inspect.signature(prometheus_client.generate_latest).parameters

Use = tuple[str, float]  # a gateway id, and how long a session of it is used


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    """The pool's series between two of somebody else."""
    gc.collect()  # pools of other tests that die between two scrapes would change their gauges
    forget_gateways()
    registry = CollectorRegistry(target_info={"service": "test"})
    Counter("first", 'Help with " and \\ and \n.', ["label"], registry=registry).labels('"\\\n').inc()
    register_collector(registry)
    Gauge("last", "Help.", registry=registry).set(1e7)
    yield registry
    unregister_collector(registry)


def use_sessions(uses: list[Use]) -> None:
    """So many checkouts, and a session that is still in use at the end of each."""

    async def run() -> None:
        clock = FakeClock()
        pool = FakePool(clock=clock, session_ttl_seconds=1e7, idle_pool_eviction_seconds=1e7)
        for gateway_id, seconds in uses:
            async with pool.session(URL, gateway_id=gateway_id):
                clock.advance(seconds)
        await pool.close_all()

    asyncio.run(run())


def both_pages(registry: Any, accept: str | None) -> tuple[bytes, bytes]:
    ours, our_type = choose_encoder(accept)
    theirs, their_type = their_choice(accept or "")
    assert our_type == their_type
    return ours(registry), theirs(registry)


def assert_same(registry: Any, accept: str | None) -> bytes:
    ours, theirs = both_pages(registry, accept)
    if ours != theirs:  # the first difference, instead of two pages
        lines = zip(ours.splitlines(), theirs.splitlines(), strict=False)
        assert next(((our, their) for our, their in lines if our != their), None) is None
        assert len(ours) == len(theirs)
    return ours


# ---- the same, byte by byte


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uses=st.lists(st.tuples(st.text(max_size=300), st.floats(0, 3e6)), max_size=4),
    accept=st.sampled_from(ACCEPTS),
)
def test_page_is_theirs_byte_by_byte_for_any_gateway_id_and_duration(
    registry: CollectorRegistry, uses: list[Use], accept: str | None
):
    use_sessions(uses)
    try:
        page = assert_same(registry, accept).decode()
        parse = parse_openmetrics if page.endswith("# EOF\n") else parse_text
        if "dots" not in (accept or "") and "values" not in (accept or ""):
            families = {family.name: family for family in parse(page)}
            shown = {sample.labels["gateway_id"] for sample in families[PREFIX + "hits"].samples}
            assert {gateway_label(gateway_id) for gateway_id, _ in uses} <= shown
    finally:
        for gateway_id, _ in uses:
            forget_gateway(gateway_id)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_every_format_is_the_same_as_theirs(registry: CollectorRegistry, accept: str | None):
    use_sessions([("gateway", 0.3), ("gateway", 70), ('quoted "\\\n', 1e-5), ("gateway", 2e6)])
    page = assert_same(registry, accept)
    assert page.count(b"# EOF\n") == ("openmetrics" in their_choice(accept or "")[1])
    assert page.index(b"first") < page.index(b"hits") < page.index(b"last")


SAMPLE_NAMES = sorted(
    {sample.name for family in PoolCollector().collect() for sample in family.samples}
    | {
        PREFIX + stem
        for stem in ("hits_total", "evictions_total", "waiters", "use_seconds_bucket", "use_seconds_count")
    }
    | {PREFIX + "use_seconds_sum", PREFIX + "use_seconds", PREFIX + "hits", PREFIX + "oldest_waiter_seconds"}
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.sampled_from(SAMPLE_NAMES), unique=True), accept=st.sampled_from([None, OPENMETRICS])
)
def test_names_that_are_asked_for_are_the_same_as_theirs(
    registry: CollectorRegistry, names: list[str], accept: str | None
):
    page = assert_same(registry.restricted_registry(names), accept).decode()
    # Not splitlines(): labels may hold what it splits at.
    lines = page.removesuffix("\n").split("\n") if page else []
    shown = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert shown <= set(names)


def test_names_of_others_leave_the_pool_out(registry: CollectorRegistry):
    for names in (["last"], ["first_total", "last"], ["nobody"], []):
        assert PREFIX.encode() not in assert_same(registry.restricted_registry(names), None)
    page = assert_same(registry.restricted_registry(["last", PREFIX + "max_total_keys"]), OPENMETRICS)
    assert page.count(b"# TYPE") == 2


@pytest.mark.parametrize(
    "value", [0.0, 1e5, 999999.0, 1e6, 1234567.0, 1.5e6, 12345678.9, 1e-6, 9.9e-05, 1e-4]
)
def test_numbers_have_the_form_that_go_gives_them(registry: CollectorRegistry, value: float):
    use_sessions([("gateway of one", value)])
    try:
        line = f'{PREFIX}use_seconds_sum{{gateway_id="gateway of one"}} {floatToGoString(value)}\n'
        assert line in assert_same(registry, None).decode()
    finally:
        forget_gateway("gateway of one")


# ---- whatever else is in the registry


def test_registry_without_the_collector_is_written_by_them_alone():
    registry = CollectorRegistry()
    Gauge("only", "Help.", registry=registry)
    for accept in ACCEPTS:
        assert PREFIX.encode() not in assert_same(registry, accept)
    assert generate_latest(CollectorRegistry()) == b""


def test_default_is_the_process_wide_registry():
    register_collector()
    try:
        assert PREFIX.encode() + b"hits_total" in generate_latest()
    finally:
        unregister_collector()
    assert PREFIX.encode() not in generate_latest()


@pytest.mark.skipif(not HAS_ESCAPING, reason="this prometheus_client has no escaping argument: NOT checked")
@pytest.mark.parametrize("escaping", ["underscores", "allow-utf-8", "dots", "values"])
def test_escaping_is_passed_on(registry: CollectorRegistry, escaping: str):
    assert generate_latest(registry, escaping) == prometheus_client.generate_latest(registry, escaping)
    theirs = partial(openmetrics.generate_latest, escaping=escaping)(registry)
    assert choose_encoder(f"{OPENMETRICS}; escaping={escaping}")[0](registry) == theirs


class Filter:
    """A registry as others write one: what it does not know, it does not let pass."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Any]:
        return (family for family in self._registry.collect() if family.samples)


def test_registry_that_lets_no_mark_pass_is_written_by_them(registry: CollectorRegistry):
    use_sessions([("gateway", 1)])
    page = assert_same(Filter(registry), None)
    assert b"\nmcp_session_pool_hits_total{" in page
    assert b"mark" not in page


def test_error_of_a_collector_passes_through_and_leaves_nothing_behind(registry: CollectorRegistry):
    class Broken:
        def collect(self) -> Any:
            raise LookupError("broken")

    broken = Broken()
    registry.register(broken)
    for accept in (None, OPENMETRICS):
        with pytest.raises(LookupError, match="broken"):
            choose_encoder(accept)[0](registry)
    registry.unregister(broken)
    assert b"mark" not in prometheus_client.generate_latest(registry)
    assert any(family.samples for family in PoolCollector().collect())


async def test_pages_of_many_threads_are_whole_while_a_pool_counts(registry: CollectorRegistry):
    pool = FakePool(max_sessions_per_key=2)
    pages: list[str] = []
    errors: list[BaseException] = []

    def scrape() -> None:
        try:
            pages.extend(generate_latest(registry).decode() for _ in range(3))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in threads):
        number += 1
        async with pool.session(URL, gateway_id=f"threads {number % 7}"):
            await turns(1)
    for thread in threads:
        thread.join()
    await pool.close_all()
    assert not errors
    assert len(pages) == 12
    for page in pages:
        families = {family.name: family for family in parse_text(page)}
        assert families["last"].samples[0].value == 1e7
        sizes = {sample.labels["gateway_id"]: sample.value for sample in families[PREFIX + "size"].samples}
        for stem in ("active_sessions", "idle_sessions"):
            for sample in families[PREFIX + stem].samples:
                sizes[sample.labels["gateway_id"]] -= sample.value
        assert not any(sizes.values())


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not on PATH (Debian package prometheus): the page was NOT checked",
)
def test_promtool_finds_nothing_wrong():
    registry = CollectorRegistry()
    register_collector(registry)
    use_sessions([('a "gateway"\n\\', 0.2), ("漢", 400)])
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


# ---- metrics_app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    registry = CollectorRegistry()
    Gauge("other", "Help.", registry=registry)
    async with client_of(metrics_app(registry)) as client:
        yield client


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app.test")


async def test_app_shows_the_pool_and_the_rest(client: httpx.AsyncClient):
    answer = await client.get("/", headers={"Accept-Encoding": "identity"})
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    assert int(answer.headers["content-length"]) == len(answer.content)
    families = [family.name for family in parse_text(answer.text)]
    assert {"other", PREFIX + "hits", PREFIX + "use_seconds"} <= set(families)


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_app_gives_the_format_that_is_asked_for(client: httpx.AsyncClient, accept: str | None):
    answer = await client.get("/", headers={"Accept": accept or ""})
    assert answer.headers["content-type"] == their_choice(accept or "")[1]
    assert answer.text.endswith("# EOF\n") == ("openmetrics" in answer.headers["content-type"])


@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
async def test_app_compresses_for_who_accepts_gzip(accepted: str, is_compressed: bool):
    registry = CollectorRegistry()
    async with (
        client_of(metrics_app(registry)) as client,
        client.stream("GET", "/", headers={"Accept-Encoding": accepted}) as answer,
    ):
        raw = b"".join([part async for part in answer.aiter_raw()])
    assert answer.headers["vary"] == "accept-encoding"
    assert ("content-encoding" in answer.headers) == is_compressed
    assert b"hits_total" in (gzip.decompress(raw) if is_compressed else raw)


async def test_app_need_not_compress():
    app = metrics_app(CollectorRegistry(), disable_compression=True)
    async with client_of(app) as client:
        answer = await client.get("/", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


async def test_app_shows_only_the_names_that_are_asked_for(client: httpx.AsyncClient):
    wanted = [PREFIX + "max_total_keys", "other"]
    answer = await client.get("/", params={"name[]": wanted})
    families = list(parse_text(answer.text))
    assert sorted(family.name for family in families) == sorted(wanted)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("OPTIONS", 200), ("POST", 405), ("PUT", 405)])
async def test_app_answers_other_methods_without_a_page(client: httpx.AsyncClient, method: str, status: int):
    answer = await client.request(method, "/", headers={"Accept-Encoding": "identity"})
    assert (answer.status_code, answer.content) == (status, b"")
    if method == "HEAD":
        page = await client.get("/", headers={"Accept-Encoding": "identity"})
        assert answer.headers["content-type"] == page.headers["content-type"]
    else:
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_app_makes_its_page_while_the_loop_goes_on():
    begun, may_end = threading.Event(), threading.Event()

    class Slow:
        def collect(self) -> Any:
            begun.set()
            assert may_end.wait(30)
            return []

    registry = CollectorRegistry()
    registry.register(Slow())
    async with client_of(metrics_app(registry)) as client:
        asking = asyncio.ensure_future(client.get("/"))
        await until_timer(begun.is_set, 30)
        assert not asking.done()
        may_end.set()
        assert (await asking).status_code == 200


async def test_app_starts_and_stops_by_itself():
    app: Callable[..., Any] = metrics_app(CollectorRegistry())
    phases = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": next(phases)}

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ValueError, match="websocket"):
        await app({"type": "websocket"}, receive, send)
