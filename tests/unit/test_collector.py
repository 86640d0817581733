"""The series at a Prometheus endpoint."""

from __future__ import annotations

import asyncio
import gc
import math
import random
import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mcpgateway_pool import (
    CircuitOpenError,
    PoolClosedError,
    PoolCollector,
    _core,
    forget_gateway,
    register_collector,
    set_max_gateways,
    set_metrics_retention,
    unregister_collector,
)
from mcpgateway_pool.labels import gateway_label
from mcpgateway_pool.processes import live_pools
from support.fakes import URL, FakeClock, FakePool, assert_at_rest, turns, until, until_timer, upkeep
from support.rows import forget_gateways

PREFIX = "mcp_session_pool_"
REASONS = {
    "ttl_expired",
    "circuit_breaker",
    "manual",
    "idle_timeout",
    "health_check",
    "broken",
    "capacity",
    "leaked",
    "process_ended",
}
ASKED_FOR = {
    "hits": "counter",
    "misses": "counter",
    "evictions": "counter",
    "health_check_failures": "counter",
    "active_sessions": "gauge",
    "size": "gauge",
}

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_numbers = count()


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    gc.collect()  # pools of other tests that die between two scrapes would change their gauges
    forget_gateways()
    registry = CollectorRegistry()
    register_collector(registry)
    yield registry
    unregister_collector(registry)


@pytest.fixture
def gateway() -> str:
    """A gateway id that no other test counts in."""
    return f"gateway {next(_numbers)}"


def series_of(families: Any) -> Series:
    result: Series = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items())))
            assert key not in result, key
            result[key] = sample.value
    return result


def scrape(registry: CollectorRegistry) -> Series:
    """What all parsers read, which must be the same."""
    text = generate_latest(registry).decode()
    other = generate_openmetrics(registry).decode()
    read = series_of(parse_text(text))
    assert without_ages(series_of(parse_openmetrics(other))) == without_ages(read)
    assert without_ages(series_of(registry.collect())) == without_ages(read)
    return read


def without_ages(series: Series) -> Series:
    """Without what differs from one moment to the next."""
    return {key: value for key, value in series.items() if key[0] != "oldest_waiter_seconds"}


def of_gateway(series: Series, label: str) -> dict[str, Any]:
    """stem -> value, or stem -> {reason or bound: value without zeros}, of one gateway."""
    result: dict[str, Any] = {}
    for (name, labels), value in series.items():
        have = dict(labels)
        if have.get("gateway_id") != label:
            continue
        stem = name.removesuffix("_total")
        second = have.get("reason", have.get("le"))
        if second is not None:
            by_second = result.setdefault(stem, {})
            if value:
                by_second[second] = value
        else:
            result[stem] = value
    return result


# ---- registering


def test_registering_twice_is_harmless():
    registry = CollectorRegistry()
    first = register_collector(registry)
    assert register_collector(registry) is first
    assert len(list(registry.collect())) == len(list(first.collect()))
    unregister_collector(registry)
    unregister_collector(registry)
    assert list(registry.collect()) == []
    assert register_collector(registry) is not first
    unregister_collector(registry)


def test_default_registry_is_the_process_wide_one():
    collector = register_collector()
    try:
        assert register_collector(REGISTRY) is collector
        assert PREFIX + "hits_total" in generate_latest().decode()
    finally:
        unregister_collector()
    assert PREFIX + "hits_total" not in generate_latest().decode()
    unregister_collector()


def test_registering_does_not_collect(monkeypatch: pytest.MonkeyPatch):
    def fail(self: Any) -> Any:
        raise AssertionError("collected")

    for auto_describe in (True, False):
        registry = CollectorRegistry(auto_describe=auto_describe)
        with monkeypatch.context() as patched:
            patched.setattr(PoolCollector, "collect", fail)
            register_collector(registry)
        unregister_collector(registry)


def test_looking_for_the_collector_reads_no_counters(monkeypatch: pytest.MonkeyPatch):
    def fail(*unused: Any) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr("mcpgateway_pool.prometheus.collector.read_counters", fail)
    registry = CollectorRegistry()
    collector = register_collector(registry)
    assert register_collector(registry) is collector
    unregister_collector(registry)


def is_shown(registry: CollectorRegistry) -> bool:
    return PREFIX + "hits_total" in generate_latest(registry).decode()


def test_registering_shows_the_series_again_after_somebody_else_unregistered_the_collector():
    registry = CollectorRegistry()
    for _ in range(2):
        collector = register_collector(registry)
        assert is_shown(registry)
        registry.unregister(collector)
        assert not is_shown(registry)
    collector = register_collector(registry)
    assert register_collector(registry) is collector
    assert is_shown(registry)


def test_unregistering_is_harmless_after_somebody_else_did_it():
    registry = CollectorRegistry()
    registry.unregister(register_collector(registry))
    unregister_collector(registry)
    unregister_collector(registry)
    register_collector(registry)
    assert is_shown(registry)
    unregister_collector(registry)
    assert not is_shown(registry)


def test_collector_that_somebody_else_registered_is_the_registrys_collector():
    registry = CollectorRegistry()
    collector = PoolCollector()
    registry.register(collector)
    assert register_collector(registry) is collector
    unregister_collector(registry)
    assert not is_shown(registry)


def test_series_of_these_names_from_elsewhere_are_an_error_and_stay():
    registry = CollectorRegistry()
    other = Counter(PREFIX + "hits", "Of somebody else.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        register_collector(registry)
    unregister_collector(registry)
    other.inc()
    assert PREFIX + "hits_total 1.0" in generate_latest(registry).decode()


def test_describe_has_the_families_and_no_samples():
    described = list(PoolCollector().describe())
    collected = list(PoolCollector().collect())
    assert all(family.samples == [] for family in described)
    assert [(f.name, f.type, f.documentation) for f in described] == [
        (f.name, f.type, f.documentation) for f in collected
    ]
    assert len({family.name for family in described}) == len(described)


def test_collector_may_be_made_and_registered_by_hand():
    registry = CollectorRegistry()
    registry.register(PoolCollector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PoolCollector())


def test_registry_that_is_dropped_is_forgotten():
    registry = CollectorRegistry()
    register_collector(registry)
    del registry
    gc.collect()
    register_collector(CollectorRegistry())


# ---- names, types, labels


def test_the_six_that_were_asked_for_have_their_names_types_and_labels(gateway: str):
    async def use() -> None:
        pool = FakePool()
        await pool.release(await pool.acquire(URL, gateway_id=gateway))
        await pool.close_all()

    asyncio.run(use())
    families = {family.name: family for family in PoolCollector().collect()}
    for stem, kind in ASKED_FOR.items():
        family = families[PREFIX + stem]
        assert family.type == kind
        assert family.documentation
        for sample in family.samples:
            assert sample.name == PREFIX + stem + ("_total" if kind == "counter" else "")
            expected = {"gateway_id", "reason"} if stem == "evictions" else {"gateway_id"}
            assert set(sample.labels) == expected


async def test_every_gateway_shows_every_reason_zeros_included(registry: CollectorRegistry, gateway: str):
    pool = FakePool()
    pooled = await pool.acquire(URL, gateway_id=gateway)
    shown = {
        dict(labels)["reason"]: value
        for (name, labels), value in scrape(registry).items()
        if name == "evictions_total" and dict(labels)["gateway_id"] == gateway
    }
    assert shown == dict.fromkeys(REASONS, 0)
    await pool.release(pooled)
    await pool.close_all()
    assert_at_rest(pool)


# ---- what is counted


async def test_scripted_scenario_is_counted_exactly(registry: CollectorRegistry, gateway: str):
    clock = FakeClock()
    pool = FakePool(
        max_sessions_per_key=4,
        session_ttl_seconds=1000,
        idle_pool_eviction_seconds=300,
        health_check_interval_seconds=100,
        circuit_breaker_threshold=2,
        clock=clock,
    )

    async def acquire(url: str = URL) -> Any:
        return await pool.acquire(url, gateway_id=gateway)

    taken = [await acquire() for _ in range(4)]  # 4 misses
    waiter = asyncio.ensure_future(acquire())
    await until(lambda: pool.count("waiters") == 1)
    now = of_gateway(scrape(registry), gateway)
    assert (now["active_sessions"], now["size"], now["waiters"], now["keys"]) == (4, 4, 1, 1)
    await pool.release(taken[0])
    assert await waiter is taken[0]  # a hit
    await pool.release(taken[0])
    await pool.release(await acquire())  # a hit
    await pool.release(taken[1], discard=True)  # manual
    taken[2].mark_closed()
    await pool.release(taken[2])  # broken
    taken.clear()
    del waiter  # taken[3] leaked
    await until(lambda: len(pool.closed_sessions) == 3)
    await turns()
    now = of_gateway(scrape(registry), gateway)
    assert (now["hits"], now["misses"], now["creates"]) == (2, 4, 4)
    assert (now["active_sessions"], now["size"], now["idle_sessions"]) == (0, 1, 1)
    assert now["evictions"] == {"manual": 1, "broken": 1, "leaked": 1}

    pool.is_healthy = False
    clock.advance(101)
    await upkeep(pool)  # health_check
    pool.is_healthy = True
    await pool.release(await acquire())  # a miss
    clock.advance(301)
    await upkeep(pool)  # idle_timeout
    held = await acquire()  # a miss
    clock.advance(1001)
    await pool.release(held)  # ttl_expired
    await pool.release(await acquire())  # a miss
    pool.create_error = OSError("refused")
    held = await acquire()  # a hit
    other = [asyncio.ensure_future(acquire()) for _ in range(2)]
    await asyncio.wait(other)
    assert all(isinstance(task.exception(), OSError) for task in other)  # the breaker opens
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            await pool.acquire(URL, user_identity="ann", gateway_id=gateway)  # refused
    await pool.release(held)
    await turns()
    await pool.close_all()  # manual
    with pytest.raises(PoolClosedError):
        await acquire()

    now = of_gateway(scrape(registry), gateway)
    assert (now["hits"], now["misses"], now["creates"], now["create_failures"]) == (3, 7, 7, 2)
    assert now["health_checks"] == now["health_check_failures"] == 1
    assert now["acquire_rejections"] == {"circuit_open": 3}
    assert now["circuit_breaker_trips"] == 1
    assert now["anonymous_acquires"] == 12 + 3 - 3
    assert now["evictions"] == {
        "manual": 2,
        "broken": 1,
        "leaked": 1,
        "health_check": 1,
        "idle_timeout": 1,
        "ttl_expired": 1,
    }
    for stem in ("active_sessions", "size", "idle_sessions", "waiters", "session_creations_in_progress"):
        assert now[stem] == 0, stem
    assert_at_rest(pool)


async def test_capacity_and_circuit_breaker_are_reasons_of_their_own(
    registry: CollectorRegistry, gateway: str
):
    pool = FakePool(max_total_sessions=2, circuit_breaker_threshold=1)
    for url in (URL, URL + "/b", URL + "/c"):
        await pool.release(await pool.acquire(url, gateway_id=gateway))
    await turns()
    assert of_gateway(scrape(registry), gateway)["evictions"] == {"capacity": 1}
    await pool.release(await pool.acquire(URL + "/b", gateway_id=gateway))
    pool.create_error = OSError("refused")
    with pytest.raises(OSError, match="refused"):  # in the place of the idle one of /c
        await pool.acquire(URL + "/b", user_identity="ann", gateway_id=gateway)
    pool.is_healthy = False
    with pytest.raises(CircuitOpenError):
        await pool.acquire(URL + "/b", gateway_id=gateway)
    await turns()
    assert of_gateway(scrape(registry), gateway)["evictions"] == {"capacity": 2, "circuit_breaker": 1}
    await pool.close_all()
    assert_at_rest(pool)


async def test_pools_of_a_process_are_summed(registry: CollectorRegistry, gateway: str):
    pools = [FakePool() for _ in range(3)]
    held = [await pool.acquire(URL, gateway_id=gateway) for pool in pools]
    await pools[0].release(held[0])
    assert await pools[0].acquire(URL, gateway_id=gateway) is held[0]
    await pools[0].release(held[0])
    now = of_gateway(scrape(registry), gateway)
    assert (now["hits"], now["misses"], now["active_sessions"], now["size"]) == (1, 3, 2, 3)
    for pool in pools:
        await pool.close_all()
        assert_at_rest(pool)
    now = of_gateway(scrape(registry), gateway)
    assert (now["size"], now["evictions"]) == (0, {"manual": 3})


async def test_pool_that_is_dropped_leaves_no_gauge_behind(registry: CollectorRegistry, gateway: str):
    pool = FakePool(max_sessions_per_key=1)
    pooled = await pool.acquire(URL, gateway_id=gateway)
    waiting = pool.acquire(URL, gateway_id=gateway)
    waiting.send(None)
    await turns()
    del pool
    waiting.close()
    del waiting, pooled
    await turns()
    gc.collect()
    now = of_gateway(scrape(registry), gateway)
    assert (now["size"], now["active_sessions"], now["waiters"], now["keys"]) == (0, 0, 0, 0)
    assert now["creates"] == sum(now["evictions"].values()) == 1


def test_limits_are_shown_for_the_pools_that_live(registry: CollectorRegistry):
    gc.collect()
    before = scrape(registry)
    one = FakePool(max_sessions_per_key=70_000, max_total_sessions=5, max_total_keys=3)
    after = scrape(registry)
    assert after["max_sessions_per_key", ()] == 70_000
    del one
    gc.collect()
    again = scrape(registry)
    for name in ("max_sessions_per_key", "max_total_sessions", "max_total_keys"):
        assert again[name, ()] == before[name, ()]


def test_the_time_out_is_that_of_the_pools_that_were_used(registry: CollectorRegistry):
    gc.collect()
    assert not live_pools(), "a pool of another test is still there"
    assert scrape(registry)["acquire_timeout_seconds", ()] == 0
    shorter, longer = FakePool(acquire_timeout_seconds=0.25), FakePool(acquire_timeout_seconds=2.5)
    unlimited = FakePool(acquire_timeout_seconds=float("inf"))
    assert scrape(registry)["acquire_timeout_seconds", ()] == 0  # nobody has used any

    async def use(pool: FakePool) -> None:
        async with pool.session(URL, gateway_id="g"):
            pass
        await pool.close_all()

    for pool, shown in ((shorter, 0.25), (longer, 2.5), (unlimited, 0)):
        asyncio.run(use(pool))
        assert scrape(registry)["acquire_timeout_seconds", ()] == shown


def test_a_process_counts_as_one_where_it_has_pools(registry: CollectorRegistry):
    gc.collect()
    assert not live_pools(), "a pool of another test is still there"
    assert scrape(registry)["processes", ()] == 0
    pools = [FakePool(), FakePool()]
    assert scrape(registry)["processes", ()] == 1
    del pools


def test_limits_of_pools_are_added_up_and_one_without_a_limit_has_no_end(registry: CollectorRegistry):
    gc.collect()
    first = FakePool(max_total_sessions=5, max_total_keys=3)
    second = FakePool(max_total_sessions=7, max_total_keys=4)
    both = scrape(registry)
    third = FakePool(max_total_sessions=0, max_total_keys=4)
    all_three = scrape(registry)
    fourth = FakePool(max_total_sessions=9, max_total_keys=0)
    all_four = scrape(registry)
    del first, second, third, fourth
    others = [pool.settings for pool in live_pools()]
    if any(not one.max_total_sessions or not one.max_total_keys for one in others):
        pytest.fail("a pool of another test is still there")
    sessions, keys = sum(one.max_total_sessions for one in others), sum(one.max_total_keys for one in others)
    assert (both["max_total_sessions", ()], both["max_total_keys", ()]) == (sessions + 12, keys + 7)
    assert (all_three["max_total_sessions", ()], all_three["max_total_keys", ()]) == (0, keys + 11)
    assert (all_four["max_total_sessions", ()], all_four["max_total_keys", ()]) == (0, 0)


# ---- labels

HOSTILE = [
    'quote " quote',
    "new\nline",
    "carriage\rreturn",
    "back\\slash",
    "back\\nslash",
    'all \\" of \n them \\',
    "nul\0nul",
    "nul?nul",
    "\ud800",
    "\udfff lone",
    "\x85\u2028\x0b\x0c\x1c",
    "{}",
    'a",gateway_id="b',
    "ä ö 漢 🙂",
    "#",
    " ",
    "tab\t",
    "x" * 1_000_000,
    "x" * 999_999 + "y",
    "漢" * 100_000,
    "none ",
    "None",
]


async def test_any_string_is_a_legal_gateway_id_and_all_stay_apart(registry: CollectorRegistry, gateway: str):
    pool = FakePool()
    ids = [gateway + text for text in HOSTILE] + [text + gateway for text in HOSTILE]
    for gateway_id in ids:
        await pool.release(await pool.acquire(URL, gateway_id=gateway_id))
    await pool.acquire(URL, gateway_id=ids[0])
    series = scrape(registry)
    labels = {gateway_label(gateway_id) for gateway_id in ids}
    assert len(labels) == len(ids)
    for gateway_id in ids:
        label = gateway_label(gateway_id)
        assert len(label.encode()) <= 256
        assert of_gateway(series, label)["misses"] == 1
    await pool.close_all()
    assert_at_rest(pool)


async def test_hostile_gateway_ids_alone_are_legal_labels(registry: CollectorRegistry):
    pool = FakePool()
    for text in HOSTILE:
        await pool.release(await pool.acquire(URL, gateway_id=text))
    series = scrape(registry)
    for text in HOSTILE:
        assert of_gateway(series, gateway_label(text))["misses"] >= 1
    await pool.close_all()


async def test_empty_and_missing_gateway_ids_are_none(registry: CollectorRegistry):
    before = of_gateway(scrape(registry), "none").get("misses", 0)
    pool = FakePool()
    for gateway_id in (None, ""):
        await pool.release(await pool.acquire(URL, gateway_id=gateway_id, user_identity=str(gateway_id)))
    assert of_gateway(scrape(registry), "none")["misses"] == before + 2
    await pool.close_all()
    assert_at_rest(pool)


async def test_no_user_url_or_header_becomes_a_label(registry: CollectorRegistry):
    pool = FakePool()
    await pool.acquire(
        "http://u:s3cret@host/s3cret", {"Authorization": "s3cret"}, user_identity="s3cret", gateway_id="g"
    )
    assert b"s3cret" not in generate_latest(registry)
    await pool.close_all()


@pytest.fixture
def few_gateways() -> Iterator[None]:
    try:
        set_max_gateways(1)
        yield
    finally:
        set_max_gateways(10_000)


async def test_gateways_beyond_the_limit_share_the_overflow_row(
    registry: CollectorRegistry, gateway: str, few_gateways: None
):
    overflow = "__overflow__"
    before = scrape(registry)
    had = of_gateway(before, overflow).get("misses", 0)
    pool = FakePool()
    await pool.acquire(URL, gateway_id=gateway)
    for number in range(3):
        await pool.release(await pool.acquire(f"{URL}/{number}", gateway_id=f"{gateway} over {number}"))
    now = scrape(registry)
    own = of_gateway(now, gateway).get("misses", 0)
    assert of_gateway(now, overflow)["misses"] == had + 4 - own
    assert now["label_overflow_total", ()] > before["label_overflow_total", ()]
    assert not of_gateway(now, f"{gateway} over 2")
    await pool.close_all()
    assert_at_rest(pool)


async def test_gateway_that_is_called_like_the_overflow_row_makes_no_second_one(
    registry: CollectorRegistry, few_gateways: None, gateway: str
):
    pool = FakePool()
    await pool.acquire(URL, gateway_id=gateway + " over")
    await pool.acquire(URL, gateway_id="__overflow__")
    assert of_gateway(scrape(registry), "__overflow__")["active_sessions"] >= 1
    await pool.close_all()


async def test_gateway_called_like_the_overflow_row_before_any_overflow(
    registry: CollectorRegistry, gateway: str
):
    pool = FakePool()
    await pool.acquire(URL, gateway_id="__overflow__")
    set_max_gateways(1)
    try:
        await pool.acquire(URL, gateway_id=gateway + " over")
        scrape(registry)  # refuses two rows of one label
    finally:
        set_max_gateways(10_000)
    await pool.close_all()


def test_limit_of_gateways_must_be_a_positive_int():
    for bad in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            set_max_gateways(bad)
    for bad in ("7", None, 1.5):
        with pytest.raises(TypeError):
            set_max_gateways(bad)  # type: ignore[arg-type]


# ---- forget_gateway


async def test_forgotten_gateway_goes_when_nothing_of_it_is_open(registry: CollectorRegistry, gateway: str):
    pool = FakePool()
    pooled = await pool.acquire(URL, gateway_id=gateway)
    assert not forget_gateway(gateway)
    assert of_gateway(scrape(registry), gateway)["size"] == 1
    await pool.release(pooled, discard=True)
    await turns()
    scrape(registry)
    assert not of_gateway(scrape(registry), gateway)
    assert forget_gateway(gateway)
    await pool.release(await pool.acquire(URL, gateway_id=gateway))
    assert of_gateway(scrape(registry), gateway)["misses"] == 1
    await pool.close_all()
    assert_at_rest(pool)


async def test_gateway_that_comes_back_before_it_was_forgotten_keeps_counting(
    registry: CollectorRegistry, gateway: str
):
    pool = FakePool()
    first = await pool.acquire(URL, gateway_id=gateway)
    assert not forget_gateway(gateway)
    second = await pool.acquire(URL + "/b", gateway_id=gateway)
    await pool.release(first, discard=True)
    now = of_gateway(scrape(registry), gateway)
    assert (now["misses"], now["size"]) == (2, 1)
    await pool.release(second)
    await pool.close_all()
    assert_at_rest(pool)


@pytest.mark.parametrize(("seconds", "whole"), [(0, 0), (0.2, 1), (60, 60), (math.inf, 315_360_000)])
def test_retention_is_in_whole_seconds(seconds: float, whole: int, monkeypatch: pytest.MonkeyPatch):
    given: list[int] = []
    monkeypatch.setattr(_core, "set_retention", given.append)  # csrc has the clock: tests/c/test_forgetting.c
    set_metrics_retention(seconds)
    assert given == [whole]


@pytest.mark.parametrize("bad", [-1, math.nan, "7", None])
def test_retention_that_is_no_time_is_refused(bad: Any):
    with pytest.raises((TypeError, ValueError)):
        set_metrics_retention(bad)


def test_gateway_that_never_was_is_forgotten_at_once():
    assert forget_gateway("never was")
    assert forget_gateway("never\0was\ud800")
    with pytest.raises((TypeError, AttributeError)):
        forget_gateway(7)  # type: ignore[arg-type]


# ---- other threads


def assert_identities(rows: dict[str, dict[str, Any]]) -> None:
    for label, now in rows.items():
        assert now["size"] == now["active_sessions"] + now["idle_sessions"], (label, now)
        assert now["creates"] == now["size"] + sum(now["evictions"].values()), (label, now)
        assert now["misses"] <= now["creates"], (label, now)
        assert min(value for value in now.values() if not isinstance(value, dict)) >= 0, (label, now)
        assert max(value for value in now.values() if not isinstance(value, dict)) < 2**40, (label, now)


async def test_identities_hold_at_every_scrape_from_another_thread(registry: CollectorRegistry, gateway: str):
    rng = random.Random(7)
    clock = FakeClock()
    pool = FakePool(
        max_sessions_per_key=2,
        max_total_sessions=8,
        health_check_interval_seconds=30,
        circuit_breaker_threshold=50,
        clock=clock,
    )
    gateways = [f"{gateway} {number}" for number in range(3)]
    stop = threading.Event()
    errors: list[BaseException] = []
    last: dict[str, dict[str, Any]] = {}
    scrapes = 0

    def watch() -> None:
        nonlocal scrapes
        try:
            while not stop.is_set():
                series = series_of(registry.collect())
                rows = {label: of_gateway(series, label) for label in gateways}
                rows = {label: row for label, row in rows.items() if row}
                assert_identities(rows)
                for label, row in rows.items():
                    before = last.get(label, row)
                    assert all(row[stem] >= before[stem] for stem in ("hits", "misses", "creates"))
                last.update(rows)
                scrapes += len(rows) == len(gateways)  # earlier ones may be over before anybody acquires
        except BaseException as error:
            errors.append(error)

    async def use() -> None:
        try:
            async with pool.session(
                f"{URL}/{rng.randrange(4)}",
                user_identity=rng.choice(["ann", "bob"]),
                gateway_id=rng.choice(gateways),
            ) as pooled:
                await turns(rng.randrange(3))
                if rng.random() < 0.2:
                    pooled.mark_closed()
                if rng.random() < 0.1:
                    raise ConnectionError
        except (OSError, RuntimeError):
            pass

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        while scrapes < 40 and not errors:
            tasks = [asyncio.ensure_future(use()) for _ in range(30)]
            await turns(rng.randrange(5))
            rng.choice(tasks).cancel()
            pool.create_error = OSError("refused") if rng.random() < 0.1 else None
            clock.advance(rng.random() * 40)
            pool.is_healthy = rng.random() < 0.7
            pool._upkeep()
            await asyncio.wait(tasks)
            [task.cancelled() or task.exception() for task in tasks]
    finally:
        stop.set()
        thread.join()
    assert not errors
    await until_timer(lambda: all(task.done() for task in pool._tasks))
    series = scrape(registry)
    rows = [of_gateway(series, label) for label in gateways]
    assert sum(row["hits"] + row["misses"] for row in rows) == pool.answered
    assert_at_rest(pool)
    await pool.close_all()
